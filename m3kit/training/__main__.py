"""``torchrun --nproc_per_node N -m m3kit.training ARGS``: FlagEmbedding's M3 arguments, and those of arguments.py."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
import warnings

from transformers import HfArgumentParser
from transformers.utils import logging as transformers_logging

from m3kit.batches.arguments import DataArguments
from m3kit.errors import KitError
from m3kit.processes import before_group, leave_group
from m3kit.run_folder.stopping import Stopped
from m3kit.training.arguments import ModelArguments, TrainingArguments
from m3kit.training.runner import Runner

# They print every setting there is, which run.json holds, and the model's configuration, which lies beside the model.
# A data set is named when it is described, a checkpoint when it is there.
WORDY = (
    "FlagEmbedding.abc.finetune.embedder.AbsRunner",
    "FlagEmbedding.abc.finetune.embedder.AbsDataset",
    "FlagEmbedding.finetune.embedder.encoder_only.m3.runner",
    "FlagEmbedding.finetune.embedder.encoder_only.m3.trainer",
)
# Seconds for a process to end by itself after another has failed.
GRACE = 60


def main() -> int:
    # Python 3.14 would start those that make batches afresh: half a minute and 1 GB each, in every epoch.
    multiprocessing.set_start_method("fork", force=True)
    code = _train()
    if code == 1:
        # Those that make batches ignore the signal by which Python ends them when it goes: it would wait for ever.
        for child in multiprocessing.active_children():
            child.kill()
    else:
        # After an error others may still wait for this process.
        leave_group()
    return code


def _train() -> int:
    for name in WORDY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Bars would tear the log apart.
    transformers_logging.disable_progress_bar()
    # FlagEmbedding's collator gives the tokenizer a length that it has cut to already.
    warnings.filterwarnings("ignore", message="`max_length` is ignored when `padding`")
    if (path := os.environ.get("M3KIT_ERROR_FILE")) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        threading.Thread(target=_end_with_the_first_to_fail, args=(path,), daemon=True).start()
    before_group()  # the arguments make it
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    runner = None
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(return_remaining_strings=True)
        if unknown:
            raise KitError(f"the trainer has no argument {' '.join(unknown)}; see python -m m3kit.training --help")
        runner = Runner(*parsed)
        runner.run()
    except (KitError, FileNotFoundError) as error:
        _tell(str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        _tell(f"{type(error).__name__}: {error}; where it happened is in train.log")
        return 1
    except Stopped as stopped:
        where = ""
        if runner and runner.trainer.stopped:
            where = f" after step {runner.trainer.state.global_step}, which is saved"
        _tell(f"{stopped}{where}; run the same command again to go on")
        return stopped.exit_code
    return 0


def _tell(text: str) -> None:
    """The first process to meet an error speaks for all: what the others meet then comes of it."""
    if path := os.environ.get("M3KIT_ERROR_FILE"):
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except FileExistsError:
            return
    elif os.environ.get("RANK", "0") != "0":
        return
    print(f"m3kit.training: {text}", file=sys.stderr)


def _end_with_the_first_to_fail(path: str) -> None:
    """For a thread: end this process where another failed, and this one may wait for it for ever, as NCCL does."""
    while not os.path.exists(path):
        time.sleep(1)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
