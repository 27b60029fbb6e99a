"""Keep back a share of the rows for evaluation, so that no held-out query, nor one nearly the same, is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from m3kit.data.near import near_pairs
from m3kit.data.negatives import mix
from m3kit.data.rows import HELD_OUT, Row
from m3kit.data.rowset import RowSet
from m3kit.data.text import same_text

# Of all queries at most, and at least where there are ten times as many.
MOST, LEAST = 500, 50
# Queries looked at for each that is wanted: those that have near-duplicates among the others are taken last.
SPARE = 3
NEAR_HELD_OUT = "nearly the same as a query that is held out for evaluation"


@dataclass(eq=False)
class _Candidate:
    """What is held out together: the rows of a query, a pair or a text, or of a group, such as a document's chunks."""

    data: RowSet
    rows: list[Row]
    near: list[Row] = field(default_factory=list)  # other rows that are nearly the same

    @property
    def queries(self) -> int:
        return len({row.keys[0] for row in self.rows})


def wanted(queries: int, share: float) -> int:
    """How many of some queries are held out."""
    count = min(MOST, round(share * queries))
    return max(count, LEAST) if queries >= 10 * LEAST and share > 0 else count


def hold_out(sets: list[RowSet], tests: list[RowSet], share: float, seed: int) -> None:
    """Give the chosen rows the fate HELD_OUT, and set aside those nearly the same as one of them.

    ``tests``: sets whose names say that they are to test with. Of a task that has some their rows are held out instead.
    """
    by_task: dict[str, list[RowSet]] = defaultdict(list)
    for data in sets:
        if data.is_ranked or data.task not in ("retrieval", "native"):
            by_task[_task(data)].append(data)
    quota: dict[int, int] = {}
    candidates: list[_Candidate] = []
    for task, own in by_task.items():
        given = [data for data in tests if _task(data) == task and (data.is_ranked or task != "retrieval")]
        units = {id(data): _units(data, seed) for data in given or own}
        sizes = {number: sum(unit.queries for unit in some) for number, some in units.items()}
        total = sum(sizes.values())
        count = min(MOST, total) if given else wanted(total, share)
        for data in given or own:
            quota[id(data)] = round(count * sizes[id(data)] / max(total, 1))
            candidates += units[id(data)][: SPARE * quota[id(data)]]
    _find_near(candidates, sets)
    chosen = _choose(candidates, quota, tests)
    for data in [*sets, *tests]:
        if reason := _useless(data):
            data.notes.append(f"nothing held out, for {reason}")
            for row in data.held_out():
                row.fate = ""
            chosen = [candidate for candidate in chosen if candidate.data is not data]
    for row in (row for candidate in chosen for row in candidate.near if not row.fate):
        row.fate = NEAR_HELD_OUT


def _task(data: RowSet) -> str:
    return "retrieval" if data.task == "native" else data.task


def _units(data: RowSet, seed: int) -> list[_Candidate]:
    """What may be held out, in an order that depends on the seed and the texts alone, not on where they stand."""
    units: dict[object, list[Row]] = defaultdict(list)
    for row in data.used:
        unit = tuple(sorted(row.keys)) if data.kind == "sts" else row.keys[0]
        units[unit if row.group is None else ("group", row.group)].append(row)
    found = [_Candidate(data, rows) for rows in units.values()]
    return sorted(found, key=lambda candidate: mix(seed, sum(candidate.rows[0].keys)))


def _find_near(candidates: list[_Candidate], sets: list[RowSet]) -> None:
    """Note for each candidate the rows of all sets one of whose queries is nearly one of its own."""
    owners = [
        (candidate, text)
        for candidate in candidates
        for text in dict.fromkeys(text for row in candidate.rows for text in _queries(candidate.data, row))
    ]
    for data in sets:
        asked = [(row, text) for row in data.used for text in _queries(data, row)]
        texts = [text for _, text in asked]
        for owner, place, _ in near_pairs([text for _, text in owners], texts) if owners and texts else ():
            candidate, row = owners[owner][0], asked[place][0]
            if not any(row is own for own in candidate.rows) and not any(row is near for near in candidate.near):
                candidate.near.append(row)


def _queries(data: RowSet, row: Row) -> Iterable[str]:
    return map(same_text, (row.query, row.positives[0]) if data.kind == "sts" else (row.query,))


def _choose(candidates: list[_Candidate], quota: dict[int, int], tests: list[RowSet]) -> list[_Candidate]:
    """Give the rows of as many candidates as are wanted the fate HELD_OUT."""
    labels = {id(candidate.data): Counter[str]() for candidate in candidates if candidate.data.kind == "labelled"}
    for data in {id(candidate.data): candidate.data for candidate in candidates}.values():
        if data.kind == "labelled":
            labels[id(data)].update(row.value for row in data.used)
    chosen: list[_Candidate] = []
    lost: set[int] = set()  # rows that will be set aside for the sake of those chosen
    # Without near-duplicates first; the sort is stable, so the shuffled order stays.
    for candidate in sorted(candidates, key=lambda one: len(one.near)):
        number, queries = id(candidate.data), candidate.queries
        # A group may be more than is wanted, but not by much.
        if quota[number] <= 0 or (queries > 1 and queries > 2 * quota[number]):
            continue
        if any(id(row) in lost or row.fate for row in candidate.rows):
            continue
        if number in labels and not any(candidate.data is test for test in tests):
            # Training keeps at least two rows of each label, which a text and its positive take.
            taken = Counter(row.value for row in candidate.rows)
            if any(labels[number][label] - count < 2 for label, count in taken.items()):
                continue
            labels[number] -= taken
        quota[number] -= queries
        for row in candidate.rows:
            row.fate = HELD_OUT
        lost.update(map(id, candidate.near))
        chosen.append(candidate)
    return chosen


def _useless(data: RowSet) -> str | None:
    """Why nothing could be measured on the rows held out of a set, or None."""
    values = [row.value for row in data.held_out()]
    if values and data.task == "sts" and len(set(values)) == 1:
        return "all the pairs have the same score"
    if values and data.task == "clustering":
        counts = Counter(values)
        if len(counts) < 2 or max(counts.values()) < 2:
            return "the texts are of too few labels"
    return None
