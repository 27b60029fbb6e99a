"""JSON arrays as JSON lines, each element to the letter and with its line."""

from __future__ import annotations

import json
import time

import pytest
from conftest import mostly_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from transcode_helpers import COMPLETE, ROWS, fresh, is_utf8

from m3kit.data import jsonarray


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n"])
def test_a_json_array_is_read_as_such(read, name, start):
    content = start + json.dumps(COMPLETE, indent=2).encode()
    rows = read(name, content)
    blank = start.count(b"\n")
    assert (rows.values, rows.numbers) == (COMPLETE, [2 + blank, 6 + blank])
    assert (rows.result.textual, rows.result.where) == (False, "line")
    assert (rows.problems, rows.notes) == ([], ["holds a JSON array, read as such"])


def test_an_array_on_one_line_is_an_array_and_an_empty_one_has_no_rows(read):
    rows = read("rows.jsonl", json.dumps(COMPLETE).encode() + b"\n \n")
    assert (rows.values, rows.numbers, rows.problems) == (COMPLETE, [1, 1], [])
    rows = read("rows.json", b" [\n] \n")
    assert (rows.lines, rows.problems) == ([], [])


def test_json_lines_that_are_arrays_stay_json_lines(read):
    rows = read("rows.jsonl", b'["a", "b"]\n\n["c"]\n')
    assert (rows.result.path, rows.result.numbers, rows.notes) == (rows.file, None, [])
    rows = read("rows.jsonl", b'["a"]\nmore\n')
    assert rows.told == [(2, "text after the ] of the array; reading stopped there")]


def test_an_element_keeps_what_a_parser_would_drop(read):
    rows = read("rows.json", b'[{"a": 1,\r\n "a": 1.10,\n"b": "[\\"}\\\\", "c": NaN},\n 12345678901234567890]')
    assert rows.lines == [b'{"a": 1,\r  "a": 1.10, "b": "[\\"}\\\\", "c": NaN}', b"12345678901234567890"]
    assert rows.numbers == [1, 4]


def test_what_stands_on_two_lines_is_not_joined(read):
    assert read("rows.json", b"[1\n2, tr\nue]").lines == [b"1 2", b"tr ue"]


@pytest.mark.parametrize(
    ("content", "values", "told"),
    [
        (b'[{"a": 1},\n]', 1, [(2, "a comma too many in the array")]),
        (b'[{"a": 1},\n,\n{"a": 2}]', 2, [(2, "a comma too many in the array")]),
        (b"[,\n1]", 1, [(1, "a comma too many in the array")]),
        (b'[{"a": 1},\n{"a": 2}\n', 2, [(3, "the file ends without the ] of its array; reading stopped there")]),
        (b'[{"a": 1},\n', 1, [(2, "the file ends without the ] of its array; reading stopped there")]),
        (b'[1,\n{"a":\n 2', 1, [(2, "the file ends within the element that begins here; reading stopped there")]),
        (b'[1,\n{"a":\n "b', 1, [(2, "the file ends within the element that begins here; reading stopped there")]),
        (b"[1,\n\x0b\n, 2]", 2, [(2, "an unseen character instead of an element")]),
        (b"[1,\n\xef\xbb\xbf\n, 2]", 2, [(2, "an unseen character instead of an element")]),
        (b"[1]\n\n x\n", 1, [(3, "text after the ] of the array; reading stopped there")]),
        (b"[1]\n\n]", 1, [(3, "text after the ] of the array; reading stopped there")]),
        (b"[1,\n2}\n,3]", 1, [(2, "a } that closes nothing; reading stopped there")]),
        (b'[1,\n{"a":\n"b\n"}, 3]', 1, [(3, "a text that is not closed in its line; reading stopped there")]),
        (b'[1,\n{"a":\n"\xff"},\n3]', 2, [(3, "not UTF-8")]),
        (b"[", None, [(1, "the file ends without the ] of its array; reading stopped there")]),
    ],
)
def test_what_is_wrong_with_an_array_is_named(read, content, values, told):
    rows = read("rows.json", content)
    assert rows.told == told
    assert (rows.result is None) if values is None else (len(rows.values) == values)


def test_an_element_may_be_long_but_not_without_end(read, monkeypatch):
    long = b'\\"\n"'.hex() + '\\"' * 200_000
    assert read("rows.json", json.dumps([long, "b"]).encode()).values == [long, "b"]
    monkeypatch.setattr(jsonarray, "ROW_LIMIT", 100_000)
    for endless in (b'"' + b"x" * 500_000, b"[" * 500_000, b" x" * 250_000, b'{"a":"b",' * 50_000):
        rows = read("rows.json", b"[1,\n" + endless)
        assert (rows.values, rows.told[0][0], "an element of" in rows.told[0][1]) == ([1], 2, True)


@pytest.mark.parametrize("unit", mostly_slow([b"[", b'"\\', b'\\"', b'"', b"{,", b"\n", b'["a\\\\",', b"\xff"], 2))
def test_no_array_takes_long(read, unit):
    start = time.monotonic()
    for first in (b"[", b'["', b"[x"):
        read("rows.json", first + unit * 300_000)
    assert time.monotonic() - start < 10


@settings(deadline=None)
@given(rows=ROWS, indent=st.sampled_from([None, 0, 1]), ascii=st.booleans(), block=st.sampled_from([1, 7, 65536]))
def test_arrays_come_back_to_the_letter(tmp_path_factory, rows, indent, ascii, block):
    values = [{"query": query, "positive": [positive], positive: None} for query, positive in rows]
    content = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    valid = [value for value in values if ascii or is_utf8(json.dumps(value, ensure_ascii=False))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonarray, "BLOCK", block)
        read = fresh(tmp_path_factory, "rows.json", content)
    assert read.values == valid
    assert len(read.problems) == len(values) - len(valid)
    if len(valid) == len(values):
        texts = [json.dumps(value, indent=indent, ensure_ascii=ascii) for value in values]
        step = 1 if indent is not None else 0
        begun = [1 + step + sum(text.count("\n") + step for text in texts[:at]) for at in range(len(texts))]
        assert read.numbers == begun
