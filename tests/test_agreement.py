"""The figures of evaluation are those of the tools that the field uses, on the same rankings and vectors."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import pytrec_eval
import torch
from conftest import EXAMPLE_DATA

from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.evaluation.retrieval import retrieve
from m3kit.records import SCORES
from m3kit.test_data.beir import read_eval_data

TREC = {
    "nDCG@10": "ndcg_cut_10",
    "success@10": "success_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "MAP": "map",
}


@pytest.fixture(scope="module")
def encoder(starter):
    with closing(Encoder(find_model("m", str(starter)), EncodeSettings(passage_max_len=128))) as made:
        yield made


@pytest.fixture(scope="module")
def found(encoder):
    return retrieve(encoder, read_eval_data(EXAMPLE_DATA / "eval"))


def trec_files(folder, found, score):
    """The rankings and the qrels as trec_eval's files, and what pytrec_eval reads from them."""
    run, qrels = folder / "run.trec", folder / "qrels.trec"
    lines = [
        f"{query} Q0 {passage} {rank} {1000 - rank} m3kit"
        for query, passages in found.rankings(score).items()
        for rank, passage in enumerate(passages, start=1)
    ]
    run.write_text("\n".join(lines) + "\n")
    lines = [f"{query} 0 {passage} {grade}" for query, of in found.data.qrels.items() for passage, grade in of.items()]
    qrels.write_text("\n".join(lines) + "\n")
    with open(run) as run_file, open(qrels) as qrels_file:
        return pytrec_eval.parse_run(run_file), pytrec_eval.parse_qrel(qrels_file)


@pytest.mark.parametrize("score", SCORES)
def test_each_query_has_the_figures_of_pytrec_eval_on_the_same_run_file(tmp_path, found, score):
    run, qrels = trec_files(tmp_path, found, score)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(TREC.values())).evaluate(run)
    # trec_eval's reciprocal rank has no cut-off: it sees the first ten.
    firsts = {query: dict(sorted(of.items(), key=lambda item: -item[1])[:10]) for query, of in run.items()}
    first_ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(firsts)
    ours = found.outcomes()[score]
    for place, query in enumerate(found.data.queries):
        figures = theirs.get(query, dict.fromkeys(TREC.values(), 0.0))
        assert {name: ours[name][place] for name in TREC} == pytest.approx(
            {name: figures[trec] for name, trec in TREC.items()}, abs=1e-6
        )
        assert ours["MRR@10"][place] == pytest.approx(first_ranks.get(query, {"recip_rank": 0})["recip_rank"], abs=1e-6)
    assert 0 < ours["nDCG@10"].mean() < 1


@pytest.mark.parametrize("score", SCORES)
def test_the_means_are_those_of_beirs_own_evaluation(tmp_path, found, score):
    from beir.retrieval.evaluation import EvaluateRetrieval

    run, qrels = trec_files(tmp_path, found, score)
    ndcg, average_precision, recall, _ = EvaluateRetrieval.evaluate(qrels, run, [10, 100, 400])
    mrr = EvaluateRetrieval.evaluate_custom(qrels, run, [10], metric="mrr")
    ours = {name: values.mean() for name, values in found.outcomes()[score].items()}
    # BEIR takes most means over the queries that found anything.
    share = len(found.data.queries) / len(run)
    theirs = {
        "nDCG@10": ndcg["NDCG@10"],
        "recall@10": recall["Recall@10"],
        "recall@100": recall["Recall@100"],
        "MAP": average_precision["MAP@400"],
    }
    # It rounds to five places.
    assert {name: ours[name] * share for name in theirs} == pytest.approx(theirs, abs=6e-6)
    assert ours["MRR@10"] == pytest.approx(mrr["MRR@10"], abs=6e-6)


def test_the_dense_column_is_that_of_sentence_transformers_on_the_same_vectors(encoder, found):
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class OnOurVectors(InformationRetrievalEvaluator):
        def embed_inputs(self, model, sentences, encode_fn_name=None, **kwargs):
            encode = encoder.queries if encode_fn_name == "query" else encoder.passages
            return torch.from_numpy(encode(sentences).dense)

    data = found.data
    relevant = {query: {passage for passage, grade in of.items() if grade} for query, of in data.qrels.items()}
    evaluator = OnOurVectors(
        data.queries, data.passages, relevant, mrr_at_k=[10], ndcg_at_k=[10], precision_recall_at_k=[10, 100],
        map_at_k=[200], accuracy_at_k=[10], score_functions={"dot": lambda a, b: a @ b.T},
    )  # fmt: skip
    theirs = evaluator.compute_all_metrics(None)["dot"]
    ours = {name: values.mean() for name, values in found.outcomes()["dense"].items()}
    # It looks at 200 places, where texts encoded in other batches, almost equal in score, may change places.
    assert ours.pop("MAP") == pytest.approx(theirs["map@k"][200], abs=1e-5)
    assert ours == pytest.approx(
        {
            "nDCG@10": theirs["ndcg@k"][10],
            "success@10": theirs["accuracy@k"][10],
            "MRR@10": theirs["mrr@k"][10],
            "recall@10": theirs["recall@k"][10],
            "recall@100": theirs["recall@k"][100],
        },
        abs=1e-6,
    )


@pytest.mark.slow
def test_a_ranking_is_the_same_however_the_corpus_is_cut_into_chunks(encoder, found, monkeypatch):
    monkeypatch.setattr("m3kit.evaluation.retrieval.CHUNK_TEXTS", 17)
    cut = retrieve(encoder, found.data)
    for score in SCORES:
        whole, pieces = found.outcomes()[score], cut.outcomes()[score]
        for metric in whole:
            # Texts in other batches have other last bits, so that near-equal scores may change places.
            np.testing.assert_allclose(pieces[metric].mean(), whole[metric].mean(), atol=5e-3)
