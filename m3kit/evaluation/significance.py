"""Is a difference between two models more than chance? Both are measured on the same items, and compared item by item.

* p: a two-sided paired randomisation test. If the models were equally good, it would not matter which of an item's two
  results is whose: each item's pair is swapped at random, again and again, and p is how often that gives a difference
  as large as the one that was seen (Smucker, Allan, Carterette 2007, "A comparison of statistical significance tests
  for information retrieval evaluation").
* interval: 95 % of the differences that arise where the items are drawn anew with replacement (paired bootstrap,
  percentile; Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13).

V-measures have a test of their own, see there. p below 0.05 decides. Everything is drawn from one seed, so that the
same results give the same numbers.

scipy's permutation_test and bootstrap give the same; 25 metrics of 10,000 queries take them 100 s. Here a resampling is
a row of a matrix and shared by all metrics, so that it is a matrix product of 3 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np

RESAMPLES = 9999
LEVEL = 0.05
SEED = 0

# Numbers held at once, which bounds the memory: 4 million float64 are 32 MB.
AT_ONCE = 4 * 1024 * 1024

# Equal differences must count as equal, though their sums were taken in another order.
ROUNDING = 1e-12

Values = Sequence[Any] | np.ndarray


class Comparison(TypedDict):
    """Second model minus first; a higher figure is better."""

    change: float
    interval: list[float]
    p: float
    verdict: str


def compare_means(first: np.ndarray, second: np.ndarray) -> Any:
    """Means over items. Arrays (items,) give one ``Comparison``; arrays (metrics, items) a list with one a metric.

    Metrics of the same items belong into one call: they share the resampling, which is most of the work.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    # (items, metrics), and from here on sums over items are matrix products.
    columns = np.atleast_2d(differences).T
    items = len(columns)
    changes = columns.mean(axis=0)
    # A swap turns an item's difference round.
    null = np.concatenate([(1 - 2 * swaps) @ columns for swaps in _swaps(items)]) / items
    drawn = np.concatenate([counts @ columns for counts in _draws(items)]) / items
    found = [
        _comparison(
            change, _share_as_large(null[:, number], change, len(null) < RESAMPLES), *_interval(drawn[:, number])
        )
        for number, change in enumerate(changes)
    ]
    return found if differences.ndim == 2 else found[0]


def compare_spearman(gold: Values, first: np.ndarray, second: np.ndarray) -> Comparison:
    """Spearman correlations with ``gold``.

    The test swaps the two models' ranks of an item, not their similarities: one model's may all be higher than the
    other's. The interval ranks anew in each resample.
    """
    from scipy.stats import rankdata

    gold_ranks, one, two = (rankdata(values) - (len(gold) + 1) / 2 for values in (gold, first, second))
    change = _correlation_of(gold_ranks, two) - _correlation_of(gold_ranks, one)
    null = np.concatenate([_swapped_correlations(swaps, gold_ranks, one, two) for swaps in _swaps(len(gold))])
    rankings = [_Ranking(values) for values in (gold, first, second)]
    drawn = np.concatenate([_drawn_correlations(counts, *rankings) for counts in _draws(len(gold))])
    return _comparison(change, _share_as_large(null, change, len(null) < RESAMPLES), *_interval(drawn))


def compare_v_measure(labels: Values, first_clusters: np.ndarray, second_clusters: np.ndarray) -> Comparison:
    """V-measures of two clusterings, or, of arrays (seeds, items), the means over the seeds.

    The cluster numbers of two models do not correspond, so there is nothing to swap; and an item drawn twice makes its
    cluster look purer than it is, so that a bootstrap's p (Berg-Kirkpatrick, Burkett, Klein 2012) is too small: of
    equally good clusterings of 40 to 200 texts it called 8 to 16 % different. So the spread of the difference is told
    by leaving out each item once, and p and interval by Student's t (jackknife; Efron & Tibshirani 1993, chapter 11):
    of the same clusterings 3 to 6 %.
    """
    from scipy.stats import t

    items = len(labels)
    one, two = (
        np.mean([_v_measures(labels, found) for found in np.atleast_2d(clusters)], axis=0)
        for clusters in (first_clusters, second_clusters)
    )
    change, *without = two - one
    error = np.sqrt(np.var(without) * (items - 1))
    # No surer than the other tests could be: with so few items, and at all.
    surest = max(2.0 ** (1 - items), 1 / (1 + RESAMPLES))
    if abs(change) <= ROUNDING:
        p = 1.0
    else:
        p = 0.0 if error <= ROUNDING else 2 * t.sf(abs(change) / error, items - 1)
    reach = error * t.ppf(1 - LEVEL / 2, items - 1) if items > 1 else 0.0
    return _comparison(change, max(p, min(surest, 1.0)), change - reach, change + reach)


# ---- resampling -----------------------------------------------------------------------------------------------------


def _swaps(items: int) -> Iterator[np.ndarray]:
    """Blocks (resamples, items) of 0 and 1, where 1 swaps an item's pair: all that there are, where these are few."""
    step = max(1, AT_ONCE // items)
    if 2**items <= RESAMPLES:
        every = np.arange(2**items)[:, None] >> np.arange(items) & 1
        yield every.astype(np.float64)
        return
    random = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, step):
        yield random.integers(0, 2, (min(step, RESAMPLES - start), items), dtype=np.int8).astype(np.float64)


def _draws(items: int) -> Iterator[np.ndarray]:
    """Blocks (resamples, items) of how often each item was drawn, with replacement and as many as there are."""
    step = max(1, AT_ONCE // items)
    random = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = random.integers(0, items, (rows, items)) + items * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items).astype(np.float64)


def _share_as_large(null: np.ndarray, change: float, exact: bool) -> float:
    """Two-sided p. What was seen is itself one of the possible swaps: counted among all, added to a random sample."""
    as_large = int(np.count_nonzero(np.abs(null) >= abs(change) - ROUNDING))
    return as_large / len(null) if exact else (as_large + 1) / (len(null) + 1)


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return low, high


def _comparison(change: float, p: float, low: float, high: float) -> Comparison:
    verdict = "no difference" if p >= LEVEL else "better" if change > 0 else "worse"
    return {"change": float(change), "interval": [float(low), float(high)], "p": float(p), "verdict": verdict}


# ---- Spearman -------------------------------------------------------------------------------------------------------


def _correlation(count, a, b, aa, bb, ab):
    """Pearson's correlation from sums over items: of a, b, their squares and their product; 0 where one is constant."""
    covariance = ab - a * b / count
    variances = (aa - a * a / count) * (bb - b * b / count)
    # Variances are either 0 or, of ranks, not far below 1.
    return np.where(variances > ROUNDING, covariance / np.sqrt(np.maximum(variances, ROUNDING)), 0.0)


def _correlation_of(one: np.ndarray, two: np.ndarray) -> float:
    return float(_correlation(len(one), one.sum(), two.sum(), one @ one, two @ two, one @ two))


def _swapped_correlations(swaps: np.ndarray, gold: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Second model's correlation minus the first's after swaps: all sums are linear in what is swapped."""
    count, gold_sum, gold_square = len(gold), gold.sum(), gold @ gold
    moved, moved_square, moved_product = (
        swaps @ (end - start) for start, end in ((one, two), (one * one, two * two), (one * gold, two * gold))
    )
    ones = _correlation(
        count, one.sum() + moved, gold_sum, one @ one + moved_square, gold_square, one @ gold + moved_product
    )
    twos = _correlation(
        count, two.sum() - moved, gold_sum, two @ two - moved_square, gold_square, two @ gold - moved_product
    )
    return twos - ones


class _Ranking:
    """Ranks of resampled items without sorting again: the order of the values stays, only how many of each changes."""

    def __init__(self, values: Values) -> None:
        _, self.group, sizes = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
        self.order = np.argsort(self.group, kind="stable")
        self.starts = np.cumsum(sizes) - sizes

    def ranks(self, counts: np.ndarray) -> np.ndarray:
        """Ranks (resamples, items), 0 in the middle; equal values share the mean of their ranks."""
        groups = np.add.reduceat(counts[:, self.order], self.starts, axis=1)
        middles = np.cumsum(groups, axis=1) - groups / 2
        return (middles - counts.shape[1] / 2)[:, self.group]


def _drawn_correlations(counts: np.ndarray, gold: _Ranking, first: _Ranking, second: _Ranking) -> np.ndarray:
    g = gold.ranks(counts)
    correlations = []
    for ranking in (first, second):
        r = ranking.ranks(counts)
        # Ranks about their middle sum to 0.
        sums = (np.einsum("ri,ri,ri->r", counts, x, y) for x, y in ((r, r), (g, g), (r, g)))
        correlations.append(_correlation(counts.shape[1], 0.0, 0.0, *sums))
    return correlations[1] - correlations[0]


# ---- V-measure ------------------------------------------------------------------------------------------------------


def _v_measures(labels: Values, clusters: np.ndarray) -> np.ndarray:
    """V-measure of all items, and behind it those with each item left out: (1 + items,)."""
    groups = [np.unique(np.asarray(values), return_inverse=True)[1] for values in (labels, clusters)]
    groups.append(np.unique(groups[0] * len(groups[0]) + groups[1], return_inverse=True)[1])
    items = np.full(1 + len(groups[0]), len(groups[0]) - 1)
    items[0] += 1
    label, cluster, both = (_entropies(group, items) for group in groups)
    mutual = np.maximum(label + cluster - both, 0)
    # One label in one cluster is a perfect clustering.
    return np.where(label + cluster > ROUNDING, 2 * mutual / np.maximum(label + cluster, ROUNDING), 1.0)


def _entropies(group: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Entropy of the groups' sizes, and of those with each item left out, which changes one size only."""

    def n_log_n(count: np.ndarray) -> np.ndarray:
        return count * np.log(np.maximum(count, 1))

    sizes = np.bincount(group)
    own = sizes[group]
    whole = n_log_n(sizes).sum()
    sums = np.concatenate([[whole], whole - n_log_n(own) + n_log_n(own - 1)])
    return np.log(np.maximum(items, 1)) - sums / np.maximum(items, 1)
