"""sub_batch_tokens=auto on a card that is too small: the batch is divided until it fits, and learns the same."""

from __future__ import annotations

import contextlib
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import KIT
from runs import Run, arguments, losses, train, write_rows

from m3kit.training import fit

pytestmark = pytest.mark.slow

# Batches of about 8 x (1 + 7) texts of at most 16 tokens.
SETTINGS = {"per_device_train_batch_size": 8, "train_group_size": 8, "max_steps": 4, "save_steps": 2}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), negatives=7)


@pytest.fixture
def words(starter, rows, tmp_path):
    return lambda name="output", **settings: arguments(starter, rows, tmp_path / name, **{**SETTINGS, **settings})


def found(run: Run) -> int:
    """The tokens that were found to fit."""
    return int(re.findall(r"sub_batch_tokens (\d+) \(auto\)", run.log.read_text("utf-8"))[-1])


# Weights and gradients of the starter model take 5 MB, Adam 9 more; between processes gradients another 4.
@pytest.mark.parametrize(
    ("processes", "sizes", "settings"),
    [
        (1, "18", {}),
        (1, "6", {"gradient_checkpointing": True, "lora_rank": 4}),
        (2, "60 27", {}),
        (2, "60 30", {"deepspeed": KIT / "ds_stage0.json"}),
    ],
)
def test_a_batch_is_halved_until_it_fits_and_the_loss_stays(words, processes, sizes, settings):
    """Of two processes both halve, though one alone has little room."""
    whole = train(words("whole", sub_batch_tokens=16384, **settings), processes)
    small = train(words("small", **settings), processes, FAKE_CARD=sizes)
    assert found(small) <= 1024
    assert losses(small.output) == pytest.approx(losses(whole.output), rel=1e-4)


def test_what_never_fits_is_told_with_a_cure(words):
    run = Run(words(), FAKE_CARD="11")
    assert run.wait() == [1]
    told = run.log.read_text("utf-8").strip().split("\n")[-1]
    assert "does not fit" in told and "--lora_rank" in told


def test_where_the_weights_do_not_fit_no_smaller_batch_is_promised(words):
    """Between processes DDP takes room for gradients before the first batch is tried."""
    run = Run(words(), 2, FAKE_CARD="8 8")
    assert run.wait() == [1, 1]
    told = run.log.read_text("utf-8")
    assert "no room for weights and gradients" in told and "goes on from the last checkpoint" not in told
    assert not (run.output / ".sub_batch_tokens").exists()


@pytest.mark.parametrize(
    ("asked", "layers", "width", "kept", "at_once"),
    [
        ("auto", 12, 384, 16384, 4096),
        ("auto", 24, 1024, 6144, 1536),
        ("auto", 2, 128, 16384, 12288),
        ("32768", 24, 1024, 32768, 1536),
        ("512", 12, 384, 512, 512),
    ],
)
def test_a_cpu_encodes_small_parts_and_keeps_as_many_as_asked(tmp_path, asked, layers, width, kept, at_once):
    args = SimpleNamespace(sub_batch_tokens=asked, device=torch.device("cpu"), output_dir=tmp_path)
    encoder = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=layers, hidden_size=width))
    trainer = SimpleNamespace(args=args, model=SimpleNamespace(model=encoder), data_collator=SimpleNamespace())
    assert fit.fit(trainer) is None
    assert (trainer.model.sub_batch_tokens, trainer.data_collator.sub_batch_tokens) == (kept, at_once)


def test_the_gradients_of_the_trial_are_no_steps():
    """What watches the gradients of a step forgets them."""
    weight = torch.ones(1, requires_grad=True)
    seen: list[float] = []
    weight.register_hook(lambda gradient: seen.append(float(gradient)))

    class Model:
        negatives_cross_device, step, self_distill_start_step = False, 3, 5

        def __call__(self, **inputs):
            return SimpleNamespace(loss=2 * weight.sum())

        def parameters(self):
            return [weight]

    trainer = SimpleNamespace(
        model=Model(),
        args=SimpleNamespace(device=torch.device("cpu")),
        data_collator=lambda items: {},
        _prepare_inputs=lambda inputs: inputs,
        compute_loss_context_manager=contextlib.nullcontext,
        guard=SimpleNamespace(take_gradients=seen.clear),
    )
    fit._try(trainer, None)
    assert not seen
    assert (trainer.model.step, weight.grad) == (3, None)


def test_later_on_the_run_ends_and_the_same_command_goes_on_with_half(words, tmp_path):
    size = tmp_path / "size"
    size.write_text("30")
    run = Run(words(max_steps=8), FAKE_CARD=str(size))
    assert run.when(lambda: run.step() >= 3)
    size.write_text("1")
    assert run.wait() == [1]
    told = run.log.read_text("utf-8").strip().split("\n")[-1]
    before = found(run)
    assert f"goes on from the last checkpoint with {before // 2}" in told
    size.write_text("30")
    again = train(words(max_steps=8), FAKE_CARD=str(size))
    assert found(again) <= before // 2
    assert "Going on from step 2" in again.log.read_text("utf-8")
