"""Parquet as JSON lines, and what of it JSON lacks."""

from __future__ import annotations

import datetime
import decimal
import io
import math

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcode_helpers import ROWS, fresh, is_utf8, noise, parquet


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv", "rows"])
def test_parquet_is_known_by_its_first_bytes(read, name):
    rows = read(name, parquet({"query": ["q", "r"], "positive": [["a", "b"], None], "score": [0.5, 1.0]}))
    assert rows.values == [
        {"query": "q", "positive": ["a", "b"], "score": 0.5},
        {"query": "r", "positive": None, "score": 1.0},
    ]
    assert (rows.numbers, rows.result.textual, rows.result.where, rows.problems) == ([1, 2], False, "row", [])
    assert rows.notes == ([] if name == "rows.parquet" else ["holds Parquet, read as such"])


def test_parquet_values_that_json_lacks_become_texts(read):
    day = datetime.datetime(2024, 5, 6, 7, 8, 9)
    columns = {
        "time": pyarrow.array([day], pyarrow.timestamp("ns")),
        "zone": pyarrow.array([day], pyarrow.timestamp("us", tz="Europe/Rome")),
        "date": [day.date()],
        "span": [datetime.timedelta(seconds=5)],
        "exact": [decimal.Decimal("1.20")],
        "old": ["é".encode()],
        "map": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "big": pyarrow.array([2**64 - 1], pyarrow.uint64()),
    }
    (row,) = read("rows.parquet", parquet(columns)).values
    assert row["time"].startswith("2024-05-06") and row["zone"].startswith("2024-05-06") and row["span"]
    assert (row["date"], row["exact"], row["old"], row["big"]) == ("2024-05-06", "1.20", "é", 2**64 - 1)
    assert row["map"] == [["k", 1]]


def test_parquet_numbers_that_are_none_stay_visible(read):
    columns = {"score": [math.nan, math.inf, -math.inf, None], "all": [[0.5, math.nan], [], [1.0], [None]]}
    assert read("rows.parquet", parquet(columns)).lines == [
        b'{"score": NaN, "all": [0.5, NaN]}',
        b'{"score": Infinity, "all": []}',
        b'{"score": -Infinity, "all": [1.0]}',
        b'{"score":null,"all":[null]}',
    ]


def test_parquet_bytes_that_are_no_text_stay_visible(read):
    (row,) = read("rows.parquet", parquet({"query": [b"caf\xe9"]})).values
    assert row == {"query": "caf\udce9"}


def test_a_parquet_row_that_cannot_be_read_is_named(read):
    broken = pyarrow.array([b"a", b"caf\xe9", b"b"]).view(pyarrow.string())
    rows = read("rows.parquet", parquet({"query": broken}))
    assert (rows.values, rows.numbers) == ([{"query": "a"}, {"query": "b"}], [1, 3])
    assert [line for line, _ in rows.told] == [2]
    assert "this row cannot be read" in rows.told[0][1]


def test_parquet_columns_of_one_name_are_named(read):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["query"] * 2), buffer)
    rows = read("rows.parquet", buffer.getvalue())
    assert (rows.result, "two columns have the same name" in rows.told[0][1]) == (None, True)


def test_parquet_without_rows_is_read(read):
    rows = read("rows.parquet", parquet({"query": pyarrow.array([], pyarrow.string())}))
    assert (rows.lines, rows.problems) == ([], [])


@pytest.mark.parametrize("content", [b"query\nq\n", b'{"query": "q"}\n', b"\x00\x01\x02"])
def test_what_is_called_parquet_must_be_it(read, content):
    rows = read("rows.parquet", content)
    assert (rows.result, rows.told) == (None, [(1, "this is no Parquet file")])


def test_a_cut_off_parquet_file_is_named(read):
    rows = read("rows.parquet", parquet({"query": ["q"] * 100})[:-10])
    assert rows.result is None
    assert rows.told[0][1].startswith("the Parquet file is broken or cut off (")


def test_damage_within_parquet_is_named_and_the_rows_before_are_kept(read):
    queries = [row["query"] for row in noise(2000)]
    columns = {"query": queries}
    content = bytearray(parquet(columns, row_group_size=500, compression="none", write_page_checksum=True))
    content[content.index(queries[1200].encode())] ^= 1
    rows = read("rows.parquet", bytes(content))
    assert [value["query"] for value in rows.values] == queries[: len(rows.values)]
    assert len(rows.values) >= 768
    assert rows.problems[0].line == len(rows.values) + 1
    assert "reading stopped there" in rows.told[0][1]


@settings(deadline=None)
@given(rows=ROWS, group=st.integers(1, 3))
def test_parquet_comes_back_to_the_letter(tmp_path_factory, rows, group):
    rows = [row for row in rows if is_utf8("".join(row))]
    columns = {"query": [query for query, _ in rows], "positive": [[positive, None] for _, positive in rows]}
    schema = pyarrow.schema({"query": pyarrow.string(), "positive": pyarrow.list_(pyarrow.string())})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema), buffer, row_group_size=group)
    read = fresh(tmp_path_factory, "rows.parquet", buffer.getvalue())
    assert [(value["query"], value["positive"]) for value in read.values] == [(a, [b, None]) for a, b in rows]
    assert (read.numbers, read.problems) == (list(range(1, len(rows) + 1)), [])
