"""The kit's model comes to FlagEmbedding's losses and gradients wherever FlagEmbedding's are right."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from equivalence import (
    Plain,
    assert_as_near,
    assert_same,
    collate,
    collate_sorted,
    differences,
    load,
    losses_and_gradients,
    make_rows,
    mean,
    on_ranks,
)
from torch.nn.parallel import DistributedDataParallel

from m3kit.training.model import M3Model

pytestmark = pytest.mark.slow

POOLING = [(pooling, normalize) for pooling in ("cls", "mean", "last_token") for normalize in (True, False)]
TEACHERS = [None, "kl_div", "m3_kd_loss"]


def settings_for(pooling="cls", normalize=True, teacher=None, **others):
    # Vectors of any length score far higher: at a temperature for cosines every softmax would be one-sided.
    temperature = 0.02 if normalize else 2.0
    found = {"sentence_pooling_method": pooling, "normalize_embeddings": normalize, "temperature": temperature}
    return found | {"kd_loss_type": teacher or "kl_div"} | others


# More than a batch here has; and sub-batches of one to a few texts, encoded again for their gradients.
SUB_BATCHES = (10_000, 40)


def compare(starter, settings, rows, alone=False, steps=1, **collator):
    """As FlagEmbedding pads the batch and in sub-batches by length; in 64 bits, with hardly any rounding, and in 32."""
    truths = {}
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        plain, model = (load(cls, starter, dtype, **settings) for cls in (Plain, M3Model))
        batch = collate(plain, rows, alone, **collator)
        for step in range(steps):
            expected = losses_and_gradients(plain, batch)
            truth = truths.setdefault(step, expected)
            for tokens in (None, *SUB_BATCHES):
                model.step = step
                same = collate_sorted(model, rows, tokens, alone) if tokens else batch
                found = losses_and_gradients(model, same)
                assert_as_near(found, expected, truth, tolerance)
        assert plain.step == model.step == steps
    return found


# One process


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("self_distill", [False, True])
@pytest.mark.parametrize(("pooling", "normalize"), POOLING)
def test_unified(starter, pooling, normalize, teacher, self_distill):
    settings = settings_for(pooling, normalize, teacher, unified_finetuning=True, use_self_distill=self_distill)
    found = compare(starter, settings, make_rows(4, 3, teacher=bool(teacher)))
    kinds = ["dense", "sparse", "colbert", "ensemble"]
    assert list(found.parts) == kinds + ["self_distill"] * self_distill
    # Equal losses of 0 would say nothing.
    assert min(found.parts.values()) > 0.1


# With m3_kd_loss FlagEmbedding needs in-batch negatives.
@pytest.mark.parametrize(
    ("alone", "teacher"), [*((False, teacher) for teacher in TEACHERS), (True, None), (True, "kl_div")]
)
@pytest.mark.parametrize(("pooling", "normalize"), POOLING)
def test_dense_alone(starter, pooling, normalize, teacher, alone):
    settings = settings_for(pooling, normalize, teacher, unified_finetuning=False, use_self_distill=True)
    found = compare(starter, settings, make_rows(4, 3, teacher=bool(teacher)), alone)
    assert list(found.parts) == ["dense"]
    assert found.parts["dense"] > 0.1


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize(("rows", "group_size"), [(1, 2), (1, 5), (2, 2), (5, 2), (2, 5)])
def test_shapes(starter, rows, group_size, unified, teacher):
    settings = settings_for(teacher=teacher, unified_finetuning=unified, use_self_distill=True)
    compare(starter, settings, make_rows(rows, group_size, teacher=bool(teacher)), pad_to_multiple_of=8)


def test_the_step_at_which_self_distillation_starts(starter):
    settings = settings_for(unified_finetuning=True, use_self_distill=True, self_distill_start_step=1)
    assert "self_distill" not in compare(starter, settings, make_rows(3, 2), steps=2).parts
    assert "self_distill" in compare(starter, settings, make_rows(3, 2), steps=3).parts


def test_dense_alone_in_sub_batches(starter):
    settings = settings_for(unified_finetuning=False, sub_batch_size=2)
    compare(starter, settings, make_rows(3, 3), sub_batch_size=2)


def test_the_harness_tells_models_apart(starter):
    model = load(M3Model, starter)
    batch = collate(model, make_rows(3, 3))
    outcome = losses_and_gradients(model, batch)
    with torch.no_grad():
        model.colbert_linear.weight[0, 0] += 1e-3
    other = losses_and_gradients(model, batch)
    with pytest.raises(AssertionError, match="loss of colbert.*colbert_linear.weight"):
        assert_same(other, outcome)
    broken = copy.deepcopy(outcome)
    broken.gradients["sparse_linear.bias"].fill_(torch.nan)
    with pytest.raises(AssertionError, match="'gradient of sparse_linear.bias': 'nan'"):
        assert_same(broken, outcome)


# Two processes: negatives across devices

RANKS, ROWS = 2, 3


class Case(NamedTuple):
    settings: dict
    teacher: bool = False
    sub_batch_size: int = -1
    alone: bool = False  # without in-batch negatives


SHARED = {"use_self_distill": True, "unified_negatives_cross_device": True}
# Where FlagEmbedding is right, and what it is compared with.
PLAIN_CASES = {
    f"{'unified' if unified else 'dense'} {teacher} {'distilled' if distilled else ''}".strip(): Case(
        settings_for(teacher=teacher, unified_finetuning=unified, use_self_distill=distilled), bool(teacher)
    )
    for unified, distilled in [(False, False), (True, False), (True, True)]
    for teacher in TEACHERS
} | {
    "dense in sub-batches": Case(settings_for(unified_finetuning=False), sub_batch_size=2),
    "dense and the group alone": Case(settings_for(unified_finetuning=False), alone=True),
}
SHARED_CASES = {
    f"{teacher} {sub_batch_size}": Case(settings_for(teacher=teacher, **SHARED), bool(teacher), sub_batch_size)
    for teacher in TEACHERS
    for sub_batch_size in (-1, 2)
} | {"dense": Case(settings_for(unified_finetuning=False, **SHARED), True)}
ALONE_CASE = Case(settings_for(**SHARED), True, alone=True)


def all_rows(case):
    """Of all processes. The first has the longest passage and the second the longest query."""
    return make_rows(RANKS * ROWS, 3, case.teacher, seed=1)


def one_rank(rank, starter, cls, case, dtype):
    """(what this process's gradients are, what they are once the processes have averaged them)"""
    settings = case.settings | {"negatives_cross_device": True, "sub_batch_size": case.sub_batch_size}
    model = DistributedDataParallel(load(cls, starter, dtype, **settings))
    rows = all_rows(case).some(rank * ROWS, (rank + 1) * ROWS)
    batch = collate(model.module, rows, case.alone, sub_batch_size=case.sub_batch_size)
    with model.no_sync():
        own = losses_and_gradients(model, batch)
    return own, losses_and_gradients(model, batch)


def all_cases(rank, starter):
    plain = {
        name: [one_rank(rank, starter, cls, case, torch.float64) for cls in (Plain, M3Model)]
        for name, case in PLAIN_CASES.items()
    }
    shared = {name: one_rank(rank, starter, M3Model, case, torch.float64) for name, case in SHARED_CASES.items()}
    return plain, shared, one_rank(rank, starter, M3Model, ALONE_CASE, torch.float64)


@pytest.fixture(scope="module")
def crossed(starter, tmp_path_factory):
    return on_ranks(tmp_path_factory.mktemp("ranks"), all_cases, starter)


@pytest.mark.parametrize("case", PLAIN_CASES)
def test_negatives_across_devices(crossed, case):
    for plain, *_ in crossed:
        for expected, found in zip(*plain[case], strict=True):
            assert_same(found, expected, 1e-9)


@pytest.mark.parametrize("case", SHARED_CASES)
def test_t5_all_scores_across_devices_are_those_of_one_process(starter, crossed, case):
    one_process = load(M3Model, starter, torch.float64, **SHARED_CASES[case].settings)
    rows = all_rows(SHARED_CASES[case])
    for name in ("queries", "passages"):
        parts = (collate(one_process, rows.some(start, start + ROWS))[name]["input_ids"] for start in (0, ROWS))
        assert len({part.shape[1] for part in parts}) == RANKS, "nothing to pad"
    expected = losses_and_gradients(one_process, collate(one_process, rows))
    own, averaged = zip(*(shared[case] for _, shared, _ in crossed), strict=True)
    for outcome in (mean(own), *averaged):
        # Each process has the gradients of its own texts alone.
        times_ranks = {name: g if g is None else RANKS * g for name, g in outcome.gradients.items()}
        assert_same(outcome._replace(gradients=times_ranks), expected, 1e-9)
    for outcome in own:
        losses = [outcome.loss, *outcome.parts.values()]
        torch.testing.assert_close(losses, [expected.loss, *expected.parts.values()], rtol=1e-9, atol=0)


def test_t5_without_in_batch_negatives_there_are_none_across_devices(starter, crossed):
    one_process = load(M3Model, starter, torch.float64, **ALONE_CASE.settings)
    expected = losses_and_gradients(one_process, collate(one_process, all_rows(ALONE_CASE), alone=True))
    own, averaged = zip(*(alone for *_, alone in crossed), strict=True)
    assert own[0].loss != own[1].loss
    assert_same(mean(own), expected, 1e-9)
    assert_same(mean(averaged), expected, 1e-9)


def test_t5_flagembedding_shares_dense_negatives_alone(starter, crossed):
    case = PLAIN_CASES["unified None distilled"]
    one_process = load(M3Model, starter, **case.settings)
    expected = losses_and_gradients(one_process, collate(one_process, all_rows(case)))
    for plain, *_ in crossed:
        ((found, _), _) = plain["unified None distilled"]
        apart = differences(found, expected)
        assert apart["loss of dense"] < 1e-5
        assert min(apart[f"loss of {name}"] for name in ("sparse", "colbert", "ensemble", "self_distill")) > 0.05
