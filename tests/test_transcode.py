"""Any file is given as JSON lines, or is named with what is wrong with it."""

from __future__ import annotations

import bz2
import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from transcode_helpers import COMPLETE, PACK, Read, fresh, jsonl, parquet

from m3kit.data import transcode
from m3kit.errors import KitError


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
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "packed twice, gzip within"),
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


KINDS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.zst", "csv.gz", "parquet.zst"]
STARTS = [b"", b"[", b"{", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf", b"\xff\xfe", b"a,b\n"]
PIECES = st.sampled_from([b'"', b"[", b"]", b"{", b"}", b",", b"\n", b"\r", b"\\", b"\0", b"a", b" ", b"\xc3\xa9"])


@settings(max_examples=examples(400), deadline=5000)
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


@settings(max_examples=examples(200), deadline=5000)
@given(at=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4), end=st.floats(0, 1))
def test_any_damage_to_a_parquet_file_gives_rows_or_named_problems(tmp_path_factory, at, end):
    content = bytearray(parquet({"query": [f"query {n}" for n in range(50)], "score": [n / 7 for n in range(50)]}))
    for place, byte in at:
        content[4 + int(place * (len(content) - 4))] = byte
    read = fresh(tmp_path_factory, "rows.parquet", bytes(content[: max(4, int(end * len(content)))]))
    assert read.result is not None or read.problems
