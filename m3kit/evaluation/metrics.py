"""How good ranked lists are: nDCG@10, MRR@10, recall@10 and recall@100 with ir-measures.

All four are means over the queries; nDCG uses the grades as gains, the others count a grade of 1 or more as relevant.
A query whose list is empty counts as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# pytrec_eval has no cut-off for RR: ir-measures then uses its own copy of MS MARCO's script for RR@10.
MEASURES = {"nDCG@10": "nDCG@10", "MRR@10": "RR@10", "recall@10": "R@10", "recall@100": "R@100"}


def measure(rankings: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Metrics of one score. ``rankings``: query → passages, best first; ``qrels``: query → passage → grade (ids)."""
    import ir_measures

    wanted = {name: ir_measures.parse_measure(text) for name, text in MEASURES.items()}
    # The position is the score. The two providers break ties differently (one by ascending, one by descending id), and
    # trec_eval keeps scores in 32 bits: with positions there are no ties left to break.
    run = {
        query: {passage: float(len(passages) - place) for place, passage in enumerate(passages)}
        for query, passages in rankings.items()
        if passages
    }
    values = ir_measures.calc_aggregate(wanted.values(), dict(qrels), run)
    return {name: float(values[wanted[name]]) for name in wanted}
