"""The two commands a newcomer types, for real: from example data to a model that is better than its base."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import report_browser
from conftest import KIT

pytestmark = pytest.mark.slow

SINGLE, MULTI = "run_flagembedding_training_single_gpu.sh", "run_flagembedding_training.sh"


def run(script, *arguments, **environment):
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "", **environment}
    return subprocess.run(
        [KIT / script, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def assert_told_as_measured(metrics: dict) -> None:
    """The verdict's numbers are those of metrics.json, and it is no success where keyword search is better."""
    told, queries, lead = metrics["verdict"], metrics["queries"], metrics["lead"]
    base, tuned = (metrics["models"][name][lead] for name in ("base", "tuned"))
    found = [round(figures["success@10"] * queries) for figures in (tuned, base)]
    assert f"first ten for {found[0]} of {queries} questions; before, for {found[1]}." in told
    before, after = (f"{figures['nDCG@10']:.3f}" for figures in (base, tuned))
    assert re.search(rf"nDCG@10 by [\w ]+ went from {before} to {after} ", told)
    assert f"Plain keyword search (BM25) finds it for {round(metrics['bm25']['success@10'] * queries)}" in told
    served = metrics["serving"]["models"]["tuned"]
    if "hybrid.json" in told:
        words = round(served["figures"]["success@10"] * queries)
        assert f"(hybrid.json): {words} of {queries}, nDCG@10 {served['figures']['nDCG@10']:.3f}" in told
    best = max(metrics["models"]["tuned"][score]["nDCG@10"] for score in ("dense", "sparse", "colbert", "hybrid"))
    assert (metrics["outcome"] == "keyword search") == (metrics["bm25"]["nDCG@10"] > best)


@pytest.mark.parametrize(("script", "ranks"), [(SINGLE, 1), (MULTI, 2)])
def test_smoke_ends_with_a_better_model(tmp_path, script, ranks):
    output = tmp_path / "outputs [of] 'mine'"
    done = run(script, "--smoke", OUTPUT_DIR=str(output))
    assert done.returncode == 0, done.stderr[-5000:]
    left = {path.name for path in output.iterdir()}
    assert left >= {
        "model.safetensors",
        "colbert_linear.pt",
        "sparse_linear.pt",
        "tokenizer.json",
        "modules.json",
        "run.json",
        "metrics.json",
        "report.html",
        "README.md",
        "plots",
    }
    assert list((output / "runs").rglob("events.out.tfevents*"))
    record = json.loads((output / "run.json").read_text())
    assert (record["status"], record["world_size"]) == ("finished", ranks)
    metrics = json.loads((output / "metrics.json").read_text())
    compared = metrics["comparisons"]["tuned"]["hybrid"]["nDCG@10"]
    assert compared["change"] > 0 and compared["verdict"] == "better"
    assert metrics["verdict"] in done.stdout
    assert_told_as_measured(metrics)
    assert f"the report in {output}/report.html" in done.stdout
    assert metrics["general"]["passages"] == 1000

    if not report_browser.missing():
        with report_browser.Browser(tmp_path / "profile") as browser:
            report_browser.assert_true_and_quiet(browser, output)

    # Run again, the folder is not overwritten unless that is asked for.
    again = run(script, "--smoke", "--overwrite_output_dir", "False", OUTPUT_DIR=str(output))
    assert again.returncode == 1
    assert "already holds a finished training run" in again.stderr


def test_stopped_by_a_signal_the_same_command_goes_on(tmp_path):
    output = tmp_path / "out"
    words = [KIT / SINGLE, "--smoke", "--overwrite_output_dir", "False", "--max_steps", "30", "--output_dir", output]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": ""}
    with open(tmp_path / "said", "w") as said:
        script = subprocess.Popen([*map(str, words)], stdout=said, stderr=said, env=environment)
        log = output / "train.log"
        while script.poll() is None and not (log.exists() and "step 4/30" in log.read_text("utf-8")):
            time.sleep(0.05)
        script.terminate()
        assert script.wait() == 143
    last = (tmp_path / "said").read_text("utf-8").strip().split("\n")[-1]
    step = int(re.search(r"stopped by SIGTERM after step (\d+), which is saved; run the same command", last)[1])
    assert step < 30
    again = run(SINGLE, *words[1:])
    assert again.returncode == 0, again.stderr[-5000:]
    assert "holds a run that was not finished; it goes on" in again.stderr
    assert f"Going on from step {step}." in again.stderr
    assert json.loads((output / "run.json").read_text())["resumed"][0]["from_step"] == step
    assert "The right passage is among the first ten for" in again.stdout


def test_the_untouched_library_trains_on_the_same_prepared_files(tmp_path):
    done = run(
        SINGLE,
        "--smoke",
        "--max_steps",
        4,
        ENTRYPOINT="FlagEmbedding.finetune.embedder.encoder_only.m3",
        OUTPUT_DIR=str(tmp_path / "plain"),
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert (tmp_path / "plain" / "colbert_linear.pt").is_file()
    assert not (tmp_path / "plain" / "run.json").exists()
    assert (tmp_path / "plain" / "report.html").is_file()


def test_what_the_trainer_refuses_is_the_last_line(tmp_path, starter):
    base = shutil.copytree(starter, tmp_path / "base")
    (base / "sparse_linear.pt").unlink()
    done = run(SINGLE, "--smoke", "--model_name_or_path", base, OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 1
    last = done.stderr.strip().split("\n")[-1]
    assert f"this step failed: Training. {base} has no sparse_linear.pt" in last


def test_a_model_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    done = run(SINGLE, "--smoke", "--model_name_or_path", "./nope", OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no such folder: './nope'" in done.stderr.strip().split("\n")[-1]
    assert not (tmp_path / "out").exists()


def test_bad_data_stops_before_training_with_file_and_line(tmp_path):
    rows = tmp_path / "retrieval" / "train.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"query": "q", "positive": "p"}\n{"query": "", "positive": "p"}\n')
    done = run(SINGLE, "--smoke", "--train_data", rows.parent, OUTPUT_DIR=str(tmp_path / "out"))
    assert done.returncode == 1
    assert f'{rows}:2: "query" is empty' in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "run.json").exists()
