"""Is a difference between two models more than chance? Both are measured on the same items, and compared item by item.

* p: a two-sided paired randomisation test. If the models were equally good, it would not matter which of an item's two
  results is whose: each item's pair is swapped at random, again and again, and p is how often that gives a difference
  as large as the one that was seen (Smucker, Allan, Carterette 2007, "A comparison of statistical significance tests
  for information retrieval evaluation").
* interval: 95 % of the differences that arise where the items are drawn anew with replacement (paired bootstrap,
  percentile; Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13).

V-measures have a test of their own, see there. p below 0.05 decides. Everything is drawn from one seed, so that the
same results give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3kit.records import Change

RESAMPLES = 9999
LEVEL = 0.05
SEED = 0

# Numbers held at once, which bounds the memory: 4 million float64 are 32 MB.
AT_ONCE = 4 * 1024 * 1024

# Equal differences must count as equal, though their sums were taken in another order.
ROUNDING = 1e-12

Values = Sequence[Any] | np.ndarray


def compare_means(first: Values, second: Values) -> Change:
    """Means over items, both (items,); second minus first."""
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    # Swaps change nothing where both are equal, which many are.
    moved, items = differences[differences != 0], len(differences)

    def mean(values: np.ndarray, axis: int) -> np.ndarray:
        return values.sum(axis=axis) / items

    return _change(differences.mean(), _p((moved,), mean), _interval((differences,), np.mean))


def compare_spearman(gold: Values, first: Values, second: Values) -> Change:
    """Spearman correlations with ``gold``, all (items,).

    The test swaps the two models' ranks of an item, not their similarities: one model's may all be higher than the
    other's. The interval ranks anew in each resample.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (gold, first, second)]

    def gain(one: np.ndarray, two: np.ndarray, axis: int = -1) -> np.ndarray:
        return _correlation(ranks[0], two) - _correlation(ranks[0], one)

    def ranked_gain(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        gold, one, two = (rankdata(values, axis=-1) for values in drawn)
        return _correlation(gold, two) - _correlation(gold, one)

    columns = tuple(np.asarray(values, np.float64) for values in (gold, first, second))
    return _change(float(gain(*ranks[1:])), _p(tuple(ranks[1:]), gain), _interval(columns, ranked_gain))


def _correlation(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; 0 where one is constant."""
    one, two = (values - values.mean(axis=-1, keepdims=True) for values in (one, two))
    spread = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    return np.where(spread > ROUNDING, (one * two).sum(axis=-1) / np.maximum(spread, ROUNDING), 0.0)


def compare_v_measure(labels: Values, first_clusters: np.ndarray, second_clusters: np.ndarray) -> Change:
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
    return _change(change, max(p, min(surest, 1.0)), (change - reach, change + reach))


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
    own, whole = sizes[group], n_log_n(sizes).sum()
    sums = np.concatenate([[whole], whole - n_log_n(own) + n_log_n(own - 1)])
    return np.log(np.maximum(items, 1)) - sums / np.maximum(items, 1)


# ---- resampling -----------------------------------------------------------------------------------------------------


def _p(columns: tuple[np.ndarray, ...], statistic: Any) -> float:
    """Of swapping each item's pair; of one column, of changing each item's sign. Exact where there are few items."""
    from scipy.stats import permutation_test

    if len(columns[0]) < 2:
        return 1.0
    return permutation_test(
        columns,
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_batch(columns),
        rng=np.random.default_rng(SEED),
    ).pvalue


def _interval(columns: tuple[np.ndarray, ...], statistic: Any) -> tuple[float, float]:
    """Low and high; of one item its own value."""
    from scipy.stats import bootstrap

    if len(columns[0]) == 1:
        return (float(statistic(*columns, axis=-1)),) * 2
    found = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_batch(columns),
        confidence_level=1 - LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return found.low, found.high


def _batch(columns: tuple[np.ndarray, ...]) -> int:
    """Resamples at once."""
    return max(1, AT_ONCE // len(columns[0]))


def _change(change: float, p: float, interval: tuple[float, float]) -> Change:
    verdict: Any = "no difference" if p >= LEVEL else "better" if change > 0 else "worse"
    return Change(float(change), (float(interval[0]), float(interval[1])), float(p), verdict)
