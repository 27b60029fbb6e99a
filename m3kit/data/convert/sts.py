"""STS: pairs that are trained by their scores, or as query and positive.

``graded``: a row for each pair, with its score, for the kit's trainer (``losses.cosent_loss``). Its one negative is a
filler that the kit never reads: a row of FlagEmbedding's has one.

``contrastive``, for the untouched library: pairs of a high score are query and positive; what a sentence scores low
with are its hard negatives; pairs between are set aside. Other sentences of the set fill the group, none that the
sentence was paired with above the lower threshold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3kit.data.convert.plan import Plan, Source, Tally, make_plan, prepared_row, save_pool
from m3kit.data.dataset import HELD_OUT, MERGED, USED, DataSet
from m3kit.data.grouping import earliest, group, repeated
from m3kit.data.problems import BadRow
from m3kit.data.settings import Settings

# The type of rows with a score. FlagEmbedding has no such type.
GRADED = "graded_sts"
# Where pairs are contrastive: at or above the first they are positives, at or below the second hard negatives; those
# between teach neither and are set aside.
STS_POSITIVE = 0.8
STS_NEGATIVE = 0.4

SAME = "both sentences are the same text"
BETWEEN = f"score between {STS_NEGATIVE} and {STS_POSITIVE}: neither positive nor negative"
ALONE = "low score, and neither sentence has a positive pair"


def plan(data: DataSet, settings: Settings) -> Plan:
    """How the pairs are trained; those that all have one score cannot be compared, and are taken for positives."""
    if settings.sts_as == "contrastive":
        return _plan_contrastive(data, settings)
    key = data.index.column("key").reshape(-1, 2)
    if len(np.unique(data.index.column("number")[data.fates.used & (key[:, 0] != key[:, 1])])) < 2:
        data.notes.append("all pairs have one score, so they are trained as positives")
        return _plan_contrastive(data, settings)
    return _plan_graded(data, settings)


def convert(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    """(row, prepared row or what is wrong) of the pairs that are used, or that lead, in start … stop."""
    return (_graded if source.plan.type == GRADED else _contrastive)(source, start, stop, tally)


def _plan_graded(data: DataSet, settings: Settings) -> Plan:
    """Each pair once, whichever sentence comes first, with the mean of its scores."""
    index, fates = data.index, data.fates
    key, grade = index.column("key").reshape(-1, 2), index.column("number").copy()
    save_pool(index, fates.of_row < HELD_OUT, skip_query=False)
    # Its cosine is 1 whatever the model.
    fates.set_aside(np.flatnonzero(fates.used & (key[:, 0] == key[:, 1])), SAME)
    rows = np.flatnonzero(fates.used)
    order, starts = repeated(index.column("row_key")[rows])
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        leader, *others = rows[order[begin:end]].tolist()
        grade[leader] = grade[[leader, *others]].mean()
        fates.give(others, MERGED)
    index.save("grade", grade)
    return make_plan(data, settings, GRADED, 1)


def _graded(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    fates, grade = source.index.column("fate", start, stop), source.index.mapped("grade")
    for place, ((first, second), _, _) in enumerate(source.texts.rows(start, stop)):
        if fates[place] != USED:
            continue
        row = start + place
        own = source.keys(row)
        try:
            made = prepared_row(first, [second], source.draw(own[0], 1, own), "", GRADED)
            yield row, made | {"pos_scores": [float(grade[row])], "neg_scores": [0.0]}
        except BadRow as bad:
            yield row, bad


def _plan_contrastive(data: DataSet, settings: Settings) -> Plan:
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
    if 2 * (fates.count(USED) + fates.count(MERGED)) < np.count_nonzero(used):
        data.notes.append("most pairs teach nothing as positives and negatives: --sts_as graded trains on all of them")
    return make_plan(data, settings, "symmetric_sts", settings.train_group_size - 1)


def _contrastive(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
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
