"""The general test set that comes with the kit: what the README says of it."""

from __future__ import annotations

from collections import Counter

from conftest import EXAMPLE_DATA, read_jsonl

from m3kit.evaluation.evaluate import GENERAL
from m3kit.test_data.beir import read_eval_data


def test_200_queries_over_1000_passages_each_with_one_answer():
    data = read_eval_data(GENERAL)
    assert (len(data.queries), len(data.passages), data.queries_left_out) == (200, 1000, 0)
    assert {len(of) for of in data.qrels.values()} == {1}
    answers = Counter(passage for of in data.qrels.values() for passage in of)
    assert max(answers.values()) == 1
    # No text twice: its copy would be a false answer.
    assert len(set(data.passages.values())) == 1000 and len(set(data.queries.values())) == 200
    assert not set(data.queries.values()) & set(data.passages.values())


def test_20_languages_and_queries_in_another_language_than_their_answer():
    passages = {row["_id"]: row["language"] for row in read_jsonl(GENERAL / "corpus.jsonl")}
    queries = {row["_id"]: row for row in read_jsonl(GENERAL / "queries.jsonl")}
    assert len(set(passages.values())) == 20
    assert len({row["topic"] for row in queries.values()}) > 50
    data = read_eval_data(GENERAL)
    across = [query for query, of in data.qrels.items() if passages[next(iter(of))] != queries[query]["language"]]
    assert 40 <= len(across) <= 60


def test_nothing_of_it_is_in_the_example_data():
    general = read_eval_data(GENERAL)
    example = read_eval_data(EXAMPLE_DATA / "eval")
    assert not set(general.passages.values()) & set(example.passages.values())
    assert not set(general.queries.values()) & set(example.queries.values())
