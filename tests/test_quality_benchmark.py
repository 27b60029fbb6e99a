"""The referee between trainings: the same rows and the same figures for all, and only what is missing is done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import EXAMPLE_DATA, KIT

sys.path.insert(0, str(KIT / "benchmarks"))

from referee.neutral import ndcg
from referee.sets import load
from referee.table import best_with_bm25, mean


def test_ndcg_is_that_of_trec_eval():
    import pytrec_eval

    random = np.random.default_rng(0)
    scores = random.permutation(30 * 20).reshape(30, 20).astype(float)
    grades = [{int(n): int(random.integers(1, 4)) for n in random.choice(20, 5, replace=False)} for _ in range(30)]
    qrels = {str(row): {str(number): grade for number, grade in of.items()} for row, of in enumerate(grades)}
    run = {str(row): {str(number): float(score) for number, score in enumerate(of)} for row, of in enumerate(scores)}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
    expected = [found[str(row)]["ndcg_cut_10"] for row in range(30)]
    assert ndcg(scores, grades) == pytest.approx(expected, abs=1e-9)


def test_rows_held_out_are_not_trained_on_and_all_systems_get_the_same(tmp_path):
    data = load(EXAMPLE_DATA, held_out=10, most_passages=1000)
    queries = {row["query"] for row in data.rows}
    assert len(data.test.queries) > 10 and not queries & set(data.test.queries[:10])
    for query, grades in zip(data.test.queries, data.test.grades, strict=True):
        assert query and grades and max(grades) < len(data.test.passages)
    assert len(set(data.test.passages)) == len(data.test.passages)
    again = load(EXAMPLE_DATA, held_out=10, most_passages=1000)
    assert [again.rows, again.test] == [data.rows, data.test]
    written = data.write(tmp_path, 20) / "train.jsonl"
    assert [json.loads(line) for line in written.read_text("utf-8").splitlines()] == data.rows[:20]


def test_the_best_weight_of_bm25_is_the_best_of_the_score_s_own():
    results = [{"figures": {"dense": [0.5], "dense + 0.1 BM25": [0.7], "hybrid + 0.1 BM25": [0.9], "hybrid": [0.1]}}]
    assert best_with_bm25(results, "dense") == (0.7, "dense + 0.1 BM25")
    assert mean(results, "dense") == 0.5


@pytest.mark.slow
def test_one_command_trains_measures_compares_and_goes_on(starter, tmp_path):
    work = tmp_path / "work"
    command = [
        sys.executable,
        KIT / "benchmarks" / "quality.py",
        "--base",
        starter,
        "--pooling",
        "cls",
        "--data",
        EXAMPLE_DATA,
    ]
    command += ["--held_out", "20", "--passages", "500", "--max_len", "32", "--fp32", "--work", work]
    systems = ["base", "st-1e-4", "best:eval_data=none,num_train_epochs=1"]

    def run() -> str:
        done = subprocess.run([*map(str, command), "--systems", *systems], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    table = run()
    results = {}
    for file in work.glob("example_data/all/*/0/result.json"):
        results[file.parents[1].name] = json.loads(file.read_text("utf-8"))
    assert results.keys() == set(systems)
    counts = {len(values) for result in results.values() for values in result["figures"].values()}
    assert len(counts) == 1
    assert results["base"]["cpu_seconds"] == 0 < results["st-1e-4"]["cpu_seconds"]
    assert "colbert" in results[systems[2]]["figures"] and "colbert" not in results["st-1e-4"]["figures"]
    assert results["base"]["figures"]["BM25"] == results[systems[2]]["figures"]["BM25"]
    assert results["base"]["figures"]["dense"] != results["st-1e-4"]["figures"]["dense"]
    for system in systems:
        assert f"| example_data | all | {system} | 1 |" in table
    # Only what is missing is done again.
    shutil.rmtree(work / "example_data" / "all" / "base")
    times = {file: file.stat().st_mtime_ns for file in work.glob("example_data/all/*/0/result.json")}
    assert run() == table
    assert {file: file.stat().st_mtime_ns for file in times} == times
