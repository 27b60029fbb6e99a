"""Comparing two models item by item: p-values, intervals and verdicts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test, rankdata, spearmanr
from sklearn.metrics import v_measure_score

from m3kit.evaluation import significance
from m3kit.evaluation.significance import compare_means, compare_spearman, compare_v_measure
from m3kit.records import Change


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_difference(first, second, axis):
    return np.mean(second, axis=axis) - np.mean(first, axis=axis)


# ---- p: all swaps of a few items, and scipy's own test of many -----------------------------------------------------


@pytest.mark.parametrize("items", [1, 2, 5, 10, 13])
def test_of_a_few_items_every_swap_is_counted(items):
    first, second = random(items).random((2, items)).round(1)  # rounded: some differences are equal
    differences = second - first
    signs = np.array(list(itertools.product([1, -1], repeat=items)))
    as_large = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    assert compare_means(first, second).p == as_large.mean()


def test_p_and_interval_of_means_are_scipys():
    draw = random(1)
    first = draw.random(60)
    second = first + draw.normal(0.04, 0.15, 60)
    found = compare_means(first, second)
    exact = {"vectorized": True, "n_resamples": 99_999, "batch": 1000, "axis": -1}
    theirs = permutation_test((first, second), mean_difference, permutation_type="samples", **exact, rng=2)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01) and 0.005 < theirs.pvalue < 0.2
    interval = bootstrap((second - first,), np.mean, method="percentile", **exact, rng=2).confidence_interval
    assert found.interval == pytest.approx(list(interval), abs=0.003)
    assert found.change == pytest.approx(theirs.statistic)


def rank_correlation_difference(gold):
    def statistic(first, second, axis):
        def correlation(ranks):
            centred = ranks - ranks.mean(axis=-1, keepdims=True)
            return (centred * gold).sum(axis=-1) / np.sqrt((centred**2).sum(axis=-1) * (gold**2).sum(axis=-1))

        return correlation(second) - correlation(first)

    return statistic


def test_p_and_interval_of_spearman_are_scipys():
    draw = random(3)
    gold = draw.random(50).round(1)
    first, second = gold + draw.normal(0, 0.5, 50), 10 + gold + draw.normal(0, 0.4, 50)
    found = compare_spearman(gold, first, second)
    assert found.change == pytest.approx(spearmanr(gold, second).statistic - spearmanr(gold, first).statistic)

    statistic = rank_correlation_difference(rankdata(gold) - 25.5)
    exact = {"vectorized": True, "n_resamples": 20_000, "batch": 1000, "axis": -1}
    ranks = rankdata(first), rankdata(second)
    theirs = permutation_test(ranks, statistic, permutation_type="samples", **exact, rng=4)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01) and 0.02 < theirs.pvalue < 0.9

    rows = draw.integers(0, 50, (20_000, 50))
    drawn = rank_correlation_difference(rankdata(gold[rows], axis=1) - 25.5)(
        rankdata(first[rows], axis=1), rankdata(second[rows], axis=1), axis=-1
    )
    assert found.interval == pytest.approx(list(np.percentile(drawn, [2.5, 97.5])), abs=0.02)


# ---- verdicts ------------------------------------------------------------------------------------------------------

SAME = Change(0.0, (0.0, 0.0), 1.0, "no difference")


@pytest.mark.slow
@pytest.mark.parametrize("items", [1, 4, 300])
def test_equal_models_do_not_differ(items):
    values, gold = random(6).random((2, items))
    labels, clusters = random(7).integers(0, 4, (2, items))
    assert compare_means(values, values) == SAME
    assert compare_spearman(gold, values, values) == SAME
    assert compare_spearman(gold, values, 5 + 2 * values) == SAME  # the same order
    assert compare_v_measure(labels, clusters, clusters) == SAME
    renumbered = compare_v_measure(labels, clusters, 3 - clusters)
    assert renumbered.p == 1 and renumbered.verdict == "no difference"
    assert renumbered.interval == pytest.approx([0, 0], abs=1e-9)


def test_a_model_that_ranks_nothing_has_a_correlation_of_0():
    gold = np.arange(30.0)
    found = compare_spearman(gold, np.ones(30), gold)
    assert found.change == 1 and found.verdict == "better"
    assert compare_spearman(gold, np.ones(30), np.zeros(30)) == SAME


def test_what_is_clearly_better_is_called_better_and_the_other_way_round_worse():
    draw = random(8)
    gold, labels = draw.random(200), draw.integers(0, 5, 200)
    poor, good = gold + draw.normal(0, 1, 200), gold + draw.normal(0, 0.2, 200)
    right = np.where(draw.random((2, 200)) < [[0.5], [0.7]], labels, draw.integers(0, 5, (2, 200)))
    for compare, one, two in [
        (compare_means, np.abs(poor - gold), np.abs(poor - gold) + 0.1 + draw.normal(0, 0.2, 200)),
        (lambda a, b: compare_spearman(gold, a, b), poor, good),
        (lambda a, b: compare_v_measure(labels, a, b), *right),
    ]:
        better, worse = compare(one, two), compare(two, one)
        assert better.verdict == "better" and better.p < 0.01 and 0 < better.interval[0] < better.change
        assert worse.verdict == "worse" and worse.change == pytest.approx(-better.change)
        assert better.interval[0] < better.change < better.interval[1]


def test_p_below_5_percent_decides():
    # 5 of 5 items better: 2 of the 32 swaps are as large. 6 of 6: 2 of 64.
    five, six = (compare_means(np.zeros(items), np.ones(items)) for items in (5, 6))
    assert (five.p, five.verdict) == (2 / 32, "no difference") and (six.p, six.verdict) == (
        2 / 64,
        "better",
    )


# ---- how often it is wrong: where there is no difference, about 5 % ------------------------------------------------


@pytest.fixture
def fewer(monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 499)


def each_mean(first: np.ndarray, second: np.ndarray) -> list[Change]:
    return [compare_means(one, two) for one, two in zip(first, second, strict=True)]


@pytest.mark.slow
def test_means_false_positives_and_power(fewer):
    draw = random(9)
    first, noise = draw.normal(size=(2, 1000, 50))
    null = [found.p < 0.05 for found in each_mean(first, first + noise)]
    assert 0.03 < np.mean(null) < 0.07
    shifted = each_mean(first, first + noise + 0.5)
    assert np.mean([found.verdict == "better" for found in shifted]) > 0.9
    covered = [found.interval[0] <= 0.5 <= found.interval[1] for found in shifted]
    assert 0.92 < np.mean(covered) < 0.97


@pytest.mark.slow
def test_means_of_0_and_1_false_positives(fewer):
    draw = random(10)
    found = each_mean(draw.random((1000, 80)) < 0.7, draw.random((1000, 80)) < 0.7)
    assert 0.02 < np.mean([each.p < 0.05 for each in found]) < 0.065


@pytest.mark.slow
def test_spearman_false_positives_and_power(fewer):
    draw = random(11)
    null, found = [], []
    for _ in range(400):
        gold = draw.random(60)
        # The first model's similarities are on another scale: a swap of these would be no swap of equals.
        first, second = 100 + 5 * gold + draw.normal(0, 2, 60), gold + draw.normal(0, 0.4, 60)
        null.append(compare_spearman(gold, first, second).p < 0.05)
        found.append(compare_spearman(gold, first, gold + draw.normal(0, 0.2, 60)).verdict == "better")
    assert 0.03 < np.mean(null) < 0.08 and np.mean(found) > 0.7


@pytest.mark.slow
def test_v_measure_false_positives_power_and_coverage():
    draw = random(12)

    def clusters(share: float) -> np.ndarray:
        return np.where(draw.random((5, 60)) < share, labels, draw.integers(0, 8, (5, 60)))

    null, found = [], []
    for _ in range(1000):
        labels = draw.integers(0, 8, 60)
        null.append(compare_v_measure(labels, clusters(0.6), clusters(0.6)))
        found.append(compare_v_measure(labels, clusters(0.6), clusters(0.75)).verdict == "better")
    assert 0.02 < np.mean([each.p < 0.05 for each in null]) < 0.07 and np.mean(found) > 0.8
    assert 0.93 < np.mean([each.interval[0] <= 0 <= each.interval[1] for each in null]) < 0.98


def test_few_items_prove_nothing_about_v_measures():
    one, own = np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1])
    assert compare_v_measure(own[1:5], one[1:5], own[1:5]) == Change(1.0, (1.0, 1.0), 1 / 8, "no difference")
    assert compare_v_measure(own, one, own) == Change(1.0, (1.0, 1.0), 1 / 32, "better")
    assert compare_v_measure([0], [0], [0]) == SAME


# ---- the measures inside -------------------------------------------------------------------------------------------

few = st.integers(0, 4)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.tuples(few, few), min_size=2, max_size=30))
def test_v_measure_of_all_items_and_without_each_is_scikit_learns(rows):
    labels, clusters = map(np.array, zip(*rows, strict=True))
    whole, *without = significance._v_measures(labels, clusters)
    assert whole == pytest.approx(v_measure_score(labels, clusters), abs=1e-9)
    for item, value in enumerate(without):
        expected = v_measure_score(np.delete(labels, item), np.delete(clusters, item))
        assert value == pytest.approx(expected, abs=1e-9)


def test_clusterings_of_several_seeds_are_averaged():
    labels = random(13).integers(0, 3, 40)
    first, second = random(14).integers(0, 3, (2, 5, 40))
    means = [np.mean([v_measure_score(labels, one) for one in clusters]) for clusters in (first, second)]
    assert compare_v_measure(labels, first, second).change == pytest.approx(means[1] - means[0])


def test_the_same_results_give_the_same_numbers_in_blocks_of_any_size(monkeypatch):
    first, second = random(15).random((2, 100))
    whole = compare_means(first, second)
    assert compare_means(first, second) == whole
    monkeypatch.setattr(significance, "AT_ONCE", 1000)
    other = compare_means(first, second)
    assert whole.p == pytest.approx(other.p, abs=0.02)
    assert whole.interval == pytest.approx(other.interval, abs=0.005)


def test_items_that_are_equal_on_both_sides_change_nothing():
    first = random(16).random(40)
    second = first.copy()
    second[:9] += 0.1
    assert compare_means(first, second).p == 2 / 2**9
    second[1:9] = first[1:9]
    assert compare_means(first, second).verdict == "no difference"
