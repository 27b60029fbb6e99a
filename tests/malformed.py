"""Malformed files of our own making, all of them: CASES."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator

import pyarrow
import pyarrow.parquet
from malformed_case import FOLDERS, GOOD, Case, N, R, S, T, among_good, but, line_of, to_the_letter, trained, zstd
from malformed_files import FILES
from malformed_rows import LINES, ROWS, WARNED
from malformed_sets import SETS
from malformed_tables import TABLES


def _of_rows() -> Iterator[Case]:
    """A bad line or row among good ones, in JSON lines."""
    for name, (raw, code) in LINES.items():
        yield _one(f"a line with {name}", "retrieval", raw, code)
    for kind, rows in ROWS.items():
        for name, (row, code) in rows.items():
            yield _one(f"{kind}, {name}", kind, row if isinstance(row, bytes) else line_of(row), code)
    for kind, warned in WARNED.items():
        for name, (row, code, becomes) in warned.items():
            expected = trained(kind)
            expected.insert(3, becomes)
            file = f"{FOLDERS[kind]}/rows.jsonl"
            yield Case(
                f"{kind}, {name}", file, among_good(kind, line_of(row)), warnings=(f"4 {code}",), trains=expected
            )


def _one(name: str, kind: str, raw: bytes, code: str) -> Case:
    return Case(
        name,
        f"{FOLDERS[kind]}/rows.jsonl",
        among_good(kind, raw),
        errors=(f"4 {code}",),
        trains=trained(kind),
        rejected=(to_the_letter(raw),),
    )


def _json_lines(rows: list[dict]) -> tuple[bytes, list[int]]:
    return b"".join(line_of(row) + b"\n" for row in rows), list(range(1, len(rows) + 1))


def _array(indent: int | None) -> Callable[[list[dict]], tuple[bytes, list[int]]]:
    def write(rows: list[dict]) -> tuple[bytes, list[int]]:
        texts = [json.dumps(row, ensure_ascii=False, indent=indent) for row in rows]
        lines = [2 + sum(text.count("\n") + 1 for text in texts[:at]) for at in range(len(texts))]
        return ("[\n" + ",\n".join(texts) + "\n]\n").encode(), lines

    return write


def _csv(delimiter: str, end: str) -> Callable[[list[dict]], tuple[bytes, list[int]]]:
    def write(rows: list[dict]) -> tuple[bytes, list[int]]:
        text, lines = io.StringIO(newline=""), []
        writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        for row in rows:
            lines.append(text.getvalue().count("\n") + 1)
            cells = {name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
                     for name, value in row.items()}  # fmt: skip
            writer.writerow(cells)
        return text.getvalue().encode(), lines

    return write


def _parquet(rows: list[dict]) -> tuple[bytes, list[int]]:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=2)
    return buffer.getvalue(), list(range(1, len(rows) + 1))


# By the ending of the file: what writes it, and the name of the way.
CONTAINERS = {
    "JSON lines": ("jsonl", _json_lines),
    "NDJSON": ("ndjson", _json_lines),
    "JSON lines called JSON": ("json", _json_lines),
    "a JSON array": ("json", _array(None)),
    "an indented JSON array": ("json", _array(2)),
    "CSV": ("csv", _csv(",", "\n")),
    "CSV with semicolons": ("csv", _csv(";", "\r\n")),
    "CSV with tabs": ("csv", _csv("\t", "\n")),
    "TSV": ("tsv", _csv("\t", "\r\n")),
    "Parquet": ("parquet", _parquet),
}
PACKINGS = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": zstd,
}
BAD = {
    "retrieval": (but(R, query=" \u200b"), "empty"),
    "sts": (but(S, score=7.5), "score-range"),
    "labelled": (but(T, text="\u3000"), "empty"),
    "native": (but(N, neg=["a", " "]), "empty"),
}


def _of_containers() -> Iterator[Case]:
    """One bad row among good ones, in every container, packed and not."""
    for container, (ending, write) in CONTAINERS.items():
        for kind, (bad, code) in BAD.items():
            for packing, pack in PACKINGS.items() if kind == "retrieval" else [("", PACKINGS[""])]:
                content, lines = write([*GOOD[kind][:3], bad, *GOOD[kind][3:]])
                textual = ending in ("csv", "tsv")
                row = {name: str(value) if textual and name == "score" else value for name, value in bad.items()}
                yield Case(
                    f"{kind} in {container}{packing}",
                    f"{FOLDERS[kind]}/rows.{ending}{packing}",
                    pack(content),
                    errors=(f"{lines[3]} {code}",),
                    trains=trained(kind),
                    rejected=(row,),
                )


CASES = [*_of_rows(), *_of_containers(), *FILES, *TABLES, *SETS]
assert len({case.name for case in CASES}) == len(CASES)
