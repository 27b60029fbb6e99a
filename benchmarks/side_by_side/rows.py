"""Rows to train on: drawn from words and lengths of real ones, or read from a file; and written as each reads them."""

from __future__ import annotations

import json
import random
import re
import sys
from bisect import bisect
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from side_by_side.cases import Case

EXAMPLE_DATA = Path(__file__).resolve().parent.parent.parent / "example_data"
# Words in the queries and passages of FlagEmbedding's example rows nq.jsonl and msmarco.jsonl: smallest, 10, 25, 50, 75
# and 90 per cent, largest.
LENGTHS = (
    {"query": (8, 8, 9, 10, 11, 12, 15), "passage": (101, 102, 102, 103, 104, 106, 113)},
    {"query": (2, 2, 5, 8, 9, 12, 24), "passage": (16, 38, 46, 56, 79, 101, 146)},
)
SHARES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)


class Row(NamedTuple):
    query: str
    positives: list[str]
    negatives: list[str]


def rows_of(case: Case, count: int, file: Path | None) -> list[Row]:
    if file is None:
        return _drawn(count, case.negatives, case.passage_words)
    rows = [_row(json.loads(line)) for line in file.read_text("utf-8").split("\n") if line.strip()]
    rows = [row for row in rows if row.negatives][:count]
    if case.negatives == 1:
        rows = [Row(query, positives[:1], negatives[:1]) for query, positives, negatives in rows]
    if len(rows) < count:
        print(f"{file}: {len(rows)} rows with a negative, {count} wanted", file=sys.stderr)
    return rows


def _row(fields: dict) -> Row:
    """The kit's columns or FlagEmbedding's."""
    positives, negatives = (fields.get(long, fields.get(long[:3], [])) for long in ("positive", "negative"))
    listed = [[value] if isinstance(value, str) else value for value in (positives, negatives)]
    return Row(fields["query"], *listed)


def _drawn(count: int, negatives: int, passage_words: int | None) -> list[Row]:
    """The same at every call; no text twice."""
    chance = random.Random(0)
    words, weights = _words()
    seen: set[str] = set()

    def text(quantiles: tuple[int, ...] | None) -> str:
        while True:
            length = passage_words if quantiles is None else round(_between(quantiles, chance.random()))
            drawn = " ".join(chance.choices(words, cum_weights=weights, k=length))
            if drawn not in seen:
                seen.add(drawn)
                return drawn

    rows = []
    for number in range(count):
        lengths = LENGTHS[number % len(LENGTHS)]
        passage = None if passage_words else lengths["passage"]
        rows.append(Row(text(lengths["query"]), [text(passage)], [text(passage) for _ in range(negatives)]))
    return rows


def _words() -> tuple[list[str], list[int]]:
    """The English words of the example data, and how often each comes, summed up."""
    counts: Counter[str] = Counter()
    for path in sorted(EXAMPLE_DATA.glob("*/*.jsonl")):
        counts.update(re.findall(r'(?<![^\s"])[A-Za-z]+[,.]?(?=[\s"])', path.read_text("utf-8")))
    ordered = sorted(counts.items())
    return [word for word, _ in ordered], list(accumulate(count for _, count in ordered))


def _between(quantiles: tuple[int, ...], share: float) -> float:
    place = min(bisect(SHARES, share), len(SHARES) - 1)
    low, high = quantiles[place - 1], quantiles[place]
    return low + (high - low) * (share - SHARES[place - 1]) / (SHARES[place] - SHARES[place - 1])


def write_rows(rows: list[Row], folder: Path) -> tuple[Path, Path]:
    """(for FlagEmbedding, for the kit): its own columns, or the kit's where every row has one negative."""
    native = [{"query": query, "pos": positives, "neg": negatives} for query, positives, negatives in rows]
    users = [
        {"query": query, "positive": positives[0], "negative": negatives[0]} for query, positives, negatives in rows
    ]
    plain = all(len(row.positives) == len(row.negatives) == 1 for row in rows)
    paths = []
    for name, written in (("native", native), ("users", users if plain else native)):
        path = folder / name / "retrieval" / "rows.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]
