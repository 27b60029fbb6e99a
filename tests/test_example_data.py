"""The example data is what the README says: enough of it, in the four formats, in six languages, without repeats."""

from __future__ import annotations

import json
import re
from collections import Counter

from conftest import EXAMPLE_DATA, read_jsonl
from data_helpers import inspect

from m3kit.reading.text import same_text

RETRIEVAL = EXAMPLE_DATA / "retrieval" / "train.jsonl"
STS = EXAMPLE_DATA / "sts" / "sts.jsonl"
CLASSIFICATION = EXAMPLE_DATA / "classification-no_in_batch_neg" / "train.jsonl"
CLUSTERING = EXAMPLE_DATA / "clustering-no_in_batch_neg" / "train.jsonl"
EVAL = EXAMPLE_DATA / "eval"


def checked(path, task):
    """The rows of a file in which nothing is wrong."""
    (data,), problems = inspect(path)
    assert (data.task, data.unused_columns) == (task, [])
    assert {problem["code"] for problem in problems} <= {"languages"}
    return read_jsonl(path)


def listed(value):
    return value if isinstance(value, list) else [value] if value else []


def languages(texts):
    """Those that a text can be known by: three by their script, two by letters that English lacks."""
    marks = {
        "zh": "[\u4e00-\u9fff]",
        "ar": "[\u0600-\u06ff]",
        "hi": "[\u0900-\u097f]",
        "de": "[äöüßÄÖÜ]",
        "es": "[ñ¿áéíóú]",
    }
    return {name for name, mark in marks.items() if sum(bool(re.search(mark, text)) for text in texts) >= 4}


def test_retrieval_rows():
    rows = checked(RETRIEVAL, "retrieval")
    assert len(rows) >= 200
    assert len({same_text(row["query"]) for row in rows}) == len(rows)
    assert 0.2 <= sum("negative" not in row for row in rows) / len(rows) <= 0.35
    assert sum(isinstance(row.get("negative"), list) for row in rows) >= 10
    assert languages([row["query"] for row in rows]) == {"zh", "ar", "hi", "de", "es"}
    for row in rows:
        positives, negatives = listed(row["positive"]), listed(row.get("negative"))
        assert not {same_text(text) for text in positives} & {same_text(text) for text in negatives}


def test_sts_pairs_cover_the_whole_range():
    rows = checked(STS, "sts")
    assert len(rows) >= 150
    assert min(Counter(min(int(row["score"] * 5), 4) for row in rows).values()) >= 20
    assert len({(same_text(row["sentence1"]), same_text(row["sentence2"])) for row in rows}) == len(rows)


def test_labelled_rows():
    for task, path, labels in (("classification", CLASSIFICATION, 6), ("clustering", CLUSTERING, 8)):
        rows = checked(path, task)
        assert len(rows) >= 150
        assert len({same_text(row["text"]) for row in rows}) == len(rows)
        assert len({row["label"] for row in rows}) >= labels
        assert languages([row["text"] for row in rows]) == {"zh", "ar", "hi", "de", "es"}
    described = json.loads(CLASSIFICATION.with_name("labels.json").read_text("utf-8"))
    assert set(described) == {row["label"] for row in read_jsonl(CLASSIFICATION)}


def test_eval_shares_no_query_with_the_training_rows():
    corpus, queries = read_jsonl(EVAL / "corpus.jsonl"), read_jsonl(EVAL / "queries.jsonl")
    qrels = [line.split("\t") for line in (EVAL / "qrels" / "test.tsv").read_text().strip().split("\n")]
    assert len(corpus) >= 200
    assert len(queries) >= 60
    assert len({same_text(passage["text"]) for passage in corpus}) == len(corpus)
    asked = {same_text(query["text"]) for query in queries}
    assert len(asked) == len(queries)
    assert not asked & {same_text(row["query"]) for row in read_jsonl(RETRIEVAL)}
    assert qrels[0] == ["query-id", "corpus-id", "score"]
    assert {line[0] for line in qrels[1:]} == {query["_id"] for query in queries}
    assert {line[1] for line in qrels[1:]} <= {passage["_id"] for passage in corpus}
