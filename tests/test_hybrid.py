"""The weights of the hybrid score: given, or tuned on queries that are not tested on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import WORDS, write_beir

from m3kit.__main__ import main
from m3kit.errors import KitError
from m3kit.evaluation.beir import LEAST_TO_DIVIDE, read_eval_data, with_dev
from m3kit.evaluation.hybrid import parse_weights, tune
from m3kit.evaluation.scores import HYBRID_WEIGHTS, Candidates


def test_weights_are_three_numbers_or_tune():
    assert parse_weights("1,0.3,1") == HYBRID_WEIGHTS and parse_weights("tune") == "tune"
    for wrong in ("1,1", "a,b,c", "0,0,0", "-1,1,1", "nan,1,1", "1,inf,1", ""):
        with pytest.raises(KitError, match="for example 1,0.3,1, or tune"):
            parse_weights(wrong)


def candidates(**scores: list[float]) -> Candidates:
    arrays = {name: np.array(values, dtype=np.float32) for name, values in scores.items()}
    everything = np.arange(len(arrays["dense"]))
    return Candidates(everything, arrays, {"dense": everything, "sparse": everything})


@pytest.mark.parametrize("right", ["dense", "sparse", "colbert"])
def test_the_head_that_is_right_gets_the_weight(right):
    wrong = {"dense": [1, 0], "sparse": [1, 0], "colbert": [1, 0]}
    found = {"q": candidates(**{**wrong, right: [0, 1.05]})}
    weights = tune(found, ["bad", "good"], {"q": {"good": 1}}, HYBRID_WEIGHTS)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights[right] >= 0.5 and found["q"].ranking("hybrid", weights).tolist() == [1, 0]


def test_where_all_weights_are_equal_the_usual_ones_stay():
    found = {"q": candidates(dense=[0, 1], sparse=[0, 1], colbert=[0, 1])}
    weights = tune(found, ["bad", "good"], {"q": {"good": 1}}, HYBRID_WEIGHTS)
    # 1 : 0.3 : 1, in tenths
    assert weights == pytest.approx({"dense": 0.4, "sparse": 0.1, "colbert": 0.5}) or weights == pytest.approx(
        {"dense": 0.5, "sparse": 0.1, "colbert": 0.4}
    )


def many_queries(folder, dev: bool = False):
    queries = [json.dumps({"_id": f"q{i}", "text": f"{WORDS[i % 12]} {WORDS[i % 11]}"}) for i in range(30)]
    lines = [f"q{i}\td{i % 12}\t1" for i in range(30)]
    head = "query-id\tcorpus-id\tscore"
    write_beir(folder, queries=queries, qrels=[head, *(lines[:20] if dev else lines)])
    if dev:
        (folder / "qrels" / "dev.tsv").write_text("\n".join([head, *lines[18:]]) + "\n")
    return folder


def test_dev_tsv_is_what_is_tuned_on_without_the_test_queries(tmp_path):
    data = read_eval_data(many_queries(tmp_path, dev=True))
    assert list(data.queries) == [f"q{i}" for i in range(20)] and data.queries_left_out == 0
    assert list(data.dev.queries) == list(data.dev.qrels) == [f"q{i}" for i in range(20, 30)]
    assert with_dev(data) is data


def test_without_dev_tsv_a_fifth_of_the_queries_is_set_aside(tmp_path):
    data = read_eval_data(many_queries(tmp_path))
    divided = with_dev(data)
    assert len(divided.dev.queries) == 6 and not divided.dev.queries.keys() & divided.queries.keys()
    assert divided.dev.queries | divided.queries == data.queries
    assert divided.qrels.keys() == divided.queries.keys() and divided.dev.qrels.keys() == divided.dev.queries.keys()
    assert with_dev(data) == divided


def test_too_few_queries_are_not_divided(tmp_path):
    with pytest.raises(KitError, match=f"{LEAST_TO_DIVIDE} are needed"):
        with_dev(read_eval_data(write_beir(tmp_path)))


def test_the_command_tunes_each_model_and_says_on_how_many_queries(model_folder, tmp_path, capsys):
    words = ["evaluate", "--models", f"base={model_folder}", "--eval_data", str(many_queries(tmp_path / "eval"))]
    words += ["--output_dir", str(tmp_path), "--vector_cache", "none", "--general_data", "none", "--device", "cpu"]
    assert main([*words, "--hybrid_weights", "tune", "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    assert (tuned["queries"], tuned["dev_queries"]) == (24, 6)
    assert sum(tuned["models"]["base"]["hybrid_weights"].values()) == pytest.approx(1)
    assert main([*words, "--hybrid_weights", "0,0,2", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)["models"]["base"]
    assert given["hybrid_weights"] == {"dense": 0, "sparse": 0, "colbert": 2} and given["hybrid"] == given["colbert"]
    assert main([*words, "--hybrid_weights", "1,1"]) == 1
    assert "is not three numbers" in capsys.readouterr().err
