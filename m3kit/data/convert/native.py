"""FlagEmbedding's own rows: kept as they are, with what they lack put in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3kit.data.convert.plan import Plan, Source, Tally, make_plan, prepared_row, save_pool
from m3kit.data.dataset import USED, DataSet
from m3kit.data.problems import BadRow
from m3kit.data.settings import Settings


def plan(data: DataSet, settings: Settings) -> Plan:
    index, used = data.index, data.fates.used
    if len(data.types) > 1:
        found = sorted(map(str, data.types))
        what = f"rows of one file must have one type, found {found}"
        raise BadRow(what, "split the file by type", sorted(data.types.values())[1], code="types")
    negatives = (index.column("texts") - index.column("positives") - 1)[used]
    (kind,) = data.types
    kind = kind or ("only_1neg" if np.median(negatives) <= 1 else "retrieval")
    wanted = 1 if kind in ("only_1neg", "symmetric_class") else settings.train_group_size - 1
    save_pool(index, used, skip_query=True)
    return make_plan(data, settings, kind, wanted)


def convert(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    """(row, prepared row or what is wrong) of the rows used in start … stop."""
    plan, prompt = source.plan, source.plan.settings.query_instruction_for_retrieval
    fates = source.index.column("fate", start, stop)
    keys, where = source.index.keys(start, stop)
    for place, (texts, count, extra) in enumerate(source.texts.rows(start, stop)):
        if fates[place] != USED:
            continue
        query, pos, neg = texts[0], texts[1 : 1 + count], texts[1 + count :]
        try:
            if "neg_scores" not in extra:
                own = keys[where[place] : where[place + 1]].tolist()
                drawn = source.draw(own[0], plan.negatives - len(neg), set(own))
                tally.negatives_added += len(drawn)
                neg += drawn
            elif not neg:
                # A drawn negative has no teacher score, so it cannot stand beside scored ones.
                raise BadRow("this row has scores but no negative", "give it one, with its score", code="no-negative")
            yield start + place, prepared_row(query, pos, neg, prompt, plan.type) | extra
        except BadRow as bad:
            yield start + place, bad
