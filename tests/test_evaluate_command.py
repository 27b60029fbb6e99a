"""The evaluate command: which model, device and precision, and what it writes and says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import mostly_slow
from tiny import QUERIES, write_beir

from m3kit.cli import main
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import choose_device, choose_precision, find_model
from m3kit.errors import KitError
from m3kit.evaluation.evaluate import parse_models
from m3kit.test_data.folder import read_eval_folder
from m3kit.test_data.sample import choosing_half

# ---- models, devices, words ----------------------------------------------------------------------------------------


def test_a_path_without_a_model_gets_a_sentence(tmp_path):
    with pytest.raises(KitError, match="no model at"):
        find_model("tuned", str(tmp_path / "run"))
    with pytest.raises(KitError, match="no config.json"):
        find_model("tuned", str(tmp_path))
    with pytest.raises(KitError, match="is not NAME=PATH"):
        parse_models(["outputs/run"])
    with pytest.raises(KitError, match="twice"):
        parse_models(["a=x", "a=y"])
    assert parse_models(["base=BAAI/bge-m3", "tuned=a=b c"]) == {"base": "BAAI/bge-m3", "tuned": "a=b c"}


def test_a_hub_model_is_downloaded_once_and_its_heads_are_looked_at(model_folder, monkeypatch):
    asked = []

    def download(**arguments):
        asked.append(arguments)
        return str(model_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = find_model("base", "BAAI/bge-m3", cache_dir="cache")
    assert found.folder == model_folder and found.colbert_size == 8
    assert [(a["repo_id"], a["cache_dir"]) for a in asked] == [("BAAI/bge-m3", "cache")]


def test_half_precision_on_a_cpu_becomes_fp32_with_the_reason():
    assert choose_precision("auto", "cpu")[0] == "fp32" and choose_precision("auto", "cuda:0")[0] == "fp16"
    precision, reason = choose_precision("fp16", "cpu")
    assert precision == "fp32" and "fp16 was asked for" in reason
    with pytest.raises(KitError, match="not known"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(KitError, match="no CUDA GPU"):
            choose_device("cuda:0")


def test_a_model_that_gives_nan_is_refused(model_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(model_folder, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    encoder = Encoder(find_model("tuned", str(broken)), EncodeSettings())
    with pytest.raises(KitError, match="NaN"):
        encoder.queries(["river"])


def test_general_data_that_are_not_there_are_told_with_their_own_option(tmp_path, capsys):
    eval_data, words = write_beir(tmp_path / "eval"), ["--models", "base=x", "--output_dir", str(tmp_path)]
    assert main(["evaluate", *words, "--eval_data", str(eval_data), "--general_data", str(tmp_path / "no")]) == 1
    assert "no does not exist; give --general_data a folder" in capsys.readouterr().err


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_a_table_a_sentence_and_metrics(model_folder, tmp_path, capsys):
    queries = [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()] + ['{"_id": "q4", "text": "x"}']
    eval_data = write_beir(tmp_path / "eval [ä]", queries=queries)
    output = tmp_path / "out 'put'"
    models = ["--models", f"base={model_folder}", f"tuned={model_folder}"]
    places = ["--eval_data", str(eval_data), "--output_dir", str(output)]
    code = main(["evaluate", *models, *places, "--device", "cpu", "--batch_size", "4", "--passage_max_len", "512"])
    captured = capsys.readouterr()
    assert code == 0, captured.err

    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert not list(output.glob("*.tmp"))
    assert (metrics["queries"], metrics["queries_left_out"], metrics["passages"]) == (3, 1, 12)
    assert metrics["relevant_pairs"] == 3 and metrics["eval_data"] == str(eval_data)
    assert metrics["settings"]["precision"] == "fp32" and metrics["settings"]["device"] == "cpu"
    assert metrics["settings"]["hybrid_weights"] == {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
    assert list(metrics["models"]) == ["base", "tuned"]
    base = metrics["models"]["base"]
    assert base["path"] == str(model_folder) and base["seconds"] >= 0
    for score in ("dense", "sparse", "colbert", "hybrid"):
        assert list(base[score]) == ["nDCG@10", "success@10", "MRR@10", "recall@10", "recall@100", "MAP"]
        same = {"change": 0.0, "interval": [0.0, 0.0], "p": 1.0, "verdict": "no difference"}
        assert metrics["comparisons"]["tuned"][score] == dict.fromkeys(["nDCG@10", "success@10"], same)
    assert base["dense"]["recall@100"] == 1.0  # all twelve passages are ranked
    # The model has 66 - 2 positions, which the user hears of.
    assert base["notes"] == ["base has positions for 64 tokens: query_max_len 512 was cut to 64.",
                             "base has positions for 64 tokens: passage_max_len 512 was cut to 64."]  # fmt: skip

    lines = captured.out.rstrip("\n").split("\n")
    assert lines[0] == "3 queries, 12 passages, 3 relevant pairs"
    assert max(map(len, lines[:20])) <= 100
    assert "\n".join(lines).endswith(metrics["verdict"]) and metrics["outcome"] == "same"
    assert "no difference that 3 questions can show" in metrics["verdict"]
    assert "\nServe tuned by dense + 0.1 BM25" in metrics["verdict"] and "3 queries are too few" in metrics["verdict"]
    assert len(metrics["examples"]) == 3  # also where nothing changed
    assert "no relevant passage: 1." in captured.err and "base: encoding 12 passages" in captured.err


@pytest.mark.slow
@pytest.mark.parametrize("missing", mostly_slow(["colbert_linear.pt", "sparse_linear.pt"]))
def test_with_a_head_missing_only_dense_is_scored_and_that_is_said(model_folder, tmp_path, capsys, missing):
    headless = Path(shutil.copytree(model_folder, tmp_path / "headless"))
    (headless / missing).unlink()
    models = ["--models", f"base={model_folder}", f"tuned={headless}"]
    places = ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", *models, *places, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    tuned = metrics["models"]["tuned"]
    for score in ("sparse", "colbert", "hybrid"):
        assert tuned[score] is None
    assert tuned["dense"] == metrics["models"]["base"]["dense"] and list(metrics["comparisons"]["tuned"]) == ["dense"]
    assert metrics["lead"] == "dense" and any(missing in note for note in tuned["notes"])
    sentence = "tuned is scored by dense vectors only"
    assert sentence in captured.out and sentence in captured.err
    assert list(metrics["serving"]["models"]["tuned"]["alone"]) == ["dense", "bm25"]
    row = next(line for line in captured.out.splitlines() if line.startswith("hybrid"))
    assert row.split()[-2:] == ["-", "-"]  # no figure, no change and no word


def test_errors_end_the_command_with_a_sentence_and_write_nothing(tmp_path, capsys):
    places = ["--eval_data", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--models", "base=x", *places]) == 1
    captured = capsys.readouterr()
    assert "does not exist" in captured.err and captured.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_stdout_holds_the_table_alone_and_of_equal_passages_the_last_id_ranks_first(model_folder, tmp_path):
    passages = [json.dumps({"_id": key, "text": "river stone"}) for key in ("b", "c", "a")]
    queries = ['{"_id": "q", "text": "river"}']
    eval_data = write_beir(tmp_path / "eval", passages, queries, ["query-id\tcorpus-id\tscore", "q\tb\t1"])
    command = [sys.executable, "-m", "m3kit", "evaluate", "--models", f"base={model_folder}", "--device", "cpu"]
    # One text a batch: equal texts get equal vectors to the last bit.
    command += ["--general_data", "none"]
    command += ["--batch_size", "1", "--eval_data", str(eval_data), "--output_dir", str(tmp_path / "out")]
    # A new process, as libraries tie their logs to the stdout that they find when they are imported.
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 query, 3 passages, 1 relevant pair\n")
    base = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["models"]["base"]
    assert [base[score]["MRR@10"] for score in ("dense", "sparse", "colbert", "hybrid")] == [0.5] * 4
    assert "for 1 of 1 question (base, by dense vectors)." in done.stdout and "Serve base by dense" in done.stdout


def test_json_prints_what_the_file_holds_and_nothing_else(model_folder, tmp_path, capsys):
    places = ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--models", f"m={model_folder}", *places, "--device", "cpu", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert printed["comparisons"] == {} and printed["outcome"] == "single"


def test_every_model_is_compared_with_the_first(model_folder, tmp_path, capsys):
    models = [f"{name}={model_folder}" for name in ("base", "one", "two")]
    places = ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", "--models", *models, *places, "--device", "cpu", "--general_data", "none", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["comparisons"]) == ["one", "two"] and printed["general"] is None
    assert list(printed["examples"][0]["first"]) == ["base", "two"]


@pytest.mark.slow
def test_each_model_is_encoded_as_it_was_trained_and_a_difference_is_told(model_folder, tmp_path, capsys):
    other = Path(shutil.copytree(model_folder, tmp_path / "other"))
    settings = {"sentence_pooling_method": "mean", "query_max_len": 16, "passage_max_len": 32}
    (other / "run.json").write_text(json.dumps({"status": "finished", "settings": settings}))
    models = ["--models", f"base={model_folder}", f"tuned={other}"]
    places = ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    assert main(["evaluate", *models, *places, "--device", "cpu", "--passage_max_len", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert found["base"]["settings"]["pooling_method"] == "cls"
    assert found["tuned"]["settings"] == {
        "pooling_method": "mean",
        "normalize_embeddings": True,
        "query_max_len": 16,
        "passage_max_len": 20,
        "query_instruction_for_retrieval": None,
    }
    assert found["tuned"]["notes"] == [
        "tuned is encoded as it was trained, which is not as base: pooling_method mean instead of cls, "
        "query_max_len 16 instead of 512."
    ]


@pytest.mark.parametrize(
    ("chosen_on", "said"), mostly_slow([("half", "the half of the test data"), ("all", "a little too good")])
)
def test_queries_that_chose_a_checkpoint_do_not_judge_it(model_folder, tmp_path, capsys, chosen_on, said):
    queries = [json.dumps({"_id": f"q{i}", "text": f"river {i}"}) for i in range(120)]
    qrels = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i % 12}\t1" for i in range(120))]
    eval_data = write_beir(tmp_path / "eval", queries=queries, qrels=qrels)
    run = Path(shutil.copytree(model_folder, tmp_path / "run"))
    record = {"status": "finished", "settings": {"eval_data": str(eval_data)}, "chosen_on": chosen_on}
    (run / "run.json").write_text(json.dumps(record))
    words = ["--models", f"base={model_folder}", f"tuned={run}", "--general_data", "none", "--device", "cpu", "--json"]
    assert main(["evaluate", *words, "--eval_data", str(eval_data), "--output_dir", str(run)]) == 0
    metrics = json.loads(capsys.readouterr().out)
    chooses, judges = choosing_half(read_eval_folder(eval_data))
    assert metrics["queries"] == (len(judges.retrieval.queries) if chosen_on == "half" else 120)
    assert not chooses.retrieval.queries.keys() & judges.retrieval.queries.keys()
    assert said in metrics["judged_on"]
    # Held-out rows move with their run.
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    (moved / "run.json").write_text(json.dumps(record | {"settings": {"eval_data": "/gone/run/prepared/eval"}}))
    held_out = shutil.copytree(eval_data, moved / "prepared" / "eval")
    words[2] = f"tuned={moved}"
    assert main(["evaluate", *words, "--eval_data", str(held_out), "--output_dir", str(moved)]) == 0
    assert said in json.loads(capsys.readouterr().out)["judged_on"]
    # Of other test data all queries judge.
    other = shutil.copytree(eval_data, tmp_path / "other")
    assert main(["evaluate", *words, "--eval_data", str(other), "--output_dir", str(run)]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["queries"] == 120 and metrics["judged_on"] == ""
