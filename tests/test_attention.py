"""The kernel of attention: which is taken where, and that it changes no result."""

from __future__ import annotations

import json

import pytest
import torch
from equivalence import assert_same, collate, differences, load, losses_and_gradients, make_rows
from runs import Run, arguments, train, write_rows
from transformers import XLMRobertaConfig, XLMRobertaModel

from m3kit.errors import KitError
from m3kit.training import device as devices
from m3kit.training.arguments import TrainingArguments
from m3kit.training.device import set_attention
from m3kit.training.model import M3Model


class Encoder(XLMRobertaModel):
    """Where there is no GPU transformers refuses flash-attn whatever it was told; this one takes any kernel."""

    def _check_and_adjust_attn_implementation(self, attn_implementation, *args, **kwargs):
        return attn_implementation or "eager"


class WithoutFlash(Encoder):
    _supports_flash_attn = False


class EagerOnly(WithoutFlash):
    _supports_sdpa = False


class Stubborn(Encoder):
    """As code that comes with a model may be: transformers warns, and leaves it as it is."""

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return False


@pytest.fixture
def machine(monkeypatch):
    def of(capability=(8, 0), installed=True) -> None:
        monkeypatch.setattr(devices, "weakest_gpu", lambda: (capability, "Tesla T4"))
        monkeypatch.setattr(devices, "is_flash_attn_2_available", lambda: installed)

    return of


def chosen(wanted="auto", cls=Encoder, device="cuda", precision="bf16") -> tuple[str, str]:
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    encoder = cls(XLMRobertaConfig(**sizes, intermediate_size=8))
    told = set_attention(encoder, wanted, device, precision)
    return encoder.config._attn_implementation, told


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_auto_takes_flash_attn_where_all_is_there_for_it(machine, precision):
    machine()
    assert chosen(precision=precision) == ("flash_attention_2", "Attention: flash_attention_2")


HINDRANCES = {
    "it needs a GPU": {"device": "cpu"},
    "it computes in 16 bits only, and the precision is fp32": {"precision": "fp32"},
    "it needs a GPU newer than Tesla T4": {"capability": (7, 5)},
    "WithoutFlash has no way to use it": {"cls": WithoutFlash},
    "the package flash-attn is not installed": {"installed": False},
}


@pytest.mark.parametrize("reason", HINDRANCES)
def test_otherwise_it_takes_pytorchs_own_and_says_why(machine, reason):
    case = dict(HINDRANCES[reason])
    machine(**{name: case.pop(name) for name in ("capability", "installed") if name in case})
    assert chosen(**case) == ("sdpa", f"Attention: sdpa; not flash_attention_2, for {reason}")
    with pytest.raises(KitError, match=f"flash_attention_2 is not to be had: {reason}; give auto or sdpa or eager"):
        chosen("flash_attention_2", **case)


def test_a_model_that_knows_nothing_else_keeps_to_the_plain_one(machine):
    machine()
    assert chosen(cls=EagerOnly)[0] == "eager"
    with pytest.raises(KitError, match="sdpa is not to be had: EagerOnly has no way to use it; give auto or eager"):
        chosen("sdpa", cls=EagerOnly)


def test_code_that_comes_with_a_model_may_keep_to_its_own(machine):
    machine()
    assert chosen(cls=Stubborn) == ("eager", "Attention: eager")
    with pytest.raises(KitError, match="sdpa is not to be had: the model's code keeps to eager; give auto"):
        chosen("sdpa", cls=Stubborn)


def test_what_is_asked_for_is_taken(machine):
    machine()
    for kernel in ("eager", "sdpa", "flash_attention_2"):
        assert chosen(kernel) == (kernel, f"Attention: {kernel}")
    with pytest.raises(KitError, match="is auto, flash_attention_2, sdpa or eager, not 'flash'"):
        TrainingArguments(output_dir="unused", use_cpu=True, attn_implementation="flash")


def test_cudnns_kernel_is_not_among_pytorchs_own(machine):
    """It plans its work for every new shape, which takes longer than the work."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    chosen(device="cpu")
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pytorchs_own_gives_the_plain_ones_losses_and_gradients(starter, pooling):
    outcomes = []
    for kernel in ("eager", "sdpa"):
        settings = {"sentence_pooling_method": pooling, "unified_finetuning": True, "use_self_distill": True}
        model = load(M3Model, starter, **settings)
        set_attention(model.model, kernel, "cpu", "fp32")
        outcomes.append(losses_and_gradients(model, collate(model, make_rows(6, 3, seed=5))))
    plain, own = outcomes
    assert_same(own, plain, tolerance=1e-5)
    # Otherwise they would be the same kernel.
    assert max(differences(own, plain).values()) > 0


@pytest.mark.slow
def test_a_run_uses_and_tells_it_and_the_model_does_not_remember_it(starter, tmp_path):
    rows = write_rows(tmp_path / "rows")
    run = train(arguments(starter, rows, tmp_path / "own", max_steps=2))
    assert "Attention: sdpa; not flash_attention_2, for it needs a GPU" in run.log.read_text("utf-8")
    run = train(arguments(starter, rows, tmp_path / "plain", max_steps=2, attn_implementation="eager"))
    assert "Attention: eager" in run.log.read_text("utf-8")
    assert not [name for name in json.loads((run.output / "config.json").read_text()) if "attn" in name]
    refused = Run(arguments(starter, rows, tmp_path / "flash", max_steps=2, attn_implementation="flash_attention_2"))
    assert refused.wait() == [1]
    assert "flash_attention_2 is not to be had: it needs a GPU" in refused.log.read_text("utf-8")
