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
from m3kit.evaluation.beir import FILES, HEADER

MARKED, MARKS = "marked", "marks.jsonl"
SIDES = ("before", "after", "both", "neither")


def read_marks(folder: Path, passages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Query → {"right": ids, "better": side or None}. Raises ``KitError`` for what cannot be added to."""
    elsewhere = f"move {folder} away, or keep the marks elsewhere with --marks FOLDER"
    try:
        if (folder / FILES[0]).exists() and (folder / FILES[0]).read_bytes() != _corpus(passages):
            raise KitError(f"the marks in {folder} are about other passages; {elsewhere}")
        lines = (folder / MARKS).read_text("utf-8").splitlines() if (folder / MARKS).exists() else []
        if not lines and (folder / FILES[2]).exists():
            raise KitError(f"{folder} holds test data without {MARKS}, which were not marked here; {elsewhere}")
        rows = [json.loads(line) for line in lines]
        return {row["query"]: {"right": list(row["right"]), "better": row["better"]} for row in rows}
    except OSError as error:
        raise KitError(f"{error.filename} cannot be read ({error.strerror}); make it readable") from error
    except (ValueError, KeyError, TypeError) as error:
        raise KitError(f"{folder / MARKS} is damaged ({error}); {elsewhere}") from error


def mark(folder: Path, passages: Mapping[str, str], query: str, right: list[str], better: str | None) -> None:
    """Keep the marks of a query, in place of earlier ones; with nothing marked it is taken out. Raises ``KitError``."""
    marks = read_marks(folder, passages)
    marks.pop(query, None)
    if right or better:
        marks[query] = {"right": right, "better": better}
    ids = {query: f"q{xxh3_64_hexdigest(query.encode())}" for query in marks}
    answered = {query: kept["right"] for query, kept in marks.items() if kept["right"]}
    queries = _lines({"_id": ids[query], "text": query} for query in answered)
    pairs = [(ids[query], key, "1") for query, keys in answered.items() for key in keys]
    qrels = "".join("\t".join(fields) + "\n" for fields in [HEADER, *pairs]).encode()
    files = {FILES[1]: queries, FILES[2]: qrels}
    # At no moment the qrels name a query that is not there.
    for name in reversed(FILES[1:]) if not right else FILES[1:]:
        files[name] = files.pop(name)
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
