"""JSON arrays, objects over several lines, and one object that holds many rows."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_helpers import COMPLETE, ROWS, fresh, is_utf8, read

__all__ = ["read"]
A, B, C = {"a": 1}, {"a": 2}, {"a": 3}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
def test_a_json_array_is_read_as_such(read, name, start):
    indent = None if name == "rows.csv" else 2
    rows = read(name, start + json.dumps(COMPLETE, indent=indent) + "\n \n")
    first = 1 + start.count("\n")
    assert (rows.values, rows.lines) == (COMPLETE, [first + 1, first + 5] if indent else [first, first])
    assert (rows.bad, rows.stop, rows.notes) == ([], None, ["holds a JSON array, read as such"])
    assert (rows.reading.textual, rows.reading.where) == (False, "line")


def test_an_empty_array_has_no_rows(read):
    rows = read("rows.json", " [\n] \n")
    assert (rows.values, rows.bad, rows.stop) == ([], [], None)


def test_json_lines_that_are_arrays_stay_json_lines(read):
    rows = read("rows.jsonl", '["a", "b"]\n\n["c"]\n')
    assert (rows.bad, rows.notes) == ([(1, "json"), (3, "json")], [])


def test_objects_may_take_several_lines_each_without_an_array(read):
    for name, between in [("rows.json", "\n"), ("rows.jsonl", ""), ("rows.json", ",\n")]:
        rows = read(name, json.dumps(A, indent=2) + between + json.dumps(B, indent=2))
        assert (rows.values, rows.lines[0], rows.bad, rows.stop) == ([A, B], 1, [], None)
        assert rows.notes == ["holds JSON over several lines, read as such"]
    assert read("rows.json", json.dumps(COMPLETE[0])).values == COMPLETE[:1]


def test_elements_without_a_comma_between_are_read(read):
    rows = read("rows.json", '[{"a": 1} {"a": 2}\n{"a": 3}]')
    assert (rows.values, rows.lines, rows.bad) == ([A, B, C], [1, 1, 2], [])


@pytest.mark.parametrize(
    ("content", "values", "bad", "stop"),
    [
        (b'[{"a": 1},\n]', [A], [], (2, "array")),
        (b'[{"a": 1},\n,\n{"a": 2}]', [A], [], (2, "array")),
        (b'[,\n{"a": 1}]', [], [], (1, "array")),
        (b'[{"a": 1},\n{"a": 2}\n', [A, B], [], (3, "unfinished")),
        (b'[{"a": 1},\n', [A], [], (2, "unfinished")),
        (b'[{"a": 1},\n{"a":\n 2', [A], [], (2, "unfinished")),
        (b'[{"a": 1},\n{"a":\n "b', [A], [], (2, "unfinished")),
        (b"[", [], [], (1, "unfinished")),
        (b'[{"a": 1}]\n\n x\n', [A], [], (3, "array")),
        (b'[{"a": 1}]\n\n]', [A], [], (3, "array")),
        (b'[{"a": 1},\nx, {"a": 2}]', [A], [], (2, "json")),
        (b'[{"a": 1},\n1, "b", null, {"a": 2}]', [A, B], [(2, "json")] * 3, None),
        (b'[{"a": 1},\n  {"a": 2}},\n  {"a": 3}]', [A, B, C], [(2, "json")], None),
        (b'[\n {"a": x,\n  "b": [\n   {"c": 1}\n  ]\n },\n {"a": 1}\n]', [A], [(2, "json")], None),
        (b'[\n {"a": 1},\n {"a": "b\n"}\n]', [A], [(3, "json")], None),
        (b'[\n{"a":\n"\xff"},\n{"a": 1}]', [A], [(3, "utf-8")], None),
        (b'[{"a": "\\ud800"}, {"a": 1}]', [A], [(1, "surrogate")], None),
        (b'[{"b": 1, "b": {"a": 2}}, {"a": 1}]', [A], [(1, "name-twice")], None),
        (b'[{"b": 1, "c": {"d": 1, "d": 2}, x},\n{"a": 1}]', [A], [(1, "json")], None),
        (b'[{"a": ' + b"1" * 5000 + b'},\n{"a": 1}]', [A], [(1, "json")], None),
        (b'{"a": 1}\n]\n{"a": 2}', [A, B], [(2, "json")], None),
        (b'{"a":\n1}\n]\n{"a": 2}', [A, B], [(3, "json")], None),
        (b'[{"a": ' + b"[" * 100_000, [], [], (1, "json")),
        (b"[" * 100_000, [], [], (1, "json")),
    ],
)
def test_what_is_wrong_with_an_array_is_named(read, content, values, bad, stop):
    rows = read("rows.json", content)
    assert (rows.values, rows.bad, rows.stop) == (values, bad, stop)


def test_bad_elements_are_kept_as_they_stand_there(read):
    rows = read("rows.json", b'[\n {"a":\n x},\n\n "b", {"a": "\xe9"},\n {"a": 1}]')
    assert rows.texts == ['{"a":\n x},\n\n "b", {"a": "\\xe9"}']
    assert (rows.values, rows.lines) == ([A], [6])


@pytest.mark.parametrize(
    "unit", ["[", '"\\', '"', "{,", "\n", '["a\\\\",', '\n{"a": x},', "\n{", '\n{"a":', "\n]", "x\n"]
)
def test_no_array_takes_long(read, unit):
    start = time.monotonic()
    for first in ("[", '["', "[x"):
        read("rows.json", first + unit * 100_000)
    assert time.monotonic() - start < 20


SQUAD = {"context": "c", "qas": [{"question": "q", "answers": []}, {"question": "no", "is_impossible": True}]}


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ({"data": COMPLETE}, COMPLETE),
        ({"version": "1", "data": COMPLETE}, COMPLETE),
        ({"query": ["q", "r"], "positive": ["p", "é😀\u2028"]}, COMPLETE),
        ({"query": {"0": "q", "1": "r"}, "positive": {"0": "p", "1": "é😀\u2028"}}, COMPLETE),
        ({"version": "2.0", "data": [{"title": "t", "paragraphs": [SQUAD]}]}, [{"query": "q", "positive": "c"}]),
        (
            {"queries": {"1": "q"}, "corpus": {"2": "c", "3": "d"}, "relevant_docs": {"1": ["2", "3"]}},
            [{"query": "q", "positive": ["c", "d"]}],
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_may_hold_many_rows(read, document, rows, indent):
    found = read("rows.json", json.dumps(document, indent=indent))
    assert (found.values, found.lines, found.bad) == (rows, [*range(1, len(rows) + 1)], [])
    assert "many rows" in found.notes[-1]


def test_an_object_among_others_is_a_row_whatever_it_holds(read):
    document = {"id": 1, "data": [A, B]}
    rows = read("rows.json", json.dumps(document, indent=1) * 2)
    assert rows.values == [document] * 2


@settings(deadline=None)
@given(rows=ROWS, indent=st.sampled_from([None, 0, 1]), ascii=st.booleans())
def test_arrays_come_back_to_the_letter(tmp_path_factory, rows, indent, ascii):
    values = [{"query": query, "positive": [positive], positive: None} for query, positive in rows]
    content = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    valid = [value for value in values if is_utf8(json.dumps(value, ensure_ascii=False))]
    read = fresh(tmp_path_factory, "rows.json", content)
    assert (read.values, len(read.bad), read.stop) == (valid, len(values) - len(valid), None)
    if not read.bad:
        texts = [json.dumps(value, indent=indent, ensure_ascii=ascii) for value in values]
        step = 1 if indent is not None else 0
        begun = [1 + step + sum(text.count("\n") + step for text in texts[:at]) for at in range(len(texts))]
        assert read.lines == begun
