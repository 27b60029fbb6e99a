"""The trainer's arguments: FlagEmbedding's, with the defaults under which its M3 training is right."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Any

from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
    EncoderOnlyEmbedderM3ModelArguments,
    EncoderOnlyEmbedderM3TrainingArguments,
)

from m3kit.errors import KitError
from m3kit.settings import check_values, trainer_fields
from m3kit.training.device import device_to_train_on, settle_precision

ModelArguments = EncoderOnlyEmbedderM3ModelArguments
# With every setting of m3kit/settings.py that only the kit's trainer has.
_WithSettings: Any = make_dataclass(
    "_WithSettings", trainer_fields("kit"), bases=(EncoderOnlyEmbedderM3TrainingArguments,)
)


@dataclass
class TrainingArguments(_WithSettings):
    precision: str | None = field(default=None, metadata={"help": "auto, fp16, bf16 or fp32; in place of the two."})
    eval_data: str | None = field(
        default=None,
        metadata={"help": "A folder with test data; every eval_steps nDCG@10 is measured on it, and the best kept."},
    )
    logging_steps: float = field(default=1, metadata={"help": "Steps between two lines of the log."})
    # Half an hour may be less than an evaluation on a CPU, or a checkpoint on a slow disk, for which the others wait.
    ddp_timeout: int = field(default=7200, metadata={"help": "Seconds that a process waits for the others."})
    # One line a step says more than a bar, and can be read in a file.
    disable_tqdm: bool | None = field(default=True, metadata={"help": "No progress bar."})

    def __post_init__(self):
        check_values(self)
        if self.lora_rank and self.fix_encoder:
            raise KitError("lora_rank trains the encoder, and fix_encoder True does not; leave one of them out")
        # Before transformers looks at fp16 and bf16, and fills what is "auto" in DeepSpeed's configuration.
        device = device_to_train_on(self.use_cpu)
        self.precision, self.precision_told = settle_precision(self.precision, self.fp16, self.bf16, device)
        self.fp16: bool = self.precision == "fp16"
        self.bf16: bool = self.precision == "bf16"
        # Otherwise transformers takes bf16 for that of a GPU, and refuses it.
        self.use_cpu: bool = device == "cpu"
        # No parameter is left out of the loss (the runner freezes those that never count), so DDP need not search.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters: bool | None = False
        # The kit goes by transformers' older name, of which it would warn.
        self.activation_checkpointing: bool = self.gradient_checkpointing
        self.activation_checkpointing_kwargs: dict | None = self.gradient_checkpointing_kwargs
        super().__post_init__()
