"""Keep back a share of the rows for evaluation, so that no held-out query, nor one nearly the same, is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from m3kit.data.negatives import mix
from m3kit.data.rowset import RowSet
from m3kit.reading.near import near_pairs
from m3kit.reading.rows import HELD_OUT, Row
from m3kit.reading.text import same_text

# Of all queries at most, and at least where there are ten times as many.
MOST, LEAST = 500, 50
# Queries looked at for each that is wanted: those that have near-duplicates among the others are taken last.
SPARE = 3
# Of more near-duplicates than that the texts are written after one pattern, and not the same question again.
PATTERN = 20
NEAR_HELD_OUT = "nearly the same as a query that is held out for evaluation"


@dataclass(eq=False)
class _Candidate:
    """What is held out together: the rows of a query, a pair or a text, or of a group, such as a document's chunks."""

    data: RowSet
    rows: list[Row]
    near: dict[int, tuple[RowSet, Row]] = field(default_factory=dict)  # other rows that are nearly the same, by id

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
    by_task |= {_task(data): [] for data in tests if _task(data) not in by_task}
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
    chosen = _choose(candidates, quota, sets)
    for data in [*sets, *tests]:
        if reason := _useless(data):
            data.notes.append(f"nothing held out, for {reason}")
            for row in data.held_out():
                row.fate = ""
            chosen = [candidate for candidate in chosen if candidate.data is not data]
    for _, row in (pair for candidate in chosen for pair in candidate.near.values() if not pair[1].fate):
        row.fate = NEAR_HELD_OUT


def _task(data: RowSet) -> str:
    return "retrieval" if data.task == "native" else data.task


def _units(data: RowSet, seed: int) -> list[_Candidate]:
    """What may be held out, in an order that depends on the seed and the texts alone, not on where they stand."""
    first: dict[object, object] = {}  # what a query or a group is held out with

    def unit_of(name: object) -> object:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    keys = {id(row): tuple(sorted(row.keys)) if data.kind == "sts" else row.keys[:1] for row in data.used}
    for row in data.used:
        if row.group is not None:
            first[unit_of(("group", row.group))] = unit_of(keys[id(row)])
    units: dict[object, list[Row]] = defaultdict(list)
    for row in data.used:
        units[unit_of(keys[id(row)])].append(row)
    found = [_Candidate(data, rows) for rows in units.values()]
    return sorted(found, key=lambda candidate: mix(seed, sum(candidate.rows[0].keys)))


def _find_near(candidates: list[_Candidate], sets: list[RowSet]) -> None:
    """Note for each candidate the rows of all sets one of whose queries is its own, or nearly so."""
    owners: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        for text in dict.fromkeys(text for row in candidate.rows for text in _queries(candidate.data, row)):
            owners[text].append(candidate)
    own = {id(candidate): set(map(id, candidate.rows)) for candidate in candidates}
    asked: dict[str, list[tuple[RowSet, Row]]] = defaultdict(list)
    for data in sets:
        for row in data.used:
            for text in _queries(data, row):
                asked[text].append((data, row))
    texts, others = list(owners), [text for text in asked if text not in owners]
    pairs: dict[str, list[str]] = {text: [] for text in texts}
    for place, match, _ in near_pairs(texts, others, most=PATTERN + 1) if texts and others else ():
        pairs[texts[place]].append(others[match])
    for place, match, _ in near_pairs(texts, most=PATTERN + 1) if texts else ():
        pairs[texts[place]].append(texts[match])
        pairs[texts[match]].append(texts[place])
    for text, near in pairs.items():
        for candidate in owners[text]:
            for data, row in (pair for one in (text, *(near if len(near) <= PATTERN else ())) for pair in asked[one]):
                if id(row) not in own[id(candidate)]:
                    candidate.near[id(row)] = (data, row)


def _queries(data: RowSet, row: Row) -> Iterable[str]:
    return map(same_text, (row.query, row.positives[0]) if data.kind == "sts" else (row.query,))


def _choose(candidates: list[_Candidate], quota: dict[int, int], sets: list[RowSet]) -> list[_Candidate]:
    """Give the rows of as many candidates as are wanted the fate HELD_OUT."""
    labels = {id(data): Counter(row.value for row in data.used) for data in sets if data.kind == "labelled"}
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
        # Training keeps at least two rows of each label, which a text and its positive take.
        taken: dict[int, Counter[str]] = defaultdict(Counter)
        mine = [(candidate.data, row) for row in candidate.rows]
        for data, row in (*mine, *(pair for key, pair in candidate.near.items() if key not in lost)):
            taken[id(data)][row.value if id(data) in labels else ""] += 1
        counted = [(labels[owner], counts) for owner, counts in taken.items() if owner in labels]
        if any(rows[label] - count < 2 for rows, counts in counted for label, count in counts.items()):
            continue
        for rows, counts in counted:
            rows.subtract(counts)
        quota[number] -= queries
        for row in candidate.rows:
            row.fate = HELD_OUT
        lost.update(candidate.near)
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
