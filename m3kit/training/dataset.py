"""FlagEmbedding's batches of one data set each, without the cases in which they fail or say nothing."""

from __future__ import annotations

import glob
import logging
from typing import Any

import datasets
from FlagEmbedding.abc.finetune.embedder.AbsDataset import AbsEmbedderSameDatasetTrainDataset

from m3kit.errors import KitError

logger = logging.getLogger(__name__)


class SameDatasetTrainDataset(AbsEmbedderSameDatasetTrainDataset):
    """Yields whole batches, every one from a single file.

    - D1: refuses rows without ``prompt``, whose queries FlagEmbedding would begin with "None".
    - D2: refuses rows whose ``pos`` or ``neg`` is empty or no list.
    - D3: a group is never larger than its rows have different passages.
    - D5: a file with fewer rows than batch × processes is trained in smaller batches, and that is said.
    - D6: the batch is as large as asked for, whatever the ``type``.
    """

    def __init__(self, args, default_batch_size: int, **kwargs):
        self.file_sizes: list[tuple[str, int]] = []
        super().__init__(args, default_batch_size=default_batch_size, **kwargs)

    def _load_dataset(self, file_path: str) -> datasets.Dataset:
        # `datasets` reads a path as a pattern: brackets in it must be escaped.
        loaded = super()._load_dataset(glob.escape(file_path))
        if len(loaded):
            _check_rows(loaded, file_path)
            self.file_sizes.append((file_path, len(loaded)))
        return loaded

    @staticmethod
    def _get_file_batch_size(temp_dataset: datasets.Dataset, default_batch_size: int) -> int:
        if "batch_size" in temp_dataset.column_names and temp_dataset["batch_size"][0]:
            return temp_dataset["batch_size"][0]
        return default_batch_size

    def refresh_epoch(self):
        # The first call comes from the constructor, when the files are known and no batch is made yet.
        for number, indices in enumerate(self.each_data_idxs):
            largest = len(indices) // self.num_processes
            if largest == 0:
                raise KitError(
                    f"a data set of {len(indices)} row(s) cannot be shared by {self.num_processes} processes; "
                    "add rows, leave it out, or train with one process"
                )
            if self.batch_size_idxs[number] > largest:
                logger.log(
                    logging.WARNING if self.process_index == 0 else logging.DEBUG,
                    "a data set of %d rows is too small for batches of %d on %d process(es): batches of %d are used",
                    len(indices),
                    self.batch_size_idxs[number],
                    self.num_processes,
                    largest,
                )
                self.batch_size_idxs[number] = largest
        super().refresh_epoch()

    def _get_train_group_size(self, batch_raw_data: dict[str, list[Any]]) -> tuple[int, str | None]:
        size, data_type = super()._get_train_group_size(batch_raw_data)
        # A native column `train_group_size` counts beside a `type` too (D6).
        sizes = [value for value in batch_raw_data.get("train_group_size", []) if value]
        fewest = min(len(negatives) for negatives in batch_raw_data["neg"])
        return min([size, *sizes, 1 + fewest]), data_type


def _check_rows(loaded: datasets.Dataset, path: str) -> None:
    """Refuse what trains on nonsense or fails deep inside; ``m3kit prepare`` writes rows that pass."""
    hint = "train on what `python -m m3kit prepare` writes"
    for column in ("query", "pos", "neg", "prompt"):
        if column not in loaded.column_names:
            raise KitError(f'{path}: the rows have no "{column}"; {hint}')
    for number, row in enumerate(loaded, start=1):
        if row["prompt"] is None:
            raise KitError(f'{path}: row {number} has no "prompt" (an empty one will do); {hint}')
        for column in ("pos", "neg"):
            if not isinstance(row[column], list) or not row[column]:
                raise KitError(f'{path}: row {number}: "{column}" is no list with a passage in it; {hint}')
