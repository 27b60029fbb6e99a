"""The queries and passages of prepared rows and of a corpus: each text once, on disk, and the rows as numbers."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128

from m3kit.errors import KitError
from m3kit.prepared import read_lines, read_prepared
from m3kit.progress import bar
from m3kit.reading.jsonfile import parse_line
from m3kit.test_data.beir import passage_text

QUERIES, PASSAGES, ROWS = "queries.txt", "passages.txt", "rows.npz"


class TextFile(Sequence[str]):
    """Texts on disk, each read when it is asked for: what is held in memory is sixteen bytes a text."""

    def __init__(self, path: Path, places: np.ndarray):
        self._file, self._places = path.open("rb"), places

    def __len__(self) -> int:
        return self._places.shape[1]

    def __getitem__(self, number: Any) -> Any:
        """Return the text with this number. Slices are not supported."""
        start, size = self._places[:, number].tolist()
        return os.pread(self._file.fileno(), size, start).decode("utf-8")


class _Writer:
    """Writes texts to a file. Equal ones get one number, from 0 in the order in which they first came; they are told by
    a 64-bit key, as in ``m3kit.reading.text.key_of``."""

    def __init__(self, path: Path):
        self._file, self.keys, self._sizes = path.open("wb"), array("Q"), array("i")

    def add(self, text: str) -> None:
        raw = text.encode("utf-8")
        self.keys.append(xxh3_64_intdigest(raw))
        self._sizes.append(self._file.write(raw))

    def close(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of each text that was added; (start, size) in the file of each number's, int64 (2, numbers)."""
        self._file.close()
        sizes = np.array(self._sizes, np.int64)
        _, first, same = np.unique(np.array(self.keys), return_index=True, return_inverse=True)
        order = np.argsort(first)
        numbers = np.empty(len(first), np.int32)
        numbers[order] = np.arange(len(first))
        return numbers[same], np.stack([np.cumsum(sizes) - sizes, sizes])[:, first[order]]


@dataclass(frozen=True)
class Texts:
    """What is searched, and for whom.

    Row r asks query ``row_query[r]``; its passages are ``pairs[first[r]:first[r + 1]]``, the first ``positives[r]`` of
    them positives, the others its given negatives.
    """

    queries: Sequence[str]
    passages: Sequence[str]
    row_query: np.ndarray
    first: np.ndarray
    positives: np.ndarray
    pairs: np.ndarray

    def row(self, number: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(query, positives, given negatives)"""
        start, stop = self.first[number : number + 2]
        middle = start + self.positives[number]
        return int(self.row_query[number]), self.pairs[start:middle], self.pairs[middle:stop]

    def pair_query(self) -> np.ndarray:
        """The query of each of ``pairs``."""
        return np.repeat(self.row_query, np.diff(self.first))

    def is_positive(self) -> np.ndarray:
        """Which passages are a positive of any row: bool (passages,)."""
        place = np.arange(len(self.pairs)) - np.repeat(self.first[:-1], np.diff(self.first))
        mask = np.zeros(len(self.passages), bool)
        mask[self.pairs[place < np.repeat(self.positives, np.diff(self.first))]] = True
        return mask


def collect(files: Sequence[Path], corpus: Path | None, folder: Path) -> tuple[dict[str, int], str]:
    """Write the texts into a folder for ``load``; (counts, digest of all texts and rows).

    Raises ``KitError`` that names each line to be put right.
    """
    queries, passages = _Writer(folder / QUERIES), _Writer(folder / PASSAGES)
    positives, sizes = array("i"), array("i")
    read = 0
    with bar(None, "reading texts", "texts") as shown:
        for file in files:
            for row in read_prepared(file):
                read += 1
                if row.is_retrieval:
                    positives.append(len(row.data["pos"]))
                    sizes.append(len(row.data["pos"]) + len(row.data["neg"]))
                    queries.add(row.data["query"])
                    for text in row.data["pos"] + row.data["neg"]:
                        passages.add(text)
                    shown.update(1 + sizes[-1])
        for text in _corpus_texts(corpus) if corpus else ():
            passages.add(text)
            shown.update()
    if not positives:
        raise KitError("none of the rows is one of retrieval, so there is nothing to mine; leave this step out")
    row_query, query_places = queries.close()
    numbers, passage_places = passages.close()
    first = np.cumsum([0, *sizes])
    pairs = numbers[: first[-1]]
    rows: dict[str, Any] = {"row_query": row_query, "first": first, "positives": np.array(positives), "pairs": pairs}
    np.savez(folder / ROWS, query_places=query_places, passage_places=passage_places, **rows)
    counts = {
        "rows_read": read,
        "rows_mined": len(positives),
        "rows_copied": read - len(positives),
        "queries": query_places.shape[1],
        "passages": passage_places.shape[1],
        "passages_of_the_corpus_alone": passage_places.shape[1] - len(np.unique(rows["pairs"])),
    }
    digest = xxh3_128()
    for part in (queries.keys, passages.keys, *rows.values()):
        digest.update(part)
    return counts, digest.hexdigest()


def load(folder: Path) -> Texts:
    with np.load(folder / ROWS) as arrays:
        rows = dict(arrays)
    queries = TextFile(folder / QUERIES, rows.pop("query_places"))
    return Texts(queries, TextFile(folder / PASSAGES, rows.pop("passage_places")), **rows)


def _corpus_texts(corpus: Path) -> Iterator[str]:
    if not corpus.is_file():
        raise KitError(f'--corpus {corpus} is no file; give a file of JSON lines with "text", as BEIR\'s corpus.jsonl')
    return read_lines(corpus, lambda _, raw: passage_text(parse_line(raw)))
