"""What dense vectors are worth beside retrieval: equal to what scipy and scikit-learn make of the same vectors."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import rankdata, spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, completeness_score, homogeneity_score, v_measure_score
from sklearn.model_selection import LeaveOneOut, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from m3kit.evaluation.task_metrics import first_figure, measure_task
from m3kit.records import Change
from m3kit.test_data.tasks import Classification, Clustering, Sts

LABEL_TEXTS = {label: f"text of {label}" for label in "abcd"}
SAME = Change(0.0, (0.0, 0.0), 1.0, "no difference")


@pytest.fixture
def vectors():
    """24 vectors of different lengths: not normalised."""
    return np.random.default_rng(3).normal(size=(24, 8)).astype(np.float32)


# ---- semantic similarity -------------------------------------------------------------------------------------------


def test_spearman_is_the_correlation_of_the_ranks(vectors):
    scores = [0, 0.1, 0.1, 0.3, 0.2, 0.9, 0.8, 1, 0.5, 0.5, 0.6, 0.7]
    cosines = [1 - cdist([one], [two], "cosine")[0, 0] for one, two in zip(vectors[:12], vectors[12:], strict=True)]
    expected = np.corrcoef(rankdata(scores), rankdata(cosines))[0, 1]
    task = Sts([""] * 12, [""] * 12, scores)
    assert first_figure(task, vectors) == {"Spearman": pytest.approx(expected, abs=1e-6)} and abs(expected) > 0.01

    outcomes = measure_task(task, vectors)
    assert outcomes.metrics == first_figure(task, vectors) and outcomes.notes == []
    assert outcomes.gold.tolist() == scores and outcomes.items["Spearman"] == pytest.approx(cosines, abs=1e-6)
    assert outcomes.compare(outcomes) == {"Spearman": SAME}
    other = measure_task(task, vectors[::-1] + vectors)
    assert outcomes.compare(other)["Spearman"].change == pytest.approx(
        spearmanr(scores, other.items["Spearman"]).statistic - expected
    )


def test_spearman_of_a_model_that_tells_nothing_apart_is_0():
    assert first_figure(Sts(["a", "b"], ["c", "d"], [0, 1]), np.ones((4, 2), np.float32)) == {"Spearman": 0.0}


# ---- classification ------------------------------------------------------------------------------------------------


def labelled(rows: int, labels: int, size: int, noise: float, seed: int = 4):
    """Vectors about a middle for each label, the labels' own vectors below; and the rows' labels."""
    random = np.random.default_rng(seed)
    names = np.array([f"label {number:02}" for number in range(labels)])
    middles, own = random.normal(size=(labels, size)), random.integers(0, labels, rows)
    vectors = np.concatenate([middles[own] + noise * random.normal(size=(rows, size)), middles]).astype(np.float32)
    return vectors, names[own].tolist(), {name: f"text of {name}" for name in names}


def test_nearest_label_is_that_of_the_nearest_label_text(vectors):
    labels = list("abcd" * 5)
    nearest = ["abcd"[number] for number in cdist(vectors[:20], vectors[20:], "cosine").argmin(axis=1)]
    task = Classification([""] * 20, labels, LABEL_TEXTS)
    measured = first_figure(task, vectors)
    assert measured == {"nearest label": accuracy_score(labels, nearest)} and 0 < measured["nearest label"] < 1
    outcomes = measure_task(task, vectors)
    assert outcomes.metrics["nearest label"] == measured["nearest label"]
    assert outcomes.items["nearest label"].tolist() == [a == b for a, b in zip(labels, nearest, strict=True)]
    # A label without a row can be the nearest all the same, which is then wrong.
    one_label = first_figure(Classification([""] * 20, ["a"] * 20, LABEL_TEXTS), vectors)
    assert one_label == {"nearest label": nearest.count("a") / 20}


def test_1_nn_and_probe_are_scikit_learns():
    vectors, labels, texts = labelled(120, 6, 16, noise=1.5)
    outcomes = measure_task(Classification([""] * 120, labels, texts), vectors)
    neighbour = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    nearest = cross_val_predict(neighbour, vectors[:120], labels, cv=LeaveOneOut())
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(vectors[:120], labels)
    rows, names, predicted = normalize(vectors[:120].astype(np.float64)), np.array(labels), np.empty(120, object)
    for train, test in folds:
        scale = StandardScaler().fit(rows[train])
        probe = LogisticRegression(max_iter=1000).fit(scale.transform(rows[train]), names[train])
        predicted[test] = probe.predict(scale.transform(rows[test]))
    for metric, found in (("1-NN", nearest), ("probe", predicted)):
        assert outcomes.metrics[metric] == pytest.approx(accuracy_score(labels, found), abs=1e-6)
        assert outcomes.items[metric].tolist() == (found == names).tolist()
        assert 0.2 < outcomes.metrics[metric] < 1
    assert list(outcomes.metrics) == ["nearest label", "1-NN", "probe"] and outcomes.notes == []


def test_rows_that_are_alone_with_their_label_are_left_out_and_told(vectors):
    labels = list("aabbb") + ["c", "d"]
    task = Classification([""] * 7, labels, LABEL_TEXTS)
    outcomes = measure_task(task, vectors[:11])
    assert {metric: len(right) for metric, right in outcomes.items.items()} == {
        "nearest label": 7, "1-NN": 5, "probe": 5,
    }  # fmt: skip
    assert outcomes.notes == ["Classification: 1-NN and probe leave out the labels that have one row only (2)."]
    fewer = measure_task(
        Classification([""] * 5, labels[:5], LABEL_TEXTS), np.concatenate([vectors[:5], vectors[7:11]])
    )
    assert fewer.items["1-NN"].tolist() == outcomes.items["1-NN"].tolist() and fewer.notes == []


def test_without_two_labels_of_two_rows_the_nearest_label_alone_is_measured(vectors):
    outcomes = measure_task(Classification([""] * 5, list("aaabc"), LABEL_TEXTS), vectors[:9])
    assert list(outcomes.metrics) == list(outcomes.items) == ["nearest label"]
    assert outcomes.notes == [
        "Classification: 1-NN and probe were not measured, they need two labels with two or more rows."
    ]
    assert outcomes.compare(outcomes) == {"nearest label": SAME}


def test_training_rows_are_what_is_learnt_from():
    vectors, labels, texts = labelled(100, 4, 12, noise=1.2)
    known, test, text_vectors = vectors[:60], vectors[60:100], vectors[100:]
    training = ([""] * 60, labels[:60])
    task = Classification([""] * 40, labels[60:], texts, training)
    outcomes = measure_task(task, np.concatenate([test, text_vectors, known]))
    nearest = np.array(labels)[cdist(test, known, "cosine").argmin(axis=1)]
    scale = StandardScaler().fit(normalize(known.astype(np.float64)))
    known, rows = (scale.transform(normalize(part.astype(np.float64))) for part in (known, test))
    probe = LogisticRegression(max_iter=1000).fit(known, labels[:60])
    assert outcomes.items["1-NN"].tolist() == (nearest == labels[60:]).tolist()
    assert outcomes.items["probe"].tolist() == (probe.predict(rows) == labels[60:]).tolist()
    assert outcomes.notes == [] and 0.3 < outcomes.metrics["1-NN"] < 1
    quick = first_figure(replace(task, training=None), np.concatenate([test, text_vectors]))
    assert quick == first_figure(task, np.concatenate([test, text_vectors, vectors[:60]]))
    assert quick["nearest label"] == outcomes.metrics["nearest label"]


def test_a_label_that_no_training_row_has_is_missed_and_told(vectors):
    task = Classification([""] * 3, list("abc"), LABEL_TEXTS, ([""] * 4, list("aabb")))
    outcomes = measure_task(task, np.concatenate([vectors[:3], vectors[3:7], vectors[[0, 0, 1, 1]]]))
    assert outcomes.items["1-NN"].tolist() == [1, 1, 0]
    assert outcomes.notes == [
        "Classification: train.jsonl lacks the labels of some test rows (1), 1-NN and probe miss these."
    ]


def test_classification_is_compared_row_by_row():
    vectors, labels, texts = labelled(300, 5, 16, noise=1)
    blurred, *_ = labelled(300, 5, 16, noise=6)
    task = Classification([""] * 300, labels, texts)
    good, poor = measure_task(task, vectors), measure_task(task, blurred)
    compared = good.compare(poor)
    assert {metric: found.verdict for metric, found in compared.items()} == {
        "nearest label": "worse", "1-NN": "worse", "probe": "worse",
    }  # fmt: skip
    for metric, found in compared.items():
        assert found.change == pytest.approx(poor.metrics[metric] - good.metrics[metric])


def test_the_probe_does_not_weigh_how_close_together_vectors_lie():
    vectors, labels, texts = labelled(200, 8, 32, noise=2.5)
    task = Classification([""] * 200, labels, texts)
    rows = normalize(vectors.astype(np.float64))
    crowded = np.concatenate([rows, np.full((len(rows), 1), 9)], axis=1)
    assert measure_task(task, crowded).metrics["probe"] == pytest.approx(
        measure_task(task, rows).metrics["probe"], abs=0.011
    )


@pytest.mark.slow
def test_77_labels_of_2000_rows_at_bge_m3s_size_take_seconds_and_warn_of_nothing():
    vectors, labels, texts = labelled(2000, 77, 1024, noise=4)
    labels[0] = labels[1] = "label 99"  # fewer rows than folds
    task = Classification([""] * 2000, labels, texts | {"label 99": "x"})
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = measure_task(task, np.concatenate([vectors, vectors[:1]]))
    assert time.monotonic() - start < 30
    assert outcomes.metrics["probe"] > 0.5 and len(outcomes.items["probe"]) == 2000


# ---- clustering ----------------------------------------------------------------------------------------------------


def test_v_measure_is_the_mean_of_five_k_means(vectors):
    labels = list("abc" * 8)
    values = []
    for seed in range(5):
        clusters = KMeans(n_clusters=3, n_init=1, random_state=seed).fit(vectors).labels_
        parts = homogeneity_score(labels, clusters), completeness_score(labels, clusters)
        values.append(2 * parts[0] * parts[1] / sum(parts))
    task = Clustering([""] * 24, labels)
    assert first_figure(task, vectors) == {"V-measure": pytest.approx(np.mean(values), abs=1e-6)}
    poor = measure_task(task, vectors)
    assert [v_measure_score(labels, found) for found in poor.items["V-measure"]] == pytest.approx(values)
    assert poor.compare(poor) == {"V-measure": SAME}

    vectors += np.array([{"a": 0, "b": 50, "c": -50}[label] for label in labels], np.float32)[:, None]
    good = measure_task(task, vectors)
    assert good.metrics == {"V-measure": pytest.approx(1.0)} and good.notes == []
    compared = poor.compare(good)["V-measure"]
    assert compared.verdict == "better" and compared.change == pytest.approx(1 - np.mean(values))


def test_a_model_that_tells_nothing_apart_clusters_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first_figure(Clustering(["x"] * 6, list("aabbcc")), np.ones((6, 2), np.float32)) == {"V-measure": 0.0}
