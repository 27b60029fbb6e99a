"""A user's row is taken as it is, or refused with its line, what is wrong and what to do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3kit.data.formats import LabelledRow, NativeRow, RetrievalRow, StsRow, read_rows

TEXT = st.text(min_size=1).filter(str.strip)


def read(tmp_path, content: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    problems = []
    kind, rows, _ = read_rows(path, problems)
    return kind, rows, problems


def line_of(**record) -> bytes:
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(
    ("record", "kind", "row"),
    [
        ({"query": "q", "positive": "p", "negative": "n"}, "retrieval", RetrievalRow(1, "q", ["p"], ["n"])),
        ({"query": "q", "positive": ["p", "r", "p"]}, "retrieval", RetrievalRow(1, "q", ["p", "r", "p"], [])),
        ({"query": "q", "positive": "p", "negative": None}, "retrieval", RetrievalRow(1, "q", ["p"], [])),
        ({"query": "q", "positive": "p", "negative": ["n", "m"]}, "retrieval", RetrievalRow(1, "q", ["p"], ["n", "m"])),
        ({"sentence1": "a", "sentence2": "b", "score": 1}, "sts", StsRow(1, "a", "b", 1.0)),
        ({"text": "t", "label": "l"}, "labelled", LabelledRow(1, "t", "l")),
        ({"text": "t", "label": 3}, "labelled", LabelledRow(1, "t", "3")),
        (
            {"query": "q", "pos": ["p"], "neg": ["n"], "prompt": "", "type": None, "id": 7},
            "native",
            NativeRow(1, "q", ["p"], ["n"], {"prompt": ""}),
        ),
    ],
)
def test_each_format_is_recognised_by_its_columns(tmp_path, record, kind, row):
    assert read(tmp_path, line_of(**record)) == (kind, [row], [])


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"query": "", "positive": "p"}, '"query" is empty'),
        ({"query": "  \n", "positive": "p"}, '"query" is empty'),
        ({"query": 3, "positive": "p"}, '"query" is a int'),
        ({"query": "q", "positive": []}, '"positive" is an empty list'),
        ({"query": "q", "positive": ["p", 5]}, '"positive" is a int'),
        ({"query": "q", "positive": None}, '"positive" is missing'),
        ({"query": "q", "positive": "p", "negative": [""]}, '"negative" is empty'),
        ({"query": "q", "positive": "p", "negative": {"a": 1}}, '"negative" is a dict'),
        ({"query": "\ud800", "positive": "p"}, "surrogate"),
        ({"sentence1": "a", "sentence2": "b", "score": 4.5}, "divide every score of the file by 5"),
        ({"sentence1": "a", "sentence2": "b", "score": -0.1}, "outside 0..1"),
        ({"sentence1": "a", "sentence2": "b", "score": float("nan")}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": "0.5"}, "not a number"),
        ({"sentence1": "a", "sentence2": "b", "score": True}, "not a number"),
        ({"text": "t", "label": None}, '"label" is missing'),
        ({"text": "t", "label": 1.5}, '"label" is a float'),
        ({"query": "q", "pos": "p", "neg": ["n"]}, '"pos" is a str, not a list'),
        ({"query": "q", "pos": [], "neg": ["n"]}, '"pos" is an empty list'),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1, 2], "neg_scores": [0]}, "2 scores for 1"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]}, "only one of pos_scores and neg_scores"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": "8"}, '"batch_size" is a str'),
        ({"question": "q", "answer": "a"}, "no known format"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_a_fix(tmp_path, record, what):
    _, _, problems = read(tmp_path, b"\n \n" + line_of(**record))
    assert len(problems) == 1
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
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, content, what):
    _, rows, problems = read(tmp_path, line_of(text="t", label="l") + content + b"\n")
    assert len(rows) == 1
    assert [problem.line for problem in problems] == [2]
    assert what in problems[0].what


def test_formats_may_not_be_mixed_in_a_file(tmp_path):
    _, rows, problems = read(tmp_path, line_of(text="t", label="l") + line_of(query="q", positive="p"))
    assert len(rows) == 1
    assert "this row is retrieval, the rows before it are labelled" in problems[0].what


def test_byte_order_mark_crlf_and_blank_lines_are_no_problem(tmp_path):
    first, second = line_of(text="t", label="l"), line_of(text="u", label="l")
    content = b"\xef\xbb\xbf" + first.replace(b"\n", b"\r\n") + b"\r\n\n" + second
    _, rows, problems = read(tmp_path, content)
    assert (len(rows), problems) == (2, [])
    assert rows[1].line == 4


@given(query=TEXT, positive=TEXT)
def test_texts_are_kept_to_the_letter(tmp_path_factory, query, positive):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(line_of(query=query, positive=positive))
    problems = []
    _, rows, _ = read_rows(path, problems)
    assert (rows, problems) == ([RetrievalRow(1, query, [positive], [])], [])


@given(content=st.binary(max_size=300))
def test_any_bytes_give_rows_or_named_problems(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(content)
    problems = []
    _, rows, _ = read_rows(path, problems)
    lines = sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    assert len(rows) + len(problems) == lines
