"""Whatever bytes or structures a file holds: its good rows train to the letter, its bad ones are named, nothing else.

Which rows are good is told a second time here, in the simplest way there is, so that both must agree.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from datetime import timedelta
from pathlib import Path

import pyarrow
import pyarrow.parquet
from conftest import examples, read_jsonl
from data_helpers import check_counts, inspect
from fuzz_oracle import BLANK, GOOD, check_agrees, is_good, verdict
from fuzz_rows import CELLS, EDITS, FIRST, FOLDER, RECORDS, edited
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError

# An example takes milliseconds; the limit is for what hangs, on a busy machine too.
OPTIONS = {
    "max_examples": examples(1500, 8),
    "deadline": timedelta(seconds=30),
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
BOM = b"\xef\xbb\xbf"


def look(path: str, content: bytes, beside: dict[str, bytes] | None = None) -> tuple[list, list[dict], dict | None]:
    """(sets, problems of `check`, what `prepare` made without the bad rows, or None where it refused).

    Fails by any exception but KitError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        for name, other in (beside or {}).items():
            (file.parent / name).write_bytes(other)
        sets, problems = inspect(file)
        assert all(problem["what"] and problem["fix"] and problem["line"] > 0 for problem in problems)
        try:
            prepare([file], Path(scratch) / "out", Settings())
            assert not any(problem["severity"] == "error" for problem in problems)
        except KitError:
            pass
        out = Path(scratch) / "skipped"
        try:
            prepare([file], out, Settings(skip_bad_rows=True))
        except KitError as error:
            assert str(error).strip()
            made = None
        else:
            (entry,) = json.loads((out / "manifest.json").read_text())["sets"]
            check_counts(entry)
            rejected = read_jsonl(out / "rejected.jsonl") if (out / "rejected.jsonl").exists() else []
            assert len(rejected) == sum(entry["rows_set_aside"].values())
            made = {"rows": read_jsonl(out / entry["output"]), "rejected": rejected, "entry": entry}
        assert file.read_bytes() == content
    return sets, problems, made


# JSON lines


@st.composite
def files_of_lines(draw) -> tuple[str, bytes]:
    """A format, and a file of its rows of which many are spoilt; the first line is a good row."""
    kind = draw(st.sampled_from(sorted(RECORDS)))
    lines = [json.dumps(row).encode() for row in FIRST[kind]]
    for record in draw(st.lists(RECORDS[kind], max_size=8)):
        line = json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
        if draw(st.integers(0, 2)) == 0:
            line = edited(line, draw(EDITS))
        lines.append(line)
    start = draw(st.sampled_from([b"", BOM, b"\n", BOM + b"\r\n"]))
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\n\n \n"]))
    return kind, start + end.join(lines) + draw(st.sampled_from([b"", end]))


@settings(**OPTIONS)
@given(files_of_lines())
def test_json_lines(file: tuple[str, bytes]) -> None:
    kind, content = file
    found = [(number, line, *verdict(kind, line)) for number, line in enumerate(content.split(b"\n"), start=1)]
    good = [record for _, _, what, record in found if what == GOOD]
    bad = {number: line for number, line, what, _ in found if what not in (GOOD, BLANK)}
    sets, problems, made = look(f"{FOLDER[kind]}/rows.jsonl", content)
    check_agrees(kind, good, sorted(bad), sets, problems, made)
    for row in made["rejected"] if made else []:
        if row["line"] in bad:
            assert row["row"] == bad[row["line"]].decode("utf-8", "backslashreplace")


# JSON arrays and Parquet: the structures alone


@st.composite
def arrays(draw) -> tuple[str, list, int | None, bool]:
    kind = draw(st.sampled_from(sorted(RECORDS)))
    rows = [*FIRST[kind], *draw(st.lists(RECORDS[kind], max_size=6))]
    return kind, rows, draw(st.sampled_from([None, 1, 3])), draw(st.booleans())


@settings(**OPTIONS)
@given(arrays())
def test_json_array(array: tuple[str, list, int | None, bool]) -> None:
    kind, rows, indent, ascii_only = array
    content, lines = b"[\n", []
    for row in rows:
        lines.append(content.count(b"\n") + 1)
        content += json.dumps(row, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + b"\n,"
    content = content[:-1] + b"]\n"
    verdicts = [verdict(kind, json.dumps(row).encode()) for row in rows]
    good = [record for what, record in verdicts if what == GOOD]
    sets, problems, made = look(f"{FOLDER[kind]}/rows.json", content)
    bad = [line for line, (what, _) in zip(lines, verdicts, strict=True) if what != GOOD]
    # Of an element that is not UTF-8 the line of the byte is told.
    for told in [*problems, *(made["rejected"] if made else [])]:
        told["line"] = max(line for line in lines if line <= told["line"])
    check_agrees(kind, good, bad, sets, problems, made)


TEXT = CELLS | st.none()
PARQUET_ROWS = st.lists(st.tuples(TEXT, TEXT, st.none() | st.lists(TEXT, max_size=3)), max_size=8)


@settings(**OPTIONS)
@given(PARQUET_ROWS)
def test_parquet(rows: list) -> None:
    rows = [("a query", "an answer", ["another"]), ("a second", "answered", None), *rows]
    records = [dict(zip(("query", "positive", "negative"), row, strict=True)) for row in rows]
    schema = pyarrow.schema(
        {"query": pyarrow.string(), "positive": pyarrow.string(), "negative": pyarrow.list_(pyarrow.string())}
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, schema), buffer, row_group_size=3)
    good = [record for record in records if is_good("retrieval", record)]
    bad = [number for number, record in enumerate(records, start=1) if not is_good("retrieval", record)]
    check_agrees("retrieval", good, bad, *look("retrieval/rows.parquet", buffer.getvalue()))


# CSV


CSV_ROWS = st.lists(st.lists(CELLS.filter(lambda cell: not cell.startswith("[")), max_size=4), max_size=8)


@settings(**OPTIONS)
@given(
    CSV_ROWS,
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_csv(rows: list, delimiter: str, end: str, quoting: int) -> None:
    rows = [["a query", "an answer", ""], ["a second", "answered", "wrong"], *rows]
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # an older Python leaves CR without quotes
    text, lines = io.StringIO(newline=""), []
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["query", "positive", "negative"])
    for row in rows:
        lines.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    good, bad = [], []
    for line, row in zip(lines, rows, strict=True):
        record = dict(zip(("query", "positive", "negative"), (cell or None for cell in row), strict=False))
        if len(row) == 3 and is_good("retrieval", record):
            good.append(record)
        elif len(row) > 1 or "".join(row).strip():
            bad.append(line)
    name = "rows.tsv" if delimiter == "\t" else "rows.csv"
    check_agrees("retrieval", good, bad, *look(f"retrieval/{name}", text.getvalue().encode()))


# Anything at all, under any name


def _whole_files() -> dict[str, bytes]:
    """A good file of each kind, to be damaged."""
    rows = [{"query": f"query {n}", "positive": f"über {n}", "negative": [f"n {n}"]} for n in range(12)]
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    table = b"query,positive\n" + b"".join(f'"query, {n}",über {n}\n'.encode() for n in range(12))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=5, compression="none")
    return {
        "lines": lines,
        "array": json.dumps(rows, indent=1).encode(),
        "csv": table,
        "parquet": buffer.getvalue(),
        "gzip": gzip.compress(lines),
        "zstd": pyarrow.compress(lines, "zstd", asbytes=True),
        "gzip of csv": gzip.compress(table),
        "nothing": b"",
    }


WHOLE = _whole_files()
NAMES = [f"rows.{kind}{packing}" for kind in ("jsonl", "ndjson", "json", "csv", "tsv", "parquet") for packing in
         ("", ".gz", ".zst")]  # fmt: skip
FOLDERS = ["retrieval", "sts", "classification-no_in_batch_neg", "clustering"]


STARTS = [
    b"",
    b"[",
    b"{",
    b"PAR1",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    BOM,
    b"\xff\xfe",
    b"query,positive\n",
    b"text\tlabel\n",
]


@settings(**OPTIONS)
@given(st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from(STARTS), st.binary(max_size=300))
def test_any_bytes(folder: str, name: str, first: bytes, content: bytes) -> None:
    look(f"{folder}/{name}", first + content)


@settings(**OPTIONS)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(sorted(WHOLE)),
    st.sampled_from(["nothing", "nothing", *sorted(WHOLE)]),
    EDITS,
)
def test_damaged(name: str, one: str, other: str, edits: list) -> None:
    look(f"retrieval/{name}", edited(WHOLE[one] + WHOLE[other], edits))


DESCRIPTIONS = st.dictionaries(st.sampled_from(["x", "y_z", "other"]), CELLS | st.integers() | st.none()).map(
    lambda value: json.dumps(value).encode()
)


@settings(**OPTIONS)
@given(st.binary(max_size=60) | DESCRIPTIONS | st.builds(edited, DESCRIPTIONS, EDITS))
def test_labels_json(content: bytes) -> None:
    rows = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y_z"}\n'
    _, problems, made = look("classification-no_in_batch_neg/rows.jsonl", rows, {"labels.json": content})
    if made is None:
        assert any(problem["file"].endswith("labels.json") for problem in problems) or b'"' in content
