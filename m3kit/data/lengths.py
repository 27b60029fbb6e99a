"""Texts longer than the maximum length: how many there are, and how much of them is cut, in the model's own tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3kit.data.rowset import RowSet
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.reading.problems import NOTE, Problem

# Texts that are tokenized; where more could be too long, an even share of them.
MEASURED = 5_000


def too_long(sets: list[RowSet], settings: Settings) -> Iterator[Problem]:
    """A note on the queries and one on the passages of each file, where some are longer than their maximum."""
    if not settings.tokenizer:
        return
    from tokenizers import Tokenizer

    from m3kit.hub import find_tokenizer

    tokenizer, limits = None, {"query": settings.query_max_len, "passage": settings.passage_max_len}
    for data, (name, limit) in ((data, limit) for data in sets for limit in limits.items()):
        texts = [(row, text) for row in data.rows for text in (row.texts[:1] if name == "query" else row.texts[1:])]
        # A token is a byte at least, and two mark the ends.
        long = [(row, text) for row, text in texts if len(text.encode()) + 2 > limit]
        step = -(-len(long) // MEASURED) or 1
        sample = long[::step]
        if not sample:
            continue
        try:
            tokenizer = tokenizer or Tokenizer.from_file(str(find_tokenizer(settings.tokenizer, settings.cache_dir)))
        except Exception as error:  # the library's own errors have no common class
            what = str(error) if isinstance(error, KitError) else f"its tokenizer cannot be read ({error})"
            fix = "they are cut all the same where they are too long"
            yield data.problem(1, NOTE, f"lengths were not measured: {what}", fix, "tokenizer")
            return
        tokenizer.no_truncation()
        tokenizer.no_padding()
        lengths = np.array([len(found.ids) for found in tokenizer.encode_batch_fast([text for _, text in sample])])
        over = lengths > limit
        if over.any():
            cut = (lengths[over] - limit).sum() / lengths[over].sum()
            what = (
                f"{'about ' if step > 1 else ''}{int(over.sum()) * step} of the texts, the first here, are longer than "
                f"{name}_max_len {limit} (the longest has {lengths.max()} tokens); {cut:.0%} of their tokens are cut "
                "off"
            )
            row = sample[int(np.argmax(over))][0]
            yield data.problem(row, NOTE, what, f"raise {name}_max_len, or split long texts", "too-long")
