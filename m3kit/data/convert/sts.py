"""STS: pairs of a high score are query and positive; what a sentence scores low with are its hard negatives.

Other sentences of the set fill the group, none that the sentence was paired with above the lower threshold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3kit.data.convert.plan import Plan, Source, Tally, make_plan, prepared_row, save_pool
from m3kit.data.dataset import HELD_OUT, MERGED, USED, DataSet
from m3kit.data.grouping import earliest, group
from m3kit.data.problems import BadRow
from m3kit.data.settings import Settings

# Pairs at or above the first are positives, at or below the second they are hard negatives; those between teach
# neither and are set aside.
STS_POSITIVE = 0.8
STS_NEGATIVE = 0.4

SAME = "both sentences are the same text"
BETWEEN = f"score between {STS_NEGATIVE} and {STS_POSITIVE}: neither positive nor negative"
ALONE = "low score, and neither sentence has a positive pair"


def plan(data: DataSet, settings: Settings) -> Plan:
    """The earliest positive pair of each first sentence leads; pairs of low score serve those that lead."""
    index, fates = data.index, data.fates
    key, score = index.column("key").reshape(-1, 2), index.column("number")
    used, same = fates.used, key[:, 0] == key[:, 1]
    paired = used & (score >= STS_POSITIVE) & ~same
    if not paired.any():
        what = f"no pair scores {STS_POSITIVE} or more, so there is no positive to train on"
        raise BadRow(what, "add such pairs", code="no-positive")
    rows = np.flatnonzero(paired)
    leader = rows[earliest(key[rows, 0])]
    queries = np.unique(key[rows, 0])
    # What a sentence was paired with, from either side: a text's number is twice its row, plus its place in it.
    pairs = np.flatnonzero(fates.of_row < HELD_OUT)
    near = np.concatenate([key[pairs, 0], key[pairs, 1]])
    order, _ = group(near)
    index.save("edge_key", near[order])
    index.save("edge_text", np.concatenate([2 * pairs + 1, 2 * pairs])[order].astype(np.uint32))
    save_pool(index, fates.of_row < HELD_OUT, skip_query=False)

    fates.give(rows[leader != rows], MERGED)
    fates.set_aside(np.flatnonzero(used & (score >= STS_POSITIVE) & same), SAME)
    fates.set_aside(np.flatnonzero(used & (score > STS_NEGATIVE) & (score < STS_POSITIVE)), BETWEEN)
    serves = np.isin(key, queries).any(axis=1)
    fates.set_aside(np.flatnonzero(used & (score <= STS_NEGATIVE) & ~serves), ALONE)
    return make_plan(data, settings, "symmetric_sts", settings.train_group_size - 1)


def convert(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    """(row, prepared row or what is wrong) of the pairs that lead in start … stop."""
    plan, index = source.plan, source.index
    fates, score = index.column("fate", start, stop), index.mapped("number")
    leads = (fates == USED) & (score[start:stop] >= STS_POSITIVE)
    query_keys = index.keys(start, stop)[0].reshape(-1, 2)[:, 0]
    edge_key, edge_text = index.mapped("edge_key"), index.mapped("edge_text")
    low = np.searchsorted(edge_key, query_keys, side="left")
    high = np.searchsorted(edge_key, query_keys, side="right")
    for place in np.flatnonzero(leads).tolist():
        row, query_key = start + place, int(query_keys[place])
        partners = [(int(source.key[number]), number) for number in edge_text[low[place] : high[place]].tolist()]
        near = {key for key, number in partners if score[number // 2] > STS_NEGATIVE}
        right, wrong = [], []
        for key, number in partners:
            paired = score[number // 2]
            # Only the second sentence of a pair is the positive of its first: a query for each pair, not two.
            if paired >= STS_POSITIVE and number % 2 == 1 and key != query_key:
                right.append((key, source.text(number)))
            elif paired <= STS_NEGATIVE:
                wrong.append((key, source.text(number)))
        kept = [pair for pair in wrong if pair[0] not in near and pair[0] != query_key]
        if len(kept) < len(wrong):
            tally.texts_removed["negatives that are positives of their query"] += len(wrong) - len(kept)
        positives: dict[int, str] = {}
        negatives: dict[int, str] = {}
        tally.distinct(positives, right)
        tally.distinct(negatives, kept)
        drawn = source.draw(query_key, plan.negatives - len(negatives), {*near, *negatives, query_key})
        tally.negatives_added += len(drawn)
        query = source.text(2 * row)
        try:
            made = prepared_row(query, list(positives.values()), [*negatives.values(), *drawn], "", plan.type)
            yield row, made
        except BadRow as bad:
            yield row, bad
