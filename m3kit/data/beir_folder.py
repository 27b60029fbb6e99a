"""A BEIR folder as rows to train on or to test with: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3kit.reading.files import Reading
from m3kit.reading.problems import BadRow
from m3kit.reading.rows import passage
from m3kit.reading.text import is_blank


def beir_records(folder: Path, split: str) -> Iterator[tuple[int, dict[str, Any] | BadRow, bytes]]:
    """The rows of a BEIR folder: each pair of a query and a passage in ``qrels/SPLIT.tsv``, with its grade."""
    texts: dict[str, dict[str, dict[str, Any]]] = {}
    for name in ("queries", "corpus"):
        texts[name] = {}
        for line, record, _ in Reading(folder / f"{name}.jsonl").records():
            if isinstance(record, BadRow) or not isinstance(record.get("_id"), str | int):
                raise BadRow(f"line {line} of {name}.jsonl is no row with an _id", "see BEIR's format", 1, "beir")
            texts[name][str(record["_id"])] = record
    for line, raw in enumerate((folder / "qrels" / f"{split}.tsv").read_bytes().splitlines(), start=1):
        names = raw.decode("utf-8", "backslashreplace").split("\t" if b"\t" in raw else None)
        if len(names) == 4:  # as TREC writes them
            del names[1]
        if not raw.strip() or (line == 1 and names[-1:] == ["score"]):
            continue
        query, passage = texts["queries"].get(names[0]), texts["corpus"].get(names[1] if len(names) > 1 else "")
        if query is None or passage is None or len(names) != 3:
            what = "names no query of queries.jsonl and no passage of corpus.jsonl, with a score"
            yield line, BadRow(what, "write query-id<TAB>corpus-id<TAB>score", code="qrels"), raw
        else:
            yield line, {"query": query.get("text"), "passage": passage, "grade": names[2]}, raw


def beir_passages(folder: Path) -> Iterator[str]:
    """All passages of a BEIR folder that have a text."""
    for _, record, _ in Reading(folder / "corpus.jsonl").records():
        if isinstance(record, dict) and isinstance(record.get("text"), str):
            # A title that is no text is told where the passage is judged.
            text = passage(record if isinstance(record.get("title"), str) else record["text"], "corpus")
            if not is_blank(text):
                yield text
