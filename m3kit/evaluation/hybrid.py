"""The weights by which dense, sparse and ColBERT scores are added up: M3's own, given, or tuned on dev queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from m3kit.errors import KitError
from m3kit.evaluation.metrics import HEADLINE, measure

if TYPE_CHECKING:  # it imports torch, and to read the option nobody should wait for that
    from m3kit.evaluation.scores import Candidates

TUNE = "tune"
PARTS = ("dense", "sparse", "colbert")
# Weights are tried in tenths of their sum; ranks do not change with the sum.
STEPS = 10


def parse_weights(given: str) -> dict[str, float] | str:
    """ "DENSE,SPARSE,COLBERT", such as 1,0.3,1, or "tune". Raises ``KitError``."""
    if given == TUNE:
        return TUNE
    try:
        weights = [float(part) for part in given.split(",")]
    except ValueError:
        weights = []
    if len(weights) != len(PARTS) or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise KitError(
            f"--hybrid_weights {given!r} is not three numbers of 0 or more, not all 0; "
            "write dense,sparse,colbert, for example 1,0.3,1, or tune"
        )
    return dict(zip(PARTS, weights, strict=True))


def tune(
    found: Mapping[str, Candidates],
    passage_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    default: Mapping[str, float],
) -> dict[str, float]:
    """The weights with the best nDCG@10 over these dev queries; of equals the ones nearest to ``default``.

    ``found``: query → its candidates. All weights that are tenths and add up to 1 are tried.
    """
    middle = np.array([default[part] for part in PARTS]) / sum(default.values())
    best: tuple[float, float] = (-1.0, 0.0)
    chosen: dict[str, float] = {}
    for dense in range(STEPS + 1):
        for sparse in range(STEPS + 1 - dense):
            tenths = np.array([dense, sparse, STEPS - dense - sparse]) / STEPS
            weights = dict(zip(PARTS, tenths.tolist(), strict=True))
            # nDCG@10 sees no more of a list.
            rankings = {
                query: [passage_ids[number] for number in candidates.ranking("hybrid", weights)[:10]]
                for query, candidates in found.items()
            }
            value = float(measure(rankings, qrels, [HEADLINE])[HEADLINE].mean())
            rank = (round(value, 9), -float(np.abs(tenths - middle).sum()))
            if rank > best:
                best, chosen = rank, weights
    return chosen
