"""Training rows that stand in the evaluation data: figures measured on those say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.near import BANDS, NearTo, bands, matches
from m3kit.data.problems import NOTE, WARNING, Problem
from m3kit.data.reading import Reading
from m3kit.data.rowindex import RowIndex
from m3kit.data.text import keys_of, same_text
from m3kit.data.workers import Workers

# Which fields of which files are queries, and which passages. A file that is broken is told by `evaluate`.
QUERIES = {
    "queries.jsonl": ("text",),
    "sts/test.jsonl": ("sentence1", "sentence2"),
    "classification/test.jsonl": ("text",),
    "clustering/test.jsonl": ("text",),
}
PASSAGES = {"corpus.jsonl": ("title", "text")}
# Likely pairs of passages that are compared exactly.
COMPARED = 5_000
BLOCK = 20_000


@dataclass
class _Texts:
    """Texts of the evaluation data, by their keys and bands."""

    same: list[str] = field(default_factory=list)
    key: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    band: np.ndarray = field(default_factory=lambda: np.empty((0, BANDS), np.uint64))


def find_leaks(sets: list[DataSet], eval_data: Path, workers: Workers, scratch: Path) -> Iterator[Problem]:
    """A warning for each row whose query stands in the evaluation data, a note on the passages of each file."""
    queries, passages = _read(eval_data, QUERIES), _read(eval_data, PASSAGES)
    np.save(scratch / "eval-passages.npy", passages.band)
    for data in sets:
        yield from _queries(data, queries, eval_data)
        yield from _passages(data, passages, eval_data, workers, scratch)


def _read(eval_data: Path, fields: Mapping[str, tuple[str, ...]]) -> _Texts:
    found: dict[str, None] = {}
    for name, columns in fields.items():
        path = eval_data / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            for line in file:
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                texts = [row.get(column) for column in columns] if isinstance(row, dict) else []
                if fields is PASSAGES:  # as `evaluate` gives them to a model
                    texts = [" ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())]
                found.update((same_text(text), None) for text in texts if isinstance(text, str) and text.strip())
    same = list(found)
    blocks = [bands(same[start : start + BLOCK]) for start in range(0, len(same), BLOCK)]
    return _Texts(
        same, np.array(keys_of(same)[1], np.uint64), np.concatenate([np.empty((0, BANDS), np.uint64), *blocks])
    )


def _queries(data: DataSet, queries: _Texts, eval_data: Path) -> Iterator[Problem]:
    lines, used = data.index.mapped("line"), data.fates.used
    width = 2 if data.task == "sts" else 1
    fix = "delete it from the training data: what is measured on it would say nothing"
    if width == 2:
        either = np.isin(data.index.column("key"), queries.key)
        exact = either[::2] | either[1::2]
    else:
        exact = np.isin(data.index.query_keys(), queries.key)
    for row in np.flatnonzero(exact & used).tolist():
        what = f"its {_name(data)} is a query of the evaluation data {eval_data}"
        yield Problem(data.source, int(lines[row]), what, fix, "query-in-evaluation", WARNING)
    pairs, common = matches(data.index.band, len(data.index) * width, queries.band)
    if common.any():
        what = f"{common.sum()} queries of {eval_data} are written after a pattern that very many rows have too"
        yield Problem(data.source, 1, what, "rows nearly the same as these are not named", "pattern", NOTE)
    rows = pairs[0] // width
    pairs = pairs[:, used[rows] & ~exact[rows]]
    texts, told, near_to = Texts(data.reading, data.index), set(), NearTo(queries.same)
    for text, entry in pairs.T.tolist():
        row = text // width
        query = same_text(texts.row(row)[0][text % width])
        if row not in told and near_to(query, entry):
            told.add(row)
            what = f"its {_name(data)} is nearly a query of the evaluation data {eval_data}"
            yield Problem(data.source, int(lines[row]), what, fix, "query-near-evaluation", WARNING)


def _name(data: DataSet) -> str:
    return {"sts": "sentence", "classification": "text", "clustering": "text"}.get(data.task, "query")


def _of(pairs: np.ndarray, total: int) -> str:
    return f" ({pairs.shape[1]} of {total} likely pairs were compared)" if pairs.shape[1] < total else ""


@dataclass(frozen=True)
class _Part:
    reading: Reading
    index_folder: Path
    start: int
    stop: int
    table: Path


def _near_passages(part: _Part) -> np.ndarray:
    """Candidate pairs (number of a text in the set, number of a passage of the evaluation data) of some rows."""
    index = RowIndex(part.index_folder)
    flat = [text for texts, _, _ in Texts(part.reading, index).rows(part.start, part.stop) for text in texts]
    found = bands([same_text(text) for text in flat])
    others = np.load(part.table, mmap_mode="r")
    # Wide bands: a corpus may hold a million passages, and of most a likeness of one band says nothing.
    pairs, _ = matches(lambda band, start, stop: found[start:stop, band], len(flat), others, width=2)
    pairs[0] += int(index.column("first", part.start, part.start + 1)[0])
    return pairs


def _passages(data: DataSet, passages: _Texts, eval_data: Path, workers: Workers, scratch: Path) -> Iterator[Problem]:
    """Passages that stand in both are usual where the corpus is one's own; so this is a note, told once a file."""
    if data.task not in ("retrieval", "native") or not passages.same:
        return
    index, lines = data.index, data.index.mapped("line")
    first = index.mapped("first")
    exact = np.isin(index.column("key"), passages.key)
    exact[first[:-1]] = False
    fix = "no harm where the evaluation corpus is the one you search; else take the passages out of the training data"
    if exact.any():
        number = int(np.argmax(exact))
        row = int(np.searchsorted(first, number, side="right")) - 1
        what = f"{np.count_nonzero(exact)} passages of this file, the first here, stand in the corpus of {eval_data}"
        yield Problem(data.source, int(lines[row]), what, fix, "passage-in-evaluation", NOTE)
    parts = (
        _Part(data.reading, index.folder, start, stop, scratch / "eval-passages.npy") for start, stop in index.parts()
    )
    pairs = np.concatenate([np.empty((2, 0), np.int64), *workers.map(_near_passages, parts)], axis=1)
    row_of = np.searchsorted(first, pairs[0], side="right") - 1
    asked = pairs[0] == first[row_of]
    kept = ~exact[pairs[0]] & ~asked
    pairs, row_of = pairs[:, kept], row_of[kept]
    chosen = slice(None, None, max(1, -(-pairs.shape[1] // COMPARED)))
    texts, near_to = Texts(data.reading, index), NearTo(passages.same)
    near: dict[int, int] = {}
    for (number, entry), row in zip(pairs[:, chosen].T.tolist(), row_of[chosen].tolist(), strict=True):
        text = same_text(texts.row(row)[0][number - int(first[row])])
        if near_to(text, entry):
            near.setdefault(number, row)
    if near:
        compared = _of(pairs[:, chosen], pairs.shape[1])
        what = (
            f"{len(near)} passages of this file, the first here, are nearly one of the corpus of {eval_data}{compared}"
        )
        yield Problem(data.source, int(lines[min(near.values())]), what, fix, "passage-near-evaluation", NOTE)
