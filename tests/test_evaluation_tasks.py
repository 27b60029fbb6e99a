"""Evaluation beside retrieval: semantic similarity, classification and clustering, as the command tells of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import write_jsonl
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score
from tiny import PASSAGES, write_beir

from m3kit.__main__ import main
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.errors import KitError
from m3kit.evaluation.task_metrics import first_figure
from m3kit.test_data.folder import read_eval_folder
from m3kit.test_data.sample import sample
from m3kit.test_data.tasks import Clustering

TEXTS = list(PASSAGES.values())
PAIRS = [
    {"sentence1": one, "sentence2": two, "score": score}
    for one, two, score in zip(TEXTS[:6], TEXTS[1:7], [0, 0.2, 0.9, 1, 0.5, 0.5], strict=True)
]
LABELS = {"water": "river stone", "7": "music paper", "never_seen": "signal"}
CLASSIFIED = [{"text": text, "label": label} for text, label in zip(TEXTS, ["water", 7] * 6, strict=True)]
CLUSTERED = [{"text": text, "label": label} for text, label in zip(TEXTS, "aabbccaabbcc", strict=True)]


def write_tasks(folder, sts=PAIRS, classified=CLASSIFIED, labels=LABELS, clustered=CLUSTERED, training=None):
    """The three tasks; None leaves one out, and a string is a file's whole text."""
    files = {
        "sts/test": sts,
        "classification/test": classified,
        "classification/train": training,
        "clustering/test": clustered,
    }
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


def test_training_rows_are_read_and_not_needed_while_training(tmp_path):
    write_tasks(tmp_path, training=[{"text": "winter", "label": 7}, {"text": "river", "label": "water"}])
    tasks = read_eval_folder(tmp_path).tasks
    task = tasks["classification"]
    assert task.training == (["winter", "river"], ["7", "water"])
    assert task.counts == {"texts": 12, "labels": 3, "training texts": 2}
    assert task.texts == [*TEXTS, *LABELS.values(), "winter", "river"]
    quick = sample(read_eval_folder(tmp_path), seed=1)
    assert quick.tasks == tasks | {"classification": replace(task, training=None)}


def test_reading_needs_no_torch_and_no_sklearn(tmp_path):
    code = "import sys, m3kit.evaluation.evaluate; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


STS, CLASSIFICATION, CLUSTERING = "sts/test.jsonl", "classification/test.jsonl", "clustering/test.jsonl"
LABELS_FILE, TRAINING = "classification/labels.json", "classification/train.jsonl"


def pair(**changed) -> list[dict]:
    return [*PAIRS, PAIRS[0] | changed]


def row(**changed) -> list[dict]:
    return [{"text": "x", "label": "water"}, {"text": "y", "label": "7"} | changed, {"text": "z", "label": "7"}]


@pytest.mark.parametrize(
    "replaced, place, what",
    [
        ({"sts": '{"sentence1": "x"\n'}, f"{STS}:1:", "not valid JSON"),
        ({"sts": "[1]\n"}, f"{STS}:1:", "instead of an object"),
        ({"sts": ""}, f"{STS}:1:", "the file is empty"),
        (
            {"sts": [{"query": "x", "pos": ["y"], "score": 1}]},
            f"{STS}:1:",
            "its columns are 'query', 'pos', 'score'; write {\"sentence1\"",
        ),
        ({"sts": pair(sentence1=" ")}, f"{STS}:7:", '"sentence1" is empty'),
        ({"sts": pair(sentence2=3)}, f"{STS}:7:", '"sentence2" is a int, not a string'),
        ({"sts": pair(score="high")}, f"{STS}:7:", "\"score\" is 'high', not a number"),
        ({"sts": pair(score=None)}, f"{STS}:7:", '"score" is None, not a number'),
        ({"sts": pair(score=9)}, f"{STS}:7:", '"score" is 9, outside 0..1'),
        ({"sts": pair(score=float("nan"))}, f"{STS}:7:", '"score" is nan, not a number'),
        ({"sts": PAIRS[4:]}, f"{STS}:1:", "gives every pair the same score"),
        ({"classified": row(text="")}, f"{CLASSIFICATION}:2:", '"text" is empty'),
        ({"classified": row(label=None)}, f"{CLASSIFICATION}:2:", '"label" is missing'),
        ({"classified": row(label="fire")}, f"{CLASSIFICATION}:2:", "label 'fire' is not in labels.json"),
        ({"training": row(label="fire")}, f"{TRAINING}:2:", "label 'fire' is not in labels.json"),
        ({"training": row(text=" ")}, f"{TRAINING}:2:", '"text" is empty'),
        ({"training": CLASSIFIED[:1]}, f"{TRAINING}:1:", "has one label only"),
        ({"training": ""}, f"{TRAINING}:1:", "the file is empty"),
        ({"labels": '{"a": "x",\n"b"}'}, f"{LABELS_FILE}:2:", "not valid JSON"),
        ({"labels": {"water": "river"}}, f"{LABELS_FILE}:1:", "no JSON object of two or more labels"),
        ({"labels": LABELS | {"7": " "}}, f"{LABELS_FILE}:1:", "the text of label '7' is missing"),
        ({"labels": LABELS | {"7": "signal "}}, f"{LABELS_FILE}:1:", "has the text of another label"),
        ({"clustered": row(label=True)}, f"{CLUSTERING}:2:", '"label" is a bool'),
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


def test_scores_of_0_to_5_and_in_quotes_are_scores(tmp_path):
    rows = [row | {"score": str(5 * row["score"])} for row in PAIRS]
    expected = read_eval_folder(write_tasks(tmp_path / "one")).tasks["sts"].scores
    assert read_eval_folder(write_tasks(tmp_path / "other", sts=rows)).tasks["sts"].scores == pytest.approx(expected)


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


# ---- the command ---------------------------------------------------------------------------------------------------

NO_DIFFERENCE = {"change": 0.0, "interval": [0.0, 0.0], "p": 1.0, "verdict": "no difference"}
METRICS = {
    "sts": ["Spearman"],
    "classification": ["nearest label", "1-NN", "probe"],
    "clustering": ["V-measure"],
}


def run(model_folder, eval_data, output, *more) -> dict:
    models = ["--models", f"base={model_folder}", f"tuned={model_folder}"]
    places = ["--eval_data", str(eval_data), "--output_dir", str(output), "--device", "cpu", "--batch_size", "4"]
    alone = ["--general_data", "none"]
    assert main(["evaluate", *models, *places, *alone, *more]) == 0
    return json.loads((output / "metrics.json").read_text(encoding="utf-8"))


def dense(model_folder, texts: list[str], **settings) -> np.ndarray:
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(**settings))
    vectors = encoder.dense(texts)
    encoder.close()
    return vectors


def test_the_command_measures_all_four_parts(model_folder, tmp_path, capsys):
    metrics = run(model_folder, write_tasks(write_beir(tmp_path / "eval")), tmp_path / "out")
    out = capsys.readouterr().out
    assert metrics["queries"] == 3 and metrics["tasks"] == {
        "sts": {"pairs": 6}, "classification": {"texts": 12, "labels": 3}, "clustering": {"texts": 12, "labels": 3},
    }  # fmt: skip
    base, compared = metrics["models"]["base"], metrics["comparisons"]["tuned"]
    assert {task: list(values) for task, values in base["tasks"].items()} == METRICS
    assert compared["hybrid"]["nDCG@10"] == NO_DIFFERENCE
    assert metrics["task_comparisons"]["tuned"] == {
        task: dict.fromkeys(names, NO_DIFFERENCE) for task, names in METRICS.items()
    }
    assert metrics["settings"]["kmeans_seeds"] == [0, 1, 2, 3, 4]
    assert {"scipy", "scikit-learn"} < set(metrics["settings"]["versions"])

    lines = out.rstrip("\n").split("\n")
    for line in ("sts: 6 pairs", "classification: 12 texts, 3 labels", "clustering: 12 texts, 3 labels"):
        assert line in lines
    words = [line.split() for line in lines]
    for metric, shown in base["tasks"]["classification"].items():
        row = f"{metric} {shown:.3f} {shown:.3f} +0.000"
        assert any(row in " ".join(line) for line in words)
    assert "\nnDCG@10 by dense vectors stayed at" in out

    texts = dense(model_folder, TEXTS)
    nearest = cdist(texts, dense(model_folder, list(LABELS.values())), "cosine").argmin(axis=1)
    right = accuracy_score(["water", "7"] * 6, [list(LABELS)[number] for number in nearest])
    assert base["tasks"]["classification"]["nearest label"] == right
    expected = first_figure(Clustering(TEXTS, list("aabbccaabbcc")), texts)
    assert base["tasks"]["clustering"] == pytest.approx(expected)


def test_notes_about_the_data_stand_with_the_model(model_folder, tmp_path, capsys):
    alone = [*CLASSIFIED, {"text": "signal", "label": "never_seen"}]
    write_tasks(tmp_path / "eval", sts=None, classified=alone, clustered=None)
    metrics = run(model_folder, tmp_path / "eval", tmp_path / "out")
    note = "Classification: 1-NN and probe leave out the labels that have one row only (1)."
    assert note in metrics["models"]["base"]["notes"] and note in capsys.readouterr().out


def test_sts_alone_is_the_headline_and_its_texts_are_encoded_as_passages(model_folder, tmp_path, capsys):
    eval_data = write_tasks(tmp_path / "eval", classified=None, labels=None, clustered=None)
    instruction = ["--query_instruction_for_retrieval", "winter", "--query_max_len", "3", "--passage_max_len", "4"]
    metrics = run(model_folder, eval_data, tmp_path / "out", *instruction)
    out = capsys.readouterr().out
    assert metrics["tasks"] == {"sts": {"pairs": 6}}
    assert metrics["task_comparisons"] == {"tuned": {"sts": {"Spearman": NO_DIFFERENCE}}}
    base = metrics["models"]["base"]
    assert base["dense"] is None and metrics["lead"] is None and not metrics["queries"] and not metrics["examples"]

    vectors = dense(
        model_folder, [text for pair in PAIRS for text in (pair["sentence1"], pair["sentence2"])], passage_max_len=4
    )
    cosines = [1 - cdist([one], [two], "cosine")[0, 0] for one, two in zip(vectors[::2], vectors[1::2], strict=True)]
    expected = np.corrcoef(rankdata([pair["score"] for pair in PAIRS]), rankdata(cosines))[0, 1]
    assert base["tasks"] == {"sts": {"Spearman": pytest.approx(expected)}}
    shown = f"{base['tasks']['sts']['Spearman']:.3f}"
    assert out.startswith("sts: 6 pairs\n")
    assert f"\nSpearman of sts stayed at {shown}: no difference that 6 pairs can show" in out
