"""How good ranked lists are, query by query, with ir-measures: nDCG@10, success@10, MRR@10, recall and MAP.

nDCG uses the grades as gains, the others count a grade of 1 or more as relevant. success@10 is 1 where a relevant
passage is among the first ten. A query whose list is empty counts as 0. MAP sees as much of a list as was ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m3kit.records import FOUND, HEADLINE

# As ir-measures calls them, with cut-offs; its parser of "RR@10" fails on Python 3.14. pytrec_eval has no cut-off for
# RR: ir-measures then uses its own copy of MS MARCO's script.
MEASURES = {
    HEADLINE: ("nDCG", 10),
    FOUND: ("Success", 10),
    "MRR@10": ("RR", 10),
    "recall@10": ("R", 10),
    "recall@100": ("R", 100),
    "MAP": ("AP", None),
}


def measure(
    rankings: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Mapping[str, int]],
    names: Sequence[str] = tuple(MEASURES),
) -> dict[str, np.ndarray]:
    """Each metric's values, one a query of ``rankings`` in its order, float64.

    ``rankings``: query → passages, best first; ``qrels``: query → passage → grade (ids).
    """
    import ir_measures

    # The position is the score. The two providers break ties differently (one by ascending, one by descending id), and
    # trec_eval keeps scores in 32 bits: with positions there are no ties left to break.
    run = {
        query: {passage: float(len(passages) - place) for place, passage in enumerate(passages)}
        for query, passages in rankings.items()
        if passages
    }
    places = {query: place for place, query in enumerate(rankings)}
    values = {name: np.zeros(len(places)) for name in names}
    wanted = {}
    for name in names:
        kind, cutoff = MEASURES[name]
        metric = getattr(ir_measures, kind)
        wanted[metric @ cutoff if cutoff else metric] = name
    if run:
        asked = {query: dict(qrels[query]) for query in run}
        for metric in ir_measures.iter_calc(list(wanted), asked, run):
            values[wanted[metric.measure]][places[metric.query_id]] = metric.value
    return values
