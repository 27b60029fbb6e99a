"""Rows as FlagEmbedding trains on, and its data set and the kit's made of them, alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from FlagEmbedding.abc.finetune.embedder.AbsDataset import AbsEmbedderSameDatasetTrainDataset

from m3kit.batches.arguments import DataArguments
from m3kit.batches.dataset import SameDatasetTrainDataset

PLAIN, KIT = AbsEmbedderSameDatasetTrainDataset, SameDatasetTrainDataset


def dataset(cls, paths: Iterable[Path], tmp_path: Path, batch_size=2, processes=1, rank=0, seed=1, **arguments):
    arguments = {"cache_path": str(tmp_path / "cache"), "same_dataset_within_batch": True} | arguments
    return cls(
        args=DataArguments(train_data=list(map(str, paths)), **arguments),
        default_batch_size=batch_size,
        seed=seed,
        process_index=rank,
        num_processes=processes,
        **({"tokenizer": None} if cls is PLAIN else {}),
    )


def native(count: int, negatives=7, name="", **extra) -> list[dict]:
    return [
        {
            "query": f"{name}q{i}",
            "pos": [f"{name}p{i}"],
            "neg": [f"{name}n{i}.{k}" for k in range(negatives)],
            **extra,
        }
        for i in range(count)
    ]


def batches(data) -> list[tuple]:
    """The items of an epoch."""
    return [data[number] for number in range(len(data.batch_datas) if type(data) is PLAIN else len(data))]


def groups(item: tuple) -> list[list[str]]:
    """The passages of each query of an item."""
    queries, passages, *_ = item
    size = len(passages) // len(queries)
    assert len(passages) == size * len(queries)
    return [passages[start : start + size] for start in range(0, len(passages), size)]
