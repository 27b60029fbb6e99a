"""CSV and tab-separated values: cells to the letter, each row with the line where it starts."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_helpers import ROWS, fresh, is_utf8, read

from m3kit.reading import csvfile

__all__ = ["read"]


def test_cells_are_texts_or_none(read):
    rows = read("rows.csv", b'\xef\xbb\xbfquery,positive,score\r\nq,"a\r\nb",0.5\r\n\r\n  \r\n"say ""hi""",,1\r\n')
    assert rows.values == [
        {"query": "q", "positive": "a\r\nb", "score": "0.5"},
        {"query": 'say "hi"', "positive": None, "score": "1"},
    ]
    assert (rows.lines, rows.bad, rows.stop, rows.notes) == ([2, 6], [], None, [])
    assert (rows.reading.textual, rows.reading.where) == (True, "line")


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("rows.csv", "query,positive\nq,p\n", None),
        ("rows.csv", "query;positive\nq;p\n", "divided by semicolons"),
        ("rows.csv", "query\tpositive\nq\tp\n", "divided by tabs"),
        ("rows.tsv", "query\tpositive\nq\tp\n", None),
        ("rows.csv", "sep=;\r\nquery;positive\r\nq;p\r\n", "divided by semicolons"),
        ("rows.tsv", "SEP=,\nquery,positive\nq,p\n", "divided by commas"),
        ("rows.csv", "query, positive \nq,p\n", "spaces around the names"),
    ],
)
def test_the_delimiter_is_told_from_the_name_and_the_header(read, name, content, note):
    rows = read(name, content)
    assert (rows.values, rows.lines) == ([{"query": "q", "positive": "p"}], [content.count("\n")])
    assert len(rows.notes) == (note is not None) and (note is None or note in rows.notes[0])


def test_three_columns_of_tabs_need_no_header(read):
    names = ["query", "positive", "negative"]
    rows = read("rows.tsv", "what is a?\tb\tc\nd\te\tf\nd\te\tf\nwhat is a?\tb\tc\n")
    assert [list(row) for row in rows.values] == [names] * 4
    assert (rows.values[0]["query"], rows.lines, rows.bad) == ("what is a?", [1, 2, 3, 4], [])
    assert "no header line" in rows.notes[0]
    assert read("rows.tsv", "Query\tx\ty\nd\te\tf\n").values == [{"Query": "d", "x": "e", "y": "f"}]
    assert read("rows.csv", "a,b,c\nd,e,f\n").values == [{"a": "d", "b": "e", "c": "f"}]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('["a", "b,c"]', ["a", "b,c"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ("['a','b']", ["a", "b"]),
        ("[]", []),
        ("[x]", "[x]"),
        ('["u", 1]', '["u", 1]'),
        ('["w"', '["w"'),
        ("['a' 'b']", "['a' 'b']"),  # numpy's, of which Python would make one text
        ("['a'\n 'b']", "['a'\n 'b']"),
    ],
)
def test_a_list_in_a_cell_is_a_list_and_told_once(read, cell, value):
    quoted = '"' + cell.replace('"', '""') + '"'
    rows = read("rows.csv", f"query,negative\nq,{quoted}\nr,{quoted}\n")
    assert [row["negative"] for row in rows.values] == [value] * 2
    told = "hold a list" if isinstance(value, list) else "look like lists"
    assert cell == "[x]" or (len(rows.notes) == 1 and told in rows.notes[0])


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"query,positive,query\n", "csv-header"),
        (b"query,,positive\n", "csv-header"),
        (b'"query\n', "unfinished"),
        (b'"que"ry,x\n', "csv-quotes"),
        (b'query, "x"\n', "csv-quotes"),
        (b"que\xffry,x\n", "utf-8"),
    ],
)
def test_a_wrong_header_is_named(read, header, code):
    rows = read("rows.csv", b"\n" + header + b"q,p,r\n")
    assert (rows.values, rows.bad, rows.stop) == ([], [], (2, code))


def test_a_file_without_a_header_is_named(read):
    assert read("rows.csv", b"\n \n").what.startswith("there is no header line")


def test_bad_rows_are_named_and_the_others_are_read(read):
    rows = read(
        "rows.csv",
        b"query,positive\n"
        b"a,b,c\n"  # 2
        b'"x\ny",ok\n'  # 3, 4
        b"one\n"  # 5
        b'"q"uote,p\n'  # 6
        b"nu\x00l,p\n"  # 7
        b'"lat\nin\xe9",p\n'  # 8, 9
        b"c\rr,p\n"  # 10
        b'c\rr,"p\nq,r\n",s\n'  # 11 to 13, one row
        b'c,"d\ne,"f"\n'  # 14, 15, one row
        b'g, "h, i"\n'  # 16
        b'" ""a""", b\n'  # 17
        b"\xef\xbb\xbfquery,positive\n"  # 18
        b"last,ok\n",  # 19
    )
    assert [row["query"] for row in rows.values] == ["x\ny", ' "a"', "last"]
    assert (rows.lines, rows.stop) == ([3, 17, 19], None)
    assert rows.bad == [
        (2, "csv-fields"),
        (5, "csv-fields"),
        (6, "csv-quotes"),
        (7, "nul"),
        (9, "utf-8"),
        (10, "csv-quotes"),
        (11, "csv-quotes"),
        (14, "csv-quotes"),
        (16, "csv-quotes"),
        (18, "csv-header"),
    ]
    # They are kept as they stand in the file.
    assert rows.texts[:5] == ["a,b,c\n", "one\n", '"q"uote,p\n', "nu\0l,p\n", '"lat\nin\\xe9",p\n']
    assert rows.texts[6] == 'c\rr,"p\nq,r\n",s\n'


@pytest.mark.parametrize("bad", ['c,"d\ne,f\n', 'c\rd,"e\nf,g\n', 'é\udce9,"e\nf,g\n'])
def test_an_unclosed_quote_is_named_where_it_opens(read, bad):
    content = f"query,positive\na,b\n{bad}{'g,h' * 100}".encode("utf-8", "surrogateescape")
    rows = read("rows.csv", content)
    assert (rows.values, rows.bad, rows.stop) == ([{"query": "a", "positive": "b"}], [], (3, "unfinished"))


def test_cells_may_be_long_but_not_without_end(read, monkeypatch):
    assert read("rows.csv", b"query\n" + b"q" * 1_000_000 + b"\n").values == [{"query": "q" * 1_000_000}]
    monkeypatch.setattr(csvfile, "CELL_LIMIT", 1000)
    rows = read("rows.csv", b'query\na\n"' + b"q\n" * 1000)
    assert (rows.values, rows.stop) == ([{"query": "a"}], (3, "too-long"))


@settings(deadline=None)
@given(rows=ROWS, delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_csv_comes_back_to_the_letter(tmp_path_factory, rows, delimiter, end, bom):
    rows = [[cell.replace("\0", "") for cell in row] for row in rows]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    lines = []
    for row in [["query", "positive"], *rows]:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    content = b"\xef\xbb\xbf" * bom + text.getvalue().encode("utf-8", "surrogatepass")
    read = fresh(tmp_path_factory, "rows.tsv" if delimiter == "\t" else "rows.csv", content)
    valid = [(line, row) for line, row in zip(lines[1:], rows, strict=True) if is_utf8("".join(row))]
    found = [[("[]" if cell == [] else cell or "") for cell in value.values()] for value in read.values]
    assert (found, read.lines) == ([row for _, row in valid], [line for line, _ in valid])
    assert len(read.bad) == len(rows) - len(valid)
