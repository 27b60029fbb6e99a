"""The trainer's arguments: FlagEmbedding's, with the defaults under which its M3 training is right."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments
from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
    EncoderOnlyEmbedderM3ModelArguments,
    EncoderOnlyEmbedderM3TrainingArguments,
)

from m3kit.errors import KitError

ModelArguments = EncoderOnlyEmbedderM3ModelArguments


@dataclass
class DataArguments(AbsEmbedderDataArguments):
    same_dataset_within_batch: bool = field(
        default=True,
        metadata={"help": "Batches of one data set each; without it `no_in_batch_neg` is ignored (D4)."},
    )

    def __post_init__(self):
        if not self.train_data:
            raise KitError("no training data; give --train_data the folders that `m3kit prepare` printed")
        # A trailing slash would hide the suffix `no_in_batch_neg` from FlagEmbedding (D4).
        self.train_data = [os.path.normpath(path) for path in self.train_data]
        super().__post_init__()


@dataclass
class TrainingArguments(EncoderOnlyEmbedderM3TrainingArguments):
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Delete the run that output_dir holds and train anew; without it such a run is kept (S3)."},
    )

    def __post_init__(self):
        # No parameter is left out of the loss (the runner freezes those that never count), so DDP need not search.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        super().__post_init__()
