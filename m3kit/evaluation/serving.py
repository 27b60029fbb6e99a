"""Which score to serve: weights of dense, sparse, ColBERT and BM25, chosen and judged on different queries.

K-fold cross-validation over the queries: for each fold the weights are chosen on the other folds, and its queries are
judged by these. So no query is judged by weights that it helped to choose, and the figure that is told is not too good.
The weights to serve are those chosen on all queries.

The choice keeps to the rule of one standard error (Breiman, Friedman, Olshen, Stone 1984, "Classification and
regression trees", section 3.4.3): of all weights that are at most one standard error of the paired difference worse
than the best, the cheapest to serve; of equally cheap ones the best. What is within chance adds no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m3kit.evaluation.significance import ROUNDING, compare_means
from m3kit.records import FOUND, HEADLINE, Metrics, Served, Serving

if TYPE_CHECKING:
    from m3kit.encoding.scores import Candidates
    from m3kit.evaluation.retrieval import Found

PARTS = ("dense", "sparse", "colbert", "bm25")
# What is tried beside dense, whose weight is 1, and each score alone.
GRID = {"sparse": (0.0, 0.3, 1.0), "colbert": (0.0, 0.5, 1.0), "bm25": (0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5)}
FOLDS = 5
SEED = 0
# On fewer queries chance would choose the weights.
LEAST_TO_CHOOSE = 25
DEFAULT = {"dense": 1.0, "sparse": 0.0, "colbert": 0.0, "bm25": 0.1}
SCALING = "divided by the query's best BM25 score"
DEPTH = 10
HYBRID = "hybrid.json"
NAMES = {"colbert": "ColBERT", "bm25": "BM25"}

Weights = Mapping[str, float]


# ---- ranking by a weighted sum -------------------------------------------------------------------------------------


def sources(weights: Weights) -> list[str]:
    """The scores whose first passages are ranked: all with a weight, but ColBERT, which ranks what others found."""
    return [name for name in ("dense", "sparse", "bm25") if weights[name]] or ["dense", "sparse"]


def pool(candidates: Candidates, weights: Weights) -> np.ndarray:
    """The places of the passages that are ranked, ascending."""
    return np.unique(np.concatenate([candidates.first[name] for name in sources(weights)]))


def served_scores(scores: Mapping[str, np.ndarray], weights: Weights | Mapping[str, np.ndarray]) -> np.ndarray:
    """The weighted sum, float64. A column of weights gives a row of sums for each."""
    # One after another: a matrix product may round equal passages differently.
    return sum(np.asarray(weights[name], np.float64) * scores[name] for name in PARTS if name in scores)


def served_ranking(candidates: Candidates, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Passage numbers best first, of equal scores the lower number first, and their scores."""
    places = pool(candidates, weights)
    values = served_scores(candidates.scores, weights)[places]
    order = np.argsort(-values, kind="stable")
    return candidates.numbers[places[order]], values[order]


def say_weights(weights: Weights) -> str:
    """Such as "dense + 0.1 BM25"."""
    return " + ".join(
        f"{'' if weight == 1 else f'{weight:g} '}{NAMES.get(name, name)}" for name, weight in weights.items() if weight
    )


# ---- what each weighting is worth ----------------------------------------------------------------------------------


def grid(parts: Sequence[str]) -> list[dict[str, float]]:
    """All weights that are tried for a model with these scores: each alone, then dense with others."""
    alone = [{name: float(name == part) for name in PARTS} for part in parts]
    tried = (GRID[name] if name in parts else (0.0,) for name in PARTS[1:])
    mixed = [dict(zip(PARTS, (1.0, *others), strict=True)) for others in product(*tried) if any(others)]
    return alone + mixed


def cost(weights: Weights) -> int:
    """How much is to be computed and kept: 1 a score, and 2 more for ColBERT, whose vectors take the most room."""
    return len(sources(weights)) + 2 * bool(weights["colbert"])


def values_of(found: Found, options: Sequence[Weights]) -> np.ndarray:
    """nDCG@10 by each weighting of each query, float64 (options, queries), as ir-measures computes it."""
    numbers = {passage: number for number, passage in enumerate(found.passage_ids)}
    discounts = 1 / np.log2(np.arange(DEPTH) + 2)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, weights in enumerate(options):
        groups.setdefault(tuple(sources(weights)), []).append(number)
    columns = {
        group: {part: np.array([[options[n][part]] for n in of]) for part in PARTS} for group, of in groups.items()
    }
    values = np.zeros((len(options), len(found.candidates)))
    for query, (key, candidates) in enumerate(found.candidates.items()):
        grades = {numbers[passage]: grade for passage, grade in found.data.qrels[key].items() if grade > 0}
        ideal = sum(grade * discount for grade, discount in zip(sorted(grades.values())[::-1], discounts, strict=False))
        for group, of in groups.items():
            places = pool(candidates, options[of[0]])
            scores = served_scores({name: part[places] for name, part in candidates.scores.items()}, columns[group])
            for passage, grade in grades.items():
                place = np.searchsorted(candidates.numbers[places], passage)
                if place == len(places) or candidates.numbers[places[place]] != passage:
                    continue
                mine = scores[:, place : place + 1]
                # Nothing is sorted: so many are better, or as good and earlier.
                rank = (scores > mine).sum(axis=1) + (scores[:, :place] == mine).sum(axis=1)
                values[of, query] += np.where(rank < DEPTH, grade * discounts[np.minimum(rank, DEPTH - 1)] / ideal, 0)
    return values


# ---- the choice ----------------------------------------------------------------------------------------------------


def choose(values: np.ndarray, costs: np.ndarray) -> int:
    """The option to take, by the rule of one standard error. ``values``: (options, queries)."""
    means = values.mean(axis=1)
    behind = values[means.argmax()] - values
    error = behind.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    good = np.flatnonzero(behind.mean(axis=1) <= error + ROUNDING)
    # Of equally good ones the first: the smaller weights.
    return int(good[np.lexsort((-means[good].round(9), costs[good]))[0]])


def cross_validate(values: np.ndarray, costs: np.ndarray, seed: int = SEED) -> tuple[np.ndarray, list[int]]:
    """Each query's value by the option that was chosen without it, (queries,), and the option of each fold."""
    order = np.random.default_rng(seed).permutation(values.shape[1])
    judged, chosen = np.empty(len(order)), []
    for fold in np.array_split(order, FOLDS):
        chosen.append(choose(np.delete(values, fold, axis=1), costs))
        judged[fold] = values[chosen[-1], fold]
    return judged, chosen


def serving(founds: Mapping[str, Found]) -> Serving:
    """Of each model the weights to serve, and what they are worth.

    ``founds``: the models on the same queries, with BM25; the first is the base.
    """
    queries = len(next(iter(founds.values())).candidates)
    few = queries < LEAST_TO_CHOOSE
    reason = f"{queries} queries are too few to choose weights by: at least {LEAST_TO_CHOOSE} are needed"
    models: dict[str, Served] = {}
    base: dict[str, np.ndarray] = {}
    for name, found in founds.items():
        parts = [part for part in PARTS if part == "bm25" or part in found.scores]
        options = [*grid(parts), DEFAULT]
        values, costs = values_of(found, options), np.array([cost(weights) for weights in options])
        judged, folds = (values[-1], []) if few else cross_validate(values, costs)
        weights = DEFAULT if few else options[choose(values, costs)]
        if not few and compare_means(values[0], judged).verdict == "worse":
            # The weights that some queries choose do not suit the others.
            weights, judged = options[0], values[0]
        others = {"dense": values[0], "bm25": values[len(parts) - 1]} | base
        base = base or {"base_dense": values[0], "base_served": judged}
        models[name] = Served(
            weights,
            say_weights(weights),
            # A query has some nDCG@10 if anything relevant is among its first ten.
            {HEADLINE: float(judged.mean()), FOUND: float((judged > 0).mean())},
            compare_means(0 * judged, judged).interval,
            {part: float(values[place].mean()) for place, part in enumerate(parts)},
            {other: compare_means(theirs, judged) for other, theirs in others.items()},
            [say_weights(options[number]) for number in folds],
        )
    return Serving(queries, None if few else FOLDS, reason if few else None, models)


# ---- what is kept beside the model ---------------------------------------------------------------------------------


def _place(given: str, output_dir: Path) -> str:
    """A model's folder as it is found from anywhere, and where it moves with hybrid.json; else its name on the Hub."""
    folder = Path(given).expanduser().absolute()
    if folder.resolve() == output_dir.resolve():
        return "."
    return str(folder) if folder.is_dir() else given


def hybrid_settings(metrics: Metrics, output_dir: Path) -> dict:
    """What hybrid.json holds: how the last model is to be served. The same for the same evaluation."""
    assert metrics.serving  # there is nothing to keep without
    name, model = metrics.last, metrics.models[metrics.last]
    served, candidates = metrics.serving.models[name], metrics.settings["candidates"]
    firsts = " and of ".join(NAMES.get(part, part) for part in sources(served.weights))
    return {
        "model": _place(model.path, output_dir),
        "score": served.says,
        "weights": served.weights,
        "candidates": candidates,
        "bm25": {**metrics.settings["bm25"], "scaling": SCALING},
        "encoding": model.settings,
        "figures": {
            **served.figures,
            "interval": served.interval,
            "queries": metrics.serving.queries,
            "folds": metrics.serving.folds,
            "reason": metrics.serving.reason,
            "alone": served.alone,
        },
        "how_to": [
            "from m3kit.hybrid import HybridSearcher",
            "searcher = HybridSearcher('the folder of this file', passages)",
            "searcher.search(queries, k=10)  # of each query (number of the passage, score), best first",
            f"elsewhere: rank the first {candidates} of {firsts} by {served.says}, BM25 {SCALING}",
        ],
    }
