"""Read and check whole files: what `m3kit check` tells, and what `m3kit prepare` goes on from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from m3kit.data.dataset import DataSet, Fates
from m3kit.data.jsonline import parse_line
from m3kit.data.leaks import find_leaks
from m3kit.data.lengths import load_tokenizer, too_long
from m3kit.data.problems import NOTE, BadRow, Findings, Problem
from m3kit.data.progress import Progress
from m3kit.data.reading import LayoutOf, Part, Reading, read_part
from m3kit.data.rowindex import RowIndexWriter
from m3kit.data.set_checks import QUICK, SLOW, run_check
from m3kit.data.settings import Settings
from m3kit.data.tasks import label_texts, output_folder, tell_task
from m3kit.data.transcode import JsonLines, as_json_lines
from m3kit.data.workers import Workers
from m3kit.errors import KitError

PART_BYTES = 4 * 1024 * 1024


class Rejected:
    """``rejected.jsonl``: every row that was set aside, with its reason; made when there is the first."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0

    def write(self, lines: list[bytes]) -> None:
        if lines:
            self.count += len(lines)
            with self.path.open("ab") as file:
                file.writelines(lines)


def rejected_line(file: str, line: int, code: str, reason: str, fix: str, row: str) -> bytes:
    """``row`` is the row to the letter, as text: it may be no JSON at all."""
    record = {"file": file, "line": line, "code": code, "reason": reason, "fix": fix, "row": row}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


class Inspector:
    """Reads files one after the other; what is wrong goes to ``findings``, rows that are skipped to ``rejected``."""

    def __init__(
        self,
        settings: Settings,
        scratch: Path,
        workers: Workers,
        findings: Findings,
        rejected: Rejected,
        progress: Progress,
    ):
        self.settings, self.scratch, self.workers = settings, scratch, workers
        self.findings, self.rejected, self.progress = findings, rejected, progress
        self._seen_columns: set[str] = set()
        self._number = 0

    def inspect(self, files: list[Path]) -> list[DataSet]:
        self.progress.expect(sum(file.stat().st_size for file in files if file.is_file()))
        sets = [data for file in files if (data := self._file(file)) is not None]
        missing = {column for _, column in self.settings.columns if column not in self._seen_columns}
        if missing and not self.findings.errors:
            raise KitError(f"--columns names {sorted(missing)}, but no file has such a column; see how it is spelt")
        self._add_length_problems(sets)
        self.progress.say("comparing the rows")
        slow = [(check, data, self.settings) for data in sets for check in SLOW]
        for problems in self.workers.map(run_check, slow):
            self.findings.add(problems)
        if self.settings.eval_data:
            self.progress.say("comparing with the evaluation data")
            self.findings.add(find_leaks(sets, Path(self.settings.eval_data), self.workers, self.scratch))
        return sets

    def _add_length_problems(self, sets: list[DataSet]) -> None:
        long = [data for data in sets if data.index.column("long").any()]
        if not self.settings.tokenizer or not long:
            return
        self.progress.say("measuring lengths")
        try:
            tokenizer = load_tokenizer(self.settings.tokenizer, self.settings.cache_dir)
        except KitError as error:
            fix = "they are cut all the same where they are too long"
            self.findings.add(
                [Problem(long[0].source, 1, f"lengths were not measured: {error}", fix, "tokenizer", NOTE)]
            )
            return
        for data in long:
            self.findings.add(too_long(data, self.settings, tokenizer))

    def _file(self, file: Path) -> DataSet | None:
        self.progress.say(f"reading {file.name}")
        problems: list[Problem] = []
        lines = as_json_lines(file, self.scratch, problems)
        self.findings.add(problems)
        if lines is None:
            return None
        self.progress.expect(lines.path.stat().st_size - file.stat().st_size)
        settings = self.settings
        reading = Reading(
            source=file,
            lines=lines.path,
            textual=lines.textual,
            renames=settings.columns,
            max_score=settings.sts_max_score,
            strict=settings.strict,
            query_max_len=settings.query_max_len,
            passage_max_len=settings.passage_max_len,
        )
        kind = _first_kind(reading)
        reading = replace(reading, kind=kind)
        data = self._read(reading, lines)
        if not data.read:
            what, fix = "the file holds no row", "fill it or leave it out"
            self.findings.add([] if problems else [Problem(file, 1, what, fix, "empty")])
            return None
        if not len(data.index):
            if settings.skip_bad_rows:
                what, fix = "no row of the file can be used", "see without --skip-bad-rows what is wrong with each"
                self.findings.add([Problem(file, 1, what, fix, "empty")])
            return None
        assert kind is not None  # a row has it
        try:
            data.task, data.reason = tell_task(kind, file.resolve().parent.name, settings.task)
            data.folder = output_folder(data.task, file.resolve().parent.name)
            if data.task == "classification":
                data.label_texts = label_texts(data.labels, file, data.notes)
        except BadRow as bad:
            self.findings.add([Problem(bad.path or file, bad.line or 1, bad.what, bad.fix, bad.code)])
            return None
        self.progress.say(f"checking {file.name}")
        self._add_set_problems(data)
        return data

    def _add_set_problems(self, data: DataSet) -> None:
        for check in QUICK:
            for problem in check(data, self.settings):
                # Rows that contradict one another are set aside like bad ones where that was asked for.
                skipped = self.settings.skip_bad_rows and problem.code.endswith("-contradiction")
                self.findings.add([problem], skipped)

    def _read(self, reading: Reading, lines: JsonLines) -> DataSet:
        self._number += 1
        writer = RowIndexWriter(self.scratch / f"index-{self._number}")
        digest = hashlib.sha256()
        numbers: dict[str, int] = {}
        types: dict[str | None, int] = {}
        unused: set[str] = set()
        self._take_problems([], lines.bad)
        read, bad = len(lines.bad), Counter(problem.code for problem, _ in lines.bad)
        parts = _parts(reading, lines, digest if reading.lines == reading.source else None, self.progress)
        for rows in self.workers.map(read_part, parts):
            if rows.labels:
                local = np.array([numbers.setdefault(label, len(numbers)) for label in rows.labels], np.float64)
                rows.columns["number"] = local[rows.columns["number"].astype(np.int64)]
            writer.append(rows.columns)
            for name, line in rows.types.items():
                types.setdefault(name, line)
            unused |= rows.unused
            self._seen_columns |= rows.columns_seen
            read += rows.read
            bad += Counter(problem.code for problem, _ in rows.bad)
            self._take_problems(rows.problems, rows.bad)
            self.progress.read(rows.read)
        index = writer.close()
        if reading.lines != reading.source:
            _hash_file(reading.source, digest)
        return DataSet(
            reading=reading,
            task="",
            reason="",
            folder="",
            index=index,
            fates=Fates(len(index)),
            read=read,
            bad=bad,
            sha256=digest.hexdigest(),
            where=lines.where,
            labels=list(numbers),
            types=types,
            unused_columns=sorted(unused),
            notes=lines.notes,
        )

    def _take_problems(self, problems: list[Problem], bad: list[tuple[Problem, str]]) -> None:
        """``bad`` are those that cost a row."""
        self.findings.add(problems)
        skip = self.settings.skip_bad_rows
        self.findings.add((problem for problem, _ in bad), skipped=skip)
        if skip:
            self.rejected.write(
                [
                    rejected_line(str(problem.path), problem.line, problem.code, problem.what, problem.fix, row)
                    for problem, row in bad
                ]
            )


def _first_kind(reading: Reading) -> str | None:
    """The format of the first row whose columns are one."""
    layout_of = LayoutOf(reading)
    with reading.lines.open("rb") as file:
        for raw in file:
            try:
                if raw.strip():
                    return layout_of(parse_line(raw.rstrip(b"\n"))).kind
            except BadRow:
                continue
    return None


def _parts(reading: Reading, lines: JsonLines, digest, progress: Progress) -> Iterator[Part]:
    """The file cut between lines; what is read for that also goes into ``digest``."""
    start = stop = position = 0  # of the part, of its last whole line, of what was read
    before = first = 0  # lines before the part, lines up to stop
    with reading.lines.open("rb") as file:
        while block := file.read(PART_BYTES):
            if digest is not None:
                digest.update(block)
            last = block.rfind(b"\n")
            if last >= 0:
                first += block.count(b"\n")
                stop = position + last + 1
            position += len(block)
            if stop - start >= PART_BYTES // 2:
                progress.cut(stop - start, first - before)
                yield _part(reading, lines, start, stop, before, first)
                start, before = stop, first
    if position > start:
        after = first + (stop < position)  # a last line may have no line end
        progress.cut(position - start, after - before)
        yield _part(reading, lines, start, position, before, after)


def _part(reading: Reading, lines: JsonLines, start: int, stop: int, before: int, after: int) -> Part:
    numbers = None if lines.numbers is None else lines.numbers[before:after]
    return Part(reading, start, stop, before + 1, numbers)


def _hash_file(path: Path, digest) -> None:
    with path.open("rb") as file:
        while block := file.read(PART_BYTES):
            digest.update(block)
