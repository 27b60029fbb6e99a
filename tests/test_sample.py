"""Test data while training: the half that chooses, a sample of every part, and no more than training has time for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import EXAMPLE_DATA

from m3kit.test_data import sample as sampling
from m3kit.test_data.beir import EvalData
from m3kit.test_data.folder import EvalFolder
from m3kit.test_data.sample import choosing_half, sample, told
from m3kit.test_data.tasks import Classification, Clustering, Sts
from m3kit.training.arguments import TrainingArguments
from m3kit.training.evaluation import HeldOut


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(sampling, "MAX_TEXTS", 200)


def sampled(task, seed: int = 1):
    data = EvalFolder(Path(), None, {"task": task})
    some = sample(data, seed)
    return some.tasks["task"], told(some, data)


def numbered(count: int, what: str = "text") -> list[str]:
    return [f"{what} {number}" for number in range(count)]


def test_a_few_pairs_of_all_scores():
    scores = [0.0] * 995 + [1.0] * 5
    task, says = sampled(Sts(numbered(1000, "first"), numbered(1000, "second"), scores))
    assert 100 <= len(task.scores) <= 102 and len(task.texts) == 2 * len(task.scores)
    # Not one score alone, of which nothing is ranked.
    assert Counter(task.scores)[1.0] == 2
    assert [first.split()[1] for first in task.firsts] == [second.split()[1] for second in task.seconds]
    assert [scores[int(first.split()[1])] for first in task.firsts] == task.scores
    assert says == f"{len(task.scores)} of 1,000 pairs of task"
    pairs = Sts(numbered(1000), numbered(1000), list(np.linspace(0, 1, 1000)))
    task, _ = sampled(pairs)
    assert len(task.scores) == 100 and sampled(pairs)[0] == task != sampled(pairs, seed=2)[0]


def test_of_every_label_its_share_of_the_rows():
    labels = ["often"] * 800 + ["seldom"] * 190 + ["hardly"] * 10
    rows, texts = numbered(1000), {label: f"what is {label}" for label in ("often", "seldom", "hardly")}
    task, says = sampled(Classification(rows, labels, texts, (numbered(5000), ["often"] * 5000)))
    assert Counter(task.labels) == {"often": 160, "seldom": 38, "hardly": 2}
    assert all(labels[rows.index(row)] == label for row, label in zip(task.rows, task.labels, strict=True))
    assert task.label_texts == texts and task.training is None
    assert says == "200 of 1,000 texts of task"
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
    for task, says in (
        (Sts(numbered(50), numbered(50), list(np.arange(50.0))), "50 pairs of task"),
        (Clustering(numbered(200), numbered(200)), "200 texts of task"),
    ):
        assert sampled(task) == (task, says)


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
    assert ": 5 of 83 queries, 238 passages, 200 of 2,000 texts of clustering of " in says


def test_the_other_processes_wait_longer_than_pytorch_has_them():
    assert TrainingArguments.ddp_timeout == 2 * 60 * 60


# Choosing and judging


def folder(queries: dict[str, str], passages: int = 0) -> EvalFolder:
    """Each query with a passage of its own, and further ones."""
    texts = {f"p{number}": f"passage {number} " + "x" * 90 for number in range(len(queries) + passages)}
    qrels = {key: {f"p{number}": 1} for number, key in enumerate(queries)}
    return EvalFolder(Path("eval"), EvalData(Path("eval"), texts, queries, qrels, 0), {})


def test_the_text_alone_says_which_half_a_query_is_in():
    data = folder({f"q{number}": f"question {number}" for number in range(200)})
    chooses, judges = (half.retrieval for half in choosing_half(data))
    assert sorted([*chooses.queries, *judges.queries]) == sorted(data.retrieval.queries)
    assert 80 <= len(chooses.queries) <= 120 and chooses.queries.keys() == chooses.qrels.keys()
    assert chooses.passages == judges.passages == data.retrieval.passages
    # Other ids, another order, and other queries beside them.
    more = folder({str(number): f"question {number}" for number in reversed(range(-50, 250))})
    again = set(choosing_half(more)[0].retrieval.queries.values())
    assert set(chooses.queries.values()) == again & set(data.retrieval.queries.values())


def test_what_is_too_small_for_two_halves_chooses_and_judges():
    few = folder({str(number): f"question {number}" for number in range(99)})
    same = folder({str(number): "the same question" for number in range(200)})
    pairs = EvalFolder(Path(), None, {"sts": Sts(numbered(200), numbered(200), [0.0] * 199 + [1.0])})
    for data in (few, same, pairs):
        assert all(half is data for half in choosing_half(data))


def test_rows_of_the_task_that_chooses_are_parted_and_no_others():
    labels = [str(number % 5) for number in range(300)]
    sts = Sts(numbered(200, "first"), numbered(200, "second"), list(np.arange(200.0)))
    rows = Classification(numbered(300), labels, {label: label for label in labels}, (numbered(7), labels[:7]))
    chooses, judges = choosing_half(
        EvalFolder(Path(), None, {"sts": sts, "clustering": Clustering(["a"] * 9, ["b"] * 9)})
    )
    assert sorted(chooses.tasks["sts"].scores + judges.tasks["sts"].scores) == sts.scores
    assert [one.split()[1] for one in judges.tasks["sts"].seconds] == [
        str(int(one)) for one in judges.tasks["sts"].scores
    ]
    assert chooses.tasks["clustering"] == judges.tasks["clustering"]
    halves = [half.tasks["rows"] for half in choosing_half(EvalFolder(Path(), None, {"rows": rows}))]
    assert sorted(halves[0].rows + halves[1].rows) == sorted(rows.rows)
    assert all((half.label_texts, half.training) == (rows.label_texts, rows.training) for half in halves)
    beside = EvalFolder(Path(), folder({str(n): f"question {n}" for n in range(200)}).retrieval, {"sts": sts})
    assert all(half.tasks["sts"] == sts for half in choosing_half(beside))


def test_of_50_equal_checkpoints_the_chosen_one_is_judged_as_it_is_and_on_all_queries_better_than_it_is():
    """A query's value is drawn around its own difficulty, by each checkpoint alike: all are worth 0.5."""
    data = folder({f"q{number}": f"question {number}" for number in range(200)})
    place = {key: number for number, key in enumerate(data.retrieval.queries)}
    chooses, judges = ([place[key] for key in half.retrieval.queries] for half in choosing_half(data))
    random = np.random.default_rng(0)
    apart, on_all = [], []
    for _ in range(1000):
        values = random.uniform(0.2, 0.8, 200) + random.uniform(-0.2, 0.2, (50, 200))
        apart.append(values[values[:, chooses].mean(axis=1).argmax()][judges].mean())
        on_all.append(values.mean(axis=1).max())
    error = np.std(apart) / np.sqrt(len(apart))
    assert abs(np.mean(apart) - 0.5) < 3 * error
    assert np.mean(on_all) - 0.5 > 20 * error


# What evaluation may cost


def held_out(monkeypatch, data: EvalFolder) -> HeldOut:
    monkeypatch.setattr("m3kit.training.evaluation.read_eval_folder", lambda _: data)
    return HeldOut("eval", SimpleNamespace(query_max_len=64, passage_max_len=512), seed=1)


@pytest.mark.parametrize(
    ("step", "queries", "passages", "every", "says"),
    [
        # A step's characters; an evaluation of all has 2,000 passages of about 100 characters.
        (1e6, 150, 2000, 10, "of eval; half of the queries choose the best checkpoint, the others judge it"),
        (58e3, 75, 1000, 10, "of eval, to keep it below a fifth of the training time; half"),
        (
            85e2,
            50,
            250,
            20,
            "of eval, every 20 steps instead of 10, to keep it below a fifth of the training time; half",
        ),
        (
            1e2,
            50,
            250,
            100,
            "every 100 steps instead of 10, the least, though more than a fifth of the training",
        ),
    ],
)
def test_fewer_texts_then_fewer_times_until_it_is_a_fifth(monkeypatch, step, queries, passages, every, says):
    data = folder({str(number): f"question {number}" for number in range(300)}, passages=4000)
    found = held_out(monkeypatch, data)
    interval = found.limit(step, steps=100, eval_steps=10, further=0)
    kept = found.data.retrieval
    cost = found._characters() * (1 + np.ceil(100 / interval))
    assert cost <= 0.2 * step * 100 or step == 1e2
    assert len(kept.queries) == pytest.approx(queries, rel=0.1) and len(kept.passages) == pytest.approx(
        passages, rel=0.1
    )
    assert interval == pytest.approx(every, rel=0.3)
    assert set(kept.queries) <= set(choosing_half(data)[0].retrieval.queries)
    assert f"{len(kept.queries)} of 300 queries, {len(kept.passages):,} of 4,300 passages of eval" in found.says
    assert says.replace(f"every {every}", f"every {interval}") in found.says
    again = held_out(monkeypatch, data)
    assert again.limit(step, 100, 10, 0) == interval and again.data == found.data


def test_shares_that_are_measured_after_training_count_too(monkeypatch):
    data = folder({str(number): f"question {number}" for number in range(80)}, passages=900)
    alone, with_shares = held_out(monkeypatch, data), held_out(monkeypatch, data)
    assert alone.limit(6e3, 100, 1000, further=0) == with_shares.limit(6e3, 100, 1000, further=4) == 1000
    assert len(with_shares.data.retrieval.passages) < len(alone.data.retrieval.passages)
    assert alone.chosen_on == "all" and "half" not in alone.says
