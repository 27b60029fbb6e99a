"""CSV and TSV as JSON lines, with the line where each row starts."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcode_helpers import ROWS, fresh, is_utf8

from m3kit.data import csvfile


def test_csv_gives_texts_and_null_with_the_line_of_each_row(read):
    rows = read("rows.csv", b'\xef\xbb\xbfquery,positive,score\r\nq,"a\r\nb",0.5\r\n\r\n  \r\n"say ""hi""",,1\r\n')
    assert rows.values == [
        {"query": "q", "positive": "a\r\nb", "score": "0.5"},
        {"query": 'say "hi"', "positive": None, "score": "1"},
    ]
    assert (rows.numbers, rows.result.textual, rows.result.where) == ([2, 6], True, "line")
    assert (rows.problems, rows.notes) == ([], [])


@pytest.mark.parametrize(
    ("name", "delimiter", "note"),
    [
        ("rows.csv", ",", None),
        ("rows.csv", ";", "divided by semicolons"),
        ("rows.csv", "\t", "divided by tabs"),
        ("rows.tsv", "\t", None),
    ],
)
def test_the_delimiter_is_told_from_the_name_and_the_header(read, name, delimiter, note):
    rows = read(name, f"query{delimiter}positive\nq{delimiter}p\n".encode())
    assert rows.values == [{"query": "q", "positive": "p"}]
    assert len(rows.notes) == (note is not None) and (note is None or note in rows.notes[0])


def test_a_list_in_a_cell_is_a_list_and_told_once(read):
    content = 'query,negative\nq,"[""a"", ""b,c""]"\nr,"[""d""]"\ns,[x]\nt,"[""u"", 1]"\nv,"[""w"""\n'
    rows = read("rows.csv", content.encode())
    assert [row["negative"] for row in rows.values] == [["a", "b,c"], ["d"], "[x]", '["u", 1]', '["w"']
    assert rows.notes == [
        'cells of "negative" that hold a JSON list of texts are read as that list',
        'cells of "negative" from line 5 on look like lists, but are no JSON lists of texts: read as one text each',
    ]


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"query,positive,query\n", '2 columns are named "query"'),
        (b"query,,positive\n", "a column without a name"),
        (b",query\n", "a column without a name"),
        (b'"query\n', "a quote that opens in this row is never closed; reading stopped there"),
        (b'"que"ry,x\n', "not valid CSV"),
        (b"que\xffry,x\n", "not UTF-8 (byte 4)"),
    ],
)
def test_a_wrong_header_is_named(read, header, what):
    rows = read("rows.csv", b"\n" + header + b"q,p,r\n")
    assert rows.result is None
    assert [(line, what in told) for line, told in rows.told] == [(2, True)]


def test_a_file_without_a_header_is_named(read):
    rows = read("rows.csv", b"\n \n")
    assert (rows.result, rows.told[0][1].split(";")[0]) == (None, "there is no header line")


def test_spaces_around_column_names_are_left_out_and_told(read):
    rows = read("rows.csv", b"query, positive \nq, p\n")
    assert rows.values == [{"query": "q", "positive": " p"}]
    assert rows.notes == ["spaces around the names of its columns are left out"]


def test_bad_csv_rows_are_named_and_the_others_are_read(read):
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
        b"last,ok\n",  # 11
    )
    assert [row["query"] for row in rows.values] == ["x\ny", "last"]
    assert rows.numbers == [3, 11]
    assert rows.problems == []
    assert [(problem.line, problem.code) for problem, _ in rows.result.bad] == [
        (2, "csv-fields"),
        (5, "csv-fields"),
        (6, "csv-quotes"),
        (7, "nul"),
        (9, "utf-8"),
        (10, "csv-quotes"),
    ]
    # They are kept as they stand in the file.
    assert [row for _, row in rows.result.bad][:3] == ["a,b,c\n", "one\n", '"q"uote,p\n']
    assert rows.told[0][1] == "3 cells where the header has 2"


def test_an_unclosed_quote_is_named_where_it_opens(read):
    rows = read("rows.csv", b'query,positive\na,b\nc,"d\ne,f\n' + b"g,h\n" * 100)
    assert (rows.values, rows.numbers) == ([{"query": "a", "positive": "b"}], [2])
    assert rows.told == [(3, "a quote that opens in this row is never closed; reading stopped there")]


def test_cells_may_be_long_but_not_without_end(read, monkeypatch):
    assert read("rows.csv", b"query\n" + b"q" * 1_000_000 + b"\n").values == [{"query": "q" * 1_000_000}]
    monkeypatch.setattr(csvfile, "ROW_LIMIT", 1000)
    rows = read("rows.csv", b"query\na\n" + b"q" * 2000 + b"\nb\n")
    assert (rows.values, rows.told[0][0], "a line of" in rows.told[0][1]) == ([{"query": "a"}], 3, True)
    rows = read("rows.csv", b'query\na\n"' + b"q\n" * 1000)
    assert (rows.values, rows.told[0][0], "a cell of" in rows.told[0][1]) == ([{"query": "a"}], 3, True)


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
    assert [[value["query"] or "", value["positive"] or ""] for value in read.values] == [row for _, row in valid]
    assert read.numbers == [line for line, _ in valid]
    assert len(read.problems) == len(rows) - len(valid)
