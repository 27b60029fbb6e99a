"""Word embeddings that are looked up once a batch, so that the gradient of the whole table is written once (T3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Words(NamedTuple):
    """The U different words of a batch, (U,) in ascending order, and their vectors, (U, D)."""

    ids: Tensor
    vectors: Tensor


def look_up(embedding: nn.Embedding, ids: Tensor) -> Words:
    """The words of ``ids``, of any shape. Gradients of their vectors end up in ``embedding``, all at once."""
    ids = ids.unique()
    return Words(ids, embedding(ids))


@contextlib.contextmanager
def looked_up(embedding: nn.Embedding, words: Words) -> Iterator[None]:
    """Within it ``embedding`` gives the vectors of ``words``, which are all that it is asked for.

    Each sub-batch's backward would otherwise write a gradient of the size of the whole table, for bge-m3 of 1 GB.
    """
    # The instance's own: before the class's, and gone afterwards. The parameter stays where DDP and optimizers know it.
    embedding.__dict__["forward"] = lambda ids: F.embedding(torch.searchsorted(words.ids, ids), words.vectors)
    try:
        yield
    finally:
        del embedding.__dict__["forward"]
