"""JSON lines, packed files, encodings, and what is no file of rows at all."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import KIT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_helpers import COMPLETE, NASTY, PACK, Read, fresh, jsonl, noise, parquet, read

from m3kit.reading.problems import BadRow

__all__ = ["read"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.txt", "rows"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
def test_json_lines(read, name, start):
    rows = read(name, start + jsonl(COMPLETE))
    first = 1 + start.count(b"\n")
    assert (rows.values, rows.lines, rows.bad, rows.stop, rows.notes) == (COMPLETE, [first, first + 1], [], None, [])
    assert (rows.reading.textual, rows.reading.where) == (False, "line")


@pytest.mark.parametrize("name", ["rows.json", "rows.csv", "rows.tsv"])
def test_json_lines_may_be_called_otherwise_and_be_long(read, name):
    rows = read(name, jsonl([*COMPLETE, {"query": "q" * 100_000}]))
    assert (len(rows.values), rows.lines, rows.notes) == (3, [1, 2, 3], ["holds JSON lines, read as such"])


def test_bad_lines_cost_themselves_only(read):
    lines = [
        b"x",  # 1
        b'{"a": 1, "a": 2}',
        b'{"a": "\xe9"}',
        b'{"a": "\\ud800"}',
        b"[1]",
        b'{"a": ' + b"[" * 5000,
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\0\0",
        b'{"a": 1} {"a": 2}',
        b'{"a": ' + b"1" * 5000 + b", NaN}",
    ]
    rows = read("rows.jsonl", b"\n".join([*lines, b'{"a": NaN}', b'\xef\xbb\xbf{"b": "x:y", "c": {"d": 1}}']))
    codes = "json name-twice utf-8 surrogate json json json nul json json".split()
    assert rows.bad == list(enumerate(codes, start=1))
    assert rows.texts[:3] == ["x", '{"a": 1, "a": 2}', '{"a": "\\xe9"}']
    assert (len(rows.values), rows.lines, rows.values[1]) == (2, [11, 12], {"b": "x:y", "c": {"d": 1}})


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_lines_that_end_with_cr_alone_are_lines(read, name):
    content = b"query,positive\rq,p\rr,s\r" if name == "rows.csv" else jsonl(COMPLETE).replace(b"\n", b"\r")
    rows = read(name, content)
    assert rows.lines == ([2, 3] if name == "rows.csv" else [1, 2])
    assert rows.notes[0].startswith("its lines end with CR alone") and rows.stop is None


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl.gz"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(read, name, content):
    rows = read(name, content)
    assert (rows.values, rows.stop, rows.what) == ([], (1, "empty"), "the file is empty")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.csv.gz"])
def test_utf_16_is_read(read, name, codec):
    text = "query,positive\nq,é😀\n" if "csv" in name else '{"query": "q", "positive": "é😀"}\n'
    content = ("\ufeff" + text).encode(codec)
    rows = read(name, gzip.compress(content) if name.endswith(".gz") else content)
    assert rows.values == [{"query": "q", "positive": "é😀"}]
    assert rows.notes[0] == "is UTF-16, read as such"
    assert read("cut.jsonl", content[:-1]).stop == (1, "utf-16")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("\ufeffx".encode("utf-32-le"), "UTF-32"),
        ("\ufeffx".encode("utf-32-be"), "UTF-32"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (bz2.compress(b"x"), "bzip2"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "packed twice, gzip within"),
    ],
)
def test_other_containers_are_named(read, content, what):
    rows = read("rows.jsonl", content)
    assert (rows.values, rows.stop, what in rows.what) == ([], (1, "container"), True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", '{"a": "é"}\n{"a": "“"}\n'),
        ("rows.csv", "query\né\n“\n"),
        ("rows.json", '[{"a": "é"},\n{"a": "“"}]'),
    ],
)
def test_a_file_in_cp1252_is_to_be_converted_by_iconv(read, name, text):
    reading = read(name, text.encode("cp1252")).reading
    fixes = [row.fix for _, row, _ in reading.records()]
    assert len(fixes) == 2 and all(fix.startswith("convert it: iconv -f cp1252 -t utf-8 ") for fix in fixes)
    half = read("half.csv", "query\né\n".encode("cp1252") + "é\n".encode()).reading
    assert [row.fix for _, row, _ in half.records() if isinstance(row, BadRow)] == ["save the file as UTF-8"]


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    for name, what in [("pipe", "not a regular file"), ("folder", "not a regular file"), ("dead", "no such file")]:
        rows = Read(tmp_path / f"{name}.jsonl")
        assert (rows.stop, rows.what) == ((1, "unreadable"), what)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "rows.jsonl").write_bytes(jsonl(COMPLETE))
    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read all
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert Read(tmp_path / "rows.jsonl").what == "the file cannot be read (Permission denied)"


def test_pyarrow_is_imported_only_for_what_needs_it(tmp_path):
    (tmp_path / "rows.csv").write_text("query\nq\n")
    code = (
        "import sys; from pathlib import Path; from m3kit.reading.files import Reading;"
        f"print(*Reading(Path({str(tmp_path / 'rows.csv')!r})).records());"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pyarrow', 'pandas', 'openpyxl')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=KIT).returncode == 0


# Packed files


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.JSONL.gz", "rows.zst"])
def test_packed_files_are_known_by_their_first_bytes(read, name, packing):
    pack = PACK[packing]
    rows = read(name, pack(jsonl(COMPLETE[:1])) + pack(jsonl(COMPLETE[1:])))
    assert (rows.values, rows.lines, rows.stop, rows.notes) == (COMPLETE, [1, 2], None, [])
    assert read("a.csv.gz", pack(b"query\nq\n")).values == [{"query": "q"}]
    assert read("a.json.gz", pack(b'[{"query": "q"}]')).values == [{"query": "q"}]
    assert read("a.parquet.gz", pack(parquet({"query": ["q"]}))).values == [{"query": "q"}]


def test_a_name_may_say_packed_of_what_is_not(read):
    rows = read("rows.jsonl.gz", jsonl(COMPLETE))
    assert (rows.values, rows.notes) == (COMPLETE, ["is not packed, whatever its name says; read as it is"])


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet"])
@pytest.mark.parametrize("cut", [1, 9, 0.5])
def test_cut_off_data_give_one_problem_and_the_whole_rows_before(read, packing, kind, cut):
    queries = [row["query"] for row in noise(5000)]
    content = {
        "jsonl": jsonl({"query": query} for query in queries),
        "csv": b"query\n" + "".join(f'"{query}"\n' for query in queries).encode(),
        "json": ("[\n" + ",\n".join(json.dumps({"query": query}, indent=1) for query in queries) + "\n]").encode(),
        "parquet": parquet({"query": queries}),
    }[kind]
    packed = PACK[packing](content)
    rows = read(f"rows.{kind}", packed[: -cut if cut >= 1 else int(len(packed) * cut)])
    assert (rows.bad, rows.stop[1]) == ([], "damaged")
    assert "cut off or damaged here" in rows.what and "reading stopped there" in rows.what
    assert [row["query"] for row in rows.values] == queries[: len(rows.values)]
    assert len(rows.values) > 1000 or kind == "parquet"
    if kind == "jsonl":
        assert rows.stop[0] == len(rows.values) + 1


@pytest.mark.parametrize("packing", PACK)
def test_damage_is_named_at_the_start_at_the_end_and_in_the_checksum(read, packing):
    content = PACK[packing](jsonl(noise(3)))
    assert all(read("rows.jsonl", content[:end]).stop == (1, "damaged") for end in range(4, 30))
    assert read("rows.jsonl", content + b"more").stop[1] == "damaged"
    if packing == "gz":
        rows = read("rows.jsonl", content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        assert (rows.stop, "CRC" in rows.what) == ((4, "damaged"), True)


# Whatever the bytes


@settings(deadline=None)
@given(rows=st.lists(st.dictionaries(NASTY, NASTY, min_size=1), max_size=6), ascii=st.booleans())
def test_json_lines_come_back_to_the_letter(tmp_path_factory, rows, ascii):
    lines = [json.dumps(row, ensure_ascii=ascii).encode("utf-8", "surrogatepass") for row in rows]
    read = fresh(tmp_path_factory, "rows.jsonl", b"\n".join(lines))
    valid = [row for row in rows if not any("\ud800" <= sign <= "\udfff" for text in row for sign in text + row[text])]
    assert (read.values, len(read.bad)) == (valid, len(rows) - len(valid))


KINDS = ["jsonl", "json", "csv", "tsv", "parquet", "arrow", "xlsx", "json.zst", "csv.gz"]
STARTS = [b"", b"[", b"{", b"PAR1", b"ARROW1", b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"a,b\n"]
PIECES = st.sampled_from([b'"', b"[", b"]", b"{", b"}", b",", b"\n", b"\r", b"\\", b"\0", b"a", b" ", b"\xc3\xa9"])


@settings(max_examples=examples(400), deadline=5000)
@given(
    kind=st.sampled_from(KINDS),
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=200) | st.lists(PIECES, max_size=40).map(b"".join),
    pack=st.sampled_from([None, *PACK.values()]),
)
def test_any_bytes_give_rows_or_named_problems(tmp_path_factory, kind, start, rest, pack):
    content = start + rest
    fresh(tmp_path_factory, f"rows.{kind}", pack(content) if pack else content)  # any other exception is an error
