"""The row formats that a user may bring, recognised by their columns.

=============== ============================================ ====================================================
format          columns                                      as other kits name them
=============== ============================================ ====================================================
retrieval       query, positive[, negative]                  anchor; positive_passages, negative_passages;
                                                             negative_1, negative_2, …
sts             sentence1, sentence2, score (0 to 1)         label
labelled        text, label                                  (classification or clustering)
native          query, pos[, neg, prompt, type, …]           FlagEmbedding's own
=============== ============================================ ====================================================

Texts are kept to the letter: a row is refused or taken, never mended in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from m3kit.data.problems import BadRow
from m3kit.data.text import is_blank, shown

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
OPTIONAL = {"native": ("neg", *NATIVE_EXTRA), "retrieval": ("negative",), "sts": (), "labelled": ()}
# Other kits' names, where the kit's own is not among the columns.
ALIASES = {"anchor": "query", "positive_passages": "positive", "negative_passages": "negative"}
_NUMBERED_NEGATIVE = re.compile(r"negative_?\d+")
EXPECTED = (
    'write {"query", "positive", "negative"}, {"sentence1", "sentence2", "score"}, {"text", "label"} '
    'or FlagEmbedding\'s {"query", "pos", "neg"}, or say which column is which: --columns query=…,positive=…'
)
# Columns that a message names.
SOME = 12
# What --columns may name.
FIELDS = tuple(dict.fromkeys(name for kind in COLUMNS for name in (*COLUMNS[kind], *OPTIONAL[kind])))


@dataclass(frozen=True)
class Layout:
    """How rows with certain columns are read: the format, and under which name each of its fields stands."""

    kind: str
    fields: Mapping[str, str]
    negatives: tuple[str, ...]  # the columns with negatives, for retrieval
    unused: tuple[str, ...]
    textual: bool  # every value is text (CSV)
    max_score: float  # what STS scores are divided by

    def parse(self, record: Mapping[str, Any]) -> tuple[list[str], int, Any]:
        """(texts, positives, value) of a row; ``positives`` of the texts follow the first.

        The value is a score (sts), the label (labelled), or the further fields (native). Raises ``BadRow``. That no
        text is empty is left to the caller, who sees all texts at once.
        """
        return _PARSERS[self.kind](self, record)


def recognise(
    columns: Collection[str], renames: Mapping[str, str], expected: str | None, textual: bool, max_score: float
) -> Layout:
    """The layout of rows with these columns. ``renames`` gives the column for a field; ``expected`` is the format of
    the rows before. Raises ``BadRow`` where the columns are no format, or more than one."""
    names = {column: column for column in columns}
    for name, field in ALIASES.items():
        if name in names and field not in names:
            names[field] = names.pop(name)
    if "score" not in names and "label" in names and {"sentence1", "sentence2"} <= names.keys():
        if "text" in names and not renames:
            what = f"the columns {_some(columns)} are more than one format (sts and labelled)"
            raise BadRow(what, "leave only those of one, or say --columns score=label", code="columns")
        names["score"] = names.pop("label")
    for field, column in renames.items():
        if column in columns:
            names = {name: found for name, found in names.items() if found != column} | {field: column}
    kinds = [kind for kind, needed in COLUMNS.items() if names.keys() >= set(needed)]
    if not kinds and expected and (lacking := [name for name in COLUMNS[expected] if name not in names]):
        if len(lacking) < len(COLUMNS[expected]):
            raise BadRow(f"no {_list(lacking)} in this row", "add it or delete the row", code="missing")
    if not kinds:
        raise BadRow(f"the columns {_some(columns)} are no known format", EXPECTED, code="columns")
    if len(kinds) > 1:
        what = f"the columns {_some(columns)} are more than one format ({' and '.join(kinds)})"
        raise BadRow(what, "leave only those of one, in each file", code="columns")
    (kind,) = kinds
    if expected and kind != expected:
        what = f"this row is {kind}, the rows before it are {expected}"
        raise BadRow(what, "put each format in its own file", code="mixed-formats")
    known = {name: names[name] for name in (*COLUMNS[kind], *OPTIONAL[kind]) if name in names}
    numbered = [name for name in names if _NUMBERED_NEGATIVE.fullmatch(name)] if kind == "retrieval" else []
    negatives = tuple([known["negative"]] if "negative" in known else []) + tuple(sorted(numbered, key=_number))
    unused = sorted(set(columns) - set(known.values()) - set(negatives))
    return Layout(kind, known, negatives, tuple(unused), textual, max_score)


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _some(columns: Collection[str]) -> list[str]:
    """The columns as a message names them: where there is no header line they are somebody's texts."""
    names = [shown(name) for name in sorted(columns)[: SOME + 1]]
    return [*names[:SOME], "…"] if len(names) > SOME else names


def _list(names: list[str]) -> str:
    return " and no ".join(f'"{name}"' for name in names)


def _retrieval(layout: Layout, record: Mapping[str, Any]) -> tuple[list[str], int, Any]:
    query, positive = record[layout.fields["query"]], record[layout.fields["positive"]]
    if type(query) is not str:
        raise _wrong_type(query, layout.fields["query"])
    texts = [query]
    if type(positive) is str:
        texts.append(positive)
    else:
        texts += _passages(positive, layout.fields["positive"])
    positives = len(texts) - 1
    if not positives:
        what = f'"{layout.fields["positive"]}" is an empty list'
        raise BadRow(what, "give at least one passage that answers the query", code="empty")
    for column in layout.negatives:
        negative = record.get(column)
        if type(negative) is str and negative:
            texts.append(negative)
        # a missing, null or empty negative is allowed: negatives are then drawn from the set
        elif negative is not None and negative != "":
            texts += _passages(negative, column)
    return texts, positives, 0.0


def _passages(value: Any, column: str) -> list[str]:
    """A text, or a list of texts or of {"title", "text"}, as a list of texts (D2: FlagEmbedding needs lists)."""
    return [_passage(item, column) for item in (value if isinstance(value, list) else [value])]


def _passage(value: Any, column: str) -> str:
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        # Title and text with a space between, as BEIR and MS MARCO's own kits give them to a model.
        title = value.get("title")
        if title is not None and not isinstance(title, str):
            raise _wrong_type(title, f"{column}.title")
        return f"{title} {value['text']}" if title and title.strip() else value["text"]
    if not isinstance(value, str):
        raise _wrong_type(value, column)
    return value


def _wrong_type(value: Any, column: str) -> BadRow:
    if value is None:
        return BadRow(f'"{column}" is missing (null)', "fill it in or delete the row", code="missing")
    what = f'"{column}" is a {type(value).__name__}, not a string'
    return BadRow(what, f'give "{column}" a text in quotes', code="type")


def _sts(layout: Layout, record: Mapping[str, Any]) -> tuple[list[str], int, Any]:
    texts = [record[layout.fields["sentence1"]], record[layout.fields["sentence2"]]]
    for name, text in zip(("sentence1", "sentence2"), texts, strict=True):
        if type(text) is not str:
            raise _wrong_type(text, layout.fields[name])
    column = layout.fields["score"]
    score = _as_number(record[column]) if layout.textual else record[column]
    if not _is_number(score):
        what = f'"{column}" is {_named(record[column])}, not a number'
        raise BadRow(what, "give a number from 0 (unrelated) to 1 (same meaning)", code="score-type")
    if not 0 <= score <= layout.max_score:
        what = f'"{column}" is {_named(score)}, outside 0..{layout.max_score:g}'
        if layout.max_score < score <= 5:
            fix = "if the scores of the file are 0 to 5, say --sts_max_score 5, which divides them by 5"
            raise BadRow(what, fix, code="score-0-to-5")
        raise BadRow(what, "scale the scores to 0..1, or give their largest: --sts_max_score", code="score-range")
    return texts, 1, score / layout.max_score


def _named(value: Any) -> str:
    """A value as a message names it: neither a long one nor one nested too deep for ``repr``."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(repr(value))


def _as_number(value: Any) -> Any:
    try:
        return value if "_" in value else float(value)  # to Python 0_1 is 1
    except (TypeError, ValueError):
        return value


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _labelled(layout: Layout, record: Mapping[str, Any]) -> tuple[list[str], int, Any]:
    text, label = record[layout.fields["text"]], record[layout.fields["label"]]
    if type(text) is not str:
        raise _wrong_type(text, layout.fields["text"])
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if type(label) is not str:
        raise _wrong_type(label, layout.fields["label"])
    if is_blank(label):
        raise BadRow(f'"{layout.fields["label"]}" is empty', "fill it in or delete the row", code="empty")
    return [text], 0, label


def _native(layout: Layout, record: Mapping[str, Any]) -> tuple[list[str], int, Any]:
    fields = layout.fields
    query, pos, neg = record[fields["query"]], record[fields["pos"]], record.get(fields.get("neg", "neg"))
    neg = [] if neg is None else neg
    if type(query) is not str:
        raise _wrong_type(query, fields["query"])
    for column, value in ((fields["pos"], pos), (fields.get("neg", "neg"), neg)):
        if not isinstance(value, list):
            kind = "missing (null)" if value is None else f"a {type(value).__name__}"
            raise BadRow(f'"{column}" is {kind}, not a list', f'write "{column}": ["…"]', code="type")
        for item in value:
            if type(item) is not str:
                raise _wrong_type(item, column)
    if not pos:
        what = f'"{fields["pos"]}" is an empty list'
        raise BadRow(what, "give at least one passage that answers the query", code="empty")
    extra = {
        name: record[fields[name]] for name in NATIVE_EXTRA if name in fields and record.get(fields[name]) is not None
    }
    for name, value in extra.items():
        if not isinstance(value, NATIVE_EXTRA[name]) or isinstance(value, bool):
            what = f'"{name}" is a {type(value).__name__}, not a {NATIVE_EXTRA[name].__name__}'
            raise BadRow(what, "see FlagEmbedding's format", code="type")
    for name in ("batch_size", "train_group_size"):
        if extra.get(name, 1) < 1:
            raise BadRow(f'"{name}" is {extra[name]}', "give 1 or more", code="type")
    for name, passages in (("pos_scores", pos), ("neg_scores", neg)):
        _check_scores(name, extra.get(name), passages)
    if ("pos_scores" in extra) != ("neg_scores" in extra):
        raise BadRow("only one of pos_scores and neg_scores is there", "give both or neither", code="scores")
    return [query, *pos, *neg], len(pos), extra


def _check_scores(name: str, scores: list[Any] | None, passages: list[str]) -> None:
    if scores is None:
        return
    if len(scores) != len(passages):
        what = f'"{name}" has {len(scores)} scores for {len(passages)} passages'
        raise BadRow(what, "give one score a passage, in the same order", code="scores")
    for score in scores:
        if not _is_number(score):
            raise BadRow(f'"{name}" holds {_named(score)}, not a number', "give the teacher's raw score", code="scores")


_PARSERS: dict[str, Callable[[Layout, Mapping[str, Any]], tuple[list[str], int, Any]]] = {
    "retrieval": _retrieval,
    "sts": _sts,
    "labelled": _labelled,
    "native": _native,
}
