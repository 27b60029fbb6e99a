"""Training rows that stand in the evaluation data: figures measured on those say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from m3kit.data.check_rows import COMPARED
from m3kit.data.rowset import RowSet
from m3kit.reading.near import near_pairs
from m3kit.reading.problems import NOTE, WARNING, Problem
from m3kit.reading.rows import Row
from m3kit.reading.text import same_text

# Which fields of which files are queries. A file that is broken is told by `evaluate`.
QUERIES = {
    "queries.jsonl": ("text",),
    "sts/test.jsonl": ("sentence1", "sentence2"),
    "classification/test.jsonl": ("text",),
    "clustering/test.jsonl": ("text",),
}


def find_leaks(sets: list[RowSet], eval_data: Path) -> Iterator[Problem]:
    """A warning for each row whose query stands in the evaluation data, a note on the passages of each file.

    Passages that stand in both are usual where the corpus is one's own.
    """
    rows = ((row, fields) for name, fields in QUERIES.items() for row in _read(eval_data / name))
    queries = _texts(row.get(field) for row, fields in rows for field in fields)
    corpus = _read(eval_data / "corpus.jsonl")
    passages = _texts(f"{row.get('title') or ''} {row.get('text') or ''}" for row in corpus)
    for data in sets:
        name = {"sts": "sentence", "labelled": "text"}.get(data.kind, "query")
        width = 2 if data.kind == "sts" else 1
        fix = "delete it from the training data: what is measured on it would say nothing"
        asked = ((row, text) for row in data.used for text in row.texts[:width])
        for first, is_same in _found(asked, queries).values():
            what = f"its {name} is {'' if is_same else 'nearly '}a query of the evaluation data {eval_data}"
            code = "query-in-evaluation" if is_same else "query-near-evaluation"
            yield data.problem(first, WARNING, what, fix, code)
        if data.task not in ("retrieval", "native"):
            continue
        found = _found(((one, text) for one in data.rows for text in one.texts[1:]), passages)
        fix = "no harm where the evaluation corpus is the one you search; else take them out of the training data"
        for is_same, told, code in ((True, "stand in", "in"), (False, "are nearly one of", "near")):
            if some := [row for row, same in found.values() if same == is_same]:
                what = f"{len(some)} passages of this file, the first here, {told} the corpus of {eval_data}"
                yield data.problem(some[0], NOTE, what, fix, f"passage-{code}-evaluation")


def _found(texts: Iterator[tuple[Row, str]], known: list[str]) -> dict[str, tuple[Row, bool]]:
    """(first row, whether it is the same) of each text that is one of the known ones, or nearly one.

    Of very many an even share is compared.
    """
    first: dict[str, Row] = {}
    for row, text in texts:
        first.setdefault(same_text(text), row)
    exact = set(known)
    found = {text: (row, True) for text, row in first.items() if text in exact}
    others = [text for text in first if text not in exact]
    others = others[:: -(-len(others) // COMPARED) or 1]
    for _, place, _ in near_pairs(known[:: -(-len(known) // COMPARED) or 1], others) if known and others else ():
        found[others[place]] = (first[others[place]], False)
    return dict(sorted(found.items(), key=lambda pair: pair[1][0].line))


def _read(file: Path) -> Iterator[dict]:
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row


def _texts(texts: Iterator[object]) -> list[str]:
    return list(dict.fromkeys(filter(None, (same_text(text) for text in texts if isinstance(text, str)))))
