"""The row formats that a user may bring, recognised by their columns.

=============== ====================================== ==========================
format          columns                                fields of the class
=============== ====================================== ==========================
retrieval       query, positive[, negative]            lists of passages
sts             sentence1, sentence2, score (0 to 1)   as named
labelled        text, label                            classification, clustering
native          query, pos[, neg, prompt, type, …]     FlagEmbedding's own
=============== ====================================== ==========================

Texts are kept to the letter: a row is refused or taken, never mended in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3kit.data.problems import BadRow, Problem


@dataclass(frozen=True)
class RetrievalRow:
    line: int
    query: str
    positives: list[str]
    negatives: list[str]


@dataclass(frozen=True)
class StsRow:
    line: int
    sentence1: str
    sentence2: str
    score: float


@dataclass(frozen=True)
class LabelledRow:
    line: int
    text: str
    label: str


@dataclass(frozen=True)
class NativeRow:
    line: int
    query: str
    pos: list[str]
    neg: list[str]
    extra: dict[str, Any]  # prompt, type, batch_size, train_group_size, pos_scores, neg_scores


Row = RetrievalRow | StsRow | LabelledRow | NativeRow

COLUMNS = {
    "native": ("query", "pos"),
    "retrieval": ("query", "positive"),
    "sts": ("sentence1", "sentence2", "score"),
    "labelled": ("text", "label"),
}
NATIVE_EXTRA = {
    "prompt": str,
    "type": str,
    "batch_size": int,
    "train_group_size": int,
    "pos_scores": list,
    "neg_scores": list,
}
OPTIONAL = {
    "native": ("neg", *NATIVE_EXTRA),
    "retrieval": ("negative",),
}
EXPECTED = (
    'write {"query", "positive", "negative"}, {"sentence1", "sentence2", "score"}, {"text", "label"} '
    'or FlagEmbedding\'s {"query", "pos", "neg"}'
)


def recognise(columns: set[str]) -> str | None:
    """The format whose columns are all among ``columns``, or None."""
    for name, needed in COLUMNS.items():
        if columns.issuperset(needed):
            return name
    return None


def read_rows(path: Path, problems: list[Problem]) -> tuple[str | None, list[Row], list[str]]:
    """Read one JSONL file.

    Returns the format's name (None where no line could be read), its rows in file order, and the columns that it has
    beside those of the format. What is wrong is added to ``problems`` with its line. All rows of a file must have the
    format of the first.
    """
    rows: list[Row] = []
    found: str | None = None
    columns: set[str] = set()
    for line, record in _records(path, problems):
        try:
            name = recognise(set(record))
            if name is None:
                raise BadRow(f"the columns {sorted(record)} are no known format", EXPECTED)
            found = found or name
            columns.update(record)
            if name != found:
                raise BadRow(f"this row is {name}, the rows before it are {found}", "put each format in its own file")
            rows.append(_PARSERS[name](line, record))
        except BadRow as bad:
            problems.append(Problem(path, line, bad.what, bad.fix))
    unused = columns.difference(COLUMNS[found], OPTIONAL.get(found, ())) if found else ()
    return found, rows, sorted(unused)


def _records(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers; blank lines are passed over."""
    for line, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        try:
            record = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.append(Problem(path, line, f"not UTF-8 (byte {error.start + 1})", "save the file as UTF-8"))
        except (json.JSONDecodeError, RecursionError) as error:
            detail = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
            problems.append(Problem(path, line, f"not valid JSON ({detail})", "write one JSON object a line"))
        else:
            if isinstance(record, dict):
                yield line, record
            else:
                what = f"a JSON {type(record).__name__} instead of an object"
                problems.append(Problem(path, line, what, "write one JSON object a line"))


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f'"{column}" is {_kind(value)}, not a string', f'give "{column}" a text in quotes')
    if not value.strip():
        raise BadRow(f'"{column}" is empty', "fill it in or delete the row")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise BadRow(f'"{column}" holds half a surrogate pair, which is no character', "write the character itself")
    return value


def _texts(value: Any, column: str) -> list[str]:
    """A string or a list of strings, as a list (D2: FlagEmbedding needs lists)."""
    return [_text(item, column) for item in (value if isinstance(value, list) else [value])]


def _kind(value: Any) -> str:
    return "missing (null)" if value is None else f"a {type(value).__name__}"


def _retrieval(line: int, record: dict[str, Any]) -> RetrievalRow:
    positives = _texts(record["positive"], "positive")
    if not positives:
        raise BadRow('"positive" is an empty list', "give at least one passage that answers the query")
    negative = record.get("negative")
    return RetrievalRow(
        line=line,
        query=_text(record["query"], "query"),
        positives=positives,
        # a missing, null or empty negative is allowed: negatives are then drawn from the set
        negatives=[] if negative is None or negative == "" else _texts(negative, "negative"),
    )


def _sts(line: int, record: dict[str, Any]) -> StsRow:
    score = record["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise BadRow(f'"score" is {score!r}, not a number', "give a number from 0 (unrelated) to 1 (same meaning)")
    if not 0 <= score <= 1:
        hint = "divide every score of the file by 5" if 1 < score <= 5 else "scale the scores to 0..1"
        raise BadRow(f'"score" is {score}, outside 0..1', hint)
    return StsRow(line, _text(record["sentence1"], "sentence1"), _text(record["sentence2"], "sentence2"), float(score))


def _labelled(line: int, record: dict[str, Any]) -> LabelledRow:
    label = record["label"]
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    return LabelledRow(line, _text(record["text"], "text"), _text(label, "label"))


def _native(line: int, record: dict[str, Any]) -> NativeRow:
    pos = record["pos"]
    neg = [] if record.get("neg") is None else record["neg"]
    for column, value in (("pos", pos), ("neg", neg)):
        if not isinstance(value, list):
            raise BadRow(f'"{column}" is {_kind(value)}, not a list', f'write "{column}": ["…"]')
        for item in value:
            _text(item, column)
    if not pos:
        raise BadRow('"pos" is an empty list', "give at least one passage that answers the query")
    extra = {name: record[name] for name in NATIVE_EXTRA if record.get(name) is not None}
    for name, value in extra.items():
        if not isinstance(value, NATIVE_EXTRA[name]) or isinstance(value, bool):
            raise BadRow(
                f'"{name}" is {_kind(value)}, not a {NATIVE_EXTRA[name].__name__}', "see FlagEmbedding's format"
            )
    for name, passages in (("pos_scores", pos), ("neg_scores", neg)):
        _check_scores(name, extra.get(name), passages)
    if ("pos_scores" in extra) != ("neg_scores" in extra):
        raise BadRow("only one of pos_scores and neg_scores is there", "give both or neither")
    return NativeRow(line, _text(record["query"], "query"), pos, neg, extra)


def _check_scores(name: str, scores: list[Any] | None, passages: list[str]) -> None:
    if scores is None:
        return
    if len(scores) != len(passages):
        what = f'"{name}" has {len(scores)} scores for {len(passages)} passages'
        raise BadRow(what, "give one score a passage, in the same order")
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise BadRow(f'"{name}" holds {score!r}, not a number', "give the teacher's raw score")


_PARSERS = {"retrieval": _retrieval, "sts": _sts, "labelled": _labelled, "native": _native}
