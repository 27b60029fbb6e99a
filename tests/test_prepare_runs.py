"""`m3kit prepare` run again, killed, elsewhere: the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import KIT, write_jsonl
from data_helpers import run

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings


@pytest.mark.slow
def test_same_input_and_seed_give_the_same_bytes(tmp_path):
    written = []
    for number in ("0", "1"):
        output = tmp_path / number / "prepared"
        done = run("--train_data", "example_data", "--output_dir", output, PYTHONHASHSEED=number)
        assert done.returncode == 0, done.stderr
        written.append({path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()})
    assert written[0] == written[1]
    done = run("--train_data", "example_data", "--output_dir", tmp_path / "0" / "prepared", "--seed", "7")
    assert done.returncode == 0
    changed = (tmp_path / "0" / "prepared" / "retrieval" / "train.jsonl").read_bytes()
    assert changed != written[0][Path("retrieval/train.jsonl")]


def outputs(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def many_rows(tmp_path) -> Path:
    """Rows of all tasks, with repeats and gaps, enough for several parts."""
    for task, rows in {
        "retrieval": [
            {"query": f"query {i % 700}", "positive": f"passage {i}"} | ({"negative": f"other {i}"} if i % 3 else {})
            for i in range(1000)
        ],
        "sts": [{"sentence1": f"s {i % 50}", "sentence2": f"t {i}", "score": i % 11 / 10} for i in range(400)],
        "classification": [{"text": f"text {i}", "label": f"l{i % 7}"} for i in range(400)],
        "clustering": [{"text": f"text {i}", "label": f"l{i % 9}"} for i in range(400)],
    }.items():
        write_jsonl(tmp_path / "data" / task / "train.jsonl", rows)
    return tmp_path / "data"


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_and_the_next_makes_the_same(tmp_path):
    data = many_rows(tmp_path)
    prepare([data], tmp_path / "one", Settings())
    code = (
        "import os, sys\n"
        "import m3kit.data.prepare as p\n"
        "convert, p.Room._convert = p.Room._convert, lambda self, job, output: (\n"
        "    convert(self, job, output) if job.data.task != 'sts' else os.kill(os.getpid(), 9))\n"
        "p.prepare([p.Path(sys.argv[1])], p.Path(sys.argv[2]), p.Settings())\n"
    )
    output = tmp_path / "other" / "prepared"
    killed = subprocess.run([sys.executable, "-c", code, data, output], cwd=KIT, check=False, capture_output=True)
    assert killed.returncode == -9
    assert not output.exists()
    assert len(list(output.parent.glob("*.tmp"))) == 1  # what it was at work on
    prepare([data], output, Settings())
    assert outputs(output) == outputs(tmp_path / "one")
    assert {path.name for path in output.parent.iterdir()} == {"prepared", ".prepared.lock"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--train_data", "example_data", "--output_dir", tmp_path / "file" / "prepared")
    assert done.returncode == 1
    assert "cannot write" in done.stderr and "choose another --output_dir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_benchmark_measures_both(tmp_path):
    output = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/prepare.py", "--rows", "3000", "--output", output, "--", "--holdout", "0.05"]
    subprocess.run(command, cwd=KIT, check=True, capture_output=True)
    (result,) = json.loads(output.read_text())["runs"]
    assert result["rows"] == 3000
    assert 0 < result["rows_used"] < 3000
    assert result["seconds"] > result["bare_loop_seconds"] > 0
    assert result["peak_memory_mib"] > 10
