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
from m3kit.settings import check_values, of_setting
from m3kit.training.precision import device_to_train_on, settle_precision

ModelArguments = EncoderOnlyEmbedderM3ModelArguments


@dataclass
class DataArguments(AbsEmbedderDataArguments):
    same_dataset_within_batch: bool = field(
        default=True,
        metadata={"help": "Batches of one data set each; without it `no_in_batch_neg` is ignored (D4)."},
    )
    mixing_temperature: float = of_setting("mixing_temperature")
    label_negatives: str = of_setting("label_negatives")

    def __post_init__(self):
        if not self.train_data:
            raise KitError("no training data; give --train_data the folders that `m3kit prepare` printed")
        check_values(self)
        # A trailing slash would hide the suffix `no_in_batch_neg` from FlagEmbedding (D4).
        self.train_data = [os.path.normpath(path) for path in self.train_data]
        super().__post_init__()


@dataclass
class TrainingArguments(EncoderOnlyEmbedderM3TrainingArguments):
    overwrite_output_dir: bool = of_setting("overwrite_output_dir")
    unified_negatives_cross_device: bool = of_setting("unified_negatives_cross_device")
    heads_reach: float = of_setting("heads_reach")
    dense_temperature: float | None = of_setting("dense_temperature")
    merge_shares: list[float] | None = of_setting("merge_shares")
    freeze_word_embeddings: bool = of_setting("freeze_word_embeddings")
    precision: str | None = of_setting("precision", default=None)
    attn_implementation: str = of_setting("attn_implementation")
    sub_batch_tokens: int = of_setting("sub_batch_tokens")
    teacher_temperature: float = of_setting("teacher_temperature")
    teacher_normalisation: str = of_setting("teacher_normalisation")
    lora_rank: int = of_setting("lora_rank")
    eval_data: str | None = field(
        default=None,
        metadata={"help": "A folder with test data; every eval_steps nDCG@10 is measured on it, and the best kept."},
    )
    eval_steps: float | None = of_setting("eval_steps")
    # FlagEmbedding forces 0 (D8). Two keep the accelerator fed: they read, tokenise and pad while it computes.
    dataloader_num_workers: int = of_setting("dataloader_num_workers")
    logging_steps: float = of_setting("logging_steps", default=1)
    # One line a step says more than a bar, and can be read in a file.
    disable_tqdm: bool | None = field(default=True, metadata={"help": "No progress bar."})

    def __post_init__(self):
        check_values(self)
        if self.lora_rank and self.fix_encoder:
            raise KitError("lora_rank trains the encoder, and fix_encoder True does not; leave one of them out")
        # Before transformers looks at fp16 and bf16, and fills what is "auto" in DeepSpeed's configuration.
        device = device_to_train_on(self.use_cpu)
        self.precision, self.precision_told = settle_precision(self.precision, self.fp16, self.bf16, device)
        self.fp16, self.bf16 = self.precision == "fp16", self.precision == "bf16"
        # Otherwise transformers takes bf16 for that of a GPU, and refuses it.
        self.use_cpu = device == "cpu"
        # No parameter is left out of the loss (the runner freezes those that never count), so DDP need not search.
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        super().__post_init__()
