"""Rows as `m3kit prepare` writes them, read again: those of retrieval checked, all others as they stand there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from m3kit.errors import KitError
from m3kit.reading.jsonfile import is_blank_line, parse_line
from m3kit.reading.problems import BadRow, Problem, refuse
from m3kit.reading.sources import EVAL_FOLDER
from m3kit.reading.text import is_blank

Row = TypeVar("Row")

PREPARE = "give the folders that `m3kit prepare` printed"
BESIDE_THE_ROWS = ("problems.jsonl", "rejected.jsonl")
# Rows of types that begin so have no query and answers: what they are drawn to is no matter of relevance.
NOT_RETRIEVAL = ("symmetric", "graded")


@dataclass(frozen=True)
class PreparedRow:
    """A line of a file, counted from 1; ``raw`` has no line end. ``data`` is checked where it is one of retrieval."""

    file: Path
    line: int
    raw: bytes
    data: dict[str, Any]

    @property
    def is_retrieval(self) -> bool:
        return not str(self.data.get("type", "")).startswith(NOT_RETRIEVAL)

    @property
    def pairs(self) -> list[tuple[str, str, str]]:
        """(prompt, query, passage) of each passage, the positives first."""
        prompt, query = self.data.get("prompt") or "", self.data["query"]
        return [(prompt, query, passage) for passage in self.data["pos"] + self.data["neg"]]

    def scores(self) -> list[float] | None:
        """The row's own teacher scores, positives first; None where they are not one finite number a passage."""
        found: list[Any] = []
        for passages, name in (("pos", "pos_scores"), ("neg", "neg_scores")):
            scores = self.data.get(name)
            if not isinstance(scores, list) or len(scores) != len(self.data[passages]):
                return None
            found += scores
        return found if all(type(score) in (int, float) and math.isfinite(score) for score in found) else None


def find_prepared(paths: Sequence[Path]) -> dict[str, Path]:
    """The files of prepared rows by FOLDER/FILE: given themselves, by their folder or by the folder above that.

    Raises ``KitError`` where there are none, and for two of one name.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise KitError(f"no such file or folder: {path}; {PREPARE}")
        found = [path] if path.is_file() else sorted([*path.glob("*.jsonl"), *path.glob("*/*.jsonl")])
        found = [file for file in found if file.name not in BESIDE_THE_ROWS and file.parent.name != EVAL_FOLDER]
        if not found:
            raise KitError(f"there are no prepared rows (.jsonl) in {path}; {PREPARE}")
        for file in found:
            name = f"{file.absolute().parent.name}/{file.name}"
            if files.setdefault(name, file).resolve() != file.resolve():
                raise KitError(f"{files[name]} and {file} would both be written to {name}; give one of them at a time")
    return files


def check_output(output_dir: Path, files: Iterable[Path], manifest: str) -> None:
    """Raise ``KitError`` where the folder holds one of the files that are read, or what is not ours: ours has that
    manifest."""
    for file in files:
        if output_dir.resolve() in file.resolve().parents:
            raise KitError(f"{file}, which is read, lies in --output_dir {output_dir}; choose another folder")
    if output_dir.exists() and not output_dir.is_dir():
        raise KitError(f"--output_dir {output_dir} is no folder; choose an empty or new one")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / manifest).is_file():
        raise KitError(f"{output_dir} has no {manifest}, so its files are others; choose an empty or new folder")


def read_prepared(file: Path) -> Iterator[PreparedRow]:
    """All rows of a file. At its end ``KitError`` names each line that is no prepared row."""

    def make(line: int, raw: bytes) -> PreparedRow:
        row = PreparedRow(file, line, raw, parse_line(raw))
        if row.is_retrieval:
            _check(row.data)
        return row

    return read_lines(file, make)


def read_lines(file: Path, make: Callable[[int, bytes], Row]) -> Iterator[Row]:
    """What ``make`` makes of each line's number, from 1, and bytes; blank ones are passed over.

    At the end ``KitError`` names each line for which it raised ``BadRow``, or the file if nothing is in it.
    """
    problems, made = [], 0
    with file.open("rb") as opened:
        for line, raw in enumerate(opened, start=1):
            if is_blank_line(raw):
                continue
            try:
                row = make(line, raw.removesuffix(b"\n"))
            except BadRow as bad:
                problems.append(Problem(file, line, bad.what, bad.fix, bad.code))
            else:
                made += 1
                yield row
    if not made and not problems:
        problems.append(Problem(file, 1, "the file has no row", PREPARE))
    refuse(problems, "the rows")


def _check(data: dict[str, Any]) -> None:
    if not isinstance(data.get("query"), str) or is_blank(data["query"]):
        raise BadRow('"query" is no text', PREPARE)
    for name in ("pos", "neg"):
        texts = data.get(name)
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and not is_blank(t) for t in texts):
            raise BadRow(f'"{name}" is no list with a passage in it', PREPARE)
