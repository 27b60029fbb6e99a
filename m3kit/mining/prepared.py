"""Read prepared rows: their queries and passages, once each, into files that are read by number."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest, xxh3_128

from m3kit.data.jsonline import is_blank_line, parse_line
from m3kit.data.problems import BadRow, Problem, refuse
from m3kit.data.sources import find_files
from m3kit.data.text import is_blank
from m3kit.errors import KitError
from m3kit.mining.textfile import TextFile, TextWriter
from m3kit.progress import bar

MINING = "mining.json"
# Rows of these types are no questions with answers: their negatives are other labels, or sentences.
NOT_RETRIEVAL = "symmetric"
PREPARE_FIRST = "write rows with python -m m3kit prepare, and give the folder that it wrote"
# Problems are told for so many rows; a million bad ones are told no better.
ENOUGH = 1000


def prepared_files(train_data: list[Path]) -> list[Path]:
    """The files of JSON lines behind the given paths: prepare's or mine's own folder, its folders, or files."""
    paths: list[Path] = []
    for path in train_data:
        if (path / MINING).is_file():
            paths += [path / entry["output"] for entry in json.loads((path / MINING).read_text("utf-8"))["files"]]
        else:
            paths.append(path)
    files = find_files(paths)
    for file in files:
        if file.suffix != ".jsonl":
            raise KitError(f"{file} is no file of prepared rows (.jsonl); {PREPARE_FIRST}")
    names: dict[str, Path] = {}
    for file in files:
        if (other := names.setdefault(output_name(file), file)) is not file:
            raise KitError(f"{other} and {file} would be written to one file, {output_name(file)}; rename one of them")
    return files


def output_name(file: Path) -> str:
    return f"{file.absolute().parent.name}/{file.name}"


def digest(file: Path) -> str:
    found = xxh3_128()
    with file.open("rb") as opened:
        while block := opened.read(1 << 24):
            found.update(block)
    return found.hexdigest()


def is_mined(row: dict[str, Any]) -> bool:
    """Whether the row is one of retrieval, which negatives are mined for."""
    return not str(row.get("type", "")).startswith(NOT_RETRIEVAL)


def read_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line) of the lines that are not blank."""
    with file.open("rb") as opened:
        for number, raw in enumerate(opened, start=1):
            if not is_blank_line(raw):
                yield number, raw


def _check(row: dict[str, Any]) -> None:
    if not isinstance(row.get("query"), str) or is_blank(row["query"]):
        raise BadRow('"query" is missing, empty or no text', PREPARE_FIRST)
    for name in ("pos", "neg"):
        texts = row.get(name)
        if not isinstance(texts, list) or not texts:
            raise BadRow(f'"{name}" is missing, empty or no list', PREPARE_FIRST)
        if not all(isinstance(text, str) and not is_blank(text) for text in texts):
            raise BadRow(f'"{name}" holds an empty text or something that is no text', PREPARE_FIRST)


@dataclass(frozen=True)
class Texts:
    """What is searched, and for whom; all numbers count from 0 in the order of first appearance.

    ``queries`` and ``passages`` hold each text once. Row r asks query ``row_query[r]``; its passages are
    ``row_passages[first[r]:first[r + 1]]``, the first ``row_positives[r]`` of them positives.
    """

    queries: TextFile
    passages: TextFile
    row_query: np.ndarray
    first: np.ndarray
    row_positives: np.ndarray
    row_passages: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.row_query)

    def row(self, number: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(query, positives, given negatives) of a row."""
        start, stop = self.first[number : number + 2].tolist()
        middle = start + int(self.row_positives[number])
        return int(self.row_query[number]), self.row_passages[start:middle], self.row_passages[middle:stop]

    def pair_query(self) -> np.ndarray:
        """The query of each of ``row_passages``."""
        return np.repeat(self.row_query, np.diff(self.first))

    def is_positive(self) -> np.ndarray:
        """Which passages are a positive of any row: bool (passages,)."""
        place = np.arange(len(self.row_passages)) - np.repeat(self.first[:-1], np.diff(self.first))
        mask = np.zeros(len(self.passages), bool)
        mask[self.row_passages[place < np.repeat(self.row_positives, np.diff(self.first))]] = True
        return mask


class _Numbered:
    """Gives each text a number and writes it once; known by a 64-bit key, as in ``m3kit.data.text.keys_of``."""

    def __init__(self, path: Path):
        self.writer, self._numbers = TextWriter(path), {}

    def number(self, text: str) -> int:
        key = xxh3_64_intdigest(text.encode("utf-8"))
        number = self._numbers.setdefault(key, len(self.writer))
        if number == len(self.writer):
            self.writer.append(text)
        return number


def collect(files: list[Path], corpus: Path | None, folder: Path) -> dict[str, int]:
    """Write queries, passages and the rows' numbers into a folder for ``load``; returns counts.

    Raises ``KitError`` that names each file and line to be put right.
    """
    queries, passages = _Numbered(folder / "queries.txt"), _Numbered(folder / "passages.txt")
    row_query, counts, positives, flat = array("i"), array("i"), array("i"), array("i")
    problems: list[Problem] = []
    read = 0
    with bar(None, "reading rows", "rows") as shown:
        for file in files:
            before = read
            for line, raw in read_lines(file):
                read += 1
                shown.update()
                try:
                    row = parse_line(raw)
                    if not is_mined(row):
                        continue
                    _check(row)
                except BadRow as bad:
                    problems.append(Problem(file, line, bad.what, bad.fix))
                    if len(problems) == ENOUGH:
                        refuse(problems, "the prepared rows, nothing was mined")
                    continue
                row_query.append(queries.number(row["query"]))
                counts.append(len(row["pos"]) + len(row["neg"]))
                positives.append(len(row["pos"]))
                flat.extend(passages.number(text) for text in row["pos"] + row["neg"])
            if read == before:
                problems.append(Problem(file, 1, "the file has no row", PREPARE_FIRST))
        of_rows = len(passages.writer)
        if corpus is not None:
            for text in _corpus_texts(corpus, problems):
                passages.number(text)
                shown.update()
    refuse(problems, "the prepared rows, nothing was mined")
    if not len(row_query):
        raise KitError("none of the rows is one of retrieval, so there is nothing to mine; leave this step out")
    queries.writer.close()
    passages.writer.close()
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    arrays = {"row_query": row_query, "row_positives": positives, "row_passages": flat}
    np.savez(folder / "rows.npz", first=first, **{name: np.array(values, np.int32) for name, values in arrays.items()})
    return {
        "rows_read": read,
        "rows_mined": len(row_query),
        "rows_copied": read - len(row_query),
        "queries": len(queries.writer),
        "passages": len(passages.writer),
        "passages_of_the_corpus_alone": len(passages.writer) - of_rows,
    }


def load(folder: Path) -> Texts:
    with np.load(folder / "rows.npz") as arrays:
        return Texts(TextFile(folder / "queries.txt"), TextFile(folder / "passages.txt"), **arrays)


def _corpus_texts(corpus: Path, problems: list[Problem]) -> Iterator[str]:
    """The passages of BEIR's corpus.jsonl (title and text with a space between), or of lines with "text"."""
    if not corpus.is_file():
        raise KitError(f'--corpus {corpus} is no file; give a file of JSON lines with "text", as BEIR\'s corpus.jsonl')
    before = len(problems)
    count = 0
    for line, raw in read_lines(corpus):
        try:
            row = parse_line(raw)
            parts = [row.get(name) or "" for name in ("title", "text")]
            if not all(isinstance(part, str) for part in parts) or is_blank(parts[1]):
                raise BadRow('"text" is missing, empty or no text', 'write the passage under "text"')
        except BadRow as bad:
            problems.append(Problem(corpus, line, bad.what, bad.fix))
            if len(problems) == ENOUGH:
                return
            continue
        count += 1
        yield " ".join(part.strip() for part in parts if not is_blank(part))
    if not count and len(problems) == before:
        problems.append(Problem(corpus, 1, "the file has no passage", 'write one JSON object with "text" a line'))
