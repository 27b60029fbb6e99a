"""Texts longer than the maximum length: how many there are, and how much of them is cut, in the model's own tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.problems import NOTE, Problem
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.hub import find_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts that are tokenized; where more could be too long, an even share of them.
MEASURED = 5_000


def load_tokenizer(model: str, cache_dir: str | None = None) -> Tokenizer:
    """The tokenizer of a model folder or a name on the Hub. Raises ``KitError``."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(find_tokenizer(model, cache_dir)))
    except KitError:
        raise
    except Exception as error:  # the library's own errors have no common class
        raise KitError(f"the tokenizer of {model} cannot be read ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def too_long(data: DataSet, settings: Settings, tokenizer: Tokenizer) -> Iterator[Problem]:
    """A note on the queries and one on the passages, where some are longer than their maximum."""
    # A token is a byte at least, so texts of fewer bytes than the maximum were never marked.
    numbers = np.flatnonzero(data.index.column("long"))
    query = np.isin(numbers, data.index.column("first"))
    yield from _measure(data, "query", numbers[query], settings.query_max_len, tokenizer)
    yield from _measure(data, "passage", numbers[~query], settings.passage_max_len, tokenizer)


def _measure(data: DataSet, name: str, numbers: np.ndarray, limit: int, tokenizer: Tokenizer) -> Iterator[Problem]:
    step = max(1, -(-len(numbers) // MEASURED))
    texts, first = Texts(data.reading, data.index), data.index.mapped("first")
    sample = numbers[::step]
    rows = np.searchsorted(first, sample, side="right") - 1
    chosen = [texts.row(int(row))[0][int(number - first[row])] for number, row in zip(sample, rows, strict=True)]
    lengths = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch_fast(chosen)], np.int64)
    over = lengths > limit
    if not over.any():
        return
    count = int(over.sum()) * step
    cut = (lengths[over] - limit).sum() / lengths[over].sum()
    what = (
        f"{'about ' if step > 1 else ''}{count} of the texts, the first here, are longer than {name}_max_len {limit} "
        f"(the longest has {lengths.max()} tokens); {cut:.0%} of their tokens are cut off"
    )
    line = int(data.index.mapped("line")[rows[np.argmax(over)]])
    yield Problem(data.source, line, what, f"raise {name}_max_len, or split long texts", "too-long", NOTE)
