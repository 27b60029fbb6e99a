"""Any source becomes JSON lines to the letter, with the line of the user's file; what is wrong with it is named."""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3kit.data import csvfile, jsonarray, transcode
from m3kit.data.transcode import as_json_lines
from m3kit.errors import KitError

# What breaks careless readers: quotes, delimiters, every kind of line end, escapes, astral characters, markup.
NASTY = st.text(st.sampled_from('ab",;\t\n\r\\[]{}:\u2028\u2029\x85\x0b\x1c\ufeff é中😀𝄞')) | st.text()
ROWS = st.lists(st.tuples(NASTY, NASTY), max_size=8)
COMPLETE = [{"query": "q", "positive": "p"}, {"query": "r", "positive": "é😀\u2028"}]


class Read:
    """What became of a file: its values, their places in the user's file, and what was said."""

    def __init__(self, file: Path):
        scratch = file.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        self.file, self.problems = file, []
        self.result = as_json_lines(file, scratch, self.problems)
        told = [problem for problem, _ in self.result.bad] if self.result else []
        told = sorted([*self.problems, *told], key=lambda problem: problem.line)
        self.told = [(problem.line, problem.what) for problem in told]
        assert all(problem.path == file and problem.what and problem.fix for problem in self.problems)
        if self.result is None:
            assert self.problems
            return
        lines = self.result.path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        self.lines = [line for line in lines if line.strip()]
        if self.result.numbers is not None:
            assert len(self.result.numbers) == len(self.lines)
            assert self.result.path.is_relative_to(scratch)

    @property
    def values(self):
        return [json.loads(line) for line in self.lines]

    @property
    def numbers(self):
        return self.result.numbers.tolist()

    @property
    def notes(self):
        return self.result.notes


@pytest.fixture
def read(tmp_path):
    def of(name: str, content: bytes) -> Read:
        (tmp_path / name).write_bytes(content)
        return Read(tmp_path / name)

    return of


def fresh(tmp_path_factory, name: str, content: bytes) -> Read:
    file = tmp_path_factory.mktemp("rows") / name
    file.write_bytes(content)
    return Read(file)


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def parquet(columns: dict, **options) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


PACK = {"gz": gzip.compress, "zst": zstd}


# JSON lines


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.txt", "rows"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
def test_json_lines_stay_the_users_own_file(read, name, start):
    rows = read(name, start + jsonl(COMPLETE))
    assert rows.result.path == rows.file
    assert (rows.values, rows.result.numbers, rows.result.textual, rows.result.where) == (COMPLETE, None, False, "line")
    assert (rows.problems, rows.notes) == ([], [])


def test_json_lines_may_be_called_json(read):
    rows = read("rows.json", jsonl(COMPLETE))
    assert (rows.result.path, rows.values, rows.notes) == (rows.file, COMPLETE, ["holds JSON lines, read as such"])


def test_json_lines_called_json_may_be_long(read):
    content = jsonl([{"query": "q" * 100_000}, {"query": "r"}])
    assert read("rows.json", content).result.path.name == "rows.json"


@pytest.mark.parametrize("content", [b'{\n  "query": "q"\n}\n', b'{"query": [\n"q"]}'])
def test_one_object_over_several_lines_is_named(read, content):
    rows = read("rows.json", content)
    assert rows.result is None
    assert rows.told == [(1, "this is one JSON object over several lines")]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_lines_that_end_with_cr_alone_are_lines(read, name):
    content = b"query,positive\rq,p\rr,s\r" if name == "rows.csv" else jsonl(COMPLETE).replace(b"\n", b"\r")
    rows = read(name, content)
    assert len(rows.values) == 2
    assert (rows.result.numbers is None) or rows.numbers == [2, 3]
    assert rows.notes[0].startswith("its lines end with CR alone")
    assert rows.problems == []


# Files as such


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(read, name, content):
    rows = read(name, content)
    assert (rows.result, rows.told) == (None, [(1, "the file is empty")])


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.csv.gz"])
def test_other_unicode_encodings_are_named(read, name, codec):
    content = "\ufeffquery,positive\n".encode(codec)
    rows = read(name, gzip.compress(content) if name.endswith(".gz") else content)
    assert rows.result is None
    assert rows.told == [(1, f"the file is {codec[:6].upper()} text")]
    assert "UTF-8" in rows.problems[0].fix


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (bz2.compress(b"x"), "bzip2"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (gzip.compress(gzip.compress(b"x")), "packed twice, gzip within"),
    ],
)
def test_other_containers_are_named(read, content, what):
    rows = read("rows.jsonl", content)
    assert rows.result is None
    assert what in rows.told[0][1]


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    for name, what in [("pipe", "not a regular file"), ("folder", "not a regular file"), ("dead", "no such file")]:
        rows = Read(tmp_path / f"{name}.jsonl")
        assert (rows.result, rows.told) == (None, [(1, what)])


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "rows.jsonl").write_bytes(jsonl(COMPLETE))
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read all
    rows = Read(tmp_path / "rows.jsonl")
    assert (rows.result, rows.told) == (None, [(1, "the file cannot be read (Permission denied)")])


def test_a_full_disk_is_not_the_files_fault(read, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transcode, "scratch_file", full)
    with pytest.raises(KitError, match="no room left in .*TMPDIR"):
        read("rows.csv", b"query\nq\n")


def test_torch_is_never_imported_and_pyarrow_only_for_what_needs_it(tmp_path):
    (tmp_path / "rows.csv").write_text("query\nq\n")
    code = (
        "import sys; from pathlib import Path; from m3kit.data.transcode import as_json_lines;"
        f"print(as_json_lines(Path({str(tmp_path / 'rows.csv')!r}), Path({str(tmp_path)!r}), []).numbers);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pyarrow', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


# Packed files


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.JSONL.gz", "rows.zst", "rows.ndjson.zst"])
def test_packed_files_are_known_by_their_first_bytes(read, name, packing):
    rows = read(name, PACK[packing](jsonl(COMPLETE)))
    assert (rows.values, rows.result.numbers, rows.problems, rows.notes) == (COMPLETE, None, [], [])


@pytest.mark.parametrize("packing", PACK)
def test_what_is_packed_is_read_by_its_kind(read, packing):
    pack = PACK[packing]
    assert read("a.csv.gz", pack(b"query\nq\n")).values == [{"query": "q"}]
    assert read("a.tsv.gz", pack(b"query\tb\nq\tc\n")).values == [{"query": "q", "b": "c"}]
    assert read("a.json.gz", pack(b'[{"query": "q"}]')).values == [{"query": "q"}]
    assert read("a.parquet.gz", pack(parquet({"query": ["q"]}))).values == [{"query": "q"}]


@pytest.mark.parametrize("packing", PACK)
def test_packed_parts_one_after_another_are_one_file(read, packing):
    rows = read("rows.jsonl", PACK[packing](jsonl(COMPLETE[:1])) + PACK[packing](jsonl(COMPLETE[1:])))
    assert (rows.values, rows.problems) == (COMPLETE, [])


def test_a_name_may_say_packed_of_what_is_not(read):
    rows = read("rows.jsonl.gz", jsonl(COMPLETE))
    assert (rows.result.path, rows.notes) == (rows.file, ["is not packed, whatever its name says; read as it is"])


def noise(count: int) -> list[dict]:
    """Rows that do not pack well, so that a part of the packed file holds a part of the rows."""
    return [{"query": os.urandom(40).hex()} for _ in range(count)]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("cut", [1, 4, 9, 1000, 0.5])
def test_cut_off_data_are_named_and_the_whole_rows_before_are_kept(read, packing, cut):
    expected = noise(5000)
    content = PACK[packing](jsonl(expected))
    rows = read("rows.jsonl", content[: -cut if cut >= 1 else int(len(content) * cut)])
    (problem,) = rows.problems
    assert problem.code == "damaged"
    assert "cut off or damaged here" in problem.what and "reading stopped there" in problem.what
    assert rows.values == expected[: problem.line - 1]
    assert problem.line > 1000


@pytest.mark.parametrize("packing", PACK)
def test_data_cut_off_in_the_first_bytes_are_named(read, packing):
    for end in range(4, 30):
        rows = read("rows.jsonl", PACK[packing](jsonl(noise(3)))[:end])
        assert (rows.result, [problem.code for problem in rows.problems]) == (None, ["damaged"])


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_cut_off_data_of_other_kinds_give_one_problem(read, packing, kind):
    queries = [row["query"] for row in noise(5000)]
    whole = {
        "csv": "query\n" + "".join(f'"{query}\n"\n' for query in queries),
        "json": "[\n" + ",\n".join(json.dumps({"query": query}, indent=1) for query in queries) + "]",
    }
    content = parquet({"query": queries}) if kind == "parquet" else whole[kind].encode()
    content = PACK[packing](content)
    rows = read(f"rows.{kind}", content[: len(content) // 2])
    assert [problem.code for problem in rows.problems] == ["damaged"]
    if kind == "parquet":
        assert rows.result is None
    else:
        texts = [value["query"].rstrip("\n") for value in rows.values]
        assert len(texts) > 1000 and texts == queries[: len(texts)]


@pytest.mark.parametrize("packing", PACK)
def test_text_after_the_packed_data_is_named(read, packing):
    expected = noise(5000)
    rows = read("rows.jsonl", PACK[packing](jsonl(expected)) + b"more")
    assert [problem.code for problem in rows.problems] == ["damaged"]
    assert rows.values == expected[: rows.problems[0].line - 1]
    assert len(rows.values) > 3500  # zstd is read in blocks, and the last is lost


def test_a_wrong_checksum_is_named(read):
    content = bytearray(gzip.compress(jsonl(COMPLETE)))
    content[-8] ^= 1
    rows = read("rows.jsonl", bytes(content))
    assert "CRC" in rows.told[0][1]


# CSV


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


def is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


# JSON arrays


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


@pytest.mark.parametrize("unit", [b"[", b'"\\', b'\\"', b'"', b"{,", b"\n", b'["a\\\\",', b"\xff"])
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


# Parquet


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


# Anything


KINDS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.zst", "csv.gz", "parquet.zst"]
STARTS = [b"", b"[", b"{", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf", b"\xff\xfe", b"a,b\n"]
PIECES = st.sampled_from([b'"', b"[", b"]", b"{", b"}", b",", b"\n", b"\r", b"\\", b"\0", b"a", b" ", b"\xc3\xa9"])


@settings(max_examples=400, deadline=5000)
@given(
    kind=st.sampled_from(KINDS),
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=200) | st.lists(PIECES, max_size=40).map(b"".join),
    pack=st.sampled_from([None, *PACK.values()]),
)
def test_any_bytes_give_lines_or_named_problems(tmp_path_factory, kind, start, rest, pack):
    content = start + rest
    read = fresh(tmp_path_factory, f"rows.{kind}", pack(content) if pack else content)
    assert read.result is not None or read.problems


@settings(max_examples=200, deadline=5000)
@given(at=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4), end=st.floats(0, 1))
def test_any_damage_to_a_parquet_file_gives_rows_or_named_problems(tmp_path_factory, at, end):
    content = bytearray(parquet({"query": [f"query {n}" for n in range(50)], "score": [n / 7 for n in range(50)]}))
    for place, byte in at:
        content[4 + int(place * (len(content) - 4))] = byte
    read = fresh(tmp_path_factory, "rows.parquet", bytes(content[: max(4, int(end * len(content)))]))
    assert read.result is not None or read.problems
