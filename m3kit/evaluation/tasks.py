"""The test data beside retrieval: semantic similarity, classification and clustering, each measured by dense vectors.

Each is a folder in the folder of the test data, and each is optional. Nothing here imports torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3kit.data.problems import BadRow, Problem, refuse
from m3kit.errors import KitError
from m3kit.evaluation.rows import read_objects, string

FILES = {
    "sts": ("sts/test.jsonl",),
    "classification": ("classification/test.jsonl", "classification/labels.json"),
    "clustering": ("clustering/test.jsonl",),
}
PAIR = '{"sentence1": "…", "sentence2": "…", "score": 0.85}'
LABELLED = '{"text": "…", "label": "…"}'

# One k-means may end in a poor optimum: the mean over several starts says what the vectors allow.
KMEANS_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Sts:
    firsts: list[str]
    seconds: list[str]
    scores: list[float]

    @property
    def counts(self) -> dict[str, int]:
        return {"pairs": len(self.scores)}

    @property
    def texts(self) -> list[str]:
        return self.firsts + self.seconds

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        """``dense``: the vectors of ``texts``, here and in the two other classes."""
        firsts, seconds = np.split(unit(dense), 2)
        return {"Spearman": spearman(self.scores, np.sum(firsts * seconds, axis=1))}


@dataclass(frozen=True)
class Classification:
    rows: list[str]
    labels: list[str]
    label_texts: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        return {"texts": len(self.rows), "labels": len(self.label_texts)}

    @property
    def texts(self) -> list[str]:
        return self.rows + list(self.label_texts.values())

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        rows, label_texts = np.split(unit(dense), [len(self.rows)])
        names = list(self.label_texts)
        nearest = [names[number] for number in np.argmax(rows @ label_texts.T, axis=1)]
        return {"accuracy": float(np.mean([a == b for a, b in zip(nearest, self.labels, strict=True)]))}


@dataclass(frozen=True)
class Clustering:
    texts: list[str]
    labels: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {"texts": len(self.texts), "labels": len(set(self.labels))}

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        return {"V-measure": v_measure(self.labels, dense)}


Task = Sts | Classification | Clustering


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors with length 1, so that inner products are cosines: a user may have turned normalising off."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def spearman(gold: list[float], values: np.ndarray) -> float:
    from scipy.stats import spearmanr

    # Not defined for a model that gives every pair the same value: such a model ranks nothing.
    return float(spearmanr(gold, values).statistic) if np.ptp(values) > 0 else 0.0


def v_measure(labels: list[str], vectors: np.ndarray) -> float:
    """The mean over ``KMEANS_SEEDS`` for as many clusters as there are labels."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    count = len(set(labels))
    found = [KMeans(count, n_init=1, random_state=seed).fit_predict(vectors) for seed in KMEANS_SEEDS]
    return float(np.mean([v_measure_score(labels, clusters) for clusters in found]))


def read_tasks(folder: Path) -> dict[str, Task]:
    """Read and check the tasks that the folder holds. Raises ``KitError`` that names file and line with the fix."""
    tasks: dict[str, Task] = {}
    problems: list[Problem] = []
    for name, files in FILES.items():
        # A folder without its file is refused, not passed over: the file may only have another name.
        if not (folder / name).exists():
            continue
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            fix = f"put it there, or take {name}/ out of the test data"
            raise KitError(f"the test data {folder} has no {' and no '.join(missing)}; {fix}")
        tasks[name] = _READERS[name](*(folder / file for file in files), problems)
    refuse(problems, "the test data, nothing was evaluated")
    return tasks


def _read_sts(file: Path, problems: list[Problem]) -> Sts:
    def parse(_: int, row: dict) -> tuple[str, str, float]:
        return _text(row, "sentence1"), _text(row, "sentence2"), _score(row)

    rows = read_objects(file, parse, PAIR, problems)
    if not problems and len({score for _, _, score in rows}) < 2:
        problems.append(Problem(file, 1, "gives every pair the same score", "add pairs of other scores"))
    return Sts([one for one, _, _ in rows], [two for _, two, _ in rows], [score for _, _, score in rows])


def _read_classification(file: Path, labels_file: Path, problems: list[Problem]) -> Classification:
    before = len(problems)
    label_texts = _read_label_texts(labels_file, problems)
    labels_known = len(problems) == before

    def parse(_: int, row: dict) -> tuple[str, str]:
        text, label = _labelled(row)
        if labels_known and label not in label_texts:
            raise BadRow(f"label {label!r} is not in labels.json", "add it there with its text, or correct the row")
        return text, label

    rows = read_objects(file, parse, LABELLED, problems)
    return Classification([text for text, _ in rows], [label for _, label in rows], label_texts)


def _read_label_texts(file: Path, problems: list[Problem]) -> dict[str, str]:
    texts: dict[str, str] = {}
    shape = 'write {"label": "its text", …} with at least two labels'
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
        if not isinstance(found, dict) or len(found) < 2:
            raise BadRow("is no JSON object of two or more labels", shape)
        for label, text in found.items():
            if not isinstance(text, str) or not text.strip():
                raise BadRow(f"the text of label {label!r} is missing or no string", f'write "{label}": "its text"')
            if text.strip() in texts.values():
                raise BadRow(f"label {label!r} has the text of another label", "give each label its own text")
            texts[label] = text.strip()
    except BadRow as bad:
        problems.append(Problem(file, 1, bad.what, bad.fix))
    except UnicodeDecodeError:
        problems.append(Problem(file, 1, "is not UTF-8", "save the file as UTF-8"))
    except json.JSONDecodeError as error:
        problems.append(Problem(file, error.lineno, f"is broken JSON ({error})", shape))
    return texts


def _read_clustering(file: Path, problems: list[Problem]) -> Clustering:
    rows = read_objects(file, lambda _, row: _labelled(row), LABELLED, problems)
    count = len({label for _, label in rows})
    # Both would give every model a perfect V-measure, or a meaningless one.
    if not problems and count in (1, len(rows)):
        what = "has one label only" if count == 1 else "has no label with two rows"
        problems.append(Problem(file, 1, what, "add rows, for k-means to have something to find"))
    return Clustering([text for text, _ in rows], [label for _, label in rows])


_READERS = {"sts": _read_sts, "classification": _read_classification, "clustering": _read_clustering}


def _text(row: dict, field: str) -> str:
    text = string(row, field)
    if not text:
        raise BadRow(f"{field} is missing or empty", f'write the text under "{field}", or remove the row')
    return text


def _score(row: dict) -> float:
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadRow(f"score is {score!r}, not a number", "write a number from 0 (unrelated) to 1 (same meaning)")
    if not 0 <= score <= 1:
        raise BadRow(f"score {score} is outside 0 to 1", "scale all scores of the file to 0 to 1")
    return float(score)


def _labelled(row: dict) -> tuple[str, str]:
    label = row.get("label")
    # A number is taken as its digits, as in the training rows; labels.json can name it only so.
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise BadRow("label is missing, empty or no string", 'write the label under "label"')
    return _text(row, "text"), label
