"""Steps that fp16 skips are told and not counted by the schedule, and the norm in the log is the true one."""

from __future__ import annotations

import json

import pytest
from conftest import KIT, read_jsonl
from runs import arguments, train, write_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def words(starter, tmp_path):
    rows = write_rows(tmp_path / "rows")
    return lambda name, **settings: arguments(starter, rows, tmp_path / name, max_steps=12, warmup_steps=0, **settings)


def steps(run) -> list[dict]:
    return [row for row in read_jsonl(run.output / "train_log.jsonl") if "loss" in row]


def test_an_overflow_is_logged_as_skipped_and_the_schedule_waits(words):
    plain = steps(train(words("fp32")))
    run = train(words("fp16", fp16=True), FP16_ON_CPU=str(2.0**24))
    rows = steps(run)
    skipped = [row["skipped_steps"] for row in rows]
    assert skipped[0] == 1 and skipped[-1] == 0
    rates = [row["learning_rate"] for row in rows]
    made = sum(not one for one in skipped)
    # The rate is that of the steps that were made: each of fp32's in turn, however many were skipped between them.
    assert sorted(set(rates), reverse=True) == pytest.approx([row["learning_rate"] for row in plain][: len(set(rates))])
    assert len(set(rates)) in (made, made + 1)
    lines = [line for line in (run.output / "train.log").read_text("utf-8").splitlines() if line.startswith("epoch 0.")]
    assert ["SKIPPED" in line for line in lines] == [bool(one) for one in skipped]


def test_the_norm_is_the_true_one(words):
    plain, half = (
        steps(train(words("fp32"))),
        steps(train(words("fp16", fp16=True), FP16_ON_CPU=str(2.0**10))),
    )
    assert not any(row["skipped_steps"] for row in half)
    assert half[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=0.05)


def test_s7_with_deepspeed_too_the_loss_is_scaled_and_the_norm_true(words, tmp_path):
    plain = steps(train(words("fp32"), 2))
    settings = json.loads((KIT / "ds_stage0.json").read_text("utf-8"))
    settings["fp16"]["initial_scale_power"] = 24
    large = tmp_path / "large_scale.json"
    large.write_text(json.dumps(settings), "utf-8")
    half = steps(train(words("fp16", fp16=True, deepspeed=KIT / "ds_stage0.json"), 2, FP16_ON_CPU="deepspeed"))
    assert not half[0]["skipped_steps"]
    assert half[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=0.05)
    over = steps(train(words("over", fp16=True, deepspeed=large), 2, FP16_ON_CPU="deepspeed"))
    skipped = [row["skipped_steps"] for row in over]
    assert skipped[0] == 1 and skipped[-1] == 0
    first = skipped.index(0)
    rates, waited = ([row["learning_rate"] for row in rows] for rows in (half, over[first:]))
    assert waited == pytest.approx(rates[: len(waited)])
