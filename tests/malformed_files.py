"""Files that are wrong as such: encodings, line ends, packing, names, and what is no file at all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
from pathlib import Path

from malformed_case import (
    ALL,
    ARRAY,
    BOM,
    LINES,
    ROWS,
    Case,
    R,
    a_file,
    among_good,
    changed,
    line_of,
    lines_of,
    parquet,
    to_the_letter,
    trained,
    trains,
    zstd,
)


def _bind(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _folder_of_rows(path: Path) -> None:
    path.mkdir()
    (path / "part-0.jsonl").write_bytes(LINES)
    (path / "_SUCCESS").write_bytes(b"")


TEXT = [
    a_file("an empty file", "jsonl", b"", "1 empty"),
    a_file("a byte order mark only", "jsonl", BOM, "1 empty"),
    a_file("blank lines only", "jsonl", b"\n\r\n \t\n\n", "1 empty"),
    a_file("a byte order mark and blank lines", "jsonl", BOM + b"\r\n\r\n", "1 empty"),
    a_file("100,000 blank lines only", "jsonl", b"\n" * 100_000, "1 empty"),
    a_file("spaces only, five megabytes", "jsonl", b" " * 5_000_000, "1 empty"),
    a_file("an empty CSV file", "csv", b"", "1 empty"),
    a_file("an empty array", "json", b"[]", "1 empty"),
    a_file("an empty gzip file", "jsonl.gz", gzip.compress(b""), "1 empty"),
    a_file("an empty zstd file", "csv.zst", zstd(b""), "1 empty"),
    trains("100,000 blank lines between", "jsonl", LINES.replace(b"\n", b"\n" * 20_000)),
    a_file(
        "a bad row after 100,000 blank lines",
        "jsonl",
        b"\n" * 100_000 + b"x\n" + LINES,
        "100001 json",
        trains=ALL,
        rejected=("x",),
    ),
    trains("no line end after the last row", "jsonl", LINES[:-1]),
    a_file(
        "half a row at the end",
        "jsonl",
        LINES + line_of(R)[:-9],
        "6 json",
        trains=ALL,
        rejected=(to_the_letter(line_of(R)[:-9]),),
    ),
    trains("lines that end with CRLF", "jsonl", LINES.replace(b"\n", b"\r\n")),
    a_file(
        "a bad row among CRLF",
        "jsonl",
        among_good("retrieval", b"x").replace(b"\n", b"\r\n"),
        "4 json",
        trains=ALL,
        rejected=("x\r",),
    ),
    trains("lines that end with CR", "jsonl", LINES.replace(b"\n", b"\r"), "CR alone"),
    a_file(
        "a bad row among CR",
        "jsonl",
        among_good("retrieval", b"x").replace(b"\n", b"\r"),
        "4 json",
        trains=ALL,
        rejected=("x",),
    ),
    trains("line ends of every kind but CR", "jsonl", LINES.replace(b"\n", b"\n\r\n\x0b\n\x0c\n")),
    trains("a byte order mark at the start", "jsonl", BOM + LINES),
    trains("a byte order mark and a blank line", "jsonl", BOM + b"\r\n" + LINES.replace(b"\n", b"\r\n")),
    trains("byte order marks at every line", "jsonl", BOM + LINES.replace(b"\n{", b"\n" + BOM + b"{")),
    a_file("Control-Z at the end", "jsonl", LINES + b"\x1a", "6 json", trains=ALL, rejected=("\x1a",)),
    a_file("zeros at the end", "jsonl", LINES + b"\0" * 4096, "6 nul", trains=ALL, rejected=("\0" * 4096,)),
    trains("a line of five megabytes", "jsonl", lines_of([*ROWS[:-1], ROWS[-1] | {"id": "x" * 5_000_000}])),
    a_file(
        "a text of five megabytes",
        "jsonl",
        lines_of([R | {"positive": "word " * 1_000_000}, *ROWS]),
        trains=[(R["query"], ["word " * 1_000_000]), *ALL],
    ),
    a_file(
        "ten thousand negatives",
        "jsonl",
        lines_of([R | {"negative": [f"n {i}" for i in range(10_000)]}, *ROWS[1:]]),
        trains=trained("retrieval", [R, *ROWS[1:]]),
    ),
    trains("columns with control characters", "jsonl", lines_of([row | {"\x1b[31m\n": 1} for row in ROWS])),
    trains("a column of NaN", "jsonl", LINES.replace(b"}\n", b', "x": NaN}\n')),
    trains("a column of numbers that no one has", "jsonl", LINES.replace(b"}\n", b', "x": -1e999, "y": 1e-999}\n')),
    trains("a column nested 900 deep", "jsonl", LINES.replace(b"}\n", b', "x": ' + b"[" * 900 + b"]" * 900 + b"}\n")),
    trains("UTF-16 with a byte order mark", "jsonl", LINES.decode().encode("utf-16"), "is UTF-16"),
    a_file(
        "big-endian UTF-16",
        "csv",
        "\ufeffquery,positive\na,b\nc,d\n".encode("utf-16-be"),
        trains=[("a", ["b"]), ("c", ["d"])],
    ),
    a_file("UTF-16 that is cut off", "csv", "\ufeffquery".encode("utf-16-be")[:-1], "1 utf-16"),
    a_file("UTF-32", "json", ARRAY.decode().encode("utf-32"), "1 container"),
    a_file(
        "UTF-16 without a byte order mark",
        "jsonl",
        LINES.decode().encode("utf-16-le"),
        *(f"{n} nul" for n in range(1, 7)),
    ),
    a_file(
        "a file in cp1252",
        "jsonl",
        '{"query": "é", "positive": "b"}\n{"query": "“c”", "positive": "d"}\n'.encode("cp1252"),
        "1 utf-8",
        "2 utf-8",
    ),
    a_file(
        "a file half in Latin-1",
        "jsonl",
        LINES + LINES[:90].replace("ß".encode(), b"\xdf").replace(b"\n", b"") + b"\n",
        "6 utf-8",
        trains=ALL,
    ),
]

WITHIN = [  # one thing within another, and names that say what is not so
    trains("JSON lines called CSV", "csv", LINES, "holds JSON lines"),
    trains("an array called CSV", "csv", ARRAY, "holds a JSON array"),
    a_file("CSV called JSON lines", "jsonl", b"query,positive\na,b\n", "1 json", "2 json"),
    a_file("CSV called JSON", "json", b"query,positive\na,b\n", "1 json", "2 json"),
    a_file("JSON lines called Parquet", "parquet", LINES, "1 container"),
    trains(
        "Parquet called JSON lines",
        "jsonl",
        parquet({name: [row[name] for row in ROWS] for name in ROWS[0]}),
        "holds Parquet",
    ),
    trains("gzip without its ending", "jsonl", gzip.compress(LINES)),
    trains("zstd that is called gzip", "jsonl.gz", zstd(LINES)),
    trains("gzip in several members", "jsonl.gz", gzip.compress(LINES[:77]) + gzip.compress(LINES[77:])),
    trains("an ending of gzip without packing", "jsonl.gz", LINES, "is not packed"),
    trains("endings in capitals", "JSONL.GZ", gzip.compress(LINES)),
    a_file("packed twice", "jsonl.gz", gzip.compress(gzip.compress(LINES)), "1 container"),
    a_file("bzip2", "jsonl", bz2.compress(LINES), "1 container"),
    a_file("xz", "jsonl.gz", lzma.compress(LINES), "1 container"),
    a_file("a ZIP archive", "json", b"PK\x03\x04" + bytes(60), "1 container"),
    a_file("an Excel file called CSV", "csv", b"PK\x03\x04" + bytes(999), "1 container"),
    a_file("Arrow", "parquet", b"ARROW1\0\0" + bytes(60), "1 arrow"),
    a_file("a pointer of Git LFS", "jsonl", b"version https://git-lfs.github.com/spec/v1\noid 1\n", "1 container"),
    a_file("a picture", "jsonl", b"\x89PNG\r\n\x1a\n" + bytes(9), "1 utf-8", "2 json", "3 nul"),
    a_file("gzip cut off", "jsonl.gz", gzip.compress(LINES)[:-9], "6 damaged"),
    a_file("gzip cut off within the rows", "jsonl.gz", gzip.compress(LINES, 0)[:200], "2 damaged"),
    a_file("gzip cut off in its first bytes", "csv.gz", gzip.compress(LINES)[:9], "1 damaged"),
    a_file("gzip with a wrong checksum", "jsonl.gz", changed(gzip.compress(LINES), -6), "6 damaged"),
    a_file("gzip and more", "jsonl.gz", gzip.compress(LINES) + b"more", "6 damaged"),
    a_file("zstd cut off", "jsonl.zst", zstd(LINES)[:-9], "1 damaged"),
    a_file("zstd cut off in its first bytes", "json.zst", zstd(LINES)[:6], "1 damaged"),
    a_file("zstd damaged", "jsonl.zst", changed(zstd(LINES), 12), "1 damaged"),
    a_file("Parquet cut off in gzip", "parquet.gz", gzip.compress(parquet({"query": ["a"]}))[:-20], "1 damaged"),
]

PATHS = [
    trains("a name with brackets and quotes", "jsonl", LINES, stem="a [b] 'c' \"d\" {e} $f `g` %s \\n *"),
    trains("a name in other scripts", "jsonl", LINES, stem="行 ряды 👩\u200d🚀 cafe\u0301"),
    trains("a name with a line end and a tab", "jsonl", LINES, stem="a\nb\tc"),
    trains("a name like an option", "jsonl", LINES, stem="--strict"),
    trains("a name as long as names may be", "json", LINES, stem="x" * 250),
    Case("a folder called like a file", "rows.jsonl", _folder_of_rows, trains=ALL),
    Case("a folder called like one of prepare's files", "manifest.json/rows.jsonl", LINES, trains=ALL),
    a_file("a name that is not UTF-8", "jsonl", LINES, stem="caf\udce9", refused="is not UTF-8; rename"),
    Case("a folder whose name is not UTF-8", "caf\udce9/rows.jsonl", LINES, refused="is not UTF-8; rename"),
    a_file("a file that is no data by its name", "txt", LINES, refused="no data file in"),
    a_file("labels.json only", "json", b"{}", stem="labels", refused="no data file in"),
    a_file("an empty folder called like a file", "jsonl", Path.mkdir, refused="no data file in"),
    a_file("a pipe", "jsonl", os.mkfifo, "1 unreadable"),
    a_file("a socket", "jsonl", _bind, "1 unreadable"),
    a_file("a device", "jsonl", lambda path: path.symlink_to("/dev/zero"), "1 unreadable"),
    a_file("a link to nowhere", "jsonl", lambda path: path.symlink_to("nowhere"), "1 unreadable"),
    a_file("a link to itself", "jsonl", lambda path: path.symlink_to(path), "1 unreadable"),
]

FILES = [*TEXT, *WITHIN, *PATHS]
