"""What a person marked, kept as test data in BEIR form: which passages are right, and which side is better.

``marks.jsonl`` has it all, a query a line; the three files of BEIR follow from it and from the passages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from m3kit.errors import KitError
from m3kit.test_data.beir import FILES, HEADER

MARKED, MARKS = "marked", "marks.jsonl"
SIDES = ("before", "after", "both", "neither")
ELSEWHERE = "move that folder away, or keep the marks elsewhere with --marks FOLDER"


def check_marks(folder: Path, passages: Mapping[str, str]) -> None:
    """Raise ``KitError`` where a folder holds what marks of these passages cannot be added to."""
    there, marks = [(folder / name).exists() for name in (FILES[0], MARKS)]
    if there and not marks:
        raise KitError(f"{folder} holds test data that were not marked here (no {MARKS}); {ELSEWHERE}")
    if there and (folder / FILES[0]).read_bytes() != _corpus(passages):
        raise KitError(f"the marks in {folder} are about other passages; {ELSEWHERE}")
    read_marks(folder)


def read_marks(folder: Path) -> dict[str, dict[str, Any]]:
    """Query → {"right": ids, "better": side or None}. Raises ``KitError``."""
    file = folder / MARKS
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
        return {row["query"]: {"right": list(row["right"]), "better": row["better"]} for row in rows}
    except OSError as error:
        raise KitError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise KitError(f"{file} is damaged ({error}); {ELSEWHERE}") from error


def mark(folder: Path, passages: Mapping[str, str], query: str, right: list[str], better: str | None) -> None:
    """Keep the marks of a query, in place of earlier ones; with nothing marked it is taken out. Raises ``KitError``."""
    marks = read_marks(folder)
    marks.pop(query, None)
    if right or better:
        marks[query] = {"right": right, "better": better}
    ids = {query: f"q{xxh3_64_hexdigest(query.encode())}" for query in marks}
    answered = {query: kept["right"] for query, kept in marks.items() if kept["right"]}
    queries = _lines({"_id": ids[query], "text": query} for query in answered)
    pairs = [(ids[query], key, "1") for query, keys in answered.items() for key in keys]
    qrels = "".join("\t".join(fields) + "\n" for fields in [HEADER, *pairs]).encode()
    # At no moment the qrels name a query that is not there.
    files = dict([(FILES[1], queries), (FILES[2], qrels)][:: 1 if right else -1])
    marked = _lines({"_id": ids[query], "query": query, **kept} for query, kept in marks.items())
    corpus = {} if (folder / FILES[0]).exists() else {FILES[0]: _corpus(passages)}
    try:
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        for name, content in {**corpus, MARKS: marked, **files}.items():
            temporary = folder / f"{name}.tmp"
            temporary.write_bytes(content)
            os.replace(temporary, folder / name)
    except OSError as error:
        raise KitError(f"the mark cannot be kept in {folder} ({error.strerror}); make room, or it writable") from error


def _corpus(passages: Mapping[str, str]) -> bytes:
    return _lines({"_id": key, "title": "", "text": text} for key, text in passages.items())


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
