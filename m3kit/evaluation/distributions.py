"""How the scores of relevant passages lie beside those of the others that were ranked highest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from m3kit.evaluation.retrieval import Found, relevant_passages

BINS = 40
# Of each query so many passages that are not relevant, the best-scored: a model is wrong with these or not at all.
OTHERS = 10


def distributions(founds: Mapping[str, Found]) -> dict:
    """Score → {"edges": (BINS + 1) numbers, "models": {model: {"relevant", "others": BINS counts}}}.

    The bins are the same for all models; a score that one of them lacks is left out.
    """
    scores = [score for score in next(iter(founds.values())).scores if all(score in f.scores for f in founds.values())]
    told: dict = {}
    for score in scores:
        values = {model: _values(found, score) for model, found in founds.items()}
        every = np.concatenate([array for pair in values.values() for array in pair.values()])
        edges = np.histogram_bin_edges(every, BINS)
        told[score] = {
            "edges": edges.tolist(),
            "models": {
                model: {kind: np.histogram(array, edges)[0].tolist() for kind, array in pair.items()}
                for model, pair in values.items()
            },
        }
    return told


def _values(found: Found, score: str) -> dict[str, np.ndarray]:
    numbers = {passage: number for number, passage in enumerate(found.passage_ids)}
    relevant, others = [], []
    for query, candidates in found.candidates.items():
        answers = [numbers[passage] for passage in relevant_passages(found.data.qrels[query])]
        values = candidates.values(score, found.weights)
        relevant.append(values[np.isin(candidates.numbers, answers)])
        places = candidates.places(score, found.weights)
        others.append(values[places[~np.isin(candidates.numbers[places], answers)][:OTHERS]])
    return {"relevant": np.concatenate(relevant), "others": np.concatenate(others)}
