"""One row from a line of JSON: every value as it stands there, or what is wrong with the line."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from m3kit.data.problems import BadRow
from m3kit.data.sources import AS_UTF8, BOM
from m3kit.data.text import shown

ONE_A_LINE = "write one JSON object a line"
TOO_DEEP = "not valid JSON (nested too deep)"
# What follows each name of an object, and may stand within a text too.
_AFTER_NAME = re.compile(rb'"[ \t\r\n]*:')


def parse_line(raw: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ``BadRow``."""
    # A byte order mark stands at the start of a file, and inside where files were put together.
    raw = raw.removeprefix(BOM)
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # How deep Python's own parser goes is another matter in every version.
        if error.msg.startswith("depth limit"):
            raise BadRow(TOO_DEEP, ONE_A_LINE, code="json") from None
        record = _examine(raw)
    if type(record) is not dict:
        what = f"a JSON {type(record).__name__} instead of an object"
        raise BadRow(what, ONE_A_LINE, code="json")
    # Of a name that stands twice every parser keeps the last value in silence. With a colon for each name kept there is
    # none; the second look is for colons within texts. What is left is rare, and worth a slower parser.
    if raw.count(b":") != len(record) and len(_AFTER_NAME.findall(raw)) != len(record):
        _load(raw.decode("utf-8"))
    return record


def is_blank_line(raw: bytes) -> bool:
    """Whether a line holds nothing but white space, as after the byte order mark of a file with CRLF."""
    return not raw.removeprefix(BOM).strip(b" \t\r\n")


def _examine(raw: bytes) -> Any:
    """What orjson does not take: the reason, or the value where only orjson is too strict to read it (NaN)."""
    if b"\0" in raw:  # UTF-16 without a byte order mark, or the zeros that a crash left at the end of a file
        raise BadRow("a NUL byte in the row", AS_UTF8, code="nul")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 (byte {error.start + 1} of the line)"
        raise BadRow(what, AS_UTF8, code="utf-8") from None
    record = _load(text)
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        what = "holds half a surrogate pair, which is no character"
        raise BadRow(what, "write the character itself", code="surrogate") from None
    except RecursionError:
        raise BadRow(TOO_DEEP, ONE_A_LINE, code="json") from None
    return record


def _load(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeated_name)
    except json.JSONDecodeError as error:
        what = f"not valid JSON ({error.msg}, column {error.colno})"
        raise BadRow(what, ONE_A_LINE, error.lineno, code="json") from None
    except RecursionError:
        raise BadRow(TOO_DEEP, ONE_A_LINE, code="json") from None
    except ValueError as error:  # a whole number of more digits than Python reads
        raise BadRow(f"not valid JSON ({error})", ONE_A_LINE, code="json") from None


def _no_repeated_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"{json.dumps(shown(twice))} stands twice in one row", "keep one of the two", code="name-twice")
    return record
