"""What the trainer adds to FlagEmbedding's: resuming, evaluating, the best checkpoint, the log; and S1, T6, S4."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import EXAMPLE_DATA, read_jsonl
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Runner
from runs import Run, arguments, assert_same_weights, runner, train, weights, write_rows
from torch.utils.data import DataLoader

from m3kit import records
from m3kit.evaluation.comparison import evaluate
from m3kit.run_folder.train_log import TrainLog, tell_best
from m3kit.test_data.folder import read_eval_folder
from m3kit.training.evaluation import HeldOut

pytestmark = pytest.mark.slow


@pytest.fixture
def words(starter, tmp_path):
    rows = write_rows(tmp_path / "rows")
    return lambda **settings: arguments(starter, rows, tmp_path / "output", **settings)


# S1: a resumed run of plain FlagEmbedding fails, or goes on from the base's weights


def test_s1_flagembedding_resumes_not_at_all_or_from_the_base(words, starter, tmp_path):
    settings = {"max_steps": 4, "save_steps": 2, "dataloader_num_workers": 0}
    runner(words(**settings), EncoderOnlyEmbedderM3Runner).run()
    again = runner(words(**settings), EncoderOnlyEmbedderM3Runner)
    checkpoint = tmp_path / "output" / "checkpoint-2"
    with pytest.raises(AttributeError, match="_keys_to_ignore_on_save"):
        again.trainer.train(resume_from_checkpoint=str(checkpoint))
    again.trainer.model._keys_to_ignore_on_save = None
    again.trainer._load_from_checkpoint(str(checkpoint))
    base, saved = weights(starter), weights(checkpoint)
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(base[name], saved[name])
    assert torch.equal(again.model.model.state_dict()[name], base[name])

    kit = runner(words(overwrite_output_dir=True, **settings))
    other = tmp_path / "checkpoint"
    shutil.copytree(tmp_path / "output", other, ignore=lambda *_: ["checkpoint-2", "checkpoint-4"], dirs_exist_ok=True)
    with torch.no_grad():
        for parameter in kit.model.parameters():
            parameter.add_(1)
    kit.trainer._save(str(other))
    expected = {name: value.clone() for name, value in kit.model.state_dict().items()}
    with torch.no_grad():
        for parameter in kit.model.parameters():
            parameter.zero_()
    kit.trainer._load_from_checkpoint(str(other))
    assert all(torch.equal(value, expected[name]) for name, value in kit.model.state_dict().items())


# T6: the counter that self_distill_start_step goes by


@pytest.mark.parametrize(("accumulation", "step", "batches"), [(1, 7, 7), (2, 3, 6), (3, 7, 20), (3, 8, 23)])
def test_t6_the_counter_of_batches_is_what_it_would_be(words, accumulation, step, batches):
    """20 batches an epoch: with 3 a step the seventh step of an epoch has only two."""
    trainer = runner(words(gradient_accumulation_steps=accumulation)).trainer
    assert len(trainer.train_dataset) == 20
    trainer.state.global_step = step
    trainer.restore_step()
    assert trainer.model.step == batches


# Evaluation while training


def test_the_model_in_memory_is_measured_as_a_saved_one(words, starter):
    run = train(words(max_steps=2, eval_data=EXAMPLE_DATA / "eval"))
    told = read_jsonl(run.output / "train_log.jsonl")
    measured = evaluate(
        {"base": str(starter), "tuned": str(run.output)},
        read_eval_folder(EXAMPLE_DATA / "eval"),
        device="cpu",
        encoding={"query_max_len": 16, "passage_max_len": 16},
    ).models
    before, *_, after = (row for row in told if "eval_seconds" in row)
    for score in ("dense", "sparse", "colbert", "hybrid"):
        assert before[f"eval_{score}_nDCG@10"] == pytest.approx(measured["base"].figures(score)["nDCG@10"], abs=1e-9)
    assert json.loads((run.output / "run.json").read_text())["best"]["step"] in (1, 2)
    assert after["step"] == 2


@pytest.mark.parametrize(
    ("figures", "best", "told"),
    [
        ([0.5, 0.6, 0.9, 0.7, 0.4], 2, "step 2 of 4: hybrid nDCG@10 0.900, and 0.500 before training."),
        ([0.5, 0.1, 0.2, 0.3, 0.4], 4, "step 4 of 4: hybrid nDCG@10 0.400, WORSE than the 0.500 before training."),
        ([0.5, 0.5, 0.1, 0.1, 0.1], 1, "step 1 of 4: hybrid nDCG@10 0.500, as before training: it has not helped."),
    ],
)
def test_the_best_checkpoint_is_kept_and_put_in_the_output(words, monkeypatch, capsys, figures, best, told):
    series = iter(figures)
    monkeypatch.setattr(HeldOut, "measure", lambda *_: {"hybrid_nDCG@10": next(series)})
    monkeypatch.setattr("m3kit.training.evaluation.COST", float("inf"))
    settings = {"max_steps": 4, "save_steps": 1, "save_total_limit": 1, "dataloader_num_workers": 0}
    run = runner(words(eval_data=EXAMPLE_DATA / "eval", eval_steps=1, **settings))
    run.run()
    output = run.output_dir
    assert {path.name for path in output.glob("checkpoint-*")} == {"checkpoint-4", f"checkpoint-{best}"}
    assert_same_weights(output, output / f"checkpoint-{best}")
    assert told in capsys.readouterr().err.strip().split("\n")[-1]
    record = json.loads((output / "run.json").read_text())
    assert record["base"] == {"eval_hybrid_nDCG@10": 0.5}
    assert record["best"] == {"step": best, "eval_hybrid_nDCG@10": figures[best]}
    assert record["chosen_on"] == "all"


def test_large_test_data_are_sampled_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("m3kit.test_data.sample.MAX_QUERIES", 5)
    monkeypatch.setattr("m3kit.test_data.sample.MAX_PASSAGES", 20)
    held_out = HeldOut(str(EXAMPLE_DATA / "eval"), SimpleNamespace(), seed=1)
    sample = held_out.data.retrieval
    assert (len(sample.queries), len(sample.passages)) == (5, 20)
    assert all(passage in sample.passages for grades in sample.qrels.values() for passage in grades)
    assert re.search(r"5 of \d+ queries, 20 of \d+ passages", held_out.says)
    again = HeldOut(str(EXAMPLE_DATA / "eval"), SimpleNamespace(), seed=1).data.retrieval
    assert (again.queries, again.passages) == (sample.queries, sample.passages)


# The log


def test_a_line_a_step_and_the_same_for_programs_and_tensorboard(words):
    run = train(words(max_steps=6, report_to="tensorboard", eval_data=EXAMPLE_DATA / "eval", eval_steps=3))
    rows = read_jsonl(run.output / "train_log.jsonl")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    wanted = {"loss", "loss_dense", "loss_sparse", "loss_colbert", "loss_ensemble", "learning_rate", "grad_norm"}
    wanted |= {"texts_per_second", "tokens_per_second", "padding", "memory_gb", "seconds_left", "epoch"}
    assert all(row.keys() >= wanted for row in steps)
    assert ["loss_self_distill" in row for row in steps] == [False] * 5 + [True]
    for row in steps[:5]:
        parts = row["loss_dense"] + row["loss_ensemble"] + 0.1 * row["loss_sparse"] + row["loss_colbert"]
        assert row["loss"] == pytest.approx(parts / 4, rel=1e-5)
    assert all(0 <= row["padding"] < 1 and row["tokens_per_second"] > row["texts_per_second"] > 0 for row in steps)
    lines = (run.output / "train.log").read_text("utf-8").splitlines()
    kinds = Counter(line.split("  step")[0].split()[0] for line in lines)
    assert kinds["epoch"] == 6
    assert kinds["evaluation"] == 3
    assert all(line in run.log.read_text("utf-8") for line in lines)
    assert_curves_show(run.output)


def test_a_run_that_was_killed_and_stopped_is_one_run_in_tensorboard_and_in_its_record(words):
    settings = {"max_steps": 40, "report_to": "tensorboard", "eval_data": EXAMPLE_DATA / "eval", "eval_steps": 10}
    for number, step in ((signal.SIGKILL, 8), (signal.SIGTERM, 13)):
        run = Run(words(**settings))
        assert run.when(lambda run=run, step=step: run.step() >= step and run.step() != 10)
        run.send(number)
        run.wait()
    stopped = records.read(run.output / "run.json", records.Run, "")
    assert (stopped.status, stopped.reason, stopped.chosen_on) == ("stopped", "stopped by SIGTERM", None)
    assert stopped.base.keys() >= {"eval_hybrid_nDCG@10"} and len(stopped.resumed) == 1
    run = train(words(**settings))
    finished = records.read(run.output / "run.json", records.Run, "")
    assert (finished.status, finished.reason, finished.steps, finished.chosen_on) == ("finished", "", 40, "all")
    assert (finished.base, len(finished.resumed), finished.started) == (stopped.base, 2, stopped.started)
    assert finished.best["step"] in (10, 20, 30, 40) and finished.settings["eval_steps"] == 10
    assert_curves_show(run.output)


def assert_curves_show(output: Path) -> None:
    """In one run what the log has, each step once, and no more than is of use."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert all(path.is_file() for path in (output / "runs").iterdir())
    curves = EventAccumulator(str(output / "runs"), size_guidance={"scalars": 0})
    curves.Reload()
    logged: dict[str, dict[int, float]] = {}
    junk = {"step", "epoch", "seconds_left", "eval_seconds", "train_loss", "total_flos"}
    for row in read_jsonl(output / "train_log.jsonl"):
        for name in row.keys() - junk:
            kind, name_there = ("eval", name[5:]) if name.startswith("eval_") else ("train", name)
            if not name.startswith("train_"):
                logged.setdefault(f"{kind}/{name_there}", {})[row["step"]] = row[name]
    tags = curves.Tags()
    assert set(tags["scalars"]) == logged.keys() and not tags["tensors"] and not tags["images"]
    for tag, values in logged.items():
        shown = [(event.step, event.value) for event in curves.Scalars(tag)]
        assert [step for step, _ in shown] == sorted(values), tag
        assert dict(shown) == pytest.approx(values, rel=1e-5), tag


def test_evaluation_takes_at_most_a_fifth_of_the_training(words):
    settings = {"max_steps": 300, "save_steps": 300, "eval_data": EXAMPLE_DATA / "eval", "eval_steps": 5}
    run = train(words(**settings), EVALUATION_COST="0.2")
    rows = read_jsonl(run.output / "train_log.jsonl")
    seconds = {row["step"]: row["eval_seconds"] for row in rows if "eval_seconds" in row}
    (whole,) = (row["train_runtime"] for row in rows if "train_runtime" in row)
    assert min(seconds) == 0 and max(seconds) == 300
    assert sum(seconds.values()) < 0.25 * (whole - sum(seconds.values()))
    told = " of 83 queries, 238 passages of .*, every .* steps instead of 5, to keep it below a fifth of the training"
    assert re.search(f"Evaluation while training: 50{told}", run.log.read_text("utf-8"))


def test_the_status_line_shows_the_best_figure_beside_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("M3KIT_SCREEN", "1")
    log, state = (
        TrainLog(tmp_path, has_curves=False),
        SimpleNamespace(global_step=1, max_steps=9, epoch=0.1, best_metric=None),
    )
    log.headline = "hybrid_nDCG@10"
    figures = {"loss": 1.0, "learning_rate": 1e-5, "texts_per_second": 1, "tokens_per_second": 1, "padding": 0}
    figures |= {"memory_gb": 1, "seconds_left": 61}
    for best, measured in ((None, 0.462), (0.654, 0.654), (0.654, 0.639)):
        state.best_metric = best
        log.add(state, {"eval_hybrid_nDCG@10": measured, "eval_seconds": 1})
        log.add(state, figures)
    shown = [line.partition("hybrid")[2] for line in capsys.readouterr().err.splitlines() if "hybrid" in line]
    assert shown == [f" nDCG@10 0.462{best}  left 0:01:01" for best in ("", *[" → 0.654 (best)"] * 2)]


def test_a_cpu_gives_memory_back_before_each_epoch_forks_the_processes_that_make_batches(words, monkeypatch):
    events = []
    monkeypatch.setattr("m3kit.training.trainer.release_freed", lambda: events.append("given back"))
    iterate = DataLoader.__iter__
    monkeypatch.setattr(DataLoader, "__iter__", lambda loader: events.append("forked") or iterate(loader))
    runner(words(num_train_epochs=2, max_steps=-1, per_device_train_batch_size=20, dataloader_num_workers=2)).run()
    assert events == 2 * ["given back", "forked"]


def test_an_epoch_says_how_many_rows_were_trained(words):
    run = train(words(max_steps=-1, num_train_epochs=1))
    assert "epoch 1 is over: 40 rows trained" in (run.output / "train.log").read_text("utf-8")


def test_the_last_sentence_for_better_worse_and_the_same():
    state = SimpleNamespace(max_steps=9)
    assert "and 0.100 before" in tell_best("x", 0.1, 0.2, 3, state)
    assert "it has not helped" in tell_best("x", 0.1, 0.1, 3, state)
    assert "WORSE" in tell_best("x", 0.2, 0.1, 3, state)


# S4: heads that were not trained


def test_s4_dense_only_training_keeps_the_heads_of_the_base(words, starter):
    run = train(words(max_steps=2, unified_finetuning=False))
    for head in ("colbert_linear.pt", "sparse_linear.pt"):
        assert (run.output / head).read_bytes() == (starter / head).read_bytes()


def test_a_base_in_16_bits_is_trained_in_32(words, starter, tmp_path):
    from transformers import AutoModel

    half = tmp_path / "half"
    shutil.copytree(starter, half)
    AutoModel.from_pretrained(starter).half().save_pretrained(half)
    run = runner(words(model_name_or_path=half))
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}


# A full disk


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can only be mounted by root")
def test_on_a_full_disk_the_old_checkpoint_stays_and_the_message_says_what_is_needed(words, tmp_path):
    disk = tmp_path / "output"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], check=True)
    try:
        run = Run(words())
        assert run.wait() == [1]
        log = run.log.read_text("utf-8")
        assert re.search(r"has \d+\.?\d* MB free, and a checkpoint needs \d+\.?\d* MB", log)
        assert "Traceback" not in log
        kept = [path.name for path in Path(disk).glob("checkpoint-*")]
        assert kept == ["checkpoint-5"]
        assert "checkpoint-5 stays" in log
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        again = train(words())
        assert "Going on from step 5." in again.log.read_text("utf-8")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_frozen_word_embeddings_stay_and_all_else_learns(words, starter):
    run = train(words(freeze_word_embeddings=True, max_steps=3))
    before, after = weights(starter), weights(run.output)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], after["encoder.layer.0.output.dense.weight"])
