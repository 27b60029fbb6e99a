"""Packed files: read by what is in them, and damage never shortens them in silence."""

from __future__ import annotations

import gzip
import json

import pytest
from transcode_helpers import COMPLETE, PACK, jsonl, noise, parquet


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
