"""Which score to serve: weights chosen and judged on different queries, kept in hybrid.json, used by HybridSearcher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import PASSAGES, WORDS, write_beir

from m3kit.__main__ import main
from m3kit.encoding.scores import Candidates, first_places
from m3kit.errors import KitError
from m3kit.evaluation.metrics import measure
from m3kit.evaluation.retrieval import Found
from m3kit.evaluation.serving import (
    DEFAULT,
    LEAST_TO_CHOOSE,
    PARTS,
    _place,
    cost,
    cross_validate,
    grid,
    say_weights,
    served_ranking,
    serving,
    values_of,
)
from m3kit.test_data.beir import EvalData

PASSAGE_COUNT = 30


def found_by(queries: int, seed: int = 0, heads: bool = True, ties: bool = False, **signal: float) -> Found:
    """What a model found among 30 passages with made-up scores: noise, and ``signal`` on top for the relevant ones."""
    random = np.random.default_rng(seed)
    ids = [f"d{number:02}" for number in range(PASSAGE_COUNT)]
    candidates, qrels = {}, {}
    for query in (f"q{number}" for number in range(queries)):
        relevant = random.choice(PASSAGE_COUNT, 2, replace=False)
        qrels[query] = {ids[relevant[0]]: 1, ids[relevant[1]]: 2, ids[(relevant[0] + 1) % 30]: 0}
        scores = {}
        for part in PARTS if heads else ("dense", "bm25"):
            values = random.random(PASSAGE_COUNT)
            values[relevant] += signal.get(part, 0.0)
            if ties:
                values = values.round(1)
            scores[part] = values.astype(np.float32)
        bm25 = scores.pop("bm25") - np.float32(0.3)  # some share no word
        bm25[bm25 < 0] = 0
        first = {name: first_places(name, values)[:20] for name, values in scores.items() if name != "colbert"}
        ranked = first_places("sparse", bm25)[:20]
        candidates[query] = Candidates(np.arange(PASSAGE_COUNT), scores, first).with_bm25(ranked, bm25)
    data = EvalData(Path("eval"), dict.fromkeys(ids, "x"), dict.fromkeys(candidates, "x"), qrels, 0)
    return Found(data, ids, candidates, ("dense", "sparse", "colbert", "hybrid") if heads else ("dense",))


# ---- what a weighting is worth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("heads", [True, False])
def test_every_weighting_is_worth_what_ir_measures_says_of_its_ranking(heads, ties):
    found = found_by(20, heads=heads, ties=ties, dense=0.3)
    options = grid(PARTS if heads else ("dense", "bm25"))
    assert len({tuple(option.items()) for option in options}) == len(options)
    values = values_of(found, options)
    for weights, mine in zip(options, values, strict=True):
        rankings = {
            query: [found.passage_ids[number] for number in served_ranking(candidates, weights)[0]]
            for query, candidates in found.candidates.items()
        }
        assert mine == pytest.approx(measure(rankings, found.data.qrels, ["nDCG@10"])["nDCG@10"], abs=1e-9)


def test_each_score_alone_ranks_as_in_the_table():
    found = found_by(10)
    for part, weights in zip(PARTS, grid(PARTS), strict=False):
        assert [name for name, weight in weights.items() if weight] == [part]
        for candidates in found.candidates.values():
            assert served_ranking(candidates, weights)[0].tolist() == candidates.ranking(part).tolist()


def test_bm25_is_scaled_by_its_best_and_its_passages_count_where_it_has_a_weight():
    dense = np.array([0.9, 0.5, 0.1], np.float32)
    candidates = Candidates(np.array([2, 5, 7]), {"dense": dense}, {"dense": np.array([0, 1])})
    bm25 = np.zeros(9, np.float32)
    bm25[[7, 5]] = 8.0, 2.0
    candidates = candidates.with_bm25([7, 5], bm25)
    assert candidates.scores["bm25"].tolist() == [0, 0.25, 1]
    weights = {"dense": 1.0, "sparse": 0.0, "colbert": 0.0, "bm25": 1.0}
    numbers, scores = served_ranking(candidates, weights)
    assert numbers.tolist() == [7, 2, 5] and scores == pytest.approx([1.1, 0.9, 0.75])
    assert served_ranking(candidates, weights | {"bm25": 0.0})[0].tolist() == [2, 5]
    nothing = Candidates(np.array([2, 5]), {"dense": dense[:2]}, {"dense": np.array([0, 1])})
    assert nothing.with_bm25([], np.zeros(9, np.float32)).scores["bm25"].tolist() == [0, 0]


# ---- the choice ----------------------------------------------------------------------------------------------------


def judged_and_best(seed: int) -> tuple[float, float, float]:
    """Cross-validated, the best on all queries as seen on them, and what every option is really worth (0.5)."""
    values = np.random.default_rng(seed).random((60, 40))
    judged, _ = cross_validate(values, np.ones(60, dtype=int))
    return judged.mean(), values.mean(axis=1).max(), 0.5


def test_where_all_is_chance_the_figure_is_not_too_good():
    judged, best, worth = np.mean([judged_and_best(seed) for seed in range(60)], axis=0)
    # Sixty options of 40 queries: the best of them looks better by 2.3 standard errors of 0.046; over 60 seeds the
    # mean of an honest figure has an error of 0.006.
    assert best > worth + 0.08
    assert abs(judged - worth) < 0.02


def test_no_query_is_judged_by_weights_that_it_helped_to_choose():
    values, costs = np.random.default_rng(1).random((20, 30)), np.ones(20, dtype=int)
    judged, _ = cross_validate(values, costs)
    for query in range(30):
        # Whatever a query's own values say, the option that it is judged by stays.
        turned = values.copy()
        turned[:, query] = np.arange(20)
        option = cross_validate(turned, costs)[0][query]
        assert values[int(option), query] == judged[query]


def test_where_bm25_helps_it_is_served_with_an_interval_above_zero():
    found = found_by(200, dense=0.3, bm25=0.6)
    told = serving({"base": found})
    model = told.models["base"]
    assert model.weights["bm25"] > 0 and "BM25" in model.says and told.folds == 5 and not told.reason
    assert len(model.weights_by_fold) == 5
    low, high = model.interval
    assert low < model.figures["nDCG@10"] < high
    compared = model.against["dense"]
    assert compared.interval[0] > 0 and compared.verdict == "better"
    assert compared.change == pytest.approx(model.figures["nDCG@10"] - model.alone["dense"])
    assert list(model.against) == ["dense", "bm25"]


def test_weights_that_do_not_suit_the_other_queries_are_not_served(monkeypatch):
    found = found_by(200, dense=0.3, bm25=0.6)
    monkeypatch.setattr("m3kit.evaluation.serving.cross_validate", lambda values, costs: (values[0] / 2, [5] * 5))
    model = serving({"base": found}).models["base"]
    assert model.says == "dense" and model.figures["nDCG@10"] == model.alone["dense"]
    assert model.against["dense"].verdict == "no difference"


def test_where_bm25_is_noise_it_gets_no_weight():
    served = [serving({"base": found_by(200, seed, dense=0.6)}).models["base"] for seed in range(5)]
    assert [model.weights["bm25"] for model in served] == [0.0] * 5
    assert {model.says for model in served} == {"dense"}
    assert all(abs(model.against["dense"].change) < 0.01 for model in served)


def test_words_alone_are_served_where_the_model_is_noise():
    model = serving({"base": found_by(200, heads=False, bm25=0.9)}).models["base"]
    assert model.says == "BM25" and list(model.alone) == ["dense", "bm25"]


def test_a_model_is_set_beside_the_dense_score_of_the_base_and_beside_the_base_at_its_best():
    told = serving({"base": found_by(120, dense=0.2, bm25=0.4), "tuned": found_by(120, dense=0.6, bm25=0.4)})
    base, tuned = told.models.values()
    assert list(tuned.against) == ["dense", "bm25", "base_dense", "base_served"]
    for key, value in (("base_dense", base.alone["dense"]), ("base_served", base.figures["nDCG@10"])):
        assert tuned.against[key].change == pytest.approx(tuned.figures["nDCG@10"] - value)


def test_with_few_queries_nothing_is_chosen_and_the_reason_is_told():
    told = serving({"base": found_by(LEAST_TO_CHOOSE - 1, bm25=0.9)})
    model = told.models["base"]
    assert model.weights == DEFAULT and model.says == "dense + 0.1 BM25" and model.weights_by_fold == []
    assert told.folds is None and told.reason == ("24 queries are too few to choose weights by: at least 25 are needed")
    assert serving({"base": found_by(LEAST_TO_CHOOSE, bm25=0.9)}).reason is None


def test_what_is_within_chance_is_decided_by_what_it_costs():
    costs = {say_weights(weights): cost(weights) for weights in grid(PARTS)}
    assert costs["dense"] < costs["dense + 0.1 BM25"] == costs["dense + 0.3 sparse"] < costs["dense + 0.5 ColBERT"]
    random = np.random.default_rng(0)
    one = random.random(100)
    values = np.stack([one, one + random.normal(0.0001, 0.2, 100), one + 0.05])
    assert set(cross_validate(values[:2], np.array([1, 2]))[1]) == {0}
    assert set(cross_validate(values, np.array([1, 2, 2]))[1]) == {2}


# ---- the command and the searcher ----------------------------------------------------------------------------------

QUERIES = {f"q{i:02}": f"{WORDS[i % 12]} {WORDS[(i * 5 + 1) % 12]}" for i in range(30)}


def evaluate(model_folder: Path, folder: Path, *more: str, count: int = 30) -> Path:
    """A copy of the model, evaluated into its own folder."""
    run = Path(shutil.copytree(model_folder, folder / "run 'ä'"))
    queries = [json.dumps({"_id": key, "text": text}) for key, text in list(QUERIES.items())[:count]]
    qrels = ["query-id\tcorpus-id\tscore", *(f"{key}\td{int(key[1:]) % 12}\t1" for key in list(QUERIES)[:count])]
    data = write_beir(folder / "eval", queries=queries, qrels=qrels)
    words = ["evaluate", "--models", f"base={model_folder}", f"tuned={run}", "--eval_data", str(data)]
    words += ["--output_dir", str(run), "--general_data", "none", "--device", "cpu"]
    assert main([*words, *more]) == 0
    return run


def test_the_command_says_which_score_to_serve_and_keeps_it_beside_the_model(model_folder, tmp_path, capsys):
    run = evaluate(model_folder, tmp_path, "--query_max_len", "32")
    out = capsys.readouterr().out
    metrics, hybrid = (json.loads((run / name).read_text("utf-8")) for name in ("metrics.json", "hybrid.json"))
    served = metrics["serving"]["models"]["tuned"]
    assert "\nServe " in out and metrics["verdict"] in out and metrics["serving"]["folds"] == 5
    for part in ("dense", "sparse", "colbert"):
        assert served["alone"][part] == pytest.approx(metrics["models"]["tuned"][part]["nDCG@10"])
    assert served["alone"]["bm25"] == pytest.approx(metrics["bm25"]["nDCG@10"])
    assert hybrid["model"] == "." and hybrid["weights"] == served["weights"] and set(hybrid["weights"]) == set(PARTS)
    assert hybrid["figures"]["nDCG@10"] == served["figures"]["nDCG@10"] and hybrid["figures"]["queries"] == 30
    assert (
        hybrid["encoding"]["query_max_len"] == 32
        and hybrid["bm25"]["stemmer"] == metrics["settings"]["bm25"]["stemmer"]
    )
    assert str(tmp_path) not in json.dumps(hybrid) and any("HybridSearcher" in line for line in hybrid["how_to"])
    assert not list(run.glob("*.tmp"))
    (tmp_path / "again").mkdir()
    assert (evaluate(model_folder, tmp_path / "again", "--query_max_len", "32") / "hybrid.json").read_bytes() == (
        run / "hybrid.json"
    ).read_bytes()


def test_few_queries_get_the_default_and_the_sentence_says_why(model_folder, tmp_path, capsys):
    run = evaluate(model_folder, tmp_path, count=5)
    assert json.loads((run / "hybrid.json").read_text())["weights"] == DEFAULT
    (said,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Serve "))
    assert said.startswith("Serve tuned by dense + 0.1 BM25 (hybrid.json): ")
    assert "these weights are a default, for 5 queries are too few to choose weights by" in said


WEIGHTS = (
    {"dense": 1.0, "sparse": 0.0, "colbert": 0.0, "bm25": 0.1},
    {"dense": 1.0, "sparse": 0.3, "colbert": 0.5, "bm25": 0.25},
    {"dense": 0.0, "sparse": 0.0, "colbert": 1.0, "bm25": 0.0},
    {"dense": 0.0, "sparse": 1.0, "colbert": 0.0, "bm25": 0.0},
    {"dense": 0.0, "sparse": 0.0, "colbert": 0.0, "bm25": 1.0},
)


@pytest.fixture(scope="module")
def evaluated(model_folder, tmp_path_factory):
    """The folder of an evaluated model, and what it found."""
    from m3kit.evaluation import comparison

    founds = {}

    def remembering(given):
        founds.update(given)
        return serving(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "serving", remembering)
        return evaluate(model_folder, tmp_path_factory.mktemp("evaluated")), founds["tuned"]


def with_weights(evaluated, folder: Path, weights: dict) -> Path:
    """A copy of the evaluated model that is to be served by other weights."""
    copy = Path(shutil.copytree(evaluated[0], folder / "copy"))
    hybrid = json.loads((copy / "hybrid.json").read_text("utf-8"))
    (copy / "hybrid.json").write_text(json.dumps(hybrid | {"weights": weights}))
    return copy


@pytest.mark.parametrize("weights", WEIGHTS, ids=say_weights)
def test_the_searcher_ranks_as_the_evaluation_does(evaluated, tmp_path, weights):
    from m3kit.hybrid import HybridSearcher

    found = evaluated[1]
    passages = [found.data.passages[key] for key in found.passage_ids]
    searcher = HybridSearcher(with_weights(evaluated, tmp_path, weights), passages, device="cpu")
    for query, answers in zip(QUERIES, searcher.search(list(QUERIES.values()), k=12), strict=True):
        numbers, scores = served_ranking(found.candidates[query], weights)
        assert [number for number, _ in answers] == numbers.tolist()
        assert [score for _, score in answers] == pytest.approx(scores, abs=1e-5)
    assert [len(answers) for answers in searcher.search(["river stone"], k=1)] == [1] and searcher.search([]) == []


def test_a_folder_without_weights_gets_a_sentence(model_folder, evaluated, tmp_path):
    from m3kit.hybrid import HybridSearcher

    with pytest.raises(KitError, match=r"no .*hybrid\.json; python -m m3kit evaluate"):
        HybridSearcher(model_folder, list(PASSAGES.values()))
    run = with_weights(evaluated, tmp_path, WEIGHTS[2])
    (run / "colbert_linear.pt").unlink()
    with pytest.raises(KitError, match="gives the model's heads a weight, but colbert_linear.pt missing"):
        HybridSearcher(run, list(PASSAGES.values()), device="cpu")
    hybrid = json.loads((run / "hybrid.json").read_text("utf-8"))
    other = json.dumps(hybrid | {"bm25": hybrid["bm25"] | {"k1": 1.5}})
    for wrong in ("{", "[]", '{"weights": {"dense": 1}}', other):
        (run / "hybrid.json").write_text(wrong)
        with pytest.raises(KitError, match="evaluate again: .* --output_dir"):
            HybridSearcher(run, list(PASSAGES.values()))


def test_no_passages_get_a_sentence(evaluated, tmp_path):
    from m3kit.hybrid import HybridSearcher

    with pytest.raises(KitError, match="no passages to search"):
        HybridSearcher(with_weights(evaluated, tmp_path, WEIGHTS[2]), [])


def test_a_model_is_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "a model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _place("a model", tmp_path / "figures") == str(tmp_path / "a model")
    assert _place("a model", tmp_path / "a model") == "."
    assert _place("BAAI/bge-m3", tmp_path) == "BAAI/bge-m3"


@pytest.mark.parametrize("language, found", [("english", [0]), ("mixed: english 50%, german 50%", [])])
def test_the_searcher_splits_words_as_the_evaluation_did(evaluated, tmp_path, language, found):
    from m3kit.hybrid import HybridSearcher

    run = with_weights(evaluated, tmp_path, WEIGHTS[4])
    hybrid = json.loads((run / "hybrid.json").read_text("utf-8"))
    (run / "hybrid.json").write_text(json.dumps(hybrid | {"bm25": hybrid["bm25"] | {"language": language}}))
    searcher = HybridSearcher(run, ["rivers", "stone"], device="cpu")
    assert [number for number, _ in searcher.search(["river"])[0]] == found
