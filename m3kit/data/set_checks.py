"""Checks of a set as a whole: rows that repeat or contradict one another, labels that teach nothing, too few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.grouping import repeated
from m3kit.data.languages import languages
from m3kit.data.near import NEAR, candidates, similarity
from m3kit.data.problems import ERROR, NOTE, WARNING, Problem
from m3kit.data.settings import Settings
from m3kit.data.text import same_text, shown

# Scores of one pair that differ by more contradict one another; by less, they are two people's opinions.
STS_CONTRADICTION = 0.3
# Candidates compared exactly; where there are more, an even share of them is.
COMPARED = 5_000


def repeated_rows(data: DataSet, settings: Settings) -> Iterator[Problem]:
    """Rows that stand twice, and rows of the same text that disagree.

    Those are set aside together where bad rows are to be skipped: only the user can know which is right.
    """
    index = data.index
    lines, numbers = index.column("line"), index.column("number")
    order, starts = repeated(index.column("row_key"))
    kept = "kept as they are" if data.task == "native" else "merged into one"
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        rows = order[begin:end]
        values = numbers[rows]
        first = int(lines[rows[0]])
        contradiction = _contradiction(data, values) if data.task != "native" else None
        if contradiction:
            code, what = contradiction
            other = int(lines[rows[np.flatnonzero(np.abs(values - values[0]) == np.abs(values - values[0]).max())[0]]])
            yield _problem(data, ERROR, other, what.format(first), "delete the wrong one", code)
            if settings.skip_bad_rows:
                data.fates.set_aside(rows, f"contradicts another row of the same text ({code})")
            continue
        for row in rows[1:].tolist():
            what = f"the same row as {data.where} {first}"
            yield _problem(data, WARNING, int(lines[row]), what, f"delete it; such rows are {kept}", "row-twice")


def _contradiction(data: DataSet, values: np.ndarray) -> tuple[str, str] | None:
    """(code, what is wrong, with a place for the first row's line) of rows of one text, or None."""
    if data.task == "sts" and np.ptp(values) > STS_CONTRADICTION:
        scores = f"{values[np.argmax(np.abs(values - values[0]))]:g} instead of {values[0]:g}"
        return "sts-contradiction", f"the same pair as {data.where} {{}}, with score {scores}"
    if data.labels and np.ptp(values) > 0:
        other = int(values[np.argmax(np.abs(values - values[0]))])
        names = f"{shown(data.labels[other])!r} instead of {shown(data.labels[int(values[0])])!r}"
        # braces in a label are no places
        names = names.replace("{", "{{").replace("}", "}}")
        return "label-contradiction", f"the same text as {data.where} {{}}, with label {names}"
    return None


def labels(data: DataSet, settings: Settings) -> Iterator[Problem]:
    """A label with one row, and labels that differ only in case or spaces."""
    if not data.labels:
        return
    lines, numbers = data.index.column("line"), data.index.column("number").astype(np.int64)
    counts = np.bincount(numbers, minlength=len(data.labels))
    used, places = np.unique(numbers, return_index=True)
    first = dict(zip(used.tolist(), lines[places].tolist(), strict=True))
    for number in np.flatnonzero(counts == 1).tolist():
        what = f"label {shown(data.labels[number])!r} has this row only"
        fix = "add rows of that label, or see whether it is misspelt"
        yield _problem(data, WARNING, first[number], what, fix, "label-once")
    seen: dict[str, str] = {}
    for number in used.tolist():
        name = data.labels[number]
        other = seen.setdefault(same_text(name), name)
        if other != name:
            what = f"label {shown(name)!r} differs from {shown(other)!r} only in case or spaces"
            yield _problem(
                data, WARNING, first[number], what, "write both alike if they mean the same", "label-spelling"
            )


def too_few_rows(data: DataSet, settings: Settings) -> Iterator[Problem]:
    rows = int(np.count_nonzero(data.fates.used))
    if 0 < rows < settings.batch_size:
        what = f"{rows} rows are fewer than the {settings.batch_size} of a batch over all processes"
        yield _problem(data, NOTE, 1, what, "add rows; smaller batches are used for this file", "few-rows")


def near_duplicates(data: DataSet, settings: Settings) -> Iterator[Problem]:
    """Rows whose query (whose pair, for STS) is nearly that of another row, but not the same."""
    # Wide bands: what is alike at 0.9 is found nearly always, and few others are looked at. For STS those of both
    # sentences together: pairs that share one sentence are no repeats.
    width = 2 if data.task == "sts" else 1
    found = candidates(lambda number: _band(data, number, width), width=2)
    row_key = data.index.query_keys() if width == 1 else data.index.column("row_key")
    found = found[:, row_key[found[0]] != row_key[found[1]]]
    total = found.shape[1]
    if total > COMPARED:
        found = found[:, :: -(-total // COMPARED)]
    texts, lines = Texts(data.reading, data.index), data.index.mapped("line")
    for one, other in found.T.tolist():
        left, right = (same_text(" ".join(texts.row(row)[0][:width])) for row in (one, other))
        alike = similarity(left, right)
        if alike >= NEAR:
            more = f" ({found.shape[1]} of {total} likely pairs were compared)" if total > COMPARED else ""
            what = (
                f"nearly the same {_query_name(data)} as {data.where} {int(lines[one])} (similarity {alike:.2f}){more}"
            )
            fix = "delete one if they mean the same"
            if data.task == "retrieval":
                fix += ": in one batch each is the other's negative"
            yield _problem(data, NOTE, int(lines[other]), what, fix, "near-duplicate")


def _band(data: DataSet, number: int, width: int) -> np.ndarray:
    """One band of each row's query, or of both sentences of its pair."""
    band = data.index.column(f"band{number}").reshape(-1, width)
    return band[:, 0] if width == 1 else band[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ band[:, 1]


def _query_name(data: DataSet) -> str:
    return {"sts": "pair", "classification": "text", "clustering": "text"}.get(data.task, "query")


def _problem(data: DataSet, severity: str, line: int, what: str, fix: str, code: str) -> Problem:
    return Problem(data.source, line, what, fix, code, severity)


Check = Callable[[DataSet, Settings], Iterator[Problem]]
# Told as soon as a file is read. The first may set rows aside.
QUICK: tuple[Check, ...] = (repeated_rows, labels, too_few_rows)
# These look at texts again, and are run side by side.
SLOW: tuple[Check, ...] = (near_duplicates, languages)


def run_check(part: tuple[Check, DataSet, Settings]) -> list[Problem]:
    check, data, settings = part
    return list(check(data, settings))
