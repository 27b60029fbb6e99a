"""Test data while training: a sample of every part, which keeps what its figure needs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import EXAMPLE_DATA

from m3kit.evaluation import sample as sampling
from m3kit.evaluation.folder import EvalFolder
from m3kit.evaluation.sample import sample
from m3kit.evaluation.tasks import Classification, Clustering, Sts
from m3kit.training.arguments import TrainingArguments
from m3kit.training.evaluation import HeldOut


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(sampling, "MAX_TEXTS", 200)


def sampled(task, seed: int = 1):
    data, told = sample(EvalFolder(Path(), None, {"task": task}), seed)
    return data.tasks["task"], told


def numbered(count: int, what: str = "text") -> list[str]:
    return [f"{what} {number}" for number in range(count)]


def test_a_few_pairs_of_all_scores():
    scores = [0.0] * 995 + [1.0] * 5
    task, told = sampled(Sts(numbered(1000, "first"), numbered(1000, "second"), scores))
    assert 100 <= len(task.scores) <= 102 and len(task.texts) == 2 * len(task.scores)
    # Not one score alone, of which nothing is ranked.
    assert Counter(task.scores)[1.0] == 2
    assert [first.split()[1] for first in task.firsts] == [second.split()[1] for second in task.seconds]
    assert [scores[int(first.split()[1])] for first in task.firsts] == task.scores
    assert told == f"{len(task.scores)} of 1,000 pairs of task"
    pairs = Sts(numbered(1000), numbered(1000), list(np.linspace(0, 1, 1000)))
    task, _ = sampled(pairs)
    assert len(task.scores) == 100 and sampled(pairs)[0] == task != sampled(pairs, seed=2)[0]


def test_of_every_label_its_share_of_the_rows():
    labels = ["often"] * 800 + ["seldom"] * 190 + ["hardly"] * 10
    rows, texts = numbered(1000), {label: f"what is {label}" for label in ("often", "seldom", "hardly")}
    task, told = sampled(Classification(rows, labels, texts, (numbered(5000), ["often"] * 5000)))
    assert Counter(task.labels) == {"often": 160, "seldom": 38, "hardly": 2}
    assert all(labels[rows.index(row)] == label for row, label in zip(task.rows, task.labels, strict=True))
    assert task.label_texts == texts and task.training is None
    assert told == "200 of 1,000 texts of task"
    task, _ = sampled(Clustering(rows, labels))
    assert Counter(task.labels) == {"often": 160, "seldom": 38, "hardly": 2}


def test_of_too_many_labels_some_and_no_row_alone_with_its_label():
    labels = [str(number // 4) for number in range(4000)]
    texts = {label: f"what is {label}" for label in labels}
    clustering, _ = sampled(Clustering(numbered(4000), labels))
    assert len(clustering.texts) == 200 and set(Counter(clustering.labels).values()) == {2}
    classification, _ = sampled(Classification(numbered(4000), labels, texts))
    assert set(classification.label_texts) == set(classification.labels) and len(classification.texts) == 300


def test_what_is_small_stays_as_it_is():
    for task in (Sts(numbered(50), numbered(50), list(np.arange(50.0))), Clustering(numbered(200), numbered(200))):
        kept, told = sampled(task)
        assert (list(kept.texts), told) == (task.texts, "")


def test_all_that_is_left_out_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MAX_QUERIES", 5)
    for source in (EXAMPLE_DATA / "eval").rglob("*.*"):
        target = tmp_path / source.relative_to(EXAMPLE_DATA / "eval")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (tmp_path / "clustering").mkdir()
    rows = [json.dumps({"text": f"text {number}", "label": str(number % 10)}) for number in range(2000)]
    (tmp_path / "clustering" / "test.jsonl").write_text("\n".join(rows))
    says = HeldOut(str(tmp_path), SimpleNamespace(), seed=1).says
    assert " (5 of " in says and says.endswith(" passages and 200 of 2,000 texts of clustering)")


def test_the_other_processes_wait_longer_than_pytorch_has_them():
    assert TrainingArguments.ddp_timeout == 2 * 60 * 60
