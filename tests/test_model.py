"""What the kit's model corrects in FlagEmbedding's: each correction beside the defect, as plain FlagEmbedding shows it.

``test_equivalence`` tells where FlagEmbedding is right and nothing may change; negatives across devices (T5) are there.
"""

from __future__ import annotations

import weakref

import pytest
import torch
from conftest import mostly_slow
from equivalence import Plain, assert_same, collate, collate_sorted, load, losses_and_gradients, make_rows, mean
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from m3kit.training.model import M3Model

TEACHERS = [None, "kl_div", "m3_kd_loss"]
KINDS = ["dense", "sparse", "colbert", "ensemble"]


def row_by_row(model, batch: dict):
    """Of each row as a batch of its own, padded as in the whole: where all candidates are its group, however told."""
    rows = len(batch["queries"]["input_ids"])
    size = len(batch["passages"]["input_ids"]) // rows
    outcomes = []
    for i in range(rows):
        scores = batch["teacher_scores"]
        row = {
            "queries": {name: values[i : i + 1] for name, values in batch["queries"].items()},
            "passages": {name: values[i * size : (i + 1) * size] for name, values in batch["passages"].items()},
            "teacher_scores": scores and scores[i * size : (i + 1) * size],
        }
        outcomes.append(losses_and_gradients(model, row))
    return mean(outcomes)


# T2: unified fine-tuning without in-batch negatives


def test_t2_flagembedding_fails_with_more_rows_than_passages_in_a_group(starter):
    plain = load(Plain, starter)
    with pytest.raises(IndexError):
        plain(**collate(plain, make_rows(4, 3), alone=True))


@pytest.mark.parametrize("group_size", [3, 4])
def test_t2_flagembedding_leaves_one_candidate_with_fewer(starter, group_size):
    plain = load(Plain, starter, use_self_distill=True)
    plain(**collate(plain, make_rows(3, group_size), alone=True))
    assert plain.parts()["ensemble"] == 0
    # What the others are to learn from the ensemble: that every candidate is the right one.
    assert all(targets.shape == (3, 1) and bool((targets == 1).all()) for targets in plain.self_targets)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize(
    ("unified", "rows", "group_size"),
    mostly_slow([(True, 4, 3), (True, 3, 3), (True, 2, 4), (True, 3, 2), (True, 1, 3), (False, 4, 3)]),
)
def test_t2_without_in_batch_negatives_every_loss_is_over_the_group(starter, rows, group_size, unified, teacher):
    """In 64 bits, which have no rounding to speak of. These are the losses with m3_kd_loss too."""
    settings = {"unified_finetuning": unified, "use_self_distill": True, "kd_loss_type": teacher or "kl_div"}
    plain, model = (load(cls, starter, torch.float64, **settings) for cls in (Plain, M3Model))
    batch = collate(model, make_rows(rows, group_size, teacher=bool(teacher)), alone=True)
    found = losses_and_gradients(model, batch)
    assert list(found.parts) == ([*KINDS, "self_distill"] if unified else ["dense"])
    assert min(found.parts.values()) > 1e-4
    assert_same(found, row_by_row(plain, batch), 1e-9)


@pytest.mark.parametrize("unified", [False, True])
def test_flagembedding_fails_at_m3_kd_loss_without_in_batch_negatives(starter, unified):
    plain = load(Plain, starter, kd_loss_type="m3_kd_loss", unified_finetuning=unified)
    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        plain(**collate(plain, make_rows(2, 3, teacher=True), alone=True))


# T3: sub-batches


def test_t3_flagembedding_cannot_put_sub_batches_of_different_lengths_together(starter):
    plain = load(Plain, starter)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match except in dimension 0"):
        plain(**collate(plain, make_rows(5, 3), sub_batch_size=2))


@pytest.mark.parametrize(
    ("size", "by_collator", "multiple", "alone"),
    mostly_slow(
        [(2, True, 8, False), (2, False, None, False), (2, True, None, True)]
        + [
            (size, True, multiple, False)
            for size in (1, 2, 4, 64)
            for multiple in (None, 8)
            if (size, multiple) != (2, 8)
        ]
        + [(7, False, None, False)],
        3,
    ),
)
def test_t3_sub_batches_come_to_the_same_as_the_undivided_batch(starter, size, by_collator, multiple, alone):
    """``by_collator``: each is padded to its own longest text. Otherwise the model divides the batch."""
    undivided, model = (load(M3Model, starter, use_self_distill=True, sub_batch_size=sub) for sub in (-1, size))
    rows = make_rows(5, 3, teacher=True)
    expected = losses_and_gradients(undivided, collate(undivided, rows, alone, pad_to_multiple_of=multiple))
    batch = collate(model, rows, alone, sub_batch_size=size if by_collator else -1, pad_to_multiple_of=multiple)
    if by_collator and size < 5:
        assert len({part["input_ids"].shape[1] for part in batch["passages"]}) > 1, "all of one length"
    assert_same(losses_and_gradients(model, batch), expected, 1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last_token"])
def test_t3_sub_batches_pool_as_the_undivided_batch(starter, pooling):
    plain, model = (load(cls, starter, sentence_pooling_method=pooling) for cls in (Plain, M3Model))
    rows = make_rows(5, 3)
    expected = losses_and_gradients(plain, collate(plain, rows))
    assert_same(losses_and_gradients(model, collate(model, rows, sub_batch_size=2)), expected, 1e-5)


@pytest.mark.parametrize("precision", mostly_slow([torch.float32, torch.bfloat16]))
@pytest.mark.parametrize("unified", mostly_slow([True, False]))
def test_t3_vectors_computed_again_are_those_of_the_first_time(starter, unified, precision):
    """With dropout, and in 16 bits: the same sub-batches, computed once, have the same gradients."""
    found = []
    for tokens in (10_000, 20, 60):
        model = load(M3Model, starter, unified_finetuning=unified)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        batch = collate_sorted(model, make_rows(5, 3), 20)
        model.sub_batch_tokens = tokens
        torch.manual_seed(3)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = model(**batch).loss
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("reentrant", [False, True])
def test_t3_sub_batches_and_gradient_checkpointing(starter, reentrant):
    expected, model = (load(cls, starter) for cls in (Plain, M3Model))
    model.enable_input_require_grads()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    rows = make_rows(5, 3)
    expected = losses_and_gradients(expected, collate(expected, rows))
    assert_same(losses_and_gradients(model, collate(model, rows, sub_batch_size=2)), expected, 1e-5)


class Peak(TorchDispatchMode):
    """The most bytes at a time of all tensors made in this context, forward and backward."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.known:
                    self.known.add(storage)
                    self._change(storage.nbytes())
                    weakref.finalize(storage, self._change, -storage.nbytes())
        return result

    def _change(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


def growth(cls, starter, unified: bool, sub_batch_size: int) -> int:
    """The bytes that 36 texts more take at the peak of a step."""
    peaks = []
    for count in (4, 16):
        model = load(cls, starter, unified_finetuning=unified, sub_batch_size=sub_batch_size)
        batch = collate(model, make_rows(count, 3), sub_batch_size=sub_batch_size)
        with Peak() as peak:
            model(**batch).loss.backward()
        peaks.append(peak.most)
    return peaks[1] - peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize("unified", mostly_slow([True, False]))
def test_t3_one_sub_batch_at_a_time_takes_memory(starter, unified):
    """More texts take that of their vectors and scores, which is hardly any of what their gradients need."""
    undivided = growth(Plain, starter, unified, -1)
    assert growth(M3Model, starter, unified, 2) < undivided / 20
    if not unified:  # which fails in FlagEmbedding
        assert growth(Plain, starter, unified, 2) > undivided / 2


@pytest.mark.parametrize("unified", mostly_slow([True, False]))
def test_t3_only_what_exceeds_the_number_is_computed_again(starter, unified):
    """The last sub-batches are encoded once, as many as the number has room for; the gradients are the same."""
    rows = make_rows(5, 3)
    whole = load(M3Model, starter, unified_finetuning=unified)
    expected = losses_and_gradients(whole, collate_sorted(whole, rows, 10_000))
    for room in (0, 1, 3):
        model = load(M3Model, starter, unified_finetuning=unified)
        batch = collate_sorted(model, rows, 40)
        parts = [*batch["queries"], *batch["passages"]]
        assert len(parts) > 4
        model.sub_batch_tokens = sum(part["input_ids"].numel() for part in parts[len(parts) - room :])
        calls = []
        model.model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        assert_same(losses_and_gradients(model, batch), expected, 1e-5)
        assert len(calls) == 2 * len(parts) - room


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(
    ("tokens", "size", "expected"),
    # After each layer: forward, and where a part is encoded twice forward once more, and backward.
    [(10_000, 2, 0), (1, 2, 3 * 2 * (2 + 5)), (10_000, -1, 0), (1, -1, 3 * 2 * (1 + 1)), (None, -1, 2)],
)
def test_t3_what_layers_free_is_given_back_now_and_then(monkeypatch, starter, unified, tokens, size, expected):
    """Forward and backward: glibc would keep it between the vectors that stay, up to many times their size."""
    calls = []
    monkeypatch.setattr("m3kit.training.model.release_freed", lambda: calls.append(1))
    model = load(M3Model, starter, sub_batch_size=size, unified_finetuning=unified)
    batch = collate(model, make_rows(3, 3), sub_batch_size=size)
    # None: all of the passages and of the queries, so that nothing is computed again.
    model.sub_batch_tokens = tokens or sum(batch[side]["input_ids"].numel() for side in ("queries", "passages"))
    model(**batch).loss.backward()
    assert len(calls) == expected


@pytest.mark.parametrize("size", [0, -1, -2, None])
def test_t3_sizes_that_divide_nothing(starter, size):
    model = load(M3Model, starter, sub_batch_size=size)
    assert model(**collate(model, make_rows(2, 2), sub_batch_size=size)).loss > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_t3_padding_on_either_side(starter, side):
    model = load(M3Model, starter, torch.float64, sentence_pooling_method="last_token")
    model.tokenizer.padding_side = side
    whole, divided = (model(**collate(model, make_rows(4, 3), sub_batch_size=size)).parts for size in (-1, 2))
    same = {name for name in KINDS if abs(whole[name] - divided[name]) < 1e-9}
    # With padding on the left, FlagEmbedding leaves out the first token of the longest texts of a sub-batch.
    assert same == ({"dense", "sparse"} if side == "left" else set(KINDS))


# What forward gives


@pytest.mark.parametrize("unified", [False, True])
def test_the_parts_are_named_and_make_up_the_loss(starter, unified):
    model = load(M3Model, starter, unified_finetuning=unified, use_self_distill=True, self_distill_start_step=0)
    batch = collate(model, make_rows(3, 3))
    for step in range(3):
        assert model.step == step
        output = model(**batch)
        parts = output.parts
        assert not any(part.requires_grad for part in parts.values())
        assert list(parts) == ["dense", *KINDS[1:], "self_distill"][: 1 if not unified else 4 if step == 0 else 5]
        expected = parts["dense"]
        if unified:
            expected = (expected + parts["ensemble"] + 0.1 * parts["sparse"] + parts["colbert"]) / 4
            if step > 0:
                expected = (expected + parts["self_distill"]) / 2
        torch.testing.assert_close(output.loss.detach(), expected)


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("sub_batch_size", [-1, 2])
def test_outside_of_training_there_is_no_loss_and_no_step(starter, unified, sub_batch_size):
    model = load(M3Model, starter, unified_finetuning=unified, sub_batch_size=sub_batch_size).eval()
    with torch.no_grad():
        output = model(**collate(model, make_rows(3, 3), sub_batch_size=sub_batch_size))
    assert output.loss is None
    assert output.parts is None
    assert model.step == 0


def test_the_output_can_be_made_anew(starter):
    """As accelerate does in mixed precision, to turn the loss into 32 bits."""
    model = load(M3Model, starter)
    output = model(**collate(model, make_rows(2, 2)))
    again = type(output)(dict(output))
    assert again.loss is output.loss
    assert list(again.parts) == KINDS


@pytest.mark.parametrize("alone", [False, True])
def test_a_teachers_loss_that_there_is_not(starter, alone):
    model = load(M3Model, starter, kd_loss_type="no_such_loss")
    with pytest.raises(ValueError, match="no_such_loss"):
        model(**collate(model, make_rows(2, 3, teacher=True), alone))


def test_scores_of_a_teacher_for_other_passages(starter):
    model = load(M3Model, starter)
    with pytest.raises(RuntimeError, match="invalid for input of size 3"):
        model(**collate(model, make_rows(2, 3)) | {"teacher_scores": [0.5, 0.1, 0.2]})
