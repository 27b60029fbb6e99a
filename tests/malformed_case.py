"""What a malformed file is: how it is made, what must be said of it, and what must train in spite of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet

# A prepared row as far as it is foretold: its query, and its positives unless they are drawn.
Trained = tuple[str, list[str] | None]

CLASSES, CLUSTERS = "classification-no_in_batch_neg", "clustering-no_in_batch_neg"
FOLDERS = {"retrieval": "retrieval", "sts": "sts", "labelled": CLASSES, "native": "retrieval"}


@dataclass(frozen=True)
class Case:
    name: str
    file: str  # its path, folder included
    content: bytes | Callable[[Path], None]  # what makes the file where it is none of bytes
    # What must be said, as "LINE CODE" (or "NAME:LINE CODE" of another file), by `check` and by `prepare`; late: by
    # `prepare` alone, for it takes the whole set.
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    refused: str = ""  # what is said where no file is even opened
    # What trains: at once where there is no error, otherwise without the bad rows; None: nothing, whatever is asked.
    trains: list[Trained] | None = None
    rejected: tuple[str | dict, ...] = ()  # the rows that are set aside: to the letter, or as JSON
    beside: dict[str, bytes] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    note: str = ""  # what must be among the notes on the file

    def write(self, root: Path) -> Path:
        file = root / self.file
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, content in self.beside.items():
            (file.parent / name).write_bytes(content)
        self.content(file) if callable(self.content) else file.write_bytes(self.content)
        return file


# Letters that careless readers lose: quotes, backslashes, tabs, line ends of every kind, spaces that are none, marks
# that combine, other scripts, astral characters, joiners.
QUERIES = [
    'Wie groß ist „Io“? "sehr"',
    "tab\there, back\\slash, {brace} and [bracket], x: y",
    "月の裏側は見えますか？",
    "cafe\u0301 and naïve, two\nlines",
    "👩\u200d🚀 asks: what is 1,5 ÷ 3; or\u00a02 < 3 & 4\u2028?",
]
ANSWERS = [
    "Io has a diameter of 3,643 km.",
    "It\\'s \\n no line end, 'quoted' <b>markup</b>",
    "いいえ、地球からは見えません。",
    "An accent may be a character\r\nof its own.",
    "نجوم كثيرة 𝄞 في السماء",
]
OTHERS = ["Seals sleep on the beach.", "Bread rises for an hour", "Заяц спит", "ohne Sinn", "Two tickets, please;"]
SCORES = [0.9, 1, 0.8, 1.0, 0.95]
LABELS = ["a", "b_c", "a", "b_c", "a"]

GOOD = {
    "retrieval": [{"query": q, "positive": p, "negative": n} for q, p, n in zip(QUERIES, ANSWERS, OTHERS, strict=True)],
    "sts": [{"sentence1": q, "sentence2": p, "score": s} for q, p, s in zip(QUERIES, ANSWERS, SCORES, strict=True)],
    "labelled": [{"text": q, "label": label} for q, label in zip(QUERIES, LABELS, strict=True)],
    "native": [
        {"query": q, "pos": [p], "neg": [n], "prompt": "P: ", "type": "only_1neg"}
        for q, p, n in zip(QUERIES, ANSWERS, OTHERS, strict=True)
    ],
}

R, S, T, N = ({**GOOD[kind][0]} for kind in ("retrieval", "sts", "labelled", "native"))
R["query"], S["sentence1"], T["text"], N["query"] = "what is new?", "this is new", "a new text", "what is new?"


def but(row: dict, without: str = "", **changed) -> dict:
    return {name: value for name, value in (row | changed).items() if name != without}


def line_of(row: dict) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def lines_of(rows: list[dict]) -> bytes:
    return b"".join(line_of(row) + b"\n" for row in rows)


def trained(kind: str, rows: list[dict] | None = None) -> list[Trained]:
    """What good rows of a format become."""
    rows = GOOD[kind] if rows is None else rows
    if kind == "retrieval":
        return [(row["query"], _listed(row["positive"])) for row in rows]
    if kind == "native":
        return [(row["query"], row["pos"]) for row in rows]
    if kind == "sts":
        return [(row["sentence1"], [row["sentence2"]]) for row in rows]
    return [(row["text"], [row["label"].replace("_", " ")]) for row in rows]


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def among_good(kind: str, raw: bytes) -> bytes:
    """A line between good rows: the fourth."""
    return lines_of(GOOD[kind][:3]) + raw + b"\n" + lines_of(GOOD[kind][3:])


def to_the_letter(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


ROWS = GOOD["retrieval"]
LINES = lines_of(ROWS)
ALL = trained("retrieval")
BOM = b"\xef\xbb\xbf"
ARRAY = json.dumps(ROWS, ensure_ascii=False).encode()


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


def parquet(columns: dict, **options) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def a_file(name: str, ending: str, content, *errors: str, stem: str = "rows", **more) -> Case:
    return Case(name, f"retrieval/{stem}.{ending}", content, errors=errors, **more)


def trains(name: str, ending: str, content, note: str = "", **more) -> Case:
    return a_file(name, ending, content, trains=ALL, note=note, **more)
