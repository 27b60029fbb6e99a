"""Is a difference between two models more than chance? Both are measured on the same items, and compared item by item.

* p: a two-sided paired randomisation test. If the models were equally good, it would not matter which of an item's two
  results is whose: each item's pair is swapped at random, again and again, and p is how often that gives a difference
  as large as the one that was seen (Smucker, Allan, Carterette 2007, "A comparison of statistical significance tests
  for information retrieval evaluation").
* interval: 95 % of the differences that arise where the items are drawn anew with replacement (paired bootstrap,
  percentile; Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13).

p below 0.05 decides. Everything is drawn from one seed, so that the same results give the same numbers.

scipy's permutation_test and bootstrap give the same; 25 metrics of 10,000 queries take them 100 s. Here a resampling is
a row of a matrix and shared by all metrics, so that it is a matrix product of 5 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np

RESAMPLES = 9999
LEVEL = 0.05
SEED = 0

# Numbers held at once, which bounds the memory: 4 million float64 are 32 MB.
AT_ONCE = 4 * 1024 * 1024

# Equal differences must count as equal, though their sums were taken in another order.
ROUNDING = 1e-12


class Comparison(TypedDict):
    """Second model minus first; a higher figure is better."""

    change: float
    interval: list[float]
    p: float
    verdict: str


def compare_means(first: np.ndarray, second: np.ndarray) -> Comparison | list[Comparison]:
    """Means over items. Arrays (items,) give one comparison; arrays (metrics, items) give a list with one a metric.

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
        _comparison(change, _share_as_large(null[:, number], change, len(null) < RESAMPLES), drawn[:, number])
        for number, change in enumerate(changes)
    ]
    return found if differences.ndim == 2 else found[0]


def compare_spearman(gold: Sequence[float], first: np.ndarray, second: np.ndarray) -> Comparison:
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
    return _comparison(change, _share_as_large(null, change, len(null) < RESAMPLES), drawn)


def compare_v_measure(labels: Sequence, first_clusters: np.ndarray, second_clusters: np.ndarray) -> Comparison:
    """V-measures of two clusterings, or, of arrays (seeds, items), the means over the seeds.

    The cluster numbers of two models do not correspond, so there is nothing to swap. p is therefore the bootstrap's:
    how often a difference among the resamples is as far from the one seen as that is from 0 (two-sided form of
    Berg-Kirkpatrick, Burkett, Klein 2012, "An empirical investigation of statistical significance in NLP", section 2;
    Efron & Tibshirani 1993, chapter 16).
    """
    firsts, seconds = (
        [_Contingency(labels, found) for found in np.atleast_2d(c)] for c in (first_clusters, second_clusters)
    )

    def difference(counts: np.ndarray) -> np.ndarray:
        one, two = (np.mean([table.v_measures(counts) for table in tables], axis=0) for tables in (firsts, seconds))
        return two - one

    change = difference(np.ones((1, len(labels))))[0]
    drawn = np.concatenate([difference(counts) for counts in _draws(len(labels))])
    as_large = np.count_nonzero(np.abs(drawn - change) >= abs(change) - ROUNDING)
    return _comparison(change, (1 + as_large) / (1 + RESAMPLES), drawn)


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


def _comparison(change: float, p: float, drawn: np.ndarray) -> Comparison:
    verdict = "no difference" if p >= LEVEL else "better" if change > 0 else "worse"
    low, high = np.percentile(drawn, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
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

    def __init__(self, values: Sequence[float]) -> None:
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


class _Contingency:
    """How often label and cluster meet, for items that count differently often."""

    def __init__(self, labels: Sequence, clusters: np.ndarray) -> None:
        from scipy.sparse import csr_matrix

        _, label = np.unique(np.asarray(labels), return_inverse=True)
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        _, cell = np.unique(label * (cluster.max() + 1) + cluster, return_inverse=True)
        items = len(label)
        ones = np.ones(items)
        # (labels, items), (clusters, items) and (pairs of them that occur, items)
        self.sums = [csr_matrix((ones, (group, np.arange(items)))) for group in (label, cluster, cell)]
        # n log n of every count that can arise: many logarithms are slower than one look-up each.
        self.n_log_n = np.arange(items + 1) * np.log(np.maximum(np.arange(items + 1), 1))

    def v_measures(self, counts: np.ndarray) -> np.ndarray:
        """V-measure of each row of ``counts``: 2 × mutual information / (entropy of labels + entropy of clusters)."""
        items = counts.shape[1]
        label, cluster, both = (
            np.log(items) - self.n_log_n[(group @ counts.T).astype(np.int64)].sum(axis=0) / items for group in self.sums
        )
        mutual = np.maximum(label + cluster - both, 0)
        entropies = label + cluster
        # One label in one cluster is a perfect clustering.
        return np.where(entropies > ROUNDING, 2 * mutual / np.maximum(entropies, ROUNDING), 1.0)
