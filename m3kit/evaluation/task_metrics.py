"""What dense vectors are worth in the tasks beside retrieval: Spearman, nearest label, 1-NN, probe, V-measure.

Each figure comes with what it is made of, item by item, so that two models can be compared on the same items. Nothing
here imports torch.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from m3kit.evaluation.significance import compare_means, compare_spearman, compare_v_measure
from m3kit.records import Change
from m3kit.test_data.tasks import Classification, Clustering, Sts, Task

# One k-means may end in a poor optimum: the mean over several starts says what the vectors allow.
KMEANS_SEEDS = (0, 1, 2, 3, 4)

PROBE_FOLDS = 5
PROBE_SEED = 0


@dataclass(frozen=True)
class Outcomes:
    """A model's figures in one task; ``notes`` are whole sentences about what could not be measured.

    ``items`` are what a figure is made of: of Spearman the similarity of each pair, of V-measure the cluster of each
    text (KMEANS_SEEDS, texts), of others 1 for each text whose label was found, else 0. ``gold``: what should be found.
    """

    metrics: dict[str, float]
    items: dict[str, np.ndarray]
    gold: np.ndarray
    notes: list[str] = field(default_factory=list)

    def compare(self, other: Outcomes) -> dict[str, Change]:
        """Compare the other model's figures with these, on the same items."""
        by_gold = {"Spearman": compare_spearman, "V-measure": compare_v_measure}
        return {
            metric: by_gold[metric](self.gold, mine, other.items[metric])
            if metric in by_gold
            else compare_means(mine, other.items[metric])
            for metric, mine in self.items.items()
        }


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1, so that inner products are cosines: a user may have turned normalising off."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def measure_task(task: Task, dense: np.ndarray) -> Outcomes:
    """All figures of a task. ``dense``: the vectors of its ``texts``."""
    if isinstance(task, Sts):
        return _sts(task, dense)
    return _clustering(task, dense) if isinstance(task, Clustering) else _classification(task, dense)


def first_figure(task: Task, dense: np.ndarray) -> dict[str, float]:
    """The figure of a task that a checkpoint is chosen by: the first of ``measure_task``."""
    if isinstance(task, Classification):
        return {"nearest label": float(_nearest_label(task, dense).mean())}
    return measure_task(task, dense).metrics


def _sts(task: Sts, dense: np.ndarray) -> Outcomes:
    from scipy.stats import spearmanr

    firsts, seconds = np.split(unit(dense), 2)
    similarities = np.sum(firsts * seconds, axis=1)
    # Not defined for a model that gives every pair the same value: such a model ranks nothing.
    value = float(spearmanr(task.scores, similarities).statistic) if np.ptp(similarities) > 0 else 0.0
    return Outcomes({"Spearman": value}, {"Spearman": similarities}, np.array(task.scores))


# ---- classification -------------------------------------------------------------------------------------------------


def _classification(task: Classification, dense: np.ndarray) -> Outcomes:
    """1-NN and the probe learn from the rows that the task has for it; without such, each row from the other rows."""
    rows, known = dense[: len(task.rows)], dense[len(task.rows) + len(task.label_texts) :]
    if task.training:
        learnt, notes = _trained(rows, task.labels, known, task.training[1])
    else:
        learnt, notes = _cross_validated(rows, task.labels)
    right = {"nearest label": _nearest_label(task, dense), **learnt}
    return Outcomes({metric: float(of.mean()) for metric, of in right.items()}, right, np.array(task.labels), notes)


def _nearest_label(task: Classification, dense: np.ndarray) -> np.ndarray:
    """1 for each row to whose vector the text of its own label is nearest, else 0."""
    rows, texts, _ = np.split(unit(dense), [len(task.rows), len(task.rows) + len(task.label_texts)])
    return _right(np.asarray(list(task.label_texts))[_nearest(texts, rows)], task.labels)


def _cross_validated(vectors: np.ndarray, labels: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    known, place, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    # A row that is alone with its label has nothing to be found by.
    kept = counts[place] >= 2
    if np.count_nonzero(counts >= 2) < 2:
        return {}, ["Classification: 1-NN and probe were not measured, they need two labels with two or more rows."]
    alone = np.count_nonzero(~kept)
    notes = [f"Classification: 1-NN and probe leave out the labels that have one row only ({alone})."] if alone else []
    rows, names = unit(vectors)[kept], known[place[kept]]
    # The rows of a label go to different folds: also where these are fewer than five, one is there to learn from.
    folds = StratifiedKFold(min(PROBE_FOLDS, counts.max()), shuffle=True, random_state=PROBE_SEED)
    with _no_warnings():
        predicted = cross_val_predict(_probe(), rows, names, cv=folds)
    return {"1-NN": _right(names[_nearest(rows)], names), "probe": _right(predicted, names)}, notes


def _trained(
    vectors: np.ndarray, labels: Sequence[str], known_vectors: np.ndarray, known_labels: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    rows, known, names = unit(vectors), unit(known_vectors), np.asarray(known_labels)
    missing = np.count_nonzero(~np.isin(labels, names))
    told = f"Classification: train.jsonl lacks the labels of some test rows ({missing}), 1-NN and probe miss these."
    with _no_warnings():
        predicted = _probe().fit(known, names).predict(rows)
    right = {"1-NN": _right(names[_nearest(known, rows)], labels), "probe": _right(predicted, labels)}
    return right, [told] if missing else []


def _probe():
    """Logistic regression on standardised features.

    Without standardising, its regularisation weighs more the closer together a model's vectors lie, and training
    changes that: one direction added to all vectors of banking77 took the probe from 0.78 to 0.73.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _nearest(known: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """For each row the number of the nearest known unit vector; without ``rows``, of each known one among the rest."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known).kneighbors(rows, return_distance=False)[:, 0]


def _right(predicted: np.ndarray, labels: Sequence[str] | np.ndarray) -> np.ndarray:
    return (predicted == np.asarray(labels)).astype(np.int8)


@contextlib.contextmanager
def _no_warnings():
    """scikit-learn's words on labels with few rows, and on an optimum that is not quite reached, help nobody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _clustering(task: Clustering, dense: np.ndarray) -> Outcomes:
    """k-means for as many clusters as there are labels; the V-measure is the mean over ``KMEANS_SEEDS``."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    count = len(set(task.labels))
    with _no_warnings():
        clusters = np.array([KMeans(count, n_init=1, random_state=s).fit_predict(dense) for s in KMEANS_SEEDS])
    value = float(np.mean([v_measure_score(task.labels, found) for found in clusters]))
    return Outcomes({"V-measure": value}, {"V-measure": clusters}, np.asarray(task.labels))
