"""Did it help? A damaged model is called worse, the same model no different; and what there is to look at is true."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from conftest import EXAMPLE_DATA
from safetensors.torch import load_file, save_file

from m3kit.__main__ import main
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.evaluation.retrieval import retrieve
from m3kit.test_data.beir import read_eval_data

pytestmark = pytest.mark.slow

EVAL = EXAMPLE_DATA / "eval"


@pytest.fixture(scope="module")
def told(starter, tmp_path_factory):
    """What the command says of a good model, the same once more, and one with noise on its weights."""
    import torch

    folder = tmp_path_factory.mktemp("damaged")
    damaged = Path(shutil.copytree(starter, folder / "model"))
    weights = load_file(damaged / "model.safetensors")
    torch.manual_seed(0)
    for name, weight in weights.items():
        weights[name] = weight + torch.randn_like(weight) * weight.std().nan_to_num()
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    torch.save({"weight": torch.randn(1, 128), "bias": torch.zeros(1)}, damaged / "sparse_linear.pt")
    words = ["evaluate", "--models", f"base={starter}", f"same={starter}", f"damaged={damaged}", "--device", "cpu"]
    words += ["--eval_data", str(EVAL), "--output_dir", str(folder)]
    assert main([*words, "--passage_max_len", "128"]) == 0
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def test_a_damaged_model_is_worse_with_significance(told):
    compared = told["comparisons"]["damaged"]["hybrid"]["nDCG@10"]
    assert compared["verdict"] == "worse" and compared["p"] < 0.001 and compared["interval"][1] < 0
    assert told["outcome"] == "worse" and "\nThe damaged model is WORSE than the base: nDCG@10 by" in told["verdict"]


def test_the_same_model_twice_is_no_different(told):
    for score in told["comparisons"]["same"].values():
        for compared in score.values():
            assert compared["verdict"] == "no difference" and compared["change"] == 0 and compared["p"] == 1
    for score in told["general"]["comparisons"]["same"].values():
        assert {compared["verdict"] for compared in score.values()} == {"no difference"}


def test_changes_are_differences_of_the_figures(told):
    for part in (told, told["general"]):
        for name, scores in part["comparisons"].items():
            for score, metrics in scores.items():
                for metric, compared in metrics.items():
                    figures = [part["models"][model][score][metric] for model in ("base", name)]
                    assert compared["change"] == pytest.approx(figures[1] - figures[0])
                    low, high = compared["interval"]
                    assert low <= compared["change"] <= high


def test_general_text_is_the_kits_own_200_queries_over_1000_passages(told):
    assert (told["general"]["queries"], told["general"]["passages"]) == (200, 1000)


def test_queries_to_look_at_are_those_that_changed_most(told, starter):
    data = read_eval_data(EVAL)
    with closing(Encoder(find_model("base", str(starter)), EncodeSettings(passage_max_len=128))) as encoder:
        found = retrieve(encoder, data)
    rankings, examples = found.rankings(told["lead"]), told["examples"]
    assert len(examples) == 5 and any(example["rank"]["base"] != example["rank"]["damaged"] for example in examples)
    for example in examples:
        query = example["query"]
        right = [passage for passage, grade in data.qrels[query].items() if grade > 0]
        assert example["text"] == data.queries[query] and example["right"] in data.passages[right[0]]
        first, rank = example["first"]["base"], example["rank"]["base"]
        assert first["passage"] == rankings[query][0] and first["relevant"] == (first["passage"] in right)
        assert rank is None or rankings[query][rank - 1] in right


def test_models_can_be_compared_without_retrieval_data(starter, tmp_path, capsys):
    folder = tmp_path / "eval" / "sts"
    folder.mkdir(parents=True)
    rows = [{"sentence1": f"river {i}", "sentence2": f"stone {i * i}", "score": i / 10} for i in range(10)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "--models", f"a={starter}", f"b={starter}", "--eval_data", str(tmp_path / "eval")]
    assert main([*words, "--output_dir", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert not metrics["bm25"] and not metrics["examples"] and metrics["general"]
    assert metrics["task_comparisons"]["b"]["sts"]["Spearman"]["verdict"] == "no difference"
    assert "no difference that 10 pairs can show" in out
