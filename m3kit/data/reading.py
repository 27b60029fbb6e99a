"""Read a part of a file of JSON lines: every row parsed, checked by itself, and turned into columns of a row index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from m3kit.data.formats import Layout, recognise
from m3kit.data.jsonline import is_blank_line, parse_line
from m3kit.data.near import bands
from m3kit.data.problems import ERROR, WARNING, BadRow, Problem
from m3kit.data.row_checks import check_near_negatives, check_repeats, check_texts
from m3kit.data.rowindex import BAND_COLUMNS
from m3kit.data.text import are_plain, keys_of


@dataclass(frozen=True)
class Reading:
    """How one file is read."""

    source: Path  # the user's file, as it is named in messages
    lines: Path  # JSON lines on this disk
    textual: bool = False
    kind: str | None = None  # the format of the file's first row
    renames: tuple[tuple[str, str], ...] = ()  # (field, the column in which it stands)
    max_score: float = 1.0
    strict: bool = False
    query_max_len: int = 512
    passage_max_len: int = 512


@dataclass(frozen=True)
class Part:
    """Some whole lines of a file: bytes ``start`` to ``stop``, of which the first is line ``first`` (from 1)."""

    reading: Reading
    start: int
    stop: int
    first: int
    numbers: np.ndarray | None = None  # the line in the user's file of each line here, where it is another


@dataclass
class Rows:
    """What became of a part: ``read`` rows are in ``columns`` or in ``bad``, each once."""

    read: int
    columns: dict[str, np.ndarray]
    labels: list[str]  # by the part's own numbers
    types: dict[str | None, int]  # of native rows: the line where each was met first
    problems: list[Problem]
    bad: list[tuple[Problem, str]]  # each with the row as it stands in the file
    columns_seen: set[str]
    unused: set[str]


class LayoutOf:
    """The layout for a row's columns; each set of columns is looked at once."""

    def __init__(self, reading: Reading):
        self._reading = reading
        self._known: dict[tuple[str, ...], Layout] = {}
        self.kind = reading.kind

    def __call__(self, record: Mapping[str, Any]) -> Layout:
        columns = tuple(record)
        layout = self._known.get(columns)
        if layout is None:
            reading = self._reading
            layout = recognise(columns, dict(reading.renames), self.kind, reading.textual, reading.max_score)
            self._known[columns] = layout
            self.kind = layout.kind
        return layout

    def column(self, slot: int, positives: int) -> str:
        """The column of a text by its place in a row with so many positives, as the user named it."""
        if self.kind == "sts":
            field = f"sentence{slot + 1}"
        elif self.kind == "labelled":
            field = "text"
        elif slot == 0:
            field = "query"
        else:
            ends = ("pos", "neg") if self.kind == "native" else ("positive", "negative")
            field = ends[slot > positives]
        return next((layout.fields[field] for layout in self._known.values() if field in layout.fields), field)

    def columns(self) -> set[str]:
        return set(chain.from_iterable(self._known))

    def unused(self) -> set[str]:
        return set().union(*(layout.unused for layout in self._known.values()))


@dataclass
class _Parsed:
    """The rows of a part as they were parsed, and the bad ones by the number of their line in it."""

    numbers: list[int]
    texts: list[list[str]]
    positives: list[int]
    values: list[Any]
    bad: dict[int, BadRow]


def read_part(part: Part) -> Rows:
    """Parse and check the rows of a part."""
    reading = part.reading
    with reading.lines.open("rb") as file:
        file.seek(part.start)
        lines = file.read(part.stop - part.start).split(b"\n")
    layout_of = LayoutOf(reading)
    parsed = _parse(lines, layout_of)
    read = len(parsed.numbers) + len(parsed.bad)
    line_of = _line_numbers(part, len(lines))

    flat = list(chain.from_iterable(parsed.texts))
    plain = are_plain(flat)
    same, keys, sizes = keys_of(flat, plain)
    key, positives = np.array(keys, np.uint64), np.array(parsed.positives, np.int64)
    counts = np.fromiter(map(len, parsed.texts), np.int64, len(parsed.texts))
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    repeats = _with_repeats(key, counts)

    found = list(check_texts(flat, plain, same, first, parsed.positives, layout_of.column))
    if layout_of.kind in ("retrieval", "native"):
        found += check_near_negatives(same, key, first, positives)
    found += check_repeats(key, first, parsed.positives, parsed.values, np.flatnonzero(repeats), layout_of.kind)
    problems: list[Problem] = []
    keep = np.ones(len(counts), bool)
    for row, severity, problem in sorted(found, key=lambda one: one[0]):
        number = parsed.numbers[row]
        if severity == ERROR or (reading.strict and severity == WARNING):
            parsed.bad.setdefault(number, problem)
            keep[row] = False
        else:
            line = int(line_of[number])
            problems.append(Problem(reading.source, line, problem.what, problem.fix, problem.code, severity))

    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    where = np.array(parsed.numbers, np.int64)
    labels, types, value = _values(layout_of.kind, parsed.values, line_of[where])
    queries = [slot for row in range(len(counts)) for slot in _query_slots(layout_of.kind, first[row])]
    columns = {
        "offset": (part.start + np.cumsum(lengths + 1) - lengths - 1)[where],
        "length": lengths[where],
        "line": line_of[where],
        "texts": counts,
        "positives": positives,
        "repeats": repeats,
        "row_key": _row_keys(key, first, layout_of.kind),
        "number": value,
        "key": key,
        "long": _may_be_long(np.array(sizes, np.int64), first, reading),
    }
    columns |= zip(BAND_COLUMNS, bands([same[slot] for slot in queries]).T, strict=True)
    if not keep.all():
        a_row = dict.fromkeys(BAND_COLUMNS, len(queries) // len(counts)) | dict.fromkeys(("key", "long"), counts)
        columns = {name: column[np.repeat(keep, a_row.get(name, 1))] for name, column in columns.items()}
    return Rows(
        read=read,
        columns=columns,
        labels=labels,
        types=types,
        problems=problems,
        bad=[
            _bad_row(reading, int(line_of[number]), problem, lines[number])
            for number, problem in sorted(parsed.bad.items())
        ],
        columns_seen=layout_of.columns(),
        unused=layout_of.unused(),
    )


def _parse(lines: list[bytes], layout_of: LayoutOf) -> _Parsed:
    parsed = _Parsed([], [], [], [], {})
    for number, raw in enumerate(lines):
        if not raw or raw.isspace():
            continue
        try:
            record = parse_line(raw)
            texts, positives, value = layout_of(record).parse(record)
        except BadRow as problem:
            if not is_blank_line(raw):
                parsed.bad[number] = problem
        else:
            parsed.numbers.append(number)
            parsed.texts.append(texts)
            parsed.positives.append(positives)
            parsed.values.append(value)
    return parsed


def _line_numbers(part: Part, count: int) -> np.ndarray:
    if part.numbers is None:
        return np.arange(part.first, part.first + count)
    # A last line end is followed by a line that is none.
    return np.append(part.numbers, part.numbers[-1:])


def _with_repeats(key: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which rows have two texts that are the same."""
    row = np.repeat(np.arange(len(counts)), counts)
    # Equal where both the key and the row are, and otherwise only by a rare chance, which costs a second look.
    mixed = key ^ row.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    ordered = np.sort(mixed)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    repeats = np.zeros(len(counts), bool)
    repeats[row[np.isin(mixed, again)]] = len(again) > 0
    return repeats


def _row_keys(key: np.ndarray, first: np.ndarray, kind: str | None) -> np.ndarray:
    """A key of each row's texts: the same where all of them are, in the same places (of an STS pair, in any)."""
    if not len(key):
        return key
    place = np.arange(len(key)) - np.repeat(first[:-1], np.diff(first))
    factor = (place.astype(np.uint64) if kind != "sts" else np.uint64(0)) * np.uint64(2) + np.uint64(1)
    mixed = key * (factor * np.uint64(0x9E3779B97F4A7C15))
    mixed ^= mixed >> np.uint64(29)
    return np.add.reduceat(mixed, first[:-1])


def _may_be_long(sizes: np.ndarray, first: np.ndarray, reading: Reading) -> np.ndarray:
    """Which texts may have more tokens than are allowed: a token is a byte at least, and two mark the ends."""
    limits = np.full(len(sizes), reading.passage_max_len)
    limits[first[:-1]] = reading.query_max_len
    return sizes + 2 > limits


def _values(
    kind: str | None, values: list[Any], lines: np.ndarray
) -> tuple[list[str], dict[str | None, int], np.ndarray]:
    """(labels, types, number of each row): see ``ROW_COLUMNS``."""
    if kind == "labelled":
        numbers: dict[str, int] = {}
        number = np.array([numbers.setdefault(label, len(numbers)) for label in values], np.float64)
        return list(numbers), {}, number
    if kind == "native":
        types: dict[str | None, int] = {}
        for extra, line in zip(values, lines, strict=True):
            types.setdefault(extra.get("type"), int(line))
        return [], types, np.array(["neg_scores" in extra for extra in values], np.float64)
    return [], {}, np.array(values, np.float64)


def _query_slots(kind: str | None, first: int) -> tuple[int, ...]:
    return (first, first + 1) if kind == "sts" else (first,)


def _bad_row(reading: Reading, line: int, bad: BadRow, raw: bytes) -> tuple[Problem, str]:
    problem = Problem(reading.source, line, bad.what, bad.fix, bad.code)
    return problem, raw.decode("utf-8", "backslashreplace")
