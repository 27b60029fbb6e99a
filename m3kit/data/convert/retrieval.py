"""Retrieval: rows of one query are merged, negatives that are positives left out, missing negatives drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m3kit.data.convert.plan import Plan, Source, Tally, make_plan, prepared_row, save_pool
from m3kit.data.dataset import MERGED, USED, DataSet
from m3kit.data.grouping import among, repeated
from m3kit.data.problems import BadRow
from m3kit.data.settings import Settings


def plan(data: DataSet, settings: Settings, shared: Path | None) -> Plan:
    """The earliest row of each query leads, the others are merged into it.

    A set whose queries bring one negative each (the median) trains with groups of two, any other with the full group.
    """
    index, used = data.index, np.flatnonzero(data.fates.used)
    order, starts = repeated(index.query_keys()[used])
    negatives = (index.column("texts") - index.column("positives") - 1).astype(np.int64)[used]
    if len(order):
        negatives[order[starts[:-1]]] = np.add.reduceat(negatives[order], starts[:-1])
    merged = np.delete(order, starts[:-1])
    negatives = np.delete(negatives, merged)
    negatives = negatives[negatives > 0]
    group_size = 2 if not len(negatives) or np.median(negatives) <= 1 else settings.train_group_size
    members = used[order]
    data.fates.give(used[merged], MERGED)
    index.save("members", members.astype(np.uint32))
    index.save("member_starts", starts)
    save_pool(index, data.fates.of_row <= MERGED, skip_query=True)
    wanted = min(group_size, settings.train_group_size) - 1
    return make_plan(data, settings, "only_1neg" if wanted == 1 else "retrieval", wanted, shared)


def convert(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    """(row, prepared row or what is wrong) of the rows that lead in start … stop."""
    plan, index = source.plan, source.index
    prompt = plan.settings.query_instruction_for_retrieval
    fates = index.column("fate", start, stop)
    keys, where = index.keys(start, stop)
    positives = index.column("positives", start, stop)
    shared = _Shared(plan.shared, keys[where[:-1]])
    merged = _Merged(index, start, stop)
    # What nearly every row is: alone with its query, its texts all different, its negatives enough.
    plain = ~index.column("repeats", start, stop) & (np.diff(where) - positives - 1 >= plan.negatives)
    plain &= ~shared.concerned & ~merged.leads
    for place, (texts, count, _) in enumerate(source.texts.rows(start, stop)):
        if fates[place] != USED:
            continue
        row = start + place
        if plain[place]:
            yield row, prepared_row(texts[0], texts[1 : 1 + count], texts[1 + count :], prompt, plan.type)
            continue
        own = keys[where[place] : where[place + 1]].tolist()
        rows = [(texts, count, own)]
        for other in merged.of(row):
            other_texts, other_count, _ = source.texts.row(other)
            rows.append((other_texts, other_count, source.keys(other)))
        try:
            yield row, _merge(source, rows, shared.positives(own[0]), tally)
        except BadRow as bad:
            yield row, bad


def _merge(source: Source, rows: list[tuple[list[str], int, list[int]]], elsewhere: set[int], tally: Tally) -> dict:
    """One prepared row of all rows of a query, each (texts, positives, keys); ``elsewhere`` are its positives too."""
    plan = source.plan
    right: dict[int, str] = {}
    wrong: dict[int, str] = {}
    found = [pair for texts, count, keys in rows for pair in zip(keys[1 : 1 + count], texts[1:], strict=False)]
    tally.distinct(right, found)
    given = [pair for texts, count, keys in rows for pair in zip(keys[1 + count :], texts[1 + count :], strict=True)]
    kept = [pair for pair in given if pair[0] not in right and pair[0] not in elsewhere]
    if len(kept) < len(given):
        tally.texts_removed["negatives that are positives of their query"] += len(given) - len(kept)
    tally.distinct(wrong, kept)
    (query, *_), _, (query_key, *_) = rows[0]
    drawn = source.draw(query_key, plan.negatives - len(wrong), {*right, *wrong, *elsewhere, query_key})
    tally.negatives_added += len(drawn)
    prompt = plan.settings.query_instruction_for_retrieval
    return prepared_row(query, list(right.values()), [*wrong.values(), *drawn], prompt, plan.type)


class _Merged:
    """The rows merged into those of one part."""

    def __init__(self, index, start: int, stop: int):
        self._members, self._starts = index.mapped("members"), index.mapped("member_starts")
        leaders = self._members[self._starts[:-1]]
        low, high = np.searchsorted(leaders, (start, stop))
        self._group_of = {int(leader): low + number for number, leader in enumerate(leaders[low:high])}
        self.leads = np.zeros(stop - start, bool)
        self.leads[[leader - start for leader in self._group_of]] = True

    def of(self, row: int) -> list[int]:
        number = self._group_of.get(row)
        if number is None:
            return []
        return self._members[int(self._starts[number]) + 1 : int(self._starts[number + 1])].tolist()


class _Shared:
    """Positives that other files give for the queries of one part."""

    def __init__(self, path: Path | None, queries: np.ndarray):
        self.concerned = np.zeros(len(queries), bool)
        if path is not None:
            # two rows: query keys, sorted, and the key of a positive of each
            self._pairs = np.load(path, mmap_mode="r")
            self.concerned = np.isin(queries, self._pairs[0])

    def positives(self, query: int) -> set[int]:
        if not self.concerned.any():
            return set()
        low = np.searchsorted(self._pairs[0], np.uint64(query), side="left")
        high = np.searchsorted(self._pairs[0], np.uint64(query), side="right")
        return set(self._pairs[1, low:high].tolist())


def shared_positives(sets: list[DataSet], path: Path) -> Path | None:
    """Write the positives of every query that stands in several files, or None where there is no such query."""
    if len(sets) < 2:
        return None
    queries = [data.index.query_keys() for data in sets]
    every = np.concatenate([np.unique(keys) for keys in queries])
    unique, counts = np.unique(every, return_counts=True)
    several = unique[counts > 1]
    if not len(several):
        return None
    tables = []
    for data, keys in zip(sets, queries, strict=True):
        rows = np.flatnonzero(among(keys, several))
        counts = data.index.column("positives")[rows].astype(np.int64)
        first = data.index.column("first")[rows]
        # the numbers of the positives, which follow the query, of all those rows one after the other
        numbers = np.repeat(first + 1 - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        tables.append(np.stack([np.repeat(keys[rows], counts), data.index.mapped("key")[numbers]]))
    table = np.concatenate(tables, axis=1)
    np.save(path, table[:, np.lexsort(table[::-1])])
    return path
