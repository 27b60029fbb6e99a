"""The training benchmark on the smallest model: that it measures what it says, not how fast anything is."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import KIT, write_jsonl

sys.path.insert(0, str(KIT / "benchmarks"))

from side_by_side.cases import CASES, Case, Promise
from side_by_side.figures import derive, judge, markdown
from side_by_side.probe import cpu_seconds, peak, reset_peak, resident
from side_by_side.rows import LENGTHS, rows_of, write_rows


def measure(tmp_path, *arguments) -> tuple[dict, str]:
    output = tmp_path / "results.json"
    command = [sys.executable, KIT / "benchmarks" / "training.py", "--shapes", "starter", "--threads", "1"]
    command += ["--output", output, "--folder", tmp_path / "work", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text("utf-8")), done.stdout


@pytest.mark.slow
def test_one_run_compares_both_on_the_same_rows_and_weights(tmp_path):
    report, table = measure(tmp_path, "--cases", "one-negative", "--count", "8", "--repeats", "2")
    assert report["machine"]["packages"]["FlagEmbedding"] == "1.4.2"
    (result,) = report["results"]
    library, kit = result["runs"]["FlagEmbedding"], result["runs"]["kit"]
    for run in (library, kit):
        # Four batches of two, the first to warm up.
        assert (run["steps"], run["rows"]) == (3, 6)
        assert 0 < run["cpu_seconds_per_step"] < run["cpu_seconds"]
        assert 0 <= run["padding"] < 1
        assert math.isfinite(run["loss"]) and run["loss"] > 0
        parts = [run[f"{part}_bytes"] for part in ("before", "weights", "gradients", "optimizer", "above")]
        assert sum(parts) == run["peak_bytes"]
        # Adam's two moments and a number of steps; a parameter without a gradient has neither.
        assert run["optimizer_bytes"] == pytest.approx(2 * run["gradients_bytes"], rel=1e-3)
        assert 0 < run["gradients_bytes"] < run["weights_bytes"]
    assert kit["weights_bytes"] == library["weights_bytes"]
    # One query brings two different passages; FlagEmbedding encodes its negative seven times (D3).
    assert library["texts_per_step"] == 2 * (1 + 8)
    assert kit["texts_per_step"] == 2 * (1 + 2)
    assert library["pairs"] == kit["pairs"] == 3 * 2 * 4
    assert [len(found) for found in result["repeats"].values()] == [2, 2]
    (promise,) = result["promises"]
    assert promise["value"] == pytest.approx(kit["pairs_per_cpu_second"] / library["pairs_per_cpu_second"])
    assert "| kit : FlagEmbedding |" in table


@pytest.mark.slow
def test_the_encoder_s_share_and_sentence_transformers(tmp_path):
    report, table = measure(
        tmp_path, "--cases", "full", "dense", "--count", "64", "--contenders", "kit", "sentence-transformers"
    )
    full, dense = report["results"]
    kit = full["runs"]["kit"]
    inside, outside = kit["encoder_seconds"], kit["outside_encoder_seconds"]
    assert 0 < outside < inside < kit["seconds"]
    assert kit["outside_encoder_share"] == pytest.approx(outside / inside)
    assert "in the encoder's layers" in table
    own, others = dense["runs"]["kit"], dense["runs"]["sentence-transformers"]
    assert own["rows"] == others["rows"] == 32
    assert own["texts"] == others["texts"] == 3 * 32
    assert own["pairs"] == others["pairs"] == 32 * 64
    # FlagEmbedding was left out, and so is nothing that it is compared in.
    assert [promise["says"] for promise in dense["promises"]] == ["rows per second, kit : sentence-transformers"]


def test_rows_have_the_lengths_of_real_ones_and_no_text_twice():
    rows = rows_of(CASES["published"], 400, None)
    assert rows == rows_of(CASES["published"], 400, None)
    texts = [text for row in rows for text in (row.query, *row.positives, *row.negatives)]
    assert len(texts) == len(set(texts)) == 400 * 9
    for number, lengths in enumerate(LENGTHS):
        words = [len(text.split()) for row in rows[number::2] for text in row.negatives]
        assert (min(words), max(words)) == (lengths["passage"][0], lengths["passage"][-1])
        assert np.median(words) == pytest.approx(lengths["passage"][3], abs=4)


def test_rows_of_a_file_are_written_as_each_reads_them(tmp_path):
    file = write_jsonl(
        tmp_path / "mixed.jsonl",
        [
            {"query": "q1", "positive": "p1", "negative": "n1"},
            {"query": "q2", "pos": ["p2", "o2"], "neg": ["n2", "m2"]},
            {"query": "q3", "positive": "p3"},
        ],
    )
    native, users = write_rows(rows_of(CASES["dense"], 2, file), tmp_path)
    read = [json.loads(line) for line in native.read_text("utf-8").split("\n") if line]
    assert read == [
        {"query": "q1", "pos": ["p1"], "neg": ["n1"]},
        {"query": "q2", "pos": ["p2"], "neg": ["n2"]},
    ]
    assert json.loads(users.read_text("utf-8").split("\n")[0]) == {"query": "q1", "positive": "p1", "negative": "n1"}
    _, users = write_rows(rows_of(CASES["published"], 2, file), tmp_path)
    assert json.loads(users.read_text("utf-8").split("\n")[1])["neg"] == ["n2", "m2"]


def test_processes_still_running_are_in_the_cpu_time():
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ntime.sleep(60)"
    started = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert cpu_seconds() - started > 0.45
        child.kill()
    assert cpu_seconds() - started > 0.45


def test_the_peak_is_of_what_came_since():
    large = np.ones(300 * 2**20, dtype=np.uint8)
    assert peak() > large.nbytes
    del large
    reset_peak()
    assert peak() - resident() < 50 * 2**20


def counted(**figures) -> dict:
    names = "steps seconds cpu_seconds rows texts tokens positions pairs peak_bytes above_bytes parameters_but_words"
    return {name: 1 for name in names.split()} | {"device": "cpu"} | figures


def test_vectors_are_one_a_text_and_one_a_token_but_the_first():
    figures = derive(counted(steps=2, texts=4, tokens=20), hidden=8)
    assert figures["vector_bytes_per_step"] == 4 * (4 * 8 + (20 - 4) * 8 + 20) / 2


def test_of_a_card_s_work_only_that_of_the_layers_is_counted():
    figures = derive(counted(device="NVIDIA A100-SXM4-80GB", tokens=52, parameters_but_words=1e12), hidden=8)
    assert figures["share_of_card"] == pytest.approx(1)


def test_a_promise_is_judged_for_its_shape_and_told_for_others():
    promises = (
        Promise("low", lambda runs: runs["a"]["seconds"], at_most=1, shape="starter"),
        Promise("high", lambda runs: runs["a"]["seconds"], at_least=5),
        Promise("other", lambda runs: runs["b"]["seconds"], at_most=1),
    )
    case = Case(about="", shapes=(), rows=1, runs=(), promises=promises)
    run = derive(counted(seconds=2), hidden=8)
    low, high = judge(case, "starter", {"a": run})
    assert (low["kept"], high["kept"]) == (False, False)
    assert "kept" not in judge(case, "minilm", {"a": run})[0]
    told = markdown({"case": "c", "shape": "s", "about": "", "runs": {"a": run}, "promises": [low, high]})
    assert "low: 2 (at most 1: NOT KEPT)" in told
    assert "high: 2 (at least 5: NOT KEPT)" in told


def gpu(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, KIT / "benchmarks" / "gpu.py", *words]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(KIT)}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)


def test_the_gpu_benchmark_says_that_there_is_no_gpu_and_what_it_checks():
    done = gpu()
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("no GPU: PyTorch sees none here, so nothing was measured")
    done = gpu("nonsense")
    assert done.returncode == 2 and "there is no check nonsense" in done.stderr
    told = (KIT / "benchmarks" / "README.md").read_text("utf-8").partition("## On a GPU")[2].partition("\n## ")[0]
    names = done.stderr.rpartition("there are ")[2].strip().split(", ")
    assert re.findall(r"^\| `(\w+)` \|", told, re.M) == names


@pytest.mark.slow
def test_the_gpu_benchmark_trains_by_the_kits_command(tmp_path):
    done = gpu("--device", "cpu", "--shape", "starter", "--output", tmp_path / "found.json", "tf32", "attention")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["checks"]
    runs = found["tf32"]["measured"]
    assert runs["none"]["losses"] == runs["all"]["losses"] and runs["none"]["tokens_per_second"] > 0
    assert any(line.startswith("Precision:") for line in runs["none"]["said"])
    assert found["attention"]["measured"].keys() == {"with cuDNN", "without"}
    assert f"EXPECTED {found['tf32']['expected']}" in done.stdout
