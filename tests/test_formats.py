"""A user's row is taken as it is, or refused with its line, what is wrong and what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3kit.data.formats import recognise
from m3kit.data.jsonline import parse_line
from m3kit.data.problems import BadRow
from m3kit.data.reading import Part, Reading, read_part

TEXT = st.text(min_size=1).filter(str.strip)


def read(tmp_path, content: bytes, kind: str | None = None, **settings):
    """What becomes of a file's rows, and the problems of the bad ones."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    rows = read_part(Part(Reading(path, path, kind=kind, **settings), 0, len(content), 1))
    return rows, [problem for problem, _ in rows.bad]


def parse(record: dict, renames: dict[str, str] | None = None, textual: bool = False):
    """(format, texts, positives, value) of a row."""
    record = parse_line(line_of(**record))
    layout = recognise(tuple(record), renames or {}, None, textual, 1.0)
    return (layout.kind, *layout.parse(record))


def line_of(**record) -> bytes:
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(
    ("record", "row"),
    [
        ({"query": "q", "positive": "p", "negative": "n"}, ("retrieval", ["q", "p", "n"], 1, 0)),
        ({"query": "q", "positive": ["p", "r", "p"]}, ("retrieval", ["q", "p", "r", "p"], 3, 0)),
        ({"query": "q", "positive": "p", "negative": None}, ("retrieval", ["q", "p"], 1, 0)),
        ({"query": "q", "positive": "p", "negative": ["n", "m"]}, ("retrieval", ["q", "p", "n", "m"], 1, 0)),
        ({"sentence1": "a", "sentence2": "b", "score": 1}, ("sts", ["a", "b"], 1, 1.0)),
        ({"text": "t", "label": "l"}, ("labelled", ["t"], 0, "l")),
        ({"text": "t", "label": 3}, ("labelled", ["t"], 0, "3")),
        (
            {"query": "q", "pos": ["p"], "neg": ["n"], "prompt": "", "type": None, "id": 7},
            ("native", ["q", "p", "n"], 1, {"prompt": ""}),
        ),
        # other kits' names
        ({"anchor": "q", "positive": "p", "negative": "n"}, ("retrieval", ["q", "p", "n"], 1, 0)),
        (
            {"anchor": "q", "positive": "p", "negative_2": "m", "negative_10": "o", "negative_1": "n"},
            ("retrieval", ["q", "p", "n", "m", "o"], 1, 0),
        ),
        ({"sentence1": "a", "sentence2": "b", "label": 0.5}, ("sts", ["a", "b"], 1, 0.5)),
        (
            {"query": "q", "positive_passages": [{"docid": "1", "title": "t", "text": "p"}], "negative_passages": []},
            ("retrieval", ["q", "t p"], 1, 0),
        ),
    ],
)
def test_each_format_is_recognised_by_its_columns(record, row):
    assert parse(record) == row


def test_columns_may_be_named():
    record = {"question": "q", "answer": "p", "wrong": ["n"], "query": "not this one"}
    renames = {"query": "question", "positive": "answer", "negative": "wrong"}
    assert parse(record, renames) == ("retrieval", ["q", "p", "n"], 1, 0)


def test_columns_of_two_formats_are_asked_about_not_guessed():
    with pytest.raises(BadRow, match="more than one format"):
        parse({"query": "q", "positive": "p", "pos": ["p"]})


def test_numbers_of_a_csv_file_are_text():
    assert parse({"sentence1": "a", "sentence2": "b", "score": "0.25"}, textual=True) == ("sts", ["a", "b"], 1, 0.25)
    with pytest.raises(BadRow, match="not a number"):
        parse({"sentence1": "a", "sentence2": "b", "score": "0,25"}, textual=True)


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"query": "", "positive": "p"}, '"query" is empty'),
        ({"query": "  \n", "positive": "p"}, '"query" is empty'),
        ({"query": "\u200b\ufeff", "positive": "p"}, '"query" is empty'),
        ({"query": 3, "positive": "p"}, '"query" is a int'),
        ({"query": "q", "positive": []}, '"positive" is an empty list'),
        ({"query": "q", "positive": ["p", 5]}, '"positive" is a int'),
        ({"query": "q", "positive": None}, '"positive" is missing'),
        ({"query": "q", "positive": "p", "negative": [""]}, '"negative" is empty'),
        ({"query": "q", "positive": "p", "negative": {"a": 1}}, '"negative" is a dict'),
        ({"query": "\ud800", "positive": "p"}, "surrogate"),
        ({"sentence1": "a", "sentence2": "b", "score": 4.5}, "--sts_max_score 5"),
        ({"sentence1": "a", "sentence2": "b", "score": -0.1}, "outside 0..1"),
        ({"sentence1": "a", "sentence2": "b", "score": float("nan")}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": float("inf")}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": 10**400}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": "0.5"}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": True}, "not a number"),
        ({"text": "t", "label": None}, '"label" is missing'),
        ({"text": "t", "label": 1.5}, '"label" is a float'),
        ({"query": "q", "pos": "p", "neg": ["n"]}, '"pos" is a str, not a list'),
        ({"query": "q", "pos": [], "neg": ["n"]}, '"pos" is an empty list'),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1, 2], "neg_scores": [0]}, "2 scores for 1"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]}, "only one of pos_scores and neg_scores"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": "8"}, '"batch_size" is a str'),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": 0}, '"batch_size" is 0'),
        ({"question": "q", "answer": "a"}, "no known format"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_a_fix(tmp_path, record, what):
    rows, problems = read(tmp_path, b"\n \n" + line_of(**record))
    assert rows.read == len(problems) == 1
    assert problems[0].line == 3
    assert what in str(problems[0])
    assert problems[0].fix


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"text": "t"', "not valid JSON"),
        (b'["text", "label"]', "a JSON list instead of an object"),
        (b'{"text": "\xff", "label": "l"}', "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"text": "t", "label": "l", "text": "u"}', '"text" stands twice'),
        (b'{"text" : "t", "label" : "l", "text" : "u"}', '"text" stands twice'),
        (b'{"text": "t", "label": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"text": "t", "label": "l"} {"text": "u", "label": "l"}', "not valid JSON"),
        (b'{"text": "t"}', 'no "label" in this row'),
        (b'{"query": "q", "positive": "p"}', "this row is retrieval, the rows before it are labelled"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, content, what):
    rows, problems = read(tmp_path, line_of(text="t", label="l") + content + b"\n")
    assert rows.read == 2
    assert [problem.line for problem in problems] == [2]
    assert what in problems[0].what


def test_byte_order_mark_crlf_and_blank_lines_are_no_problem(tmp_path):
    first, second = line_of(text="t", label="l"), line_of(text="u", label="l")
    content = b"\xef\xbb\xbf" + first.replace(b"\n", b"\r\n") + b"\r\n\n" + second
    rows, problems = read(tmp_path, content)
    assert (rows.read, problems) == (2, [])
    assert rows.columns["line"].tolist() == [1, 4]


@given(query=TEXT, positive=TEXT)
def test_texts_are_kept_to_the_letter(query, positive):
    assert parse({"query": query, "positive": positive}) == ("retrieval", [query, positive], 1, 0)


@given(content=st.binary(max_size=300))
def test_any_bytes_give_rows_or_named_problems(tmp_path_factory, content):
    rows, problems = read(tmp_path_factory.mktemp("rows"), content)
    bom = b"\xef\xbb\xbf"
    assert rows.read == sum(bool(line.strip()) and line != bom for line in content.split(b"\n"))
    assert rows.read == len(problems) + len(rows.columns["line"])
