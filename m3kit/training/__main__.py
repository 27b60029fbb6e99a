"""``torchrun --nproc_per_node N -m m3kit.training ARGS``: FlagEmbedding's M3 arguments, and those of arguments.py."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

from transformers import HfArgumentParser

from m3kit.errors import KitError
from m3kit.training.arguments import DataArguments, ModelArguments, TrainingArguments
from m3kit.training.runner import Runner

# They print every setting there is, which run.json holds, and the model's configuration, which lies beside the model.
WORDY = ("FlagEmbedding.abc.finetune.embedder.AbsRunner", "FlagEmbedding.finetune.embedder.encoder_only.m3.runner")


def main() -> int:
    for name in WORDY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # FlagEmbedding's collator gives the tokenizer a length that it has cut to already.
    warnings.filterwarnings("ignore", message="`max_length` is ignored when `padding`")
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    try:
        parsed = parser.parse_args_into_dataclasses(return_remaining_strings=True)
        model_args, data_args, training_args, unknown = parsed
        if unknown:
            raise KitError(f"the trainer has no argument {' '.join(unknown)}; see python -m m3kit.training --help")
        Runner(model_args=model_args, data_args=data_args, training_args=training_args).run()
    except (KitError, FileNotFoundError) as error:
        # Every rank meets the same error; one voice is enough.
        if os.environ.get("RANK", "0") == "0":
            print(f"m3kit.training: {error}", file=sys.stderr)
            if path := os.environ.get("M3KIT_ERROR_FILE"):
                Path(path).write_text(f"{error}\n", encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
