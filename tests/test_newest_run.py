"""evaluate without arguments: which run is meant, and what of it is taken for what was not given."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from tiny import write_beir

from m3kit.cli import main
from m3kit.records import Metrics


@pytest.fixture
def kit(tmp_path, monkeypatch) -> Path:
    """The kit's folder, which is the current one, with a base model and test data."""
    monkeypatch.setattr("m3kit.runs.KIT", tmp_path)
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "cache" / "starter")
    write_beir(tmp_path / "example data" / "eval")
    return tmp_path


@pytest.fixture
def asked(monkeypatch) -> list[Namespace]:
    """What would have been evaluated."""
    calls = []

    def evaluate(models, data, cache_dir, encoding, **others):
        calls.append(Namespace(models=dict(models), eval_data=str(data.folder), cache_dir=cache_dir, encoding=encoding))
        return Metrics(models={}, verdict="better")

    monkeypatch.setattr("m3kit.evaluation.comparison.evaluate", evaluate)
    return calls


def make_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def make_run(folder: Path, day: int, status: str = "finished", **settings) -> Path:
    """A run whose record was written on that day."""
    make_model(folder)
    known = {"model_name_or_path": "cache/starter", "eval_data": "example data/eval", "cache_dir": None}
    record = {"status": status, "settings": {**known, **settings}, "data": [], "world_size": 1}
    (folder / "run.json").write_text(json.dumps(record))
    os.utime(folder / "run.json", (day * 86400, day * 86400))
    return folder


def evaluate(*words) -> int:
    return main(["evaluate", "--json", "--general_data", "none", *map(str, words)])


# ---- which run -----------------------------------------------------------------------------------------------------


def test_the_newest_finished_run_is_compared_with_the_model_it_started_from(kit, asked, capsys):
    make_run(kit / "outputs" / "z old", 1)
    newest = make_run(kit / "outputs" / "newest [ä]", 3)
    make_run(kit / "outputs" / "older", 2)
    (newest / "metrics.json").write_text("of the evaluation before")
    assert evaluate() == 0
    assert [call.models for call in asked] == [{"base": "cache/starter", "tuned": "outputs/newest [ä]"}]
    assert asked[0].eval_data == "example data/eval" and asked[0].cache_dir is None
    assert json.loads((newest / "metrics.json").read_text())["verdict"] == "better"
    assert capsys.readouterr().err.splitlines()[0] == (
        "The newest finished run: outputs/newest [ä]; its base: cache/starter; test data: example data/eval"
    )


@pytest.mark.parametrize("status", ["running", "stopped", "damaged", "without a model"])
def test_a_run_without_a_finished_model_is_passed_over_and_that_is_said(kit, asked, capsys, status):
    make_run(kit / "outputs" / "mine", 1)
    newer = make_run(kit / "outputs" / "newer", 2, status if status in ("running", "stopped") else "finished")
    lacks = "is not finished"
    if status == "damaged":
        (newer / "run.json").write_text('{"status": ')
        lacks = "has a damaged run.json"
    elif status == "without a model":
        (newer / "config.json").unlink()
        lacks = "holds no model (no config.json)"
    assert evaluate() == 0
    assert asked[0].models["tuned"] == "outputs/mine"
    assert f"run: outputs/mine (newer: outputs/newer, which {lacks}); its base" in capsys.readouterr().err


@pytest.mark.parametrize("started", [None, "stopped"])
def test_where_no_run_is_finished_that_is_said_with_what_to_do(kit, asked, capsys, started):
    if started:
        make_run(kit / "outputs" / "mine", 1, started)
    make_run(kit / "elsewhere", 1)
    assert evaluate() == 1
    but = " (but outputs/mine, which is not finished)" if started else ""
    assert capsys.readouterr().err == (
        f"m3kit evaluate: there is no finished run below outputs{but}; train one first, or give --models, "
        "--eval_data and --output_dir\n"
    )
    assert not asked


def test_the_run_in_output_dir_is_taken_wherever_it_is(kit, asked, capsys):
    make_run(kit / "outputs" / "newest", 2)
    mine = make_run(kit / "elsewhere" / "mine", 1, model_name_or_path="BAAI/bge-m3")
    assert evaluate("--output_dir", mine) == 0
    assert asked[0].models == {"base": "BAAI/bge-m3", "tuned": str(mine)}
    assert (mine / "metrics.json").is_file() and not (kit / "outputs/newest/metrics.json").exists()
    assert capsys.readouterr().err.startswith(f"The run: {mine}; its base: BAAI/bge-m3; test data: ")


def test_no_other_run_is_evaluated_into_a_folder_with_a_model(kit, asked, capsys):
    make_run(kit / "outputs" / "newest", 2)
    make_run(kit / "outputs" / "stopped", 1, "stopped")
    make_model(kit / "outputs" / "of another kit")
    assert evaluate("--output_dir", "outputs/stopped") == 1
    assert "the run in outputs/stopped is not finished; train it to its end, or" in capsys.readouterr().err
    assert evaluate("--output_dir", "outputs/of another kit") == 1
    assert "holds a model but no run.json" in capsys.readouterr().err
    assert not asked


def test_a_folder_that_is_not_there_is_an_error_that_names_the_runs(kit, asked, capsys):
    make_run(kit / "outputs" / "mine", 1)
    make_run(kit / "outputs" / "other", 2, "stopped")
    make_run(kit / "elsewhere" / "third", 3)
    for typed, runs in (
        ("outputs/mnie", "outputs/mine, outputs/other"),
        ("elsewhere/thrid", "elsewhere/third, outputs"),
    ):
        assert evaluate("--output_dir", typed) == 1
        assert f"there is no folder {typed}; the runs that are there: {runs}" in capsys.readouterr().err
        assert not (kit / typed).exists()
    assert not asked


# ---- what is taken of it -------------------------------------------------------------------------------------------


def test_what_is_given_wins(kit, asked):
    make_run(kit / "outputs" / "mine", 1)
    other = write_beir(kit / "other")
    (kit / "outputs" / "figures").mkdir()
    assert evaluate("--eval_data", other, "--output_dir", "outputs/figures", "--cache_dir", "c") == 0
    assert asked[0].models["tuned"] == "outputs/mine" and asked[0].eval_data == str(other)
    assert asked[0].cache_dir == "c"
    assert (kit / "outputs/figures/metrics.json").is_file() and not (kit / "outputs/mine/metrics.json").exists()

    models = ["--models", "a=x", "b=y"]
    assert evaluate(*models, "--output_dir", "outputs/figures") == 0
    assert asked[1].models == {"a": "x", "b": "y"} and asked[1].eval_data == "example data/eval"
    assert asked[1].encoding == dict.fromkeys(asked[1].encoding)


def test_models_given_by_hand_need_an_output_dir(kit, asked, capsys):
    make_run(kit / "outputs" / "mine", 1)
    assert evaluate("--models", "a=x", "--eval_data", "example data/eval") == 1
    assert "say with --output_dir where" in capsys.readouterr().err and not asked


def test_a_checkpoint_of_a_stopped_run_is_evaluated_on_the_test_data_of_the_run(kit, asked):
    make_run(kit / "outputs" / "newest", 2)
    write_beir(kit / "other")
    make_run(kit / "outputs" / "mine", 1, "stopped", eval_data="other")
    assert evaluate("--models", "a=outputs/mine/checkpoint-5", "--output_dir", "outputs/mine") == 0
    assert asked[0].models == {"a": "outputs/mine/checkpoint-5"} and asked[0].eval_data == "other"


def test_relative_paths_of_the_record_begin_in_the_kits_folder(kit, asked, monkeypatch):
    (kit / "hub").mkdir()
    make_run(kit / "outputs" / "mine", 1, cache_dir="hub")
    (kit / "deep").mkdir()
    monkeypatch.chdir(kit / "deep")
    assert evaluate() == 0
    assert asked[0].models == {"base": f"{kit}/cache/starter", "tuned": f"{kit}/outputs/mine"}
    assert (asked[0].eval_data, asked[0].cache_dir) == (f"{kit}/example data/eval", f"{kit}/hub")


def test_both_models_are_encoded_as_the_run_was_trained(kit, asked):
    settings = {"sentence_pooling_method": "mean", "query_max_len": 16, "passage_max_len": 32}
    make_run(kit / "outputs" / "mine", 1, **settings)
    assert evaluate("--passage_max_len", 20) == 0
    encoding = asked[0].encoding
    assert (encoding["pooling_method"], encoding["query_max_len"], encoding["passage_max_len"]) == ("mean", 16, 20)


@pytest.mark.parametrize("recorded", ["/workspace/gone/eval", "gone/eval", None])
def test_without_the_test_data_of_the_record_what_was_held_out_is_taken(kit, asked, capsys, recorded):
    mine = make_run(kit / "outputs" / "mine", 1, eval_data=recorded)
    assert evaluate() == 1
    why = f"the test data of outputs/mine, {recorded}, is not there" if recorded else "outputs/mine has no test data"
    assert f"{why}; give --eval_data a folder\n" in capsys.readouterr().err
    write_beir(mine / "prepared" / "eval")
    assert evaluate() == 0
    assert [call.eval_data for call in asked] == ["outputs/mine/prepared/eval"]


@pytest.mark.parametrize("base", ["/workspace/cache/starter", "cache/gone", "./gone"])
def test_a_base_that_is_gone_is_not_looked_for_on_the_hub(kit, asked, capsys, base):
    make_run(kit / "outputs" / "mine", 1, model_name_or_path=base)
    assert evaluate() == 1
    told = capsys.readouterr().err
    assert f"the model that outputs/mine started from, {base}, is not there" in told
    assert "give --models base=… tuned=outputs/mine --output_dir outputs/mine\n" in told and not asked


def test_a_real_run_is_evaluated_without_an_argument_and_again(kit, model_folder, capsys):
    mine = make_run(kit / "outputs" / "mine", 1, model_name_or_path=str(model_folder))
    shutil.copytree(model_folder, mine, dirs_exist_ok=True)
    words = ["--device", "cpu"]
    assert evaluate(*words) == 0
    first = json.loads((mine / "metrics.json").read_text())
    assert first["models"]["tuned"]["path"] == "outputs/mine" and first["queries"] == 3
    (mine / "metrics.json").write_text("damaged")
    assert evaluate(*words, "--output_dir", mine) == 0
    again = json.loads((mine / "metrics.json").read_text())
    assert again["comparisons"] == first["comparisons"] and again["verdict"] == first["verdict"]
