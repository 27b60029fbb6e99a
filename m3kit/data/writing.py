"""Convert a part of a set, in any process: prepared rows as bytes, and what was set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson

from m3kit.data.convert import labelled, native, retrieval, sts
from m3kit.data.convert.plan import Plan, Source, Tally
from m3kit.data.dataset import SET_ASIDE, DataSet
from m3kit.data.inspection import rejected_line
from m3kit.data.problems import BadRow, Problem
from m3kit.data.settings import Settings

CONVERT: dict[str, Callable[[Source, int, int, Tally], Iterator[tuple[int, dict | BadRow]]]] = {
    "retrieval": retrieval.convert,
    "sts": sts.convert,
    "classification": labelled.convert,
    "clustering": labelled.convert,
    "native": native.convert,
}


def plan_set(data: DataSet, settings: Settings, shared: Path | None) -> Plan:
    """Decide about a set as a whole. Raises ``BadRow`` when its rows cannot teach what the task asks."""
    if data.task == "retrieval":
        return retrieval.plan(data, settings, shared)
    planners = {"sts": sts.plan, "native": native.plan}
    return planners.get(data.task, labelled.plan)(data, settings)


@dataclass(frozen=True)
class WritePart:
    plan: Plan
    start: int
    stop: int


@dataclass
class Written:
    rows: int = 0
    data: bytes = b""
    tally: Tally = field(default_factory=Tally)
    bad: list[Problem] = field(default_factory=list)  # rows that turned out to be of no use
    rejected: list[bytes] = field(default_factory=list)
    read: int = 0  # rows of the index gone through


def write_part(part: WritePart) -> Written:
    """The prepared rows of some rows of a set, and those set aside."""
    plan = part.plan
    source = _source(plan)
    written = Written(read=part.stop - part.start)
    lines: list[bytes] = []
    for row, made in CONVERT[plan.task](source, part.start, part.stop, written.tally):
        if isinstance(made, BadRow):
            line = int(source.index.column("line", row, row + 1)[0])
            written.bad.append(Problem(plan.reading.source, line, made.what, made.fix, made.code))
            if plan.settings.skip_bad_rows:
                written.rejected.append(_rejected(source, row, line, made.code, made.what, made.fix))
        else:
            lines.append(orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
    written.rows, written.data = len(lines), b"".join(lines)
    fates = source.index.column("fate", part.start, part.stop)
    for place in (fates >= SET_ASIDE).nonzero()[0].tolist():
        row = part.start + place
        line = int(source.index.column("line", row, row + 1)[0])
        reason = plan.reasons[fates[place] - SET_ASIDE]
        written.rejected.append(_rejected(source, row, line, "set-aside", reason, ""))
    return written


def write_parts(plan: Plan, data: DataSet) -> Iterator[WritePart]:
    return (WritePart(plan, start, stop) for start, stop in data.index.parts())


@lru_cache(maxsize=1)
def _source(plan: Plan) -> Source:
    """The set of a plan; a process is given many parts of one set after the other."""
    return Source(plan)


def _rejected(source: Source, row: int, line: int, code: str, reason: str, fix: str) -> bytes:
    raw = next(source.texts.lines(row, row + 1)).decode("utf-8", "backslashreplace")
    return rejected_line(str(source.plan.reading.source), line, code, reason, fix, raw)
