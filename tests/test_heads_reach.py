"""How far the gradients of the sparse and ColBERT heads reach into the encoder; the heads themselves learn as ever."""

from __future__ import annotations

import pytest
import torch
from equivalence import collate, load, losses_and_gradients, make_rows

from m3kit.errors import KitError
from m3kit.training.arguments import TrainingArguments
from m3kit.training.losses import reach
from m3kit.training.model import M3Model

HEADS = ("colbert_linear", "sparse_linear")


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_values_stay_and_gradients_shrink(share):
    values = torch.randn(5, requires_grad=True)
    reached = reach(values, share)
    assert torch.equal(reached, values)
    if share:
        reached.sum().backward()
        assert torch.allclose(values.grad, torch.full((5,), share))
    else:
        assert not reached.requires_grad


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_encoder_hears_less_and_the_heads_as_much(starter, share, alone):
    outcomes = {}
    for name, settings in {"all": {}, "some": {"heads_reach": share}, "dense": {"unified_finetuning": False}}.items():
        model = load(
            M3Model, starter, torch.float64, **{"unified_finetuning": True, "use_self_distill": True} | settings
        )
        outcomes[name] = losses_and_gradients(model, collate(model, make_rows(4, 3), alone))
    whole, some, dense = outcomes["all"], outcomes["some"], outcomes["dense"]
    assert torch.allclose(some.loss, whole.loss)
    for name, gradient in some.gradients.items():
        if gradient is None:
            continue
        if name.startswith(HEADS):
            assert torch.allclose(gradient, whole.gradients[name]), name
        else:
            # A quarter of all losses, and a half beside self-distillation.
            own = dense.gradients[name] / 8
            expected = own + share * (whole.gradients[name] - own)
            assert torch.allclose(gradient, expected, atol=1e-12), name


@pytest.mark.parametrize("alone", [False, True])
def test_a_dense_temperature_is_of_the_dense_loss_alone(starter, alone):
    parts = {}
    for name, settings in {"both": {}, "own": {"dense_temperature": 0.05}, "high": {"temperature": 0.05}}.items():
        model = load(
            M3Model, starter, torch.float64, **{"unified_finetuning": True, "use_self_distill": True} | settings
        )
        parts[name] = losses_and_gradients(model, collate(model, make_rows(4, 3), alone)).parts
    assert torch.allclose(parts["own"]["dense"], parts["high"]["dense"])
    assert not torch.allclose(parts["own"]["dense"], parts["both"]["dense"])
    for name in ("sparse", "colbert", "ensemble", "self_distill"):
        assert torch.allclose(parts["own"][name], parts["both"][name]), name


@pytest.mark.parametrize("share", ["1.5", "-0.1"])
def test_no_share_is_refused(tmp_path, share):
    with pytest.raises(KitError, match="heads_reach is a share from 0 to 1"):
        TrainingArguments(output_dir=str(tmp_path), heads_reach=float(share), use_cpu=True)
