"""Graded pairs (STS) train by their scores, and classified texts by the labels of their batch where that is better."""

from __future__ import annotations

import json
import random

import pytest
import torch
from conftest import read_jsonl, write_jsonl
from equivalence import Rows, assert_same, collate, collate_sorted, load, losses_and_gradients, make_rows
from runs import WORDS, arguments, train
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from training_helpers import KIT, batches, dataset, native

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError
from m3kit.training.losses import cosent_loss
from m3kit.training.model import M3Model

KINDS = ["dense", "sparse", "colbert", "ensemble"]
GRADES = [0.2, 1.0, 0.2, 0.55, 0.0, 0.9]


def theirs(first, second, grades, scale=20.0):
    return CoSENTLoss(None, scale=scale).compute_loss_from_embeddings([first, second], torch.tensor(grades))


def graded_batch(grades=GRADES) -> Rows:
    return make_rows(len(grades), 1)._replace(teacher_scores=list(grades))


def pairs(count: int, **extra) -> list[dict]:
    """Prepared pairs, of which every third has sentences that others have."""
    row = {"neg": ["filler"], "prompt": "", "type": "graded_sts", "neg_scores": [0.0], **extra}
    return [
        row | {"query": f"q{i // 3}", "pos": [f"p{i // 2}"], "pos_scores": [i / count]} | extra for i in range(count)
    ]


# The loss


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1.0, 20.0, 200.0])
def test_the_loss_is_that_of_sentence_transformers(seed, scale):
    chance = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(12, 5, generator=chance, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grades = (torch.randint(0, 6, (12,), generator=chance) / 5).tolist()
    expected = theirs(first, second, grades, scale)
    found = cosent_loss(torch.cosine_similarity(first, second), torch.tensor(grades), scale)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, (first, second)) for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_pairs_of_one_grade_teach_nothing_and_break_nothing():
    scores = torch.randn(4, requires_grad=True)
    loss = cosent_loss(scores, torch.full((4,), 0.5))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_batch_of_graded_pairs_has_that_loss_of_each_kind_of_score(starter, alone, normalize):
    model = load(M3Model, starter, torch.float64, use_self_distill=True, normalize_embeddings=normalize)
    batch = collate(model, graded_batch(), alone)
    found = losses_and_gradients(model, batch)
    assert list(found.parts) == KINDS
    q, p = model.encode(batch["queries"], batch["passages"])
    torch.testing.assert_close(found.parts["dense"], theirs(q.dense, p.dense, GRADES).detach())
    assert min(found.parts.values()) > 0.1
    assert all(float(found.gradients[f"{head}_linear.weight"].norm()) > 0 for head in ("sparse", "colbert"))
    for tokens in (10_000, 20):
        assert_same(losses_and_gradients(model, collate_sorted(model, graded_batch(), tokens, alone)), found, 1e-9)


def test_dense_alone_and_a_batch_of_one_grade_or_one_pair_train_too(starter):
    model = load(M3Model, starter, unified_finetuning=False)
    assert list(losses_and_gradients(model, collate(model, graded_batch())).parts) == ["dense"]
    for grades in ([0.3, 0.3], [0.3]):
        found = losses_and_gradients(model, collate(model, graded_batch(grades)))
        assert found.loss == 0
        assert all(gradient is None or not gradient.any() for gradient in found.gradients.values())


# The rows


@pytest.mark.parametrize("knowledge_distillation", [False, True])
@pytest.mark.parametrize("folder", ["sts", "sts-no_in_batch_neg"])
def test_graded_pairs_come_with_their_scores_in_batches_of_16(tmp_path, caplog, folder, knowledge_distillation):
    path = write_jsonl(tmp_path / folder / "rows.jsonl", pairs(40))
    scored = write_jsonl(tmp_path / "b" / "b.jsonl", native(4, prompt="", pos_scores=[2], neg_scores=[1] * 7))
    data = dataset(KIT, [path.parent, scored], tmp_path, knowledge_distillation=knowledge_distillation)
    graded = [item for item in batches(data) if len(item[0]) == 16]
    assert len(graded) == 2
    assert "graded pairs are compared within a batch: batches of 16" in caplog.text
    for queries, passages, scores, _ in graded:
        assert len(passages) == len(scores) == 16
        for query, passage, score in zip(queries, passages, scores, strict=True):
            place = round(score * 40)
            assert (query, passage) == (f"q{place // 3}", f"p{place // 2}")
    assert len({score for item in graded for score in item[2]}) == 32
    others = [item[2] for item in batches(data) if len(item[0]) != 16]
    assert all((scores is not None) == knowledge_distillation for scores in others)


def test_batches_of_graded_pairs_may_be_larger_and_are_no_larger_than_the_set(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", pairs(40))
    assert [len(item[0]) for item in batches(dataset(KIT, [path], tmp_path, batch_size=20))] == [20, 20]
    few = write_jsonl(tmp_path / "few.jsonl", pairs(10))
    assert [len(item[0]) for item in batches(dataset(KIT, [few], tmp_path, processes=2))] == [5]


@pytest.mark.parametrize(
    ("rows", "arguments", "what"),
    [
        ([*pairs(3), *native(2, prompt="", type="retrieval")], {}, "rows of type graded_sts and others"),
        (pairs(3, pos_scores=None), {}, 'no "pos_scores"'),
        (pairs(3, pos_scores=[1.0, 0.5]), {}, '"pos_scores" has 2 scores for 1 passages'),
        (pairs(3), {"same_dataset_within_batch": False}, "--sts_as contrastive"),
    ],
)
def test_graded_rows_that_cannot_train_so_are_refused(tmp_path, rows, arguments, what):
    with pytest.raises(KitError, match=what):
        dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path, **arguments)


def test_a_teacher_has_nothing_to_say_of_groups_of_one_passage(tmp_path):
    rows = native(4, prompt="", pos_scores=[2.0], neg_scores=[1.0] * 7)
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = dataset(KIT, [path], tmp_path, knowledge_distillation=True, train_group_size=1)
    assert [scores for _, _, scores, _ in batches(data)] == [None, None]


@pytest.mark.slow
def test_pairs_of_middle_scores_are_learnt_in_their_order(starter, tmp_path):
    """No pair is above 0.8 or below 0.4, so that nothing of it would train as positives and negatives."""
    chance = random.Random(3)
    shared = [chance.sample(WORDS, 4) for _ in range(48)]
    rows = []
    for number, words in enumerate(shared):
        grade = number % 4
        other = words[:grade] + chance.sample([word for word in WORDS if word not in words], 4 - grade)
        rows.append({"sentence1": " ".join(words), "sentence2": " ".join(other), "score": 0.45 + 0.1 * grade})
    write_jsonl(tmp_path / "sts" / "rows.jsonl", rows)
    prepare([tmp_path / "sts"], tmp_path / "rows", Settings())
    (tmp_path / "train").mkdir()
    (tmp_path / "rows" / "sts").rename(tmp_path / "train" / "sts")
    run = train(arguments(starter, tmp_path / "train", tmp_path / "output", max_steps=30))
    losses = [row for row in read_jsonl(run.output / "train_log.jsonl") if "loss" in row]
    assert {name for row in losses for name in row if name.startswith("loss_")} == {f"loss_{kind}" for kind in KINDS}
    first, last = (sum(row["loss_dense"] for row in some) for some in (losses[:6], losses[-6:]))
    assert last < 0.8 * first
    assert json.loads((run.output / "run.json").read_text())["data"][0]["batch_size_per_device"] == 16


# Labels


def classified(labels: int, each: int, tmp_path, positives: str = "labels", **settings):
    rows = [{"text": f"text {i} of {n}", "label": f"label_{n}"} for n in range(labels) for i in range(each)]
    write_jsonl(tmp_path / "classification-no_in_batch_neg" / "rows.jsonl", rows)
    output = tmp_path / "prepared"
    folders = prepare(
        [tmp_path / "classification-no_in_batch_neg"], output, Settings(classification_positives=positives)
    )
    return dataset(KIT, folders, tmp_path, **settings)


@pytest.mark.parametrize(
    ("labels", "batch_size", "wanted", "in_batch"),
    [
        (20, 16, "auto", True),
        (20, 16, "group", False),
        (20, 2, "auto", False),  # groups of 8 have more negatives
        (20, 2, "batch", True),
        (10, 8, "auto", False),  # few labels
        (10, 8, "batch", True),
    ],
)
def test_the_labels_of_the_batch_are_the_negatives_where_they_are_more(
    tmp_path, caplog, labels, batch_size, wanted, in_batch
):
    caplog.set_level("INFO")
    data = classified(labels, 4, tmp_path, batch_size=batch_size, label_negatives=wanted)
    assert [entry["in_batch_negatives"] for entry in data.describe()] == [in_batch]
    assert ("the labels of the other rows" if in_batch else "each row's own group: ") in caplog.text
    for queries, passages, _, alone in batches(data):
        assert alone != in_batch
        assert (len(passages) == len(queries)) == in_batch
        if in_batch:
            assert len(set(passages)) == len(passages) >= batch_size - 2
            assert all(
                query.endswith(label.removeprefix("label")) for query, label in zip(queries, passages, strict=True)
            )


@pytest.mark.parametrize("positives", ["texts", "both"])
@pytest.mark.parametrize("wanted", ["auto", "batch"])
def test_texts_of_one_label_are_never_negatives_of_each_other(tmp_path, positives, wanted):
    data = classified(20, 4, tmp_path, positives, batch_size=16, label_negatives=wanted)
    assert [entry["in_batch_negatives"] for entry in data.describe()] == [False]


def test_a_label_of_most_rows_leaves_the_negatives_in_the_group(tmp_path):
    rows = [{"text": f"text {i}", "label": f"label_{i if i < 20 else 0}"} for i in range(64)]
    folder = tmp_path / "classification-no_in_batch_neg"
    write_jsonl(folder / "rows.jsonl", rows)
    folders = prepare([folder], tmp_path / "prepared", Settings())
    (entry,) = dataset(KIT, folders, tmp_path, batch_size=16).describe()
    assert entry["in_batch_negatives"] is False


def test_another_word_for_label_negatives_is_refused(tmp_path):
    with pytest.raises(KitError, match="auto, batch or group, not 'many'"):
        classified(3, 3, tmp_path, label_negatives="many")
