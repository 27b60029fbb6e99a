"""bf16 and fp16: who decides, what they change about losses, and that a run may change over to them."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import EXAMPLE_DATA, KIT, read_jsonl
from equivalence import Plain, collate, differences, load, losses_and_gradients, make_rows
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3TrainingArguments
from runs import Run, arguments, losses, train, weights, write_rows
from transformers import HfArgumentParser

from m3kit.errors import KitError
from m3kit.run_folder import checkpoints
from m3kit.training import device
from m3kit.training.arguments import TrainingArguments
from m3kit.training.model import M3Model

pytestmark = pytest.mark.slow

# Who decides


def parse(*words: str) -> TrainingArguments:
    return HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(["--output_dir", "unused", *words])[0]


@pytest.fixture
def gpus(monkeypatch):
    """Have torch find these GPUs: of each the compute capability and the name."""

    def found(*present: tuple[tuple[int, int], str]) -> None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(present))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: present[number][0])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: present[number][1])

    return found


@pytest.fixture
def cpu(monkeypatch):
    return lambda **able: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)


A100, T4 = ((8, 0), "A100"), ((7, 5), "Tesla T4")


def test_auto_takes_bf16_where_the_device_has_matrix_units_for_it(gpus, cpu):
    auto = ("auto", False, False)
    gpus(A100)
    assert device.settle_precision(*auto, "cuda") == (
        "bf16",
        "Precision: bf16, for which this GPU (A100) has matrix units",
    )
    gpus(T4)
    assert device.settle_precision(*auto, "cuda") == (
        "fp16",
        "Precision: fp16, for this GPU (Tesla T4) has no matrix units for bf16",
    )
    cpu(amx_bf16=True)
    assert device.settle_precision(*auto, "cpu") == (
        "bf16",
        "Precision: bf16, for which these cores have matrix units",
    )
    for able in ({"avx512_bf16": True, "amx_bf16": False}, {}):
        cpu(**able)
        assert device.settle_precision(*auto, "cpu") == (
            "fp32",
            "Precision: fp32, for these cores have no matrix units for bf16",
        )


def test_all_gpus_that_are_trained_on_compute_alike(gpus, monkeypatch):
    gpus(A100, T4)
    assert device.settle_precision("auto", False, False, "cuda")[0] == "fp16"
    # The second is there, but not used.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert device.settle_precision("auto", False, False, "cuda")[0] == "bf16"


@pytest.mark.parametrize(
    ("devices", "cure"), [(1, "use ./run_flagembedding_training_single_gpu.sh"), (3, "--num_gpus 3")]
)
def test_every_process_has_a_device_or_none_starts(gpus, monkeypatch, devices, cure):
    """Of two MIG instances in CUDA_VISIBLE_DEVICES CUDA shows a process one."""
    gpus(*[A100] * devices)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(devices))
    assert device.device_to_train_on(use_cpu=False) == "cuda"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(KitError, match=rf"asked for 4 processes, and CUDA shows {devices} device.*{cure}"):
        device.device_to_train_on(use_cpu=False)
    assert device.device_to_train_on(use_cpu=True) == "cpu"


@pytest.mark.parametrize("asked", [(None, False, True), ("bf16", False, False), ("bf16", False, True)])
def test_bf16_is_refused_on_a_gpu_that_emulates_it_and_warned_of_on_a_cpu(gpus, cpu, asked):
    gpus(T4)
    with pytest.raises(KitError, match=r"this GPU \(Tesla T4\) has no matrix units.*give --precision fp16, or auto"):
        device.settle_precision(*asked, "cuda")
    cpu()
    settled, told = device.settle_precision(*asked, "cpu")
    assert settled == "bf16" and "fp32 may be far faster" in told
    cpu(amx_bf16=True)
    assert device.settle_precision(*asked, "cpu") == ("bf16", "Precision: bf16, as asked")


@pytest.mark.parametrize(
    ("words", "settled"),
    [
        ("", "fp32"),
        ("--precision fp32", "fp32"),
        ("--precision fp32 --fp16 False", "fp32"),
        ("--precision bf16", "bf16"),
        ("--bf16 True", "bf16"),
        ("--precision bf16 --bf16 True", "bf16"),
    ],
)
def test_precision_and_the_switches_come_to_the_same(words, settled):
    for use_cpu in ("True", "False"):
        args = parse("--use_cpu", use_cpu, *words.split())
        assert (args.precision, args.bf16, args.fp16) == (settled, settled == "bf16", False)
        # As accelerate is told.
        assert args.mixed_precision == {"fp32": "no"}.get(settled, settled)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--precision half", "precision is auto, bf16, fp16 or fp32, not 'half'"),
        ("--fp16 True --bf16 True", "exclude each other"),
        ("--precision fp32 --bf16 True", "--precision fp32 and --bf16 True contradict each other"),
        ("--precision fp16 --bf16 True", "--precision fp16 and --bf16 True contradict each other"),
        ("--precision auto --bf16 True", "--precision auto and --bf16 True contradict each other"),
        ("--precision fp16", "fp16 does not train on a CPU; give --precision fp32, or auto"),
        ("--fp16 True", "fp16 does not train on a CPU; give --precision fp32, or auto"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    with pytest.raises(KitError, match=said):
        parse("--use_cpu", "True", *words.split())


def test_it_is_settled_before_transformers_and_deepspeed_look_at_it(cpu, monkeypatch):
    seen: list[tuple[bool, bool]] = []
    look = EncoderOnlyEmbedderM3TrainingArguments.__post_init__

    def spy(args: TrainingArguments) -> None:
        seen.append((args.bf16, args.fp16))
        look(args)

    monkeypatch.setattr(EncoderOnlyEmbedderM3TrainingArguments, "__post_init__", spy)
    for able in ({"amx_bf16": True}, {}):
        cpu(**able)
        parse("--precision", "auto", "--use_cpu", "True")
    assert seen == [(True, False), (False, False)]


@pytest.mark.parametrize("tokens", ["0", "-1"])
def test_sub_batches_have_a_size(tokens):
    with pytest.raises(KitError, match=f"sub_batch_tokens is auto or a whole number above 0, not '{tokens}'"):
        parse("--sub_batch_tokens", tokens)


# What it changes about losses


def apart(cls, starter, dtype: torch.dtype, seed: int) -> dict[str, float]:
    """By how much the loss and its parts differ from those in 32 bits."""
    found = []
    for enabled in (False, True):
        model = load(cls, starter, unified_finetuning=True, use_self_distill=True)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            outcome = losses_and_gradients(model, collate(model, make_rows(8, 3, seed=seed)))
        assert outcome.loss.dtype == torch.float32
        found.append(outcome)
    exact, rounded = found
    assert min(exact.parts.values()) > 1
    return {name: value for name, value in differences(rounded, exact).items() if name.startswith("loss")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_part_of_the_loss_is_near_that_in_32_bits(starter, dtype, seed):
    found = apart(M3Model, starter, dtype, seed)
    assert found.pop("loss of dense") < 1e-3
    assert max(found.values()) < 1e-2, found


def test_scores_of_16_bits_as_in_flagembedding_are_not(starter):
    """At temperature 0.02 they are between 0 and 50, where bf16 has steps of a quarter."""
    found = [apart(Plain, starter, torch.bfloat16, seed) for seed in (0, 1, 2)]
    assert max(parts["loss of dense"] for parts in found) > 1e-2
    assert max(parts["loss of ensemble"] for parts in found) > 2e-2


def test_weights_of_16_bits_as_under_deepspeed_leave_the_losses_near_too(starter):
    outcomes = []
    for dtype in (torch.float32, torch.bfloat16):
        model = load(M3Model, starter, dtype, unified_finetuning=True, use_self_distill=True)
        outcomes.append(losses_and_gradients(model, collate(model, make_rows(8, 3))))
    exact, rounded = outcomes
    assert {part.dtype for part in (rounded.loss, *rounded.parts.values())} == {torch.float32}
    found = {name: value for name, value in differences(rounded, exact).items() if name.startswith("loss")}
    assert max(found.values()) < 2e-2, found


# Whole runs


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def words(starter, rows, tmp_path):
    def of(name: str, **settings) -> list[str]:
        settings = {"learning_rate": 2e-4, "max_steps": 12, "per_device_train_batch_size": 4, **settings}
        return arguments(starter, rows, tmp_path / name, **settings)

    return of


def assert_near(one: dict[int, float], other: dict[int, float], tolerance: float) -> None:
    assert one.keys() == other.keys()
    far = {step: (loss, other[step]) for step, loss in one.items() if not abs(loss / other[step] - 1) <= tolerance}
    assert not far, far


def test_a_run_in_bf16_learns_as_one_in_32_bits_and_saves_32(words):
    exact, rounded = train(words("exact")), train(words("rounded", precision="bf16"))
    assert_near(losses(rounded.output), losses(exact.output), tolerance=1.5e-2)
    assert losses(rounded.output) != losses(exact.output)
    assert {value.dtype for value in weights(rounded.output).values()} == {torch.float32}
    assert "Precision: bf16" in rounded.log.read_text("utf-8")
    assert json.loads((rounded.output / "run.json").read_text())["settings"]["precision"] == "bf16"


def test_a_run_in_bf16_is_evaluated_as_one_in_32_bits(words):
    found = []
    for name in ("fp32", "bf16"):
        run = train(words(name, precision=name, max_steps=1, eval_data=EXAMPLE_DATA / "eval"))
        found.append([row for row in read_jsonl(run.output / "train_log.jsonl") if "eval_seconds" in row])
    exact, rounded = found
    assert [row["step"] for row in exact] == [row["step"] for row in rounded] == [0, 1]
    for one, other in zip(rounded, exact, strict=True):
        assert one.keys() == other.keys()
        apart = {name: abs(one[name] - other[name]) for name in one if "nDCG" in name}
        assert len(apart) == 4 and max(apart.values()) < 0.03, apart


@pytest.mark.parametrize("begun", ["fp32", "fp16"])
def test_a_run_goes_on_in_bf16(words, begun):
    run = Run(words("output", precision="fp32"))
    assert run.when(lambda: (run.output / "checkpoint-5").exists())
    run.processes[0].kill()
    run.wait()
    if begun == "fp16":
        _as_if_of_fp16(run.output)
    again = train(words("output", precision="bf16"))
    log = again.log.read_text("utf-8")
    assert "other than before: bf16 True instead of False" in log
    assert ("other than before: fp16 False instead of True" in log) == (begun == "fp16")
    assert "other than before: precision" not in log
    assert_near(losses(again.output), losses(train(words("exact")).output), tolerance=1.5e-2)


def test_deepspeed_is_told_of_bf16(words):
    settings = {"deepspeed": KIT / "ds_stage0.json"}
    exact, rounded = (train(words(name, precision=name, **settings), processes=2) for name in ("fp32", "bf16"))
    assert_near(losses(rounded.output), losses(exact.output), tolerance=6e-2)
    assert losses(rounded.output) != losses(exact.output)


def _as_if_of_fp16(output) -> None:
    """Which does not train on a CPU: its record, and the scale of its losses beside every checkpoint."""
    record = json.loads((output / "run.json").read_text())
    record["settings"] |= {"fp16": True, "precision": "fp16"}
    (output / "run.json").write_text(json.dumps(record))
    scale = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    for folder in output.glob("checkpoint-*"):
        torch.save(scale | {"_growth_tracker": 3}, folder / "scaler.pt")
        checkpoints.seal(folder)
