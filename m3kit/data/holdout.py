"""Keep back a share of the rows for evaluation, so that no held-out query, nor one nearly the same, is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from m3kit.data.alike import near_rows
from m3kit.data.dataset import HELD_OUT, USED, DataSet, Texts
from m3kit.data.grouping import among, earliest
from m3kit.data.near import BANDS, NearTo, matches
from m3kit.data.negatives import mix
from m3kit.data.rowindex import BAND_COLUMNS
from m3kit.data.text import same_text
from m3kit.data.workers import Workers

# Of all queries at most, and at least where there are ten times as many.
MOST, LEAST = 500, 50
# Queries looked at for each that is wanted: those that have near-duplicates among the others are taken last.
SPARE = 3

NEAR_HELD_OUT = "nearly the same as a query that is held out for evaluation"
# Native types of which a query, a passage and "relevant" can be said.
RANKED_TYPES = (None, "retrieval", "only_1neg")


@dataclass
class _Candidate:
    data: int  # the set's number
    rows: np.ndarray  # all rows of that query
    near: set[tuple[int, int]] = field(default_factory=set)  # (set, row) of rows nearly the same
    common: bool = False  # whether it is written after a pattern, and its near rows not known


def wanted(queries: int, share: float) -> int:
    """How many of some queries are held out."""
    count = min(MOST, round(share * queries))
    return max(count, LEAST) if queries >= 10 * LEAST and share > 0 else count


def can_hold_out(data: DataSet) -> bool:
    return data.task != "native" or set(data.types) <= set(RANKED_TYPES)


def hold_out(sets: list[DataSet], share: float, seed: int, workers: Workers) -> None:
    """Give the chosen rows the fate HELD_OUT, and set aside those nearly the same as one of them."""
    candidates: list[_Candidate] = []
    quota: dict[int, int] = {}
    by_task: dict[str, list[int]] = defaultdict(list)
    for number, data in enumerate(sets):
        if can_hold_out(data):
            by_task["retrieval" if data.task == "native" else data.task].append(number)
    for numbers in by_task.values():
        units = {number: _units(sets[number]) for number in numbers}
        total = sum(len(rows) for rows in units.values())
        for number in numbers:
            quota[number] = round(wanted(total, share) * len(units[number]) / max(total, 1))
            some = _shuffled(sets[number], units[number], seed)[: SPARE * quota[number]]
            candidates += [_Candidate(number, rows) for rows in _with_all_rows(sets[number], some)]
    if not candidates:
        return
    _find_near(sets, candidates)
    _find_near_of_common(sets, candidates, quota, workers)
    chosen = _choose(sets, candidates, quota)
    useless = {number: reason for number in quota if (reason := _useless(sets[number]))}
    for number, reason in useless.items():
        of_row = sets[number].fates.of_row
        of_row[of_row == HELD_OUT] = USED
        sets[number].notes.append(f"nothing held out, for {reason}")
    for candidate in chosen:
        if candidate.data not in useless:
            for number, row in candidate.near:
                sets[number].fates.set_aside(np.array([row]), NEAR_HELD_OUT)


def _choose(sets: list[DataSet], candidates: list[_Candidate], quota: dict[int, int]) -> list[_Candidate]:
    """Give the rows of as many candidates as are wanted the fate HELD_OUT."""
    label_rows = {number: _label_rows(sets[number]) for number in quota}
    chosen: list[_Candidate] = []
    lost: set[tuple[int, int]] = set()  # rows that will be set aside for the sake of those chosen
    left = dict(quota)
    # Without near-duplicates first; the sort is stable, so the shuffled order stays.
    for candidate in sorted((one for one in candidates if not one.common), key=lambda one: len(one.near)):
        data, number = sets[candidate.data], candidate.data
        rows = {(number, row) for row in candidate.rows.tolist()}
        if left[number] <= 0 or rows & lost or not data.fates.used[candidate.rows].all():
            continue
        if data.labels:
            # Training keeps at least two rows of each label, which a text and its positive take.
            label = int(data.index.column("number", int(candidate.rows[0]), int(candidate.rows[0]) + 1)[0])
            if label_rows[number][label] <= 2:
                continue
            label_rows[number][label] -= 1
        left[number] -= 1
        data.fates.give(candidate.rows, HELD_OUT)
        lost |= candidate.near
        chosen.append(candidate)
    return chosen


def _useless(data: DataSet) -> str | None:
    """Why nothing could be measured on the rows held out of a set, or None."""
    values = data.index.column("number")[data.fates.of_row == HELD_OUT]
    if not len(values):
        return None
    if data.task == "sts" and np.ptp(values) == 0:
        return "all the pairs have the same score"
    if data.task == "clustering":
        _, counts = np.unique(values, return_counts=True)
        if len(counts) < 2 or counts.max() < 2:
            return "the texts are of too few labels"
    return None


def _units(data: DataSet) -> np.ndarray:
    """The earliest row of each query (of each pair, for STS) that is used."""
    rows = np.flatnonzero(data.fates.used)
    key = data.index.column("row_key") if data.task == "sts" else data.index.query_keys()
    return rows[earliest(key[rows]) == np.arange(len(rows))]


def _shuffled(data: DataSet, rows: np.ndarray, seed: int) -> np.ndarray:
    """In an order that depends on the seed and the texts alone, not on where they stand."""
    key = data.index.column("row_key")[rows] * np.uint64(mix(seed, 0) | 1)
    key ^= key >> np.uint64(31)
    return rows[np.argsort(key * np.uint64(0xBF58476D1CE4E5B9), kind="stable")]


def _with_all_rows(data: DataSet, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """All used rows of each chosen row's query."""
    key = data.index.column("row_key") if data.task == "sts" else data.index.query_keys()
    rows = np.flatnonzero(data.fates.used & among(key, np.sort(key[chosen])))
    of_query = defaultdict(list)
    for row in rows.tolist():
        of_query[int(key[row])].append(row)
    for row in chosen.tolist():
        yield np.array(of_query[int(key[row])])


def _label_rows(data: DataSet) -> Counter[int]:
    return Counter(data.index.column("number")[data.fates.used].astype(int).tolist()) if data.labels else Counter()


def _find_near_of_common(
    sets: list[DataSet], candidates: list[_Candidate], quota: dict[int, int], workers: Workers
) -> None:
    """The same for candidates written after a pattern: for as many as may be wanted, since it takes much longer."""
    left = dict(quota)
    chosen: list[_Candidate] = []
    for candidate in candidates:
        if candidate.common and left[candidate.data] > 0:
            left[candidate.data] -= 1
            chosen.append(candidate)
    if not chosen:
        return
    owners, queries = [], []
    for candidate in chosen:
        data = sets[candidate.data]
        found = Texts(data.reading, data.index).row(int(candidate.rows[0]))[0][: _width(data)]
        owners += [candidate] * len(found)
        queries += [same_text(text) for text in found]
    for number, data in enumerate(sets):
        for row, entry in near_rows(data, _width(data), queries, workers):
            owner = owners[entry]
            if owner.data != number or row not in owner.rows:
                owner.near.add((number, row))
    for candidate in chosen:
        candidate.common = False


def _width(data: DataSet) -> int:
    """How many of a row's texts are queries."""
    return 2 if data.task == "sts" else 1


def _find_near(sets: list[DataSet], candidates: list[_Candidate]) -> None:
    """Note for each candidate the rows of all sets whose query is nearly one of its queries."""
    owners, table, queries = [], [], []
    texts = [Texts(data.reading, data.index) for data in sets]
    for owner, candidate in enumerate(candidates):
        width = _width(sets[candidate.data])
        row = int(candidate.rows[0])
        index = sets[candidate.data].index
        block = [index.column(name, row * width, row * width + width) for name in BAND_COLUMNS]
        table += np.stack(block, axis=1).tolist()
        owners += [owner] * width
        queries += [same_text(text) for text in texts[candidate.data].row(row)[0][:width]]
    near_to = NearTo(queries)
    others = np.array(table, np.uint64).reshape(-1, BANDS)
    for number, data in enumerate(sets):
        width = _width(data)
        pairs, common = matches(data.index.band, len(data.index) * width, others)
        for entry in np.flatnonzero(common).tolist():
            candidates[owners[entry]].common = True
        for text, entry in pairs.T.tolist():
            row, candidate = text // width, candidates[owners[entry]]
            if candidate.data == number and row in candidate.rows:
                continue
            query = same_text(texts[number].row(row)[0][text % width])
            if near_to(query, entry):
                candidate.near.add((number, row))
