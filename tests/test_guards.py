"""What ends a run that no longer learns: a loss that is no number, one of 0, a head that gets no gradient."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from runs import Run, arguments, write_rows

from m3kit.errors import KitError
from m3kit.training.guards import PATIENCE, Guard


class Heads(torch.nn.Module):
    """As much of a model as is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.colbert_linear, self.sparse_linear = (torch.nn.Linear(2, 2) for _ in range(3))


def guard(fp16=False) -> Guard:
    return Guard(Heads(), mixed_fp16=fp16)


def checked(watching: Guard, steps: int, loss=1.0, norm=1.0, gradients=(1.0, 1.0, 1.0), skipped=False) -> None:
    for step in range(1, steps + 1):
        watching.check(step, loss, norm, list(gradients), skipped)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
@pytest.mark.parametrize("fp16", [True, False])
def test_a_loss_that_is_no_number_ends_it_at_once(loss, fp16):
    with pytest.raises(KitError, match=f"step 1: the loss is {loss}.*learning_rate") as raised:
        checked(guard(fp16), 1, loss=loss)
    assert ("bf16" in str(raised.value)) == fp16


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_ends_it_at_once_but_in_fp16(norm):
    with pytest.raises(KitError, match="step 1: a gradient is not finite"):
        checked(guard(), 1, norm=norm)
    checked(guard(fp16=True), PATIENCE, norm=norm, skipped=True)
    with pytest.raises(KitError, match="overflowed in 30 steps on end"):
        checked(guard(fp16=True), 3 * PATIENCE, norm=norm, skipped=True)


def test_a_loss_of_0_ends_it_when_it_lasts():
    watching = guard()
    checked(watching, PATIENCE - 1, loss=0.0)
    checked(watching, 1)
    checked(watching, PATIENCE - 1, loss=0.0)
    with pytest.raises(KitError, match="exactly 0 for 10 steps on end.*negatives are too easy"):
        checked(watching, 1, loss=0.0)


@pytest.mark.parametrize(("place", "name"), [(0, "encoder"), (1, "ColBERT head"), (2, "sparse head")])
def test_a_part_without_gradient_ends_it_when_it_lasts(place, name):
    gradients = [1.0, 1.0, 1.0]
    gradients[place] = 0.0
    watching = guard()
    checked(watching, PATIENCE - 1, gradients=gradients)
    with pytest.raises(KitError, match=f"the {name} has had no gradient for 10 steps on end"):
        checked(watching, 1, gradients=gradients)


def test_the_gradients_are_those_of_the_backward_pass():
    model = Heads()
    watching = Guard(model, mixed_fp16=False)
    assert watching.take_gradients() == [0.0, 0.0, 0.0]
    (model.model(torch.ones(1, 2)).sum() + 3 * model.sparse_linear(torch.ones(1, 2)).sum()).backward()
    encoder, colbert, sparse = map(float, watching.take_gradients())
    assert (encoder, colbert, sparse) == (1.0, 0.0, 3.0)


def test_what_is_not_trained_is_not_watched():
    model = Heads()
    model.model.requires_grad_(False)
    assert list(Guard(model, mixed_fp16=False).watched) == ["ColBERT head", "sparse head"]
    model = SimpleNamespace(model=torch.nn.Linear(2, 2), colbert_linear=None, sparse_linear=None)
    assert list(Guard(model, mixed_fp16=False).watched) == ["encoder"]


def fails(words: list[str], processes: int = 1) -> str:
    run = Run(words, processes)
    assert 1 in run.wait()
    log = run.log.read_text("utf-8")
    assert "Traceback" not in log
    return log


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_blows_up_says_so_and_saves_nothing_of_it(starter, tmp_path, processes):
    words = arguments(starter, write_rows(tmp_path / "rows"), tmp_path / "output", learning_rate=1e30, save_steps=1000)
    log = fails(words, processes)
    assert "the loss is nan" in log or "a gradient is not finite" in log
    assert "Likely cures: lower learning_rate" in log
    assert not list((tmp_path / "output").glob("checkpoint-*"))


@pytest.mark.slow
def test_a_dead_sparse_head_is_named(starter, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for path in starter.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    weights = torch.load(model / "sparse_linear.pt", weights_only=True)
    torch.save({"weight": weights["weight"] * 0, "bias": weights["bias"] * 0 - 1}, model / "sparse_linear.pt")
    log = fails(arguments(model, write_rows(tmp_path / "rows"), tmp_path / "output"))
    assert "step 10: the sparse head has had no gradient for 10 steps on end" in log
