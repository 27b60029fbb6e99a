"""Evaluation beside retrieval: semantic similarity, classification and clustering, read and measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import write_jsonl
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import accuracy_score, completeness_score, homogeneity_score
from tiny import PASSAGES, write_beir

from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.evaluation.encode import Encoder, EncodeSettings
from m3kit.evaluation.folder import read_eval_folder
from m3kit.evaluation.models import find_model
from m3kit.evaluation.table import render_table, verdict
from m3kit.evaluation.tasks import Classification, Clustering, Sts

TEXTS = list(PASSAGES.values())
PAIRS = [
    {"sentence1": one, "sentence2": two, "score": score}
    for one, two, score in zip(TEXTS[:6], TEXTS[1:7], [0, 0.2, 0.9, 1, 0.5, 0.5], strict=True)
]
LABELS = {"water": "river stone", "7": "music paper", "never_seen": "signal"}
CLASSIFIED = [{"text": text, "label": label} for text, label in zip(TEXTS, ["water", 7] * 6, strict=True)]
CLUSTERED = [{"text": text, "label": label} for text, label in zip(TEXTS, "aabbccaabbcc", strict=True)]


def write_tasks(folder, sts=PAIRS, classified=CLASSIFIED, labels=LABELS, clustered=CLUSTERED):
    """The three tasks; None leaves one out, and a string is a file's whole text."""
    files = {"sts/test": sts, "classification/test": classified, "clustering/test": clustered}
    for name, rows in files.items():
        path = folder / f"{name}.jsonl"
        if isinstance(rows, str):
            write_jsonl(path, []).write_text(rows, encoding="utf-8")
        elif rows is not None:
            write_jsonl(path, rows)
    if labels is not None:
        (folder / "classification").mkdir(exist_ok=True)
        text = labels if isinstance(labels, str) else json.dumps(labels)
        (folder / "classification" / "labels.json").write_text(text, encoding="utf-8")
    return folder


# ---- reading -------------------------------------------------------------------------------------------------------


def test_all_parts_are_read(tmp_path):
    data = read_eval_folder(write_tasks(write_beir(tmp_path)))
    assert len(data.retrieval.queries) == 3
    assert {name: task.counts for name, task in data.tasks.items()} == {
        "sts": {"pairs": 6}, "classification": {"texts": 12, "labels": 3}, "clustering": {"texts": 12, "labels": 3},
    }  # fmt: skip
    assert data.tasks["classification"].labels[:2] == ["water", "7"]  # a number is its digits


def test_reading_needs_no_torch_and_no_sklearn(tmp_path):
    code = "import sys, m3kit.evaluation.evaluate; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


STS, CLASSIFICATION, CLUSTERING = "sts/test.jsonl", "classification/test.jsonl", "clustering/test.jsonl"
LABELS_FILE = "classification/labels.json"


def pair(**changed) -> list[dict]:
    return [*PAIRS, PAIRS[0] | changed]


def row(**changed) -> list[dict]:
    return [{"text": "x", "label": "water"}, {"text": "y", "label": "7"} | changed, {"text": "z", "label": "7"}]


@pytest.mark.parametrize(
    "replaced, place, what",
    [
        ({"sts": '{"sentence1": "x"\n'}, f"{STS}:1:", "broken JSON"),
        ({"sts": "[1]\n"}, f"{STS}:1:", "not a JSON object"),
        ({"sts": ""}, f"{STS}:1:", "has no rows"),
        ({"sts": pair(sentence1=" ")}, f"{STS}:7:", "sentence1 is missing or empty"),
        ({"sts": pair(sentence2=3)}, f"{STS}:7:", "sentence2 is int, not a string"),
        ({"sts": pair(score="1")}, f"{STS}:7:", "score is '1', not a number"),
        ({"sts": pair(score=None)}, f"{STS}:7:", "score is None, not a number"),
        ({"sts": pair(score=4)}, f"{STS}:7:", "score 4 is outside 0 to 1"),
        ({"sts": pair(score=float("nan"))}, f"{STS}:7:", "score nan is outside 0 to 1"),
        ({"sts": PAIRS[4:]}, f"{STS}:1:", "gives every pair the same score"),
        ({"classified": row(text="")}, f"{CLASSIFICATION}:2:", "text is missing or empty"),
        ({"classified": row(label=None)}, f"{CLASSIFICATION}:2:", "label is missing, empty or no string"),
        ({"classified": row(label="fire")}, f"{CLASSIFICATION}:2:", "label 'fire' is not in labels.json"),
        ({"labels": '{"a": "x",\n"b"}'}, f"{LABELS_FILE}:2:", "broken JSON"),
        ({"labels": {"water": "river"}}, f"{LABELS_FILE}:1:", "no JSON object of two or more labels"),
        ({"labels": LABELS | {"7": " "}}, f"{LABELS_FILE}:1:", "the text of label '7' is missing"),
        ({"labels": LABELS | {"7": "signal "}}, f"{LABELS_FILE}:1:", "has the text of another label"),
        ({"clustered": row(label=True)}, f"{CLUSTERING}:2:", "label is missing, empty or no string"),
        ({"clustered": CLUSTERED[:2]}, f"{CLUSTERING}:1:", "has one label only"),
        ({"clustered": CLUSTERED[1:3]}, f"{CLUSTERING}:1:", "has no label with two rows"),
    ],
)
def test_an_error_names_file_line_and_fix(tmp_path, replaced, place, what):
    with pytest.raises(KitError) as error:
        read_eval_folder(write_tasks(tmp_path, **replaced))
    first, *problems = str(error.value).splitlines()
    assert first.startswith("1 problem in the test data") and len(problems) == 1
    assert place in problems[0] and what in problems[0] and ";" in problems[0]  # the fix stands after the semicolon


def test_problems_of_all_tasks_are_told_at_once(tmp_path):
    with pytest.raises(KitError, match="3 problems") as error:
        read_eval_folder(write_tasks(tmp_path, sts="1\n", classified="2\n", clustered="3\n"))
    assert all(file in str(error.value) for file in (STS, CLASSIFICATION, CLUSTERING))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(KitError, match=r"does not exist; .* corpus.jsonl .* sts/test.jsonl .* clustering/test.jsonl"):
        read_eval_folder(tmp_path / "nothing")
    # A folder of training data looks much the same.
    write_jsonl(tmp_path / "sts" / "sts.jsonl", PAIRS)
    with pytest.raises(KitError, match="holds no file that evaluate reads; it needs one or more of: corpus.jsonl"):
        read_eval_folder(tmp_path)
    write_tasks(tmp_path, sts=None)
    with pytest.raises(KitError, match="has no sts/test.jsonl; put it there"):
        read_eval_folder(tmp_path)
    write_tasks(tmp_path)
    (tmp_path / LABELS_FILE).unlink()
    with pytest.raises(KitError, match="has no classification/labels.json; put it there"):
        read_eval_folder(tmp_path)
    shutil.rmtree(write_beir(write_tasks(tmp_path)) / "qrels")
    with pytest.raises(KitError, match="has no qrels/test.tsv"):
        read_eval_folder(tmp_path)


# ---- measures: equal to what scipy and scikit-learn make of the same vectors ---------------------------------------


@pytest.fixture
def vectors():
    """24 vectors of different lengths: not normalised."""
    return np.random.default_rng(3).normal(size=(24, 8)).astype(np.float32)


def test_spearman_is_the_correlation_of_the_ranks(vectors):
    scores = [0, 0.1, 0.1, 0.3, 0.2, 0.9, 0.8, 1, 0.5, 0.5, 0.6, 0.7]
    cosines = [1 - cdist([one], [two], "cosine")[0, 0] for one, two in zip(vectors[:12], vectors[12:], strict=True)]
    expected = np.corrcoef(rankdata(scores), rankdata(cosines))[0, 1]
    measured = Sts([""] * 12, [""] * 12, scores).measure(vectors)
    assert measured == {"Spearman": pytest.approx(expected)} and abs(expected) > 0.01


def test_spearman_of_a_model_that_tells_nothing_apart_is_0():
    assert Sts(["a", "b"], ["c", "d"], [0, 1]).measure(np.ones((4, 2), np.float32)) == {"Spearman": 0.0}


def test_accuracy_is_that_of_the_nearest_label_text(vectors):
    labels = list("abcd" * 5)
    nearest = ["abcd"[number] for number in cdist(vectors[:20], vectors[20:], "cosine").argmin(axis=1)]
    label_texts = {label: f"text of {label}" for label in "abcd"}
    measured = Classification([""] * 20, labels, label_texts).measure(vectors)
    assert measured == {"accuracy": accuracy_score(labels, nearest)} and 0 < measured["accuracy"] < 1
    # A label without a row can be the nearest all the same, which is then wrong.
    one_label = Classification([""] * 20, ["a"] * 20, label_texts).measure(vectors)
    assert one_label == {"accuracy": nearest.count("a") / 20}


def test_v_measure_is_the_mean_of_five_k_means(vectors):
    labels = list("abc" * 8)
    values = []
    for seed in range(5):
        clusters = KMeans(n_clusters=3, n_init=1, random_state=seed).fit(vectors).labels_
        parts = homogeneity_score(labels, clusters), completeness_score(labels, clusters)
        values.append(2 * parts[0] * parts[1] / sum(parts))
    task = Clustering([""] * 24, labels)
    assert task.measure(vectors) == {"V-measure": pytest.approx(np.mean(values))}
    vectors += np.array([{"a": 0, "b": 50, "c": -50}[label] for label in labels], np.float32)[:, None]
    assert task.measure(vectors) == {"V-measure": pytest.approx(1.0)}


# ---- the command ---------------------------------------------------------------------------------------------------


def run(model_folder, eval_data, output, *more) -> dict:
    models = ["--models", f"base={model_folder}", f"tuned={model_folder}"]
    places = ["--eval_data", str(eval_data), "--output_dir", str(output), "--device", "cpu", "--batch_size", "4"]
    assert main(["evaluate", *models, *places, *more]) == 0
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def test_the_command_measures_all_four_parts(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("m3kit.evaluation.evaluate.BATCHES_A_CHUNK", 2)
    metrics = run(model_folder, write_tasks(write_beir(tmp_path / "eval")), tmp_path / "out")
    captured = capsys.readouterr()
    assert metrics["queries"] == 3 and metrics["tasks"] == {
        "sts": {"pairs": 6}, "classification": {"texts": 12, "labels": 3}, "clustering": {"texts": 12, "labels": 3},
    }  # fmt: skip
    base, change = metrics["models"]["base"], metrics["change"]
    assert {task: list(values) for task, values in base["tasks"].items()} == {
        "sts": ["Spearman"], "classification": ["accuracy"], "clustering": ["V-measure"],
    }  # fmt: skip
    assert change["hybrid"]["nDCG@10"] == 0
    assert change["tasks"] == {task: dict.fromkeys(values, 0.0) for task, values in base["tasks"].items()}
    assert metrics["settings"]["kmeans_seeds"] == [0, 1, 2, 3, 4]
    assert {"ir-measures", "scipy", "scikit-learn"} < set(metrics["settings"]["versions"])

    lines = captured.out.rstrip("\n").split("\n")
    assert lines[:4] == [
        "3 queries, 12 passages, 3 relevant pairs",
        "sts: 6 pairs",
        "classification: 12 texts, 3 labels",
        "clustering: 12 texts, 3 labels",
    ]
    rows = [line.split() for line in lines]
    assert rows.index(["score", "metric", "base", "tuned", "change"]) < rows.index(
        ["task", "metric", "base", "tuned", "change"]
    )
    accuracy = f"{base['tasks']['classification']['accuracy']:.3f}"
    assert ["classification", "accuracy", accuracy, accuracy, "+0.000"] in rows
    assert max(map(len, lines)) <= 100
    assert lines[-1].startswith("nDCG@10 of the hybrid score stayed at")
    assert "base: encoding 3 queries" in captured.err
    for words in ("9 to 12 of 12 for sts", "9 to 15 of 15 for classification", "1 to 8 of 12 for clustering"):
        assert f"tuned: encoding texts {words}" in captured.err

    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings())
    texts, labels = encoder.dense(TEXTS), encoder.dense(list(LABELS.values()))
    encoder.close()
    nearest = [list(LABELS)[number] for number in cdist(texts, labels, "cosine").argmin(axis=1)]
    assert base["tasks"]["classification"]["accuracy"] == accuracy_score(["water", "7"] * 6, nearest)
    expected = Clustering(TEXTS, list("aabbccaabbcc")).measure(texts)
    assert base["tasks"]["clustering"] == pytest.approx(expected)


def test_sts_alone_is_the_headline_and_its_texts_are_encoded_as_passages(model_folder, tmp_path, capsys):
    eval_data = write_tasks(tmp_path / "eval", classified=None, labels=None, clustered=None)
    instruction = ["--query_instruction_for_retrieval", "winter", "--query_max_len", "3", "--passage_max_len", "4"]
    metrics = run(model_folder, eval_data, tmp_path / "out", *instruction)
    captured = capsys.readouterr()
    assert metrics["tasks"] == {"sts": {"pairs": 6}} and metrics["change"] == {"tasks": {"sts": {"Spearman": 0.0}}}
    assert "queries" not in metrics and "ties" not in metrics["settings"]
    base = metrics["models"]["base"]
    assert set(base) == {"path", "tasks", "notes", "seconds"}

    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(passage_max_len=4))
    vectors = encoder.passages([text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])]).dense
    encoder.close()
    cosines = [1 - cdist([one], [two], "cosine")[0, 0] for one, two in zip(vectors[::2], vectors[1::2], strict=True)]
    expected = np.corrcoef(rankdata([pair["score"] for pair in PAIRS]), rankdata(cosines))[0, 1]
    assert base["tasks"] == {"sts": {"Spearman": pytest.approx(expected)}}
    shown = f"{base['tasks']['sts']['Spearman']:.3f}"
    assert captured.out.split("\n") == [
        "sts: 6 pairs",
        "",
        "task            metric           base    tuned   change",
        "-------------------------------------------------------",
        f"sts             Spearman    {shown:>9}{shown:>9}   +0.000",
        "",
        f"Spearman of sts stayed at {shown}.",
        "",
    ]


def result(*accuracies: float) -> dict:
    """What metrics.json holds of models with these accuracies, and a V-measure of 0.25 each."""
    tasks = [{"classification": {"accuracy": value}, "clustering": {"V-measure": 0.25}} for value in accuracies]
    models = {f"m{number}": {"tasks": measured, "notes": []} for number, measured in enumerate(tasks)}
    return {"models": models, "tasks": {"classification": {"texts": 9, "labels": 2}}}


def test_without_retrieval_each_task_has_its_sentence():
    assert verdict(result(0.5, 0.75)).split("\n") == [
        "Accuracy of classification went from 0.500 to 0.750 (+0.250).",
        "V-measure of clustering stayed at 0.250.",
    ]
    worse = "The m1 model is WORSE than the m0 by 0.250: Accuracy of classification went from 0.500 to 0.250 (-0.250)."
    assert verdict(result(0.5, 0.25)).split("\n")[0] == worse
    assert verdict(result(0.5)).split("\n")[0] == "Accuracy of classification of m0 is 0.500."
    # One model alone has no column for the change.
    assert render_table(result(0.5)).split("\n")[-2].split() == ["classification", "accuracy", "0.500"]
