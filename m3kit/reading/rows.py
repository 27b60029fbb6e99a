"""A row: what a record's columns say, checked value by value. Texts are kept to the letter, or the row is refused."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3kit.reading.layouts import COLUMNS, NATIVE_EXTRA, NLI, Layout
from m3kit.reading.problems import BadRow
from m3kit.reading.text import is_blank, shown

# What becomes of a row: used where it is empty, one of these, or the reason why it is set aside.
MERGED, HELD_OUT = "merged", "held out for evaluation"
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+\s*")


@dataclass(slots=True)
class Row:
    """A row of any kind. ``keys``: a number for each text, query first, the same for texts that count as the same.

    sts: ``query`` and ``positives[0]`` are the pair, ``value`` its score from 0 to 1. labelled: ``query`` is the text,
    ``value`` its label. native: ``value`` has the further fields. graded: ``value`` has the grades of all passages.
    """

    line: int
    query: str
    positives: list[str]
    negatives: list[str]
    value: Any = None
    group: Any = None
    keys: tuple[int, ...] = ()
    fate: str = ""
    number: int = 0  # of its record in the file

    @property
    def texts(self) -> list[str]:
        return [self.query, *self.positives, *self.negatives]

    @property
    def positive_keys(self) -> tuple[int, ...]:
        return self.keys[1 : 1 + len(self.positives)]

    @property
    def negative_keys(self) -> tuple[int, ...]:
        return self.keys[1 + len(self.positives) :]


def parse(line: int, record: Mapping[str, Any], layout: Layout, textual: bool, max_score: float) -> Row:
    """The row of a record, or ``BadRow``. ``textual``: numbers are texts; ``max_score``: the largest of STS scores."""
    if layout.unnest:
        try:
            record = layout.unnest({name: record[column] for name, column in layout.names.items()})
            max_score = 1.0
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
            what = f"a field is missing or nested in another way ({shown(str(error))})"
            raise BadRow(what, "write it as the rows before, or delete the row", code="type") from error
    fields, kind = layout.fields, layout.kind
    first, second = fields[COLUMNS[kind][0]], fields[COLUMNS[kind][1]]
    row = Row(line, _text(record[first], first), [], [])
    if kind == "labelled":
        label = record[second]
        row.value = _text(str(label) if type(label) is int else label, second)
    elif kind == "sts":
        row.positives = [_text(record[second], second)]
        row.value = _score(record[fields["score"]], fields, textual, max_score)
    else:
        row.positives = _passages(record[second], second)
        if not row.positives:
            fix = "give at least one passage that answers the query"
            raise BadRow(f'"{second}" is an empty list', fix, code="empty")
        for column in layout.negatives:
            row.negatives += _negatives(record.get(column), column)
        if kind == "native":
            row.value = _extra(record, fields, row)
        elif kind == "graded":
            row.value = _grades(record[fields["grade"]], fields["grade"], len(row.positives))
    if "group" in fields and type(record.get(fields["group"])) in (str, int, float):
        row.group = None if _is_null(record[fields["group"]]) else record[fields["group"]]
    return row


def _extra(record: Mapping[str, Any], fields: Mapping[str, str], row: Row) -> dict[str, Any]:
    """FlagEmbedding's further fields."""
    extra = {name: record[fields[name]] for name in NATIVE_EXTRA if not _is_null(record.get(fields.get(name, "")))}
    for name, value in extra.items():
        if type(value) is not NATIVE_EXTRA[name]:
            what = f'"{name}" is a {type(value).__name__}, not a {NATIVE_EXTRA[name].__name__}'
            raise BadRow(what, "see FlagEmbedding's format", code="type")
        if type(value) is int and value < 1:
            raise BadRow(f'"{name}" is {value}', "give 1 or more", code="type")
    if ("pos_scores" in extra) != ("neg_scores" in extra):
        raise BadRow("only one of pos_scores and neg_scores is there", "give both or neither", code="scores")
    for name, passages in (("pos_scores", row.positives), ("neg_scores", row.negatives)):
        scores = extra.get(name)
        if scores is not None and len(scores) != len(passages):
            what = f'"{name}" has {len(scores)} scores for {len(passages)} passages'
            raise BadRow(what, "give one score a passage, in the same order", code="scores")
        if wrong := [score for score in scores or () if not _is_number(score)]:
            what = f'"{name}" holds {_named(wrong[0])}, not a number'
            raise BadRow(what, "give the teacher's raw score", code="scores")
    return extra


def _grades(given: Any, column: str, passages: int) -> list[float]:
    """The grade of each passage: a number, or whether it is right."""
    grades = []
    for value in given if isinstance(given, list) else [given]:
        value = {"true": True, "false": False}.get(value.lower(), value) if type(value) is str else value
        grade = float(value) if type(value) is bool else _number(value)
        if grade is None:
            what = f'"{column}" is {_named(value)}, not a number'
            fix = "give the passage's grade, such as 1 or 0; a column without grades needs another name"
            raise BadRow(what, fix, code="score-type")
        grades.append(grade)
    if len(grades) != passages:
        what = f"{len(grades)} grades for {passages} passages"
        raise BadRow(what, "give one grade a passage, in the same order", code="scores")
    return grades


def _text(value: Any, column: str) -> str:
    if type(value) is not str:
        if _is_null(value):
            raise BadRow(f'"{column}" is missing (null)', "fill it in or delete the row", code="missing")
        what = f'"{column}" is a {type(value).__name__}, not a string'
        raise BadRow(what, f'give "{column}" a text in quotes', code="type")
    if is_blank(value):
        what = "is empty" if not value else "is empty (nothing but white space or invisible characters)"
        raise BadRow(f'"{column}" {what}', "fill it in or delete the row", code="empty")
    return value


def _is_null(value: Any) -> bool:
    """None, or NaN as pandas writes it."""
    return value is None or value != value


def _passages(value: Any, column: str) -> list[str]:
    """A text, or a list of texts or of {"title", "text"}, as a list of texts (D2: FlagEmbedding needs lists)."""
    if type(value) is str:
        return [_text(value, column)]
    return [passage(item, column) for item in (value if isinstance(value, list) else [value])]


def _negatives(value: Any, column: str) -> list[str]:
    """Negatives may be missing, null or empty: they are then drawn from the set."""
    return [] if _is_null(value) or value in ("", [""]) else _passages(value, column)


def passage(value: Any, column: str) -> str:
    """The text of a passage: a text, or {"title", "text"}. Raises ``BadRow`` that names the column."""
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        # Title and text with a space between, as BEIR and MS MARCO's own kits give them to a model.
        title, value = value.get("title") or "", value["text"]
        if type(title) is not str or not is_blank(title):
            value = f"{_text(title, f'{column}.title')} {value}"
    return _text(value, column)


def _score(given: Any, fields: Mapping[str, str], textual: bool, max_score: float) -> float:
    column, score = fields["score"], _number(given)
    if score is None and textual and isinstance(given, str) and _DECIMAL_COMMA.fullmatch(given):
        score = float(given.replace(",", "."))
    if score is not None and 0 <= score <= max_score:
        return score / max_score
    what, code = f"outside 0..{max_score:g}", "score-range"
    fix = "scale the scores to 0..1, or give their largest: --sts_max_score"
    is_class = score is None and isinstance(given, str) and given.casefold() in NLI
    if is_class or (score == 2 and column != "score"):
        columns = {"premise": fields["sentence1"], "hypothesis": fields["sentence2"], "label": column}
        option = shlex.quote(",".join(f"{name}={column}" for name, column in columns.items() if name != column))
        fix, code = f"if these are classes of NLI, say --columns {option}", "score-nli"
    elif score is None:
        what, fix, code = "not a number", "give a number from 0 (unrelated) to 1 (same meaning)", "score-type"
    elif max_score < score <= 5:
        fix, code = "if the scores are 0 to 5, have them divided by 5: --sts_max_score 5", "score-0-to-5"
    raise BadRow(f'"{column}" is {_named(given)}, {what}', fix, code=code)


def _number(value: Any) -> float | None:
    """A finite number, also one in quotes; None for anything else."""
    if isinstance(value, str) and "_" not in value and len(value) < 100:  # to Python 0_1 is 1
        try:
            value = float(value)
        except ValueError:
            return None
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _named(value: Any) -> str:
    """A value as a message names it: neither a long one nor one nested too deep for ``repr``."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else shown(repr(value))
