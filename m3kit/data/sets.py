"""Read files into sets of rows: every row parsed and checked by itself, and each bad one told."""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from m3kit.data.beir_folder import beir_passages, beir_records
from m3kit.data.check_rows import row_problems
from m3kit.data.rowset import RowSet, tell_task
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.progress import Bar
from m3kit.reading.files import Reading, Record
from m3kit.reading.layouts import Layout, recognise
from m3kit.reading.problems import ASIDE, ERROR, WARNING, BadRow, Findings, Problem
from m3kit.reading.rows import Row, parse
from m3kit.reading.sources import Source
from m3kit.reading.text import key_of

# Memory for a byte of a file of rows (4.3 were measured); packed ones hold about so many times as much.
MEMORY, PACKED = 5, 3
# Grades above this are votes or counts, and tell no wrong passage from a right one.
LARGEST_GRADE = 5
NO_POSITIVE = "no passage of its query is graded as right"


def rejected_line(file: Path, line: int, code: str, reason: str, fix: str, row: str) -> bytes:
    """A line of rejected.jsonl, for a row that is set aside: to the letter, as text, for it may be no JSON at all."""
    record = {"file": str(file), "line": line, "code": code, "reason": reason, "fix": fix, "row": row}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def read_sets(
    sources: Iterable[Source], settings: Settings, findings: Findings, rejected: list[bytes], bar: Bar
) -> list[RowSet]:
    """The sets of all files of which anything can be read. Raises ``KitError`` where memory would not hold them."""
    sources = list(sources)
    _check_memory(sources)
    seen: set[str] = set()
    sets = []
    with _no_collector():
        for source in sources:
            bar.say(f"reading {source.path.name}")
            reader = _Reader(source, settings, findings, rejected, bar)
            if data := reader.read():
                sets.append(data)
            seen |= reader.columns
    missing = {column for _, column in settings.columns} - seen
    if missing and not findings.errors and any(source.split == "train" for source in sources):
        raise KitError(f"--columns names {sorted(missing)}, but no file has such a column; see how it is spelt")
    return sets


def raw_rows(data: RowSet, numbers: set[int]) -> dict[int, str]:
    """The records of these numbers as they stand in the file, or as JSON where a record is no line of it."""
    found: dict[int, str] = {}
    records = _records(Source(data.source, data.split), Reading(data.source)) if numbers else ()
    for number, (_, record, raw) in enumerate(records):
        if number in numbers:
            found[number] = _letter(record, raw)
            if len(found) == len(numbers):
                break
    return found


class _Reader:
    """Reads one file."""

    def __init__(self, source: Source, settings: Settings, findings: Findings, rejected: list[bytes], bar: Bar) -> None:
        self._source, self._settings, self._findings = source, settings, findings
        self._rejected, self._bar = rejected, bar
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._kind: str | None = None
        self._bad: Counter[str] = Counter()
        self.columns: set[str] = set()

    def read(self) -> RowSet | None:
        path, reading, rows = self._source.path, Reading(self._source.path), []
        stopped = False
        try:
            for number, (line, record, raw) in enumerate(_records(self._source, reading)):
                try:
                    if isinstance(record, BadRow):
                        raise record
                    row = self._row(line, record, reading.textual)
                    row.number = number
                    rows.append(row)
                except BadRow as bad:
                    self._take(bad, line, raw, record)
                self._bar.update(1)
        except BadRow as stop:
            self._findings.add(stop.at(path, 1))
            stopped = True
        if not rows:
            if not stopped and not self._bad:
                self._tell(1, "the file holds no row", "fill it or leave it out", "empty")
            elif self._bad and self._settings.skip_bad_rows:
                self._tell(1, "no row of the file can be used", "see without --skip-bad-rows what is wrong", "empty")
            return None
        assert self._kind is not None
        notes = dict.fromkeys([*reading.notes, *(layout.note for layout in self._layouts.values() if layout.note)])
        data = RowSet(path, rows, self._kind, self._source.split, where=reading.where, bad=self._bad, notes=list(notes))
        data.sha256 = _digest(self._source)
        data.unused_columns = sorted(set().union(*(layout.unused for layout in self._layouts.values())))
        if path.is_dir():
            data.corpus = list(beir_passages(path))
        if data.kind == "graded":
            self._findings.add(*_by_grades(data, dict(self._settings.columns).get("grade")))
        problems = list(tell_task(data, self._settings.task))
        self._findings.add(*problems)
        return None if problems else data

    def _row(self, line: int, record: dict[str, Any], textual: bool) -> Row:
        columns = tuple(record)
        layout = self._layouts.get(columns)
        if layout is None:
            self.columns.update(columns)
            layout = recognise(columns, dict(self._settings.columns), self._kind)
            self._layouts[columns], self._kind = layout, layout.kind
        row = parse(line, record, layout, textual, self._settings.sts_max_score)
        row.keys = (key_of(row.query), *map(key_of, row.positives), *map(key_of, row.negatives))
        for severity, what, fix, code in row_problems(row, layout.kind):
            if severity == ERROR or (severity == WARNING and self._settings.strict):
                raise BadRow(what, fix, code=code)
            self._tell(line, what, fix, code, severity)
        return row

    def _take(self, bad: BadRow, line: int, raw: bytes | None, record: Any) -> None:
        """Note a row that is not used."""
        skip = self._settings.skip_bad_rows
        self._bad[bad.code] += 1
        self._findings.add(bad.at(self._source.path, line, ASIDE if skip else ERROR))
        if skip:
            place = bad.line or line
            row = _letter(record, raw)
            self._rejected.append(rejected_line(self._source.path, place, bad.code, bad.what, bad.fix, row))

    def _tell(self, line: int, what: str, fix: str, code: str, severity: str = ERROR) -> None:
        self._findings.add(Problem(self._source.path, line, what, fix, code, severity))


def _records(source: Source, reading: Reading) -> Iterator[Record]:
    if source.path.is_dir():
        return beir_records(source.path, source.split)
    return reading.records()


def _letter(record: Any, raw: bytes | None) -> str:
    """A record as it stands in the file, or as JSON where that is not known."""
    raw = json.dumps(record, ensure_ascii=False, default=str).encode("utf-8", "replace") if raw is None else raw
    return raw.decode("utf-8", "backslashreplace")


def _by_grades(data: RowSet, asked: str | None) -> Iterator[Problem]:
    """Part the passages of graded rows into positives and negatives: at least half of the largest grade is right."""
    largest = max(max(row.value) for row in data.rows)
    data.kind = "retrieval"
    votes = largest > LARGEST_GRADE and not asked
    if votes:
        what = f"grades up to {largest:g} are votes or counts, so every passage is taken for right"
        fix = "say --columns grade=COLUMN if another column has grades, or this one if it has them, or leave it out"
        yield data.problem(data.rows[0], WARNING, what, fix, "grades")
    elif min(min(row.value) for row in data.rows) < largest / 2:
        data.notes.append(f"passages graded {largest / 2:g} or more are positives, the others negatives")
    for row in data.rows:
        row.group = None  # an id beside a passage is the passage's own
        texts, keys, grades = row.positives, row.keys[1:], row.value
        right = [votes or (grade > 0 and grade >= largest / 2) for grade in grades]
        order = [*(n for n, good in enumerate(right) if good), *(n for n, good in enumerate(right) if not good)]
        row.positives = [texts[n] for n in order if right[n]]
        row.negatives = [texts[n] for n in order if not right[n]]
        row.keys = (row.keys[0], *(keys[n] for n in order))
        row.value = None if votes else {"scores": [float(grades[n]) for n in order]}
    answered = {row.keys[0] for row in data.rows if row.positives}
    for row in data.rows:
        if row.keys[0] not in answered:
            row.fate = NO_POSITIVE
    if not answered:
        what = "no passage is graded as right: every grade is 0 or less"
        yield data.problem(data.rows[0], ERROR, what, "grade what answers a query with 1", "no-positive")


def _digest(source: Source) -> str:
    path = source.path / "qrels" / f"{source.split}.tsv" if source.path.is_dir() else source.path
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_memory(sources: list[Source]) -> None:
    needed = 0
    for path in (source.path for source in sources if source.path.is_file()):
        needed += MEMORY * path.stat().st_size * (PACKED if path.suffix.lower() in (".gz", ".zst", ".parquet") else 1)
    free, gib = free_on_machine(), 2**30
    if needed > free:
        raise KitError(
            f"reading the training data takes about {needed / gib:.0f} GiB of memory, and {free / gib:.0f} GiB are "
            "free; give fewer or smaller files (a sample of 1,000,000 rows is more than most trainings use)"
        )


def free_on_machine() -> int:
    """Bytes that are left of the machine's memory, and of the container's where it has a limit (cgroups 2)."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    left, group = int(meminfo["MemAvailable"].split()[0]) << 10, Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
        # Files that are kept in memory make room where it is wanted.
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        left = min(left, int(most) - int((group / "memory.current").read_text()) + int(cached))
    return left


@contextmanager
def _no_collector() -> Iterator[None]:
    """No search for cycles while millions of rows are made, of which none holds another: it takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
