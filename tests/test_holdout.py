"""What is held out for evaluation: how many, of which no near-duplicate is trained on, in the form evaluate reads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from conftest import EXAMPLE_DATA, read_jsonl, write_jsonl
from data_helpers import check_counts

from m3kit.data.holdout import wanted
from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.reading.near import NEAR, similarity
from m3kit.reading.text import same_text
from m3kit.test_data.folder import read_eval_folder

WORDS = "sun moon star comet dome night lens mirror guide tour ticket queue cloud rain eclipse orbit planet".split()


def sentence(generator: random.Random, words: int = 9) -> str:
    return " ".join(generator.choices(WORDS, k=words)) + f" {generator.randrange(10**6)}"


def retrieval_rows(count: int, seed: int = 1) -> list[dict]:
    """Every fifth query is another one with a character or two changed."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        query = sentence(generator)
        if number % 5 == 4:
            query = rows[-1]["query"].replace("o", "0", generator.randint(1, 2))
        rows.append({"query": query, "positive": sentence(generator, 20), "negative": sentence(generator, 20)})
    return rows


def run(folder: Path, output: Path, **settings) -> tuple[dict, dict[str, list[dict]]]:
    """(manifest, prepared rows of each output)"""
    prepare([folder], output, Settings(**{"holdout": 0.05} | settings))
    manifest = json.loads((output / "manifest.json").read_text())
    for entry in manifest["sets"]:
        check_counts(entry)
    return manifest, {entry["output"]: read_jsonl(output / entry["output"]) for entry in manifest["sets"]}


@pytest.mark.parametrize(
    ("queries", "share", "count"),
    [(10, 0.05, 0), (100, 0.05, 5), (499, 0.05, 25), (500, 0.05, 50), (2000, 0.05, 100), (10**6, 0.05, 500)]
    + [(10**6, 0.0, 0), (1000, 0.5, 500), (600, 0.01, 50)],
)
def test_how_many_are_held_out(queries, share, count):
    assert wanted(queries, share) == count


def test_no_held_out_query_nor_one_nearly_the_same_is_trained_on(tmp_path):
    rows = retrieval_rows(700)
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    manifest, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    data = read_eval_folder(tmp_path / "prepared" / "eval").retrieval
    assert len(data.queries) == manifest["held_out"]["retrieval"] == 50
    trained = {same_text(row["query"]) for row in written["retrieval/train.jsonl"]}
    assert len(trained) > 600
    for query in data.queries.values():
        assert not [other for other in trained if similarity(same_text(query), other) >= NEAR]
    # every passage is in the corpus, and the queries' own positives are what should be found
    passages = {text for row in rows for text in (row["positive"], row["negative"])}
    assert set(data.passages.values()) == passages
    for name, query in data.queries.items():
        positives = {row["positive"] for row in rows if row["query"] == query}
        assert {data.passages[passage] for passage in data.qrels[name]} == positives


@pytest.mark.slow
def test_near_duplicates_are_set_aside_where_every_query_has_one(tmp_path):
    generator = random.Random(3)
    rows = []
    for number in range(300):
        query = sentence(generator)
        rows += [{"query": text, "positive": f"p {number} {text}"} for text in (query, f"{query}?!", f"{query} o")]
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    manifest, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    (entry,) = manifest["sets"]
    assert entry["rows_set_aside"]["held out for evaluation"] == 50
    assert entry["rows_set_aside"]["nearly the same as a query that is held out for evaluation"] == 100
    assert len(read_jsonl(tmp_path / "prepared" / "rejected.jsonl")) == 100
    queries = [row["text"] for row in read_jsonl(tmp_path / "prepared" / "eval" / "queries.jsonl")]
    for row in written["retrieval/train.jsonl"]:
        assert all(similarity(same_text(row["query"]), same_text(query)) < NEAR for query in queries)


@pytest.mark.slow
def test_all_rows_of_a_held_out_query_are_held_out(tmp_path):
    generator = random.Random(5)
    rows = [{"query": sentence(generator), "positive": [f"p {n}", f"r {n}"], "negative": f"n {n}"} for n in range(500)]
    rows += [{"query": row["query"].upper(), "positive": f"q {n}"} for n, row in enumerate(rows)]
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    run(tmp_path / "retrieval", tmp_path / "prepared")
    data = read_eval_folder(tmp_path / "prepared" / "eval").retrieval
    assert len(data.queries) == 50
    numbers = {row["query"]: n for n, row in enumerate(rows[:500])}
    for name, query in data.queries.items():
        number = numbers[query]
        assert {data.passages[key] for key in data.qrels[name]} == {f"p {number}", f"r {number}", f"q {number}"}


@pytest.mark.slow
def test_the_example_data_of_all_tasks_is_held_out_and_evaluate_reads_it(tmp_path):
    manifest, written = run(EXAMPLE_DATA, tmp_path / "prepared", holdout=0.2)
    folder = read_eval_folder(tmp_path / "prepared" / "eval")
    assert folder.retrieval
    assert {"retrieval", "sts", "classification", "clustering"} == set(manifest["held_out"])
    tested = [row["text"] for task in ("classification", "clustering") for row in held_out_rows(tmp_path, task)]
    tested += [row[side] for row in held_out_rows(tmp_path, "sts") for side in ("sentence1", "sentence2")]
    trained = {same_text(row["query"]) for rows in written.values() for row in rows}
    assert len(tested) > 100
    for text in tested:
        assert not [other for other in trained if similarity(same_text(text), other) >= NEAR]
    labels = json.loads((tmp_path / "prepared" / "eval" / "classification" / "labels.json").read_text())
    assert {row["label"] for row in held_out_rows(tmp_path, "classification")} <= set(labels)


def held_out_rows(tmp_path: Path, task: str) -> list[dict]:
    return read_jsonl(tmp_path / "prepared" / "eval" / task / "test.jsonl")


def test_every_label_keeps_two_rows(tmp_path):
    generator = random.Random(2)
    rows = [{"text": sentence(generator), "label": f"l{n % 100}"} for n in range(300)]
    write_jsonl(tmp_path / "clustering" / "train.jsonl", rows)
    _, written = run(tmp_path / "clustering", tmp_path / "prepared", holdout=0.5)
    kept = {same_text(row["query"]) for row in written["clustering-no_in_batch_neg/train.jsonl"]}
    counts = dict.fromkeys((row["label"] for row in rows), 0)
    for row in rows:
        counts[row["label"]] += same_text(row["text"]) in kept
    assert min(counts.values()) >= 2


def test_what_is_held_out_depends_on_texts_and_seed_alone(tmp_path):
    rows = retrieval_rows(300)
    chosen = []
    for number, (order, seed) in enumerate([(rows, 42), (rows[::-1], 42), (rows, 43)]):
        write_jsonl(tmp_path / str(number) / "retrieval" / "train.jsonl", order)
        run(tmp_path / str(number) / "retrieval", tmp_path / str(number) / "prepared", seed=seed)
        queries = read_jsonl(tmp_path / str(number) / "prepared" / "eval" / "queries.jsonl")
        chosen.append({row["text"] for row in queries})
    assert chosen[0] == chosen[1] != chosen[2]


def test_too_few_rows_hold_out_nothing_and_that_is_said(tmp_path, capsys):
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", retrieval_rows(8))
    manifest, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    assert manifest["held_out"] == {}
    assert not (tmp_path / "prepared" / "eval").exists()
    assert len(written["retrieval/train.jsonl"]) == 8
    assert "nothing held out for evaluation" in capsys.readouterr().err


def test_pairs_of_one_score_are_not_held_out_for_nothing_could_be_measured(tmp_path):
    generator = random.Random(4)
    rows = [{"sentence1": sentence(generator), "sentence2": sentence(generator), "score": 1} for _ in range(100)]
    write_jsonl(tmp_path / "sts" / "sts.jsonl", rows)
    manifest, written = run(tmp_path / "sts", tmp_path / "prepared")
    assert manifest["held_out"] == {}
    assert "all the pairs have the same score" in str(manifest["sets"][0]["notes"])
    assert len(written["sts/sts.jsonl"]) == 100


@pytest.mark.slow
def test_queries_written_after_a_pattern_are_told_apart(tmp_path, monkeypatch):
    """Most of what they are made of stands in all; with few rows that is known by a lower mark."""
    monkeypatch.setattr("m3kit.reading.near.FREQUENT", 20)
    monkeypatch.setattr("m3kit.reading.near.WORK", 0)
    generator = random.Random(6)
    names = [" ".join("".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in "ab") for _ in range(600)]
    queries = [f"what is the price of {name} today?" for name in names]
    queries += [query.replace("today", "today?") for query in queries[::2]]
    rows = [{"query": query, "positive": f"p {n}", "negative": f"n {n}"} for n, query in enumerate(queries)]
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    manifest, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    assert manifest["held_out"]["retrieval"] == 50
    trained = [same_text(row["query"]) for row in written["retrieval/train.jsonl"]]
    for row in read_jsonl(tmp_path / "prepared" / "eval" / "queries.jsonl"):
        assert not [other for other in trained if similarity(same_text(row["text"]), other) >= NEAR]


def test_labels_of_two_files_with_one_text_are_kept_apart(tmp_path):
    generator = random.Random(7)
    for name in ("lost_card", "lost card"):
        rows = [{"text": sentence(generator), "label": label} for label in (name, "other") for _ in range(40)]
        write_jsonl(tmp_path / "classification" / f"{name}.jsonl", rows)
    run(tmp_path / "classification", tmp_path / "prepared", holdout=0.2)
    assert "classification" in read_eval_folder(tmp_path / "prepared" / "eval").tasks
    labels = json.loads((tmp_path / "prepared" / "eval" / "classification" / "labels.json").read_text())
    assert sorted(labels) == ["lost card", "lost_card", "other"]
    assert len(set(labels.values())) == 3


def test_a_file_named_test_is_what_the_model_is_tested_with(tmp_path, capsys):
    rows, tests = retrieval_rows(100), retrieval_rows(30, seed=2)
    tests[0]["query"] = rows[7]["query"] + "?"
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    write_jsonl(tmp_path / "retrieval" / "test.jsonl", tests)
    write_jsonl(tmp_path / "retrieval" / "dev.jsonl", retrieval_rows(9, seed=3))
    _, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    data = read_eval_folder(tmp_path / "prepared" / "eval").retrieval
    assert set(data.queries.values()) == {row["query"] for row in tests}
    assert {text for row in tests for text in (row["positive"], row["negative"])} <= set(data.passages.values())
    assert rows[7]["query"] not in {row["query"] for row in written["retrieval/train.jsonl"]}
    assert len(written["retrieval/train.jsonl"]) > 90
    assert list(written) == ["retrieval/train.jsonl"]
    said = capsys.readouterr().err
    for name in ("test", "dev"):
        assert f"left out of training: {tmp_path / 'retrieval' / name}.jsonl (its name says {name})" in said
    # Without a share to hold out they are left out all the same, and it is said how to use them.
    run(tmp_path / "retrieval", tmp_path / "other", holdout=0)
    assert not (tmp_path / "other" / "eval").exists()
    assert "to evaluate with what is left out: --holdout 0.05" in capsys.readouterr().err


def test_what_is_wrong_in_a_file_to_test_with_does_not_stop_training(tmp_path, capsys):
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", retrieval_rows(100))
    (tmp_path / "retrieval" / "test.jsonl").write_text("no json\n")
    manifest, _ = run(tmp_path / "retrieval", tmp_path / "prepared", holdout=0.1)
    assert manifest["held_out"] == {"retrieval": 10}
    assert "test.jsonl:1: not valid JSON" in capsys.readouterr().err


def test_rows_of_one_group_are_held_out_together(tmp_path):
    rows = retrieval_rows(400)
    for number, row in enumerate(rows):
        row["doc_id"] = f"doc {number // 4}"
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    manifest, written = run(tmp_path / "retrieval", tmp_path / "prepared", holdout=0.1)
    assert 36 <= manifest["held_out"]["retrieval"] <= 44
    groups = {row["query"]: row["doc_id"] for row in rows}
    held = {groups[row["text"]] for row in read_jsonl(tmp_path / "prepared" / "eval" / "queries.jsonl")}
    assert not held & {groups[row["query"]] for row in written["retrieval/train.jsonl"]}


@pytest.mark.parametrize("tests", [0, 30])
def test_columns_are_named_for_the_files_to_train_on(tmp_path, tests):
    def renamed(rows: list[dict]) -> list[dict]:
        return [{"ask": row["query"], "reply": row["positive"]} for row in rows]

    write_jsonl(tmp_path / "retrieval" / "train.jsonl", renamed(retrieval_rows(100)))
    if tests:
        write_jsonl(tmp_path / "retrieval" / "test.jsonl", retrieval_rows(tests, seed=2))
    columns = (("query", "ask"), ("positive", "reply"))
    manifest, _ = run(tmp_path / "retrieval", tmp_path / "prepared", holdout=0.1, columns=columns)
    assert manifest["held_out"] == {"retrieval": tests or 10}


def test_the_same_query_in_two_files_of_one_pattern_is_not_trained_on(tmp_path):
    queries = [
        f"What is the capital of region {n * 7919 % 10**6:06} and how many people live there?" for n in range(600)
    ]
    for name in ("a", "b"):
        rows = [{"query": query, "positive": f"{name} {n}"} for n, query in enumerate(queries)]
        write_jsonl(tmp_path / "retrieval" / f"{name}.jsonl", rows)
    _, written = run(tmp_path / "retrieval", tmp_path / "prepared")
    held = {row["text"] for row in read_jsonl(tmp_path / "prepared" / "eval" / "queries.jsonl")}
    trained = {row["query"] for rows in written.values() for row in rows}
    assert len(held) >= 30 and not held & trained
    assert len(trained) > 400  # that they are all alike does not cost all of them


def test_every_query_of_graded_rows_that_is_held_out_has_an_answer(tmp_path):
    generator = random.Random(1)
    rows = [
        {"query": query, "passage": f"{sentence(generator)} {n}", "label": int(n == 0), "doc_id": f"{query} {n}"}
        for query in (sentence(generator) for _ in range(60))
        for n in range(4)
    ]
    write_jsonl(tmp_path / "retrieval" / "train.jsonl", rows)
    _, written = run(tmp_path / "retrieval", tmp_path / "prepared", holdout=0.2)
    data = read_eval_folder(tmp_path / "prepared" / "eval").retrieval
    assert len(data.queries) == 12 and data.queries_left_out == 0
    assert len(written["retrieval/train.jsonl"]) == 48


def test_a_label_of_near_duplicates_stays_in_training(tmp_path):
    texts = [f"when does the grey dome open on sunday{'s' * n}?" for n in range(6)]
    rows = [{"text": text, "label": "near"} for text in texts]
    rows += [
        {"text": f"{word} and more of it", "label": label}
        for label in "ac"
        for word in (label * 9, label * 20, "x" + label)
    ]
    write_jsonl(tmp_path / "clustering" / "train.jsonl", rows)
    _, written = run(tmp_path / "clustering", tmp_path / "prepared", holdout=0.4)
    trained = {row["query"] for row in written["clustering-no_in_batch_neg/train.jsonl"]}
    assert len(trained & set(texts)) >= 2


def test_the_corpus_of_a_beir_folder_is_all_of_it(tmp_path):
    folder = tmp_path / "mine"
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "T", "text": f"passage {n}"} for n in range(20)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"{'abcdefgh'[n] * 9} query"} for n in range(8)])
    (folder / "qrels").mkdir()
    for name, numbers in (("train", range(5)), ("test", (5, 6)), ("dev", (7,))):
        lines = "".join(f"q{n}\td{n}\t1\n" for n in numbers)
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    manifest, _ = run(folder, tmp_path / "prepared")
    assert manifest["held_out"] == {"retrieval": 2}
    data = read_eval_folder(tmp_path / "prepared" / "eval").retrieval
    assert set(data.passages.values()) == {f"T passage {n}" for n in range(20)}


def test_what_is_to_test_with_is_used_for_tasks_that_are_not_trained_too(tmp_path):
    generator = random.Random(1)
    write_jsonl(tmp_path / "data" / "retrieval" / "train.jsonl", retrieval_rows(100))
    pairs = [{"sentence1": sentence(generator), "sentence2": sentence(generator), "score": n / 9} for n in range(9)]
    write_jsonl(tmp_path / "data" / "sts" / "test.jsonl", pairs)
    manifest, _ = run(tmp_path / "data", tmp_path / "prepared", holdout=0.1)
    assert manifest["held_out"] == {"retrieval": 10, "sts": 9}
