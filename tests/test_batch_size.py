"""per_device_train_batch_size=auto: what fits is measured, and one limit decides and is named."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from conftest import examples, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import terminal
from training_helpers import native

from m3kit.errors import KitError
from m3kit.training import batch_size as module
from m3kit.training import device_memory, probe
from m3kit.training.arguments import DataArguments, ModelArguments, TrainingArguments
from m3kit.training.batch_size import FEWEST_STEPS, LEAST, MOST, Run, Weights, choose, held, settle, tokens_of
from m3kit.training.probe import Measured, Probe, RowTokens

T = TypeVar("T")
MANY = 10**6


def rows_of(tokens: int, rows: int = MANY) -> RowTokens:
    return RowTokens(rows, (tokens,) * 8)


# The choice


@pytest.mark.parametrize(
    ("fit", "sets", "run", "batch_size", "why"),
    [
        (10_000, [rows_of(100)], Run(), 64, "128 rows are up to 13,474 tokens, more tokens than fit at once"),
        (100_000, [rows_of(100)], Run(), 128, "with more than 128"),
        (100_000, [rows_of(100, 1600)], Run(), 32, "64 would leave fewer than 32 steps an epoch of 1,600 rows"),
        (100_000, [rows_of(100, 1600)], Run(processes=4), 8, "16 would leave fewer than 32 steps"),
        (100_000, [rows_of(100, 1600)], Run(accumulation=8), 4, "8 would leave fewer than 32 steps"),
        (100_000, [rows_of(100)], Run(most_tokens=1000), 8, "more tokens than sub_batch_tokens 1,000, as asked"),
        (1000, [rows_of(900)], Run(), 2, "the least there is, though the texts of 2 rows"),
        (100_000, [rows_of(100, 40)], Run(), 2, "the least there is, though 2 would leave fewer"),
        # The heaviest set decides on what fits, the largest on the steps.
        (10_000, [rows_of(10), rows_of(1000)], Run(), 8, "16 rows are up to 16,843 tokens"),
        (100_000, [rows_of(10, 100), rows_of(10, 1600)], Run(), 32, "1,600 rows"),
        # A set of few rows has no larger batches than it has rows.
        (10_000, [rows_of(10), rows_of(1000, 8)], Run(), 128, "with more than 128"),
    ],
)
def test_one_limit_decides_and_is_named(fit, sets, run, batch_size, why):
    choice = choose(fit, 50, sets, run)
    assert choice.batch_size == batch_size
    assert why in choice.why


SETS = st.lists(
    st.builds(RowTokens, st.integers(1, 10**6), st.lists(st.integers(4, 9000), min_size=1, max_size=9).map(tuple)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=examples(300), deadline=None)
@given(
    fit=st.integers(512, 10**6), longest=st.integers(8, 512), sets=SETS,
    run=st.builds(Run, st.integers(1, 8), st.integers(1, 4), st.none() | st.integers(600, 50_000)),
)  # fmt: skip
def test_the_largest_power_of_two_within_all_limits(fit, longest, sets, run):
    def within(size: int) -> bool:
        largest = max(rows.rows for rows in sets)
        return (
            size <= MOST
            and all(tokens_of(size, rows, run.processes) <= choice.sub_batch_tokens for rows in sets)
            and largest // (size * run.processes * run.accumulation) >= FEWEST_STEPS
        )

    choice = choose(fit, longest, sets, run)
    size = choice.batch_size
    assert size & (size - 1) == 0
    assert size == LEAST or within(size)
    assert not within(2 * size)
    assert longest <= choice.sub_batch_tokens <= min(fit, run.most_tokens or fit)
    assert choice.sub_batch_tokens in (fit, longest, run.most_tokens) or choice.sub_batch_tokens % 1024 == 0


@given(rows=SETS.map(lambda sets: sets[0]), size=st.integers(1, 64))
def test_no_batch_has_more_than_its_heaviest_rows(rows, size):
    most = size * max(rows.sample) / (1 - module.MOST_PADDING)
    assert 0 < tokens_of(size, rows) <= most + 1


@pytest.mark.parametrize(
    ("processes", "accumulation", "deepspeed", "half", "standing", "in_step"),
    [
        (1, 1, False, True, 4 * 100 + 8 * 90 + 4 * 60, 4 * 100 + 12 * 90),
        (2, 1, False, True, 4 * 100 + 12 * 90 + 4 * 60, 4 * 100 + 16 * 90),
        (1, 4, False, False, 4 * 100 + 12 * 90, 4 * 100 + 12 * 90 + 4 * 30),
        (2, 1, True, True, 2 * 100 + 14 * 90, 2 * 100 + 22 * 90),
        (2, 1, True, False, 4 * 100 + 12 * 90, 4 * 100 + 16 * 90),
    ],
)
def test_what_stands_beside_the_texts(processes, accumulation, deepspeed, half, standing, in_step):
    assert held(Weights(100, 90, 30), processes, accumulation, deepspeed, half) == (standing, in_step)


# The probe


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Rows of a data set with long passages, and of one with short ones."""
    folder = tmp_path_factory.mktemp("data")
    long = [row | {"pos": [f"moon {n} " * 200], "prompt": ""} for n, row in enumerate(native(200, 3, "long"))]
    write_jsonl(folder / "long" / "train.jsonl", long)
    write_jsonl(folder / "short" / "train.jsonl", native(400, 3, "short", prompt=""))
    return folder


def arguments(starter: Path, data: Path, output: Path, *more: str) -> list[str]:
    words = ["--model_name_or_path", starter, "--train_data", data / "long", data / "short", "--output_dir", output]
    words += ["--use_cpu", "True", "--unified_finetuning", "True", "--train_group_size", "4", "--normalize_embeddings"]
    words += ["True", "--query_max_len", "64", "--passage_max_len", "128", "--per_device_train_batch_size", "1"]
    words += ["--cache_path", output.parent / "cache", *more]
    return list(map(str, words))


def make_probe(starter: Path, data: Path, tmp_path: Path, **settings) -> Probe:
    return Probe(
        ModelArguments(model_name_or_path=str(starter)),
        DataArguments(
            train_data=[str(data / "long"), str(data / "short")], train_group_size=4, passage_max_len=128,
            cache_path=str(tmp_path / "cache"),
        ),
        TrainingArguments(
            output_dir=str(tmp_path / "output"), use_cpu=True, report_to=[], unified_finetuning=True,
            normalize_embeddings=True, **settings,
        ),
    )  # fmt: skip


def test_the_probe_sees_each_data_set_and_claims_nothing(starter, data, tmp_path):
    found = make_probe(starter, data, tmp_path)
    assert sorted(one.rows for one in found.sets) == [200, 400]
    long, short = sorted(found.sets, key=lambda one: one.rows)
    assert min(long.sample) > 128 > max(short.sample)
    assert len(long.sample) == 200 and len(short.sample) == probe.SAMPLE
    assert found.longest == 128
    assert not (tmp_path / "output").exists()


def alone(function: Callable[..., T], *args) -> T:
    """In a process of its own: in this one, what earlier tests freed would take part in what is measured."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measured_and_four_times_as_many(*folders: Path) -> tuple[Measured, tuple[int, int]]:
    found = make_probe(*folders)
    measured = found.measure()
    return measured, found.step(found._longest, 4 * measured.tokens // found.longest)


@pytest.mark.slow
def test_more_tokens_take_proportionally_more(starter, data, tmp_path):
    measured, (tokens, taken) = alone(measured_and_four_times_as_many, starter, data, tmp_path)
    assert measured.tokens >= probe.ENOUGH_ON_CPU
    # Four times as many texts as the largest that was measured: what is foretold holds.
    foretold = measured.taken + measured.per_token * (tokens - measured.tokens)
    assert 0.5 * foretold < taken < 1.25 * foretold
    assert measured.fit_into(int(foretold)) == pytest.approx(tokens, rel=0.01)


def taken_by_64_texts(*folders: Path, gradient_checkpointing: bool) -> int:
    found = make_probe(*folders, gradient_checkpointing=gradient_checkpointing)
    found.step(found._shortest, 1)  # what the first step sets up for good is not the texts'
    return found.step(found._longest, 64)[1]


@pytest.mark.slow
def test_gradient_checkpointing_takes_less(starter, data, tmp_path):
    measures = (partial(taken_by_64_texts, gradient_checkpointing=on) for on in (False, True))
    without, with_it = (alone(measure, starter, data, tmp_path) for measure in measures)
    assert with_it < 0.8 * without


def test_no_gradient_is_left_and_the_words_have_none(starter, data, tmp_path):
    found = make_probe(starter, data, tmp_path)
    found.step(found._longest, 2)
    assert all(parameter.grad is None for parameter in found.model.parameters())
    words = found.model.model.get_input_embeddings().weight.numel()
    assert found.trained_words == words
    assert words < found.trained <= found.numbers


class Full:
    """A device with room for so many texts."""

    def __init__(self, model, most: int):
        self.model, self.most, self.tried = model, most, []

    def __call__(self, text: str, count: int) -> tuple[int, int]:
        self.tried.append(count)
        if count > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1000 * count, 10**6 + 10**7 * count


def test_what_no_longer_fits_ends_the_measuring(starter, data, tmp_path, monkeypatch):
    found = make_probe(starter, data, tmp_path)
    monkeypatch.setattr(probe, "ENOUGH_ON_CPU", 10**9)
    found.free = 10**12
    found.step = Full(found.model, 5)
    measured = found.measure()
    assert found.step.tried == [1, 1, 2, 4, 8]
    assert (measured.tokens, measured.taken) == (4000, 41 * 10**6)
    assert measured.per_token == pytest.approx(10**4 + 8 * found.model.config.hidden_size)


def test_where_not_one_text_fits_that_is_said_and_what_to_do(starter, data, tmp_path):
    found = make_probe(starter, data, tmp_path)
    found.step = Full(found.model, 0)
    with pytest.raises(KitError, match=r"not even one text fits.*gradient_checkpointing True.*passage_max_len"):
        found.measure()


def test_any_other_error_is_itself(starter, data, tmp_path):
    found = make_probe(starter, data, tmp_path)
    with pytest.raises(RuntimeError, match="shapes"):
        found._longest = None
        found.step = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes"))
        found.measure()


def test_a_device_with_too_little_is_refused_with_figures(starter, data, tmp_path, monkeypatch):
    monkeypatch.setattr(device_memory.CpuMemory, "free", lambda self: 2**26)
    with pytest.raises(KitError, match=r"does not fit: .* GiB and [\d,]+ tokens .* GiB more, .*0\.06 GiB .*90%"):
        settle(arguments(starter, data, tmp_path / "output"))


def test_memory_that_cannot_be_measured_is_said(monkeypatch, tmp_path):
    with pytest.raises(KitError, match=r"\(mps\) cannot be measured.*give a number"):
        device_memory.memory_of(torch.device("mps"), 1)
    monkeypatch.setattr(device_memory, "PROCESS", tmp_path / "proc")
    with pytest.raises(KitError, match="does not let memory be measured.*give a number"):
        device_memory.CpuMemory(1).begin()


def test_processes_on_one_cpu_share_its_memory():
    one, four = (device_memory.CpuMemory(count).free() for count in (1, 4))
    assert four < one / 3


# The command


@pytest.mark.slow
def test_two_numbers_on_stdout_and_the_reason_on_stderr(starter, data, tmp_path):
    words = arguments(starter, data, tmp_path / "output", "--processes", "2", "--deepspeed", "ds.json")
    command = [sys.executable, "-m", "m3kit.training.batch_size", *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    batch_size, sub_batch_tokens = map(int, run.stdout.split())
    # 400 rows over two processes: 32 steps of 4, and 25 of 8.
    assert batch_size == 4
    assert sub_batch_tokens > 16384 and sub_batch_tokens % 1024 == 0
    assert "Batch size 4 (auto): 8 would leave fewer than 32 steps an epoch of 400 rows. Of " in run.stderr
    assert f"sub_batch_tokens {sub_batch_tokens}." in run.stderr
    assert not (tmp_path / "output").exists()


def test_sub_batch_tokens_of_ones_own_are_a_ceiling(starter, data, tmp_path):
    batch_size, sub_batch_tokens, told = settle(arguments(starter, data, tmp_path / "o", "--sub_batch_tokens", "500"))
    assert (batch_size, sub_batch_tokens) == (2, 500)
    assert "more tokens than sub_batch_tokens 500, as asked" in told


def test_a_run_that_goes_on_keeps_its_numbers(starter, data, tmp_path, monkeypatch):
    def no_probe(*_, **__):
        raise AssertionError("probed")

    output = tmp_path / "output"
    record = {"status": "stopped", "world_size": 1, "data": []}
    record["settings"] = {"per_device_train_batch_size": 24, "sub_batch_tokens": 5120}
    output.mkdir()
    (output / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(module, "Probe", no_probe)
    *numbers, told = settle(arguments(starter, data, output))
    assert numbers == [24, 5120]
    assert told == f"Batch size 24: that of the unfinished run in {output}, which goes on."
    with pytest.raises(AssertionError, match="probed"):
        settle(arguments(starter, data, output, "--overwrite_output_dir", "True"))
    (output / "run.json").write_text(json.dumps(record | {"status": "finished"}))
    with pytest.raises(AssertionError, match="probed"):
        settle(arguments(starter, data, output))
    shutil.rmtree(output)


def test_an_argument_that_there_is_not_is_refused(starter, data, tmp_path):
    with pytest.raises(KitError, match="no argument --bacth_size 3"):
        settle(arguments(starter, data, tmp_path / "output", "--bacth_size", "3"))


def test_json_has_the_same_numbers(monkeypatch, capsys):
    seen = []

    def settled(words):
        seen.append(words)
        print("what a library says")
        return 4, 5120, "Batch size 4 (auto): so."

    monkeypatch.setattr(module, "settle", settled)
    # It is for the process, which here goes on with other tests.
    monkeypatch.setattr(module.logging, "disable", lambda level: None)
    plain = (sys.argv[0], "--output_dir", "o")
    monkeypatch.setattr(sys, "argv", list(plain))
    assert module.main() == 0
    out, err = capsys.readouterr()
    assert out == "4 5120\n" and "Batch size 4 (auto): so." in err
    monkeypatch.setattr(sys, "argv", [*plain, "--json"])
    assert module.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"per_device_train_batch_size": 4, "sub_batch_tokens": 5120, "why": "Batch size 4 (auto): so."}
    assert seen == [["--output_dir", "o"]] * 2


@pytest.mark.slow
def test_json_stands_alone_on_stdout(starter, data, tmp_path):
    words = arguments(starter, data, tmp_path / "output", "--json")
    command = [sys.executable, "-m", "m3kit.training.batch_size", *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["per_device_train_batch_size"] == 8
    assert "\r" not in run.stderr


@pytest.mark.slow
def test_on_a_terminal_the_probe_shows_that_it_works(starter, data, tmp_path, soon):
    with terminal() as shown:
        settle(arguments(starter, data, tmp_path / "output"))
        told = shown()
    assert "loading model and rows … 00:" in told and "measuring what fits … 00:" in told
