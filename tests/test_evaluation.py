"""Evaluation: reading BEIR folders, the four scores, the metrics, and the command as a whole."""

from __future__ import annotations

import gzip
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny import WORDS, write_beir

from m3kit.encoding import scores
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.encoding.vectors import Vectors
from m3kit.errors import KitError
from m3kit.evaluation.metrics import measure
from m3kit.test_data.beir import read_eval_data

# ---- reading -------------------------------------------------------------------------------------------------------


def test_reading_needs_no_torch():
    code = "import sys, m3kit.test_data.beir, m3kit.evaluation.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_title_goes_before_the_text_and_queries_without_an_answer_are_left_out(tmp_path):
    passages = [
        '{"_id": "a", "title": "Title", "text": "text"}',
        '{"_id": 2, "text": " no title "}',
        '{"_id": "c", "title": "only", "text": ""}',
    ]
    queries = ['{"_id": "q", "text": "x"}', "", '{"_id": "none", "text": "y"}', '{"_id": "zero", "text": "z"}']
    qrels = ["query-id\tcorpus-id\tscore", "q\t2\t1", "q\tc\t0", "zero\ta\t0"]
    data = read_eval_data(write_beir(tmp_path, passages, queries, qrels))
    assert data.passages == {"a": "Title text", "2": "no title", "c": "only"}
    assert data.queries == {"q": "x"} and data.queries_left_out == 2
    assert data.qrels == {"q": {"2": 1, "c": 0}} and data.relevant_pairs == 1


GOOD = '{"_id": "d0", "text": "x"}'
HEADER = "query-id\tcorpus-id\tscore"


@pytest.mark.parametrize(
    "replaced, place, what",
    [
        ({"passages": [GOOD, '{"_id": "d1", "text": '], }, "corpus.jsonl:2:", "not valid JSON"),
        ({"passages": [GOOD, "[1]"]}, "corpus.jsonl:2:", "instead of an object"),
        ({"passages": [GOOD, '{"text": "x"}']}, "corpus.jsonl:2:", "has no _id"),
        ({"passages": [GOOD, '{"_id": "d1", "text": "x", "text": "y"}']}, "corpus.jsonl:2:", '"text" stands twice'),
        ({"queries": ['{"_id": "q1", "text": "\u200b"}']}, "queries.jsonl:1:", "missing or empty"),
        ({"passages": [GOOD, "", GOOD]}, "corpus.jsonl:3:", "already used on line 1"),
        ({"passages": [GOOD, '{"_id": "d1", "title": " ", "text": ""}']}, "corpus.jsonl:2:", "missing or empty"),
        ({"passages": [GOOD, '{"_id": "d1", "text": ["x"]}']}, "corpus.jsonl:2:", "text is list"),
        ({"passages": [""]}, "corpus.jsonl:1:", "the file holds no row"),
        ({"queries": ['{"_id": "q1", "text": ""}']}, "queries.jsonl:1:", "missing or empty"),
        ({"queries": ['{"_id": "q1"}']}, "queries.jsonl:1:", "missing or empty"),
        ({"queries": ['{"_id": "q\\t1", "text": "x"}']}, "queries.jsonl:1:", "holds a tab"),
        ({"qrels": ["q1\td0\t1"]}, "test.tsv:1:", "not the header"),
        ({"qrels": [""]}, "test.tsv:1:", "is empty"),
        ({"qrels": [HEADER, "q1 d0 1"]}, "test.tsv:2:", "has 1 fields, not 3"),
        ({"qrels": [HEADER, "q1\td0\tyes"]}, "test.tsv:2:", "no whole number"),
        ({"qrels": [HEADER, "q1\td0\t1", "q9\td0\t1"]}, "test.tsv:3:", "queries.jsonl lacks"),
        ({"qrels": [HEADER, "q1\td0\t99999999999999999999"]}, "test.tsv:2:", "too large for a grade"),
        ({"qrels": [HEADER, "q1\td99\t1"]}, "test.tsv:2:", "corpus.jsonl lacks"),
        ({"qrels": [HEADER, "q1\td0\t1", "q1\td0\t0"]}, "test.tsv:3:", "scored otherwise"),
        ({"qrels": [HEADER, "q1\td0\t0"]}, "test.tsv:", "no query has a relevant passage"),
    ],
)  # fmt: skip
def test_an_error_names_file_line_and_fix(tmp_path, replaced, place, what):
    with pytest.raises(KitError) as error:
        read_eval_data(write_beir(tmp_path, **replaced))
    line = next(line for line in str(error.value).splitlines() if place in line)
    assert what in line and ";" in line  # the fix stands after the semicolon


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path):
    folder = write_beir(tmp_path)
    (folder / "corpus.jsonl").write_bytes(GOOD.encode() + b'\n{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(KitError, match=r"corpus.jsonl:2: not UTF-8"):
        read_eval_data(folder)


@pytest.mark.parametrize("made", [lambda text: text.encode("utf-16"), lambda text: gzip.compress(text.encode())])
def test_qrels_are_read_from_whatever_the_texts_are_read_from(tmp_path, made):
    folder = write_beir(tmp_path)
    qrels = folder / "qrels" / "test.tsv"
    expected = read_eval_data(folder).qrels
    qrels.write_bytes(made(qrels.read_text()))
    assert read_eval_data(folder).qrels == expected


def test_one_message_for_qrels_of_another_encoding(tmp_path):
    folder = write_beir(tmp_path)
    (folder / "qrels" / "test.tsv").write_bytes(f"{HEADER}\nq\xe9\td0\t1\nq\xe8\td0\t1\n".encode("latin-1"))
    with pytest.raises(KitError, match=r"^1 problem in .*\n.*test.tsv:2: is not UTF-8; convert it: iconv") as error:
        read_eval_data(folder)
    assert "m3kit check" not in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(KitError, match="does not exist"):
        read_eval_data(tmp_path / "nothing")
    folder = write_beir(tmp_path)
    shutil.rmtree(folder / "qrels")
    with pytest.raises(KitError, match="has no qrels/test.tsv"):
        read_eval_data(folder)


# ---- scores: equal to FlagEmbedding's ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def encoded(model_folder):
    """FlagEmbedding's model, and the vectors of a few texts of different lengths."""
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(batch_size=2, query_max_len=64))
    texts = ["river", " ".join(WORDS), "stone stone stone cloud", "apple unknown words river winter"]
    yield encoder.flag_model, encoder.queries(texts[:3]), encoder.passages(texts)
    encoder.close()


def all_colbert_scores(queries: Vectors, passages: Vectors) -> np.ndarray:
    shape = len(queries.colbert), len(passages.colbert)
    rows, columns = (places.ravel() for places in np.indices(shape))
    return scores.QueryTokens(queries.colbert, "cpu").scores(passages.colbert, rows, columns).reshape(shape)


def all_sparse_scores(queries: Vectors, passages: Vectors) -> np.ndarray:
    vocabulary = scores.Vocabulary(queries.lexical)
    return scores.sparse_scores(*(vocabulary.matrix(vectors.lexical) for vectors in (queries, passages)))


def test_sparse_equals_flagembedding(encoded):
    flag_model, queries, passages = encoded
    theirs = flag_model.compute_lexical_matching_score(
        [dict(w) for w in queries.lexical], [dict(w) for w in passages.lexical]
    )
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(all_sparse_scores(queries, passages), theirs, atol=1e-5)


def test_colbert_equals_flagembedding(encoded):
    flag_model, queries, passages = encoded
    # A head of 8 outputs on 16 hidden: FlagEmbedding is told the size that the file has.
    assert queries.colbert[0].shape[1] == 8
    theirs = [[float(flag_model.colbert_score(q, p)) for p in passages.colbert] for q in queries.colbert]
    np.testing.assert_allclose(all_colbert_scores(queries, passages), theirs, atol=1e-5)


def test_what_is_tried_is_tried_once_and_progress_counts_every_text(model_folder):
    encoder = Encoder(find_model("m", str(model_folder)), EncodeSettings(batch_size=2))
    sizes, told = [], []
    encoder.flag_model.model.model.register_forward_hook(
        lambda module, args, kwargs, output: sizes.append(args[0]["input_ids"].numel()), with_kwargs=True
    )
    texts = [" ".join(WORDS[:count]) for count in (3, 5, 4)]
    encoder.passages(texts, told.append)
    # A batch of two and one of one, and the larger once more, to find out whether it fits.
    assert len(sizes) == 3 and told == [2, 1]
    sizes.clear()
    encoder.passages(texts[:2], told.append)
    assert len(sizes) == 1
    encoder.passages([" ".join(WORDS)] * 2, told.append)
    assert len(sizes) == 3
    assert sum(told) == 3 + 2 + 2
    encoder.close()


def random_vectors(count: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    lexical = [{str(t): float(random.random()) for t in random.choice(9, 2, replace=False)} for _ in range(count)]
    colbert = [random.normal(size=(random.integers(1, 5), 4)).astype(np.float32) for _ in range(count)]
    return Vectors(random.normal(size=(count, 6)).astype(np.float32), lexical, colbert)


def part(vectors: Vectors, start: int, stop: int) -> Vectors:
    return Vectors(vectors.dense[start:stop], vectors.lexical[start:stop], vectors.colbert[start:stop])


def rankings(ranker: scores.Ranker) -> dict[str, list[list[int]]]:
    names = ("dense", "sparse", "colbert", "hybrid")
    return {name: [found.ranking(name).tolist() for found in ranker.candidates()] for name in names}


def test_chunks_rank_as_the_whole_corpus_does(monkeypatch):
    monkeypatch.setattr(scores, "CANDIDATES", 7)
    monkeypatch.setattr(scores, "QUERY_BLOCK", 2)
    queries, passages = random_vectors(5, seed=1), random_vectors(40, seed=2)
    ranker = scores.Ranker(queries, "cpu")
    for start in range(0, 40, 11):
        ranker.add(part(passages, start, start + 11))
    ranked = rankings(ranker)

    dense = scores.dense_scores(queries.dense, passages.dense)
    sparse, colbert = all_sparse_scores(queries, passages), all_colbert_scores(queries, passages)
    hybrid = dense + 0.3 * sparse + colbert
    for query in range(5):
        first_dense = sorted(range(40), key=lambda p: -dense[query, p])[:7]
        first_sparse = [p for p in sorted(range(40), key=lambda p: -sparse[query, p])[:7] if sparse[query, p] > 0]
        candidates = sorted({*first_dense, *first_sparse})
        assert ranked["dense"][query] == first_dense
        assert ranked["sparse"][query] == first_sparse
        assert ranked["colbert"][query] == sorted(candidates, key=lambda p: -colbert[query, p])
        assert ranked["hybrid"][query] == sorted(candidates, key=lambda p: -hybrid[query, p])
        other = ranker.candidates()[query].ranking("colbert")
        assert other.tolist() == ranked["colbert"][query]


def test_judged_passages_have_scores_wherever_they_rank(monkeypatch):
    monkeypatch.setattr(scores, "CANDIDATES", 2)
    queries, passages = random_vectors(1, seed=1), random_vectors(40, seed=2)
    dense = scores.dense_scores(queries.dense, passages.dense)[0]
    last = int(np.argmin(dense))
    ranker = scores.Ranker(queries, "cpu", judged=[[last]])
    for start in range(0, 40, 11):
        ranker.add(part(passages, start, start + 11))
    (found,) = ranker.candidates()
    place = found.numbers.tolist().index(last)
    assert found.scores["dense"][place] == pytest.approx(dense[last])
    assert found.scores["colbert"][place] == pytest.approx(all_colbert_scores(queries, passages)[0, last])
    assert last not in found.ranking("dense") and len(found.ranking("dense")) == 2


def test_of_equal_scores_the_earlier_passage_ranks_first_also_across_chunks():
    one = np.ones((1, 2), dtype=np.float32)
    vectors = Vectors(np.repeat(one, 4, axis=0), [{"1": 1.0}] * 4, [one] * 4)
    ranker = scores.Ranker(part(vectors, 0, 1), "cpu")
    ranker.add(part(vectors, 0, 2))
    ranker.add(part(vectors, 2, 4))
    assert rankings(ranker) == {name: [[0, 1, 2, 3]] for name in ("dense", "sparse", "colbert", "hybrid")}


def test_many_equal_scores_fill_the_candidates_with_the_earliest(monkeypatch):
    monkeypatch.setattr(scores, "CANDIDATES", 3)
    one = np.ones((1, 2), dtype=np.float32)
    vectors = Vectors(np.repeat(one, 10, axis=0), [{"1": 1.0}] * 10, [one] * 10)
    ranker = scores.Ranker(part(vectors, 0, 1), "cpu")
    for start in range(0, 10, 5):
        ranker.add(part(vectors, start, start + 5))
    assert rankings(ranker) == {name: [[0, 1, 2]] for name in ("dense", "sparse", "colbert", "hybrid")}


def test_sparse_leaves_out_passages_that_share_no_token():
    one = np.ones((1, 2), dtype=np.float32)
    ranker = scores.Ranker(Vectors(one, [{"1": 1.0}], [one]), "cpu")
    ranker.add(Vectors(np.repeat(one, 2, axis=0), [{"2": 1.0}, {"1": 0.5}], [one] * 2))
    assert rankings(ranker)["sparse"] == [[1]]


# ---- metrics, by hand ----------------------------------------------------------------------------------------------


def test_metrics_by_hand():
    ranked = {"q1": ["x", "a"], "q2": ["b", "x", "c"]}
    qrels = {"q1": {"a": 1}, "q2": {"b": 1, "c": 2, "x": 0}}
    gain = [1 / math.log2(3), (1 + 2 / math.log2(4)) / (2 + 1 / math.log2(3))]
    result = measure(ranked, qrels)
    assert list(result) == ["nDCG@10", "success@10", "MRR@10", "recall@10", "recall@100", "MAP"]
    assert result["nDCG@10"] == pytest.approx(gain) and result["MRR@10"] == pytest.approx([0.5, 1.0])
    assert result["recall@10"].tolist() == result["recall@100"].tolist() == [1.0, 1.0]
    assert result["MAP"] == pytest.approx([0.5, (1 + 2 / 3) / 2])


def test_cutoffs_and_queries_that_found_nothing():
    others = [f"x{i}" for i in range(200)]
    ranked = {"eleventh": others[:10] + ["a"], "tenth": others[:9] + ["a"], "late": others[:100] + ["a"], "none": []}
    result = measure(ranked, {query: {"a": 1} for query in ranked})
    assert {name: values.tolist() for name, values in result.items()} == {
        "nDCG@10": [0, pytest.approx(1 / math.log2(11)), 0, 0],
        "success@10": [0, 1, 0, 0],
        "MRR@10": [0, pytest.approx(0.1), 0, 0],
        "recall@10": [0, 1, 0, 0],
        "recall@100": [1, 1, 0, 0],
        "MAP": [pytest.approx(1 / 11), pytest.approx(0.1), pytest.approx(1 / 101), 0],
    }


def test_the_given_order_counts_whatever_the_ids_are():
    for ids in (["a", "b", "c"], ["c", "b", "a"]):
        assert measure({"q": ids}, {"q": {"b": 1}})["MRR@10"] == [0.5]
