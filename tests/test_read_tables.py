"""Parquet, Arrow and Excel files as rows, and what of them JSON lacks."""

from __future__ import annotations

import datetime
import decimal
import io
import math

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_helpers import ROWS, fresh, is_utf8, noise, parquet, read

__all__ = ["read"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv", "rows"])
def test_parquet_is_known_by_its_first_bytes(read, name):
    rows = read(name, parquet({"query": ["q", "r"], "positive": [["a", "b"], None], "score": [0.5, 1.0]}))
    assert rows.values == [
        {"query": "q", "positive": ["a", "b"], "score": 0.5},
        {"query": "r", "positive": None, "score": 1.0},
    ]
    assert (rows.lines, rows.reading.textual, rows.reading.where) == ([1, 2], False, "row")
    assert rows.notes == ([] if name == "rows.parquet" else ["holds Parquet, read as such"])


def test_values_that_json_lacks_become_texts_or_none(read):
    day = datetime.datetime(2024, 5, 6, 7, 8, 9)
    columns = {
        "time": pyarrow.array([day], pyarrow.timestamp("us")),
        "zone": pyarrow.array([day], pyarrow.timestamp("us", tz="Europe/Rome")),
        "date": [day.date()],
        "span": [datetime.timedelta(seconds=5)],
        "exact": [decimal.Decimal("1.20")],
        "old": ["é".encode()],
        "big": pyarrow.array([2**64 - 1], pyarrow.uint64()),
        "none": [math.nan],
        "far": [math.inf],
    }
    (row,) = read("rows.parquet", parquet(columns)).values
    assert row["time"].startswith("2024-05-06") and row["zone"].startswith("2024-05-06") and row["span"] == "0:00:05"
    assert (row["date"], row["exact"], row["old"], row["big"]) == ("2024-05-06", "1.20", "é", 2**64 - 1)
    assert (row["none"], row["far"]) == (None, math.inf)


def test_a_row_that_cannot_be_read_costs_itself_only(read):
    broken = pyarrow.array([b"a", b"caf\xe9", b"b"]).view(pyarrow.string())
    rows = read("rows.parquet", parquet({"query": broken}))
    assert (rows.values, rows.lines, rows.bad) == ([{"query": "a"}, {"query": "b"}], [1, 3], [(2, "parquet")])
    rows = read("rows.parquet", parquet({"query": [b"caf\xe9", b"a"]}))
    assert (rows.values, rows.bad) == ([{"query": "a"}], [(1, "surrogate")])


def test_columns_of_one_name_are_named(read):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, ["query"] * 2), buffer)
    rows = read("rows.parquet", buffer.getvalue())
    assert (rows.stop, "two columns have the same name" in rows.what) == ((1, "parquet"), True)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.xlsx"])
@pytest.mark.parametrize("content", [b"query\nq\n", b'{"query": "q"}\n', b"\x00\x01\x02"])
def test_what_is_called_a_table_must_be_it(read, name, content):
    rows = read(name, content)
    assert (rows.stop, rows.what) == ((1, "container"), f"this is no {name[5:]} file")


def test_a_cut_off_table_is_named(read):
    rows = read("rows.parquet", parquet({"query": ["q"] * 100})[:-10])
    assert rows.stop == (1, "parquet") and rows.what.startswith("the Parquet file is broken or cut off (")
    assert read("rows.arrow", b"ARROW1" + bytes(50)).stop == (1, "arrow")
    assert read("rows.arrow", b"query\nq\n").stop == (1, "arrow")


def test_rows_before_damage_within_parquet_are_kept(read):
    queries = [row["query"] for row in noise(2000)]
    content = bytearray(parquet({"query": queries}, row_group_size=500, compression="none", write_page_checksum=True))
    content[content.index(queries[1200].encode())] ^= 1
    rows = read("rows.parquet", bytes(content))
    assert [value["query"] for value in rows.values] == queries[: len(rows.values)]
    assert (len(rows.values) >= 768, rows.stop[0]) == (True, len(rows.values) + 1)
    assert "reading stopped there" in rows.what


def test_arrow_as_datasets_saves_it(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value
    from reader_helpers import Read

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    data = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    data.save_to_disk(tmp_path)
    data.to_parquet(tmp_path / "rows.parquet")
    for file in [*tmp_path.glob("*.arrow"), tmp_path / "rows.parquet"]:
        rows = Read(file)
        assert [row["label"] for row in rows.values] == ["yes", "no", -1]
        assert (rows.lines, rows.reading.where, rows.notes) == ([1, 2, 3], "row", [])


def test_an_arrow_file_is_read(read):
    buffer, table = io.BytesIO(), pyarrow.table({"query": ["q", "r"]})
    with pyarrow.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table)
    assert read("rows.arrow", buffer.getvalue()).values == [{"query": "q"}, {"query": "r"}]


def sheet(*rows) -> bytes:
    workbook, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        workbook.active.append(row)
    workbook.save(buffer)
    return buffer.getvalue()


def test_an_excel_sheet_is_read(read):
    content = sheet([], ["query", " positive ", "score", None], ["q", "a\nb"], [], ["r", '["c", "d"]', 0.5])
    rows = read("rows.xlsx", content)
    assert rows.values == [
        {"query": "q", "positive": "a\nb", "score": None},
        {"query": "r", "positive": ["c", "d"], "score": 0.5},
    ]
    assert (rows.lines, rows.reading.textual, rows.reading.where) == ([3, 5], False, "line")
    assert "spaces around the names" in rows.notes[0]
    assert read("rows.csv", content).notes[0] == "holds XLSX, read as such"


def test_what_is_wrong_with_a_sheet_is_named(read):
    rows = read("rows.xlsx", sheet(["query", "x", "y"], ["a", "b", "c"], ["a", "b", "c", "more"]))
    assert (rows.values, rows.bad) == ([{"query": "a", "x": "b", "y": "c"}], [(3, "csv-fields")])
    assert read("rows.xlsx", sheet(["query", None, "x"])).stop == (1, "csv-header")
    assert read("rows.xlsx", sheet(["query"])[:-30]).stop == (1, "container")


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
    assert (read.lines, read.stop) == (list(range(1, len(rows) + 1)), None)


@settings(max_examples=examples(200), deadline=5000)
@given(at=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4), end=st.floats(0, 1))
def test_any_damage_to_a_parquet_file_gives_rows_or_a_named_problem(tmp_path_factory, at, end):
    content = bytearray(parquet({"query": [f"query {n}" for n in range(50)], "score": [n / 7 for n in range(50)]}))
    for place, byte in at:
        content[4 + int(place * (len(content) - 4))] = byte
    read = fresh(tmp_path_factory, "rows.parquet", bytes(content[: max(4, int(end * len(content)))]))
    assert read.values or read.bad or read.stop
