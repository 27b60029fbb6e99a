"""Checks of whole files, of training data against evaluation data, and the `check` command."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from conftest import write_jsonl
from data_helpers import call, inspect
from hypothesis import given
from hypothesis import strategies as st

from m3kit.reading.near import NEAR, near_pairs, similarity
from m3kit.reading.text import same_text

WORDS = "the visitor lost a grey scarf near the north dome and asks where such things are kept until evening".split()


def rows_of(*queries: str) -> list[dict]:
    return [{"query": query, "positive": f"passage {n}", "negative": f"other {n}"} for n, query in enumerate(queries)]


def told(tmp_path: Path, rows: list[dict], folder: str = "retrieval", **settings) -> list[tuple[str, str, int]]:
    """(severity, code, line) of every problem."""
    _, problems = inspect(write_jsonl(tmp_path / folder / "rows.jsonl", rows), **settings)
    return [(problem["severity"], problem["code"], problem["line"]) for problem in problems]


def test_clean_rows_give_no_problem(tmp_path):
    assert told(tmp_path, rows_of("one", "another", "the third")) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"query": "a b", "positive": "A  b", "negative": "n"}, "positive-is-query"),
        ({"query": "q", "positive": "p", "negative": "\uff31"}, "negative-is-query"),  # a full-width Q
        ({"query": "q", "positive": ["p", "r"], "negative": "R"}, "negative-is-positive"),
        ({"query": "q", "positive": "p", "negative": ["n", "m", "n"]}, "passage-twice"),
        ({"query": "q", "positive": "p\x0b", "negative": "n"}, "control-character"),
        ({"query": "q", "positive": "caf\ufffd", "negative": "n"}, "replacement-character"),
        ({"sentence1": "a", "sentence2": "A", "score": 0.1}, "sts-same-text"),
    ],
)
def test_a_row_that_is_likely_wrong_gets_a_warning(tmp_path, row, code):
    before = row if "score" in row else {"query": "first", "positive": "x", "negative": "y"}
    before = {key: f"{value} first" if isinstance(value, str) else value for key, value in before.items()}
    before = {key: value[0] if isinstance(value, list) else value for key, value in before.items()}
    if "score" in row:
        before["sentence2"], before["score"] = "something else", 0.9
    assert told(tmp_path, [before, row]) == [("warning", code, 2)]
    assert told(tmp_path, [before, row], strict=True)[0] == ("error", code, 2)


def test_a_negative_that_is_nearly_a_positive_is_told(tmp_path):
    answer = "Lost things are kept at the north entrance, day and night, until the end of the month."
    rows = rows_of("one", "two")
    rows[1] |= {"positive": ["another", answer], "negative": ["wrong", answer.replace("month", "months")]}
    assert told(tmp_path, rows) == [("note", "negative-near-positive", 2)]


def test_a_row_that_stands_twice_is_named_with_the_first(tmp_path):
    rows = rows_of("one", "two", "three")
    assert told(tmp_path, [*rows, rows[1]]) == [("warning", "row-twice", 4)]


@pytest.mark.parametrize(("scores", "found"), [((0.9, 0.2), ["sts-contradiction"]), ((0.9, 0.8), ["row-twice"])])
def test_scores_that_contradict_one_another(tmp_path, scores, found):
    rows = [{"sentence1": a, "sentence2": b, "score": s} for (a, b), s in zip(("ab", "ba"), scores, strict=True)]
    rows.append({"sentence1": "c", "sentence2": "d", "score": 0.9})
    assert [code for _, code, _ in told(tmp_path, rows, "sts")] == found


def test_labels_with_one_row_or_spelt_in_two_ways(tmp_path):
    labels = ["sun", "sun", "moon", "moon", "Moon", "moon "]
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)]
    found = told(tmp_path, rows, "clustering")
    assert ("warning", "label-once", 5) in found
    assert ("warning", "label-spelling", 5) in found
    assert ("warning", "label-spelling", 6) in found
    assert {line for _, _, line in found} == {5, 6}


def test_fewer_rows_than_a_batch(tmp_path):
    assert told(tmp_path, rows_of("one", "two"), batch_size=16) == [("note", "few-rows", 1)]


def test_near_duplicates_are_named_with_their_likeness(tmp_path):
    near = "where are lost things kept until the evening?"
    rows = rows_of(near, "when does the dome open on sundays?", near.replace("the evening", "evening"))
    (problem,) = inspect(write_jsonl(tmp_path / "retrieval" / "rows.jsonl", rows))[1]
    assert (problem["code"], problem["line"], problem["severity"]) == ("near-duplicate", 3, "note")
    assert "line 1 (similarity 0.88)" in problem["what"]


def changed(generator: random.Random, text: str) -> str:
    """The text with a character or a word changed, or a word more."""
    words = text.split()
    place = generator.randrange(len(words))
    one = [text.replace(generator.choice(text), "x", 1), " ".join([*words[:place], "new", *words[place:]])]
    return generator.choice([*one, " ".join([*words[:place], "other", *words[place + 1 :]])])


@pytest.mark.parametrize("vocabulary", [len(WORDS), 3000])
def test_every_pair_nearly_the_same_is_found(vocabulary):
    """Compared with a look at all pairs, whatever the texts."""
    generator = random.Random(1)
    words = ["".join(generator.choices("etaoinshrdl", k=6)) for _ in range(vocabulary)] if vocabulary > 99 else WORDS
    texts = [" ".join(generator.choices(words, k=generator.randint(3, 14))) + str(n) for n in range(300)]
    others = [changed(generator, text) for text in texts]
    every = {(n, m) for n, one in enumerate(texts) for m, other in enumerate(others) if similarity(one, other) >= NEAR}
    assert len(every) > 150
    assert {(one, other) for one, other, _ in near_pairs(texts, others)} == every
    both = texts + others
    within = {(one, other) for one, other, _ in near_pairs(both)}
    assert {(n, len(texts) + m) for n, m in every} <= within
    assert all(one < other and similarity(both[one], both[other]) >= NEAR for one, other in within)


@given(st.lists(st.text("ab 中é", max_size=9), min_size=1, max_size=8))
def test_any_texts_are_compared_and_the_same_text_is_near(texts):
    texts = [same_text(text) for text in texts]
    found = {(one, other) for one, other, alike in near_pairs(texts, texts) if alike == 1}
    assert {(place, place) for place in range(len(texts))} <= found


def test_texts_too_long_for_the_model_are_counted_in_its_tokens(tmp_path, starter):
    long = " ".join(WORDS * 10)
    rows = [*rows_of("one"), {"query": "q", "positive": f"{long} {long}", "negative": long}]
    rows += [{"query": f"{long} two", "positive": "p", "negative": "n"}]
    file = write_jsonl(tmp_path / "retrieval" / "rows.jsonl", rows)
    lengths = {"query_max_len": 64, "passage_max_len": 300, "tokenizer": str(starter)}
    queries, passages = inspect(file, **lengths)[1]
    assert (queries["code"], queries["line"], passages["line"]) == ("too-long", 3, 2)
    assert queries["what"].startswith("1 of the texts, the first here, are longer than query_max_len 64")
    from transformers import AutoTokenizer

    tokens = len(AutoTokenizer.from_pretrained(starter)(f"{long} {long}").input_ids)
    assert f"{tokens} tokens); {(tokens - 300) / tokens:.0%}" in passages["what"]


def test_without_a_tokenizer_it_is_said_that_lengths_were_not_measured(tmp_path):
    found = told(tmp_path, [{"query": "q", "positive": "p " * 500, "negative": "n"}], tokenizer=str(tmp_path))
    assert found == [("note", "tokenizer", 1)]


@pytest.fixture
def eval_data(tmp_path) -> Path:
    folder = tmp_path / "eval"
    write_jsonl(folder / "queries.jsonl", [{"_id": "1", "text": "Where are lost things kept until the evening?"}])
    corpus = ["Lost things are kept at the north entrance, day and night.", "The dome opens at nine."]
    write_jsonl(folder / "corpus.jsonl", [{"_id": str(n), "text": text} for n, text in enumerate(corpus)])
    return folder


def test_training_rows_that_stand_in_the_evaluation_data(tmp_path, eval_data):
    rows = rows_of(
        "is it open?", "where are lost things  kept until the evening?", "where are lost things kept until evening?"
    )
    rows[0]["positive"] = "the dome opens at nine."
    rows[2]["negative"] = "Lost things are kept at the north entrance, night and day."
    found = told(tmp_path, rows, eval_data=str(eval_data))
    assert [one for one in found if one[1] != "near-duplicate"] == [
        ("warning", "query-in-evaluation", 2),
        ("warning", "query-near-evaluation", 3),
        ("note", "passage-in-evaluation", 1),
        ("note", "passage-near-evaluation", 3),
    ]


def test_sentences_of_pairs_that_stand_in_the_evaluation_data(tmp_path, eval_data):
    rows = [{"sentence1": "something", "sentence2": "Where are lost things kept until the evening?", "score": 1}]
    assert told(tmp_path, rows, "sts", eval_data=str(eval_data)) == [("warning", "query-in-evaluation", 1)]


def check(*arguments) -> subprocess.CompletedProcess:
    return call("check", *arguments)


def test_the_command_tells_what_it_found_and_fails_on_errors(tmp_path):
    good = write_jsonl(tmp_path / "retrieval" / "good.jsonl", rows_of("one", "two"))
    done = check(good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{good}: retrieval (by its columns); 2 rows read, 2 used\nfound: nothing that is wrong\n"
    bad = write_jsonl(tmp_path / "retrieval" / "bad.jsonl", [*rows_of("one"), {"query": " ", "positive": "p"}])
    done = check(tmp_path / "retrieval")
    assert done.returncode == 1
    assert f'error: {bad}:2: "query" is empty' in done.stdout
    assert check(tmp_path / "retrieval", "--skip-bad-rows").returncode == 0


def test_what_only_shows_when_rows_are_converted_is_found_too(tmp_path):
    rows = [{"query": "q", "positive": "p", "negative": "n"}, {"query": "r", "positive": ["p", "n"]}]
    assert "rows.jsonl:2: no negative here" in check(write_jsonl(tmp_path / "retrieval" / "rows.jsonl", rows)).stdout
    rows = [{"text": f"text {n}", "label": "the same"} for n in range(3)]
    assert "only one label" in check(write_jsonl(tmp_path / "clustering" / "rows.jsonl", rows)).stdout


def test_the_command_prints_everything_as_json(tmp_path):
    rows = [{"query": "", "positive": "p"} for _ in range(100)]
    write_jsonl(tmp_path / "retrieval" / "rows.jsonl", [*rows, *rows_of("one", "two")])
    done = check(tmp_path, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["errors"], len(found["problems"])) == (100, 100)
    assert found["problems"][99]["line"] == 100
    assert set(found["problems"][0]) == {"code", "severity", "file", "line", "what", "fix"}
    assert found["sets"][0]["rows_read"] == 102


def test_columns_are_named_on_the_command_line(tmp_path):
    file = tmp_path / "faq.csv"
    file.write_text("title,body\nwhen?,at nine\nwhere?,here\n")
    assert "say which column is which, such as --columns query=title,positive=body" in check(file).stdout
    done = check(file, "--columns", "query=title,positive=body")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{file}: retrieval (by its columns); 2 rows read, 2 used, 2 negatives drawn from")
    assert "no file has such a column" in check(file, "--columns", "query=title,positive=body,negative=x").stderr
    assert check(file, "--columns", "query=title,positive=body", "--strict").returncode == 0
    assert "is no folder" in check(file, "--eval_data", tmp_path / "gone").stderr
    assert "is not FIELD=COLUMN" in check(file, "--columns", "queri=question").stderr
