"""The arguments that say what is trained on: FlagEmbedding's, and the kit's settings of data."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, make_dataclass
from typing import Any

from FlagEmbedding.abc.finetune.embedder import AbsEmbedderDataArguments

from m3kit.errors import KitError
from m3kit.settings import check_values, trainer_fields

_DataWithSettings: Any = make_dataclass(
    "_DataWithSettings", trainer_fields("kit data"), bases=(AbsEmbedderDataArguments,)
)


@dataclass
class DataArguments(_DataWithSettings):
    same_dataset_within_batch: bool = field(
        default=True,
        metadata={"help": "Batches of one data set each; without it `no_in_batch_neg` is ignored (D4)."},
    )

    def __post_init__(self):
        if not self.train_data:
            raise KitError("no training data; give --train_data the folders that `m3kit prepare` printed")
        check_values(self)
        # A trailing slash would hide the suffix `no_in_batch_neg` from FlagEmbedding (D4).
        self.train_data: list[str] = [os.path.normpath(path) for path in self.train_data]
        super().__post_init__()
