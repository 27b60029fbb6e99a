"""The trainer's arguments: FlagEmbedding's, with the defaults under which its M3 training is right."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments
from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
    EncoderOnlyEmbedderM3ModelArguments,
    EncoderOnlyEmbedderM3TrainingArguments,
)

from m3kit.errors import KitError
from m3kit.training.losses import TEACHER_NORMALISATIONS
from m3kit.training.precision import device_to_train_on, settle_precision

ModelArguments = EncoderOnlyEmbedderM3ModelArguments


@dataclass
class DataArguments(AbsEmbedderDataArguments):
    same_dataset_within_batch: bool = field(
        default=True,
        metadata={"help": "Batches of one data set each; without it `no_in_batch_neg` is ignored (D4)."},
    )
    mixing_temperature: float = field(
        default=1.0,
        metadata={
            "help": "How often each data set comes: its rows to the power of 1/temperature. 1: every row once an "
            "epoch; larger: small sets more often, large ones less, with as many batches in all."
        },
    )

    label_negatives: str = field(
        default="auto",
        metadata={
            "help": "Negatives of classified texts: the labels of the batch's other rows (batch), labels that each row "
            "brings (group), or what has more of them at less cost (auto).",
        },
    )

    def __post_init__(self):
        if not self.train_data:
            raise KitError("no training data; give --train_data the folders that `m3kit prepare` printed")
        if not self.mixing_temperature > 0:
            raise KitError(f"mixing_temperature is a number above 0, not {self.mixing_temperature}")
        if self.label_negatives not in ("auto", "group", "batch"):
            raise KitError(f"label_negatives is auto, group or batch, not {self.label_negatives}")
        # A trailing slash would hide the suffix `no_in_batch_neg` from FlagEmbedding (D4).
        self.train_data = [os.path.normpath(path) for path in self.train_data]
        super().__post_init__()


@dataclass
class TrainingArguments(EncoderOnlyEmbedderM3TrainingArguments):
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Delete the run that output_dir holds and train anew; without it such a run is kept (S3)."},
    )
    unified_negatives_cross_device: bool = field(
        default=False,
        metadata={"help": "With negatives_cross_device: share negatives for sparse, ColBERT and ensemble too (T5)."},
    )
    heads_reach: float = field(
        default=1.0,
        metadata={
            "help": "How much of the gradients of the sparse, ColBERT, ensemble and self-distillation losses reaches "
            "the encoder: 1, as in FlagEmbedding, all of it; 0, none: the heads learn, and the encoder learns from the "
            "dense loss alone. With few rows the ColBERT loss pulls the encoder away from a good dense space."
        },
    )
    dense_temperature: float | None = field(
        default=None,
        metadata={
            "help": "The temperature of the dense loss, where it is not --temperature: models differ in how far apart "
            "their cosines lie."
        },
    )
    merge_shares: list[float] | None = field(
        default=None,
        metadata={
            "help": "After training the base is mixed in: the share of the tuned weights, such as 0.5. Of several that "
            "which is best on the evaluation data is taken, without such data the first. Default: no mixing."
        },
    )
    freeze_word_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Train all but the table of word embeddings: for bge-m3 not quite half of the parameters, whose "
            "optimizer state and updates are saved."
        },
    )
    precision: str | None = field(
        default=None,
        metadata={
            "help": "bf16, fp16 or fp32, as --bf16 and --fp16 say it too; auto: bf16 where the device has matrix units "
            "for it, otherwise fp16 on a GPU and fp32 on a CPU."
        },
    )
    attn_implementation: str = field(
        default="auto",
        metadata={
            "help": "The kernel of attention: flash_attention_2, sdpa or eager; auto: the first of these that machine, "
            "precision and model have."
        },
    )
    sub_batch_tokens: int = field(
        default=16384,
        metadata={
            "help": "Padded tokens that are encoded at once: a batch of more is encoded in parts of at most so many, "
            "each computed again for its gradients."
        },
    )
    teacher_temperature: float = field(
        default=1.0,
        metadata={
            "help": "With knowledge_distillation: teacher scores are divided by it before their softmax; below 1 the "
            "teacher is surer. Of cosines, as `m3kit score --teacher hybrid` gives them, 0.02 to 0.1."
        },
    )
    teacher_normalisation: str = field(
        default="none",
        metadata={
            "help": "What is done to the teacher scores of a query's group before that: none; zscore, to mean 0 and "
            "standard deviation 1; minmax, to 0 … 1."
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={
            "help": "Train adapters of this rank (8 to 64) on the encoder's linear layers, and the heads, instead of "
            "all weights: less memory, at about ten times the learning rate; 0: off."
        },
    )
    eval_data: str | None = field(
        default=None,
        metadata={"help": "A folder with test data; every eval_steps nDCG@10 is measured on it, and the best kept."},
    )
    eval_steps: float | None = field(
        default=0.25, metadata={"help": "Steps between two evaluations; below 1: that part of all steps."}
    )
    # FlagEmbedding forces 0 (D8). Two keep the accelerator fed: they read, tokenise and pad while it computes.
    dataloader_num_workers: int = field(default=2, metadata={"help": "Processes that make batches ahead of the step."})
    logging_steps: float = field(default=1, metadata={"help": "Steps between two lines of the log."})
    # One line a step says more than a bar, and can be read in a file.
    disable_tqdm: bool | None = field(default=True, metadata={"help": "No progress bar."})

    def __post_init__(self):
        if not (isinstance(self.sub_batch_tokens, int) and self.sub_batch_tokens > 0):
            raise KitError(f"sub_batch_tokens is a whole number above 0, not {self.sub_batch_tokens}")
        if not 0 <= self.heads_reach <= 1:
            raise KitError(f"heads_reach is a share from 0 to 1, not {self.heads_reach}")
        if self.dense_temperature is not None and not 0 < self.dense_temperature < math.inf:
            raise KitError(f"dense_temperature is a number above 0, not {self.dense_temperature}")
        if bad := [share for share in self.merge_shares or () if not 0 < share <= 1]:
            raise KitError(f"merge_shares are shares of the tuned model, above 0 and up to 1, not {bad[0]:g}")
        if not 0 < self.teacher_temperature < math.inf:
            raise KitError(f"teacher_temperature is a number above 0, not {self.teacher_temperature}")
        if self.teacher_normalisation not in TEACHER_NORMALISATIONS:
            known = ", ".join(TEACHER_NORMALISATIONS)
            raise KitError(f"teacher_normalisation is one of {known}, not {self.teacher_normalisation}")
        if not (isinstance(self.lora_rank, int) and self.lora_rank >= 0):
            raise KitError(f"lora_rank is a whole number, 0 for none, not {self.lora_rank}")
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
