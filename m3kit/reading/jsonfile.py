"""JSON as rows: one object from a line, or the values of an array, or of objects that take several lines each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from m3kit.reading.documents import rows_of_document
from m3kit.reading.problems import BadRow
from m3kit.reading.text import shown

BOM = b"\xef\xbb\xbf"
ONE_A_LINE = "write one JSON object a line"
TOO_DEEP = "not valid JSON (nested too deep)"
# So many values of a file may be no JSON: for each, Python's parser counts all lines before it.
LARGEST_DAMAGE = 1000
# What follows each name of an object, and may stand within a text too.
_AFTER_NAME = re.compile(rb'"[ \t\r\n]*:')
_NO_SPACE = re.compile(r"[^ \t\r\n]|\Z")


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
        record = None
    # Of a name that stands twice every parser keeps the last value in silence. With a colon for each name kept there is
    # none; the second look is for colons within texts. What is left is rare, and worth a slower parser.
    if type(record) is dict:
        if raw.count(b":") == len(record) or len(_AFTER_NAME.findall(raw)) == len(record):
            return record
    text = raw.decode("utf-8", "surrogateescape")
    try:
        record, end = _value_at(text, _next(text, 0), 1)
        if _next(text, end) < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except ValueError as error:
        raise undecoded(text) or _no_json(error, 1) from None
    if isinstance(record, BadRow):
        raise record
    return record


def is_blank_line(raw: bytes) -> bool:
    """Whether a line holds nothing but white space, as after the byte order mark of a file with CRLF."""
    return raw.isspace() or not raw.removeprefix(BOM).strip()


def undecoded(text: str, line: int = 1) -> BadRow | None:
    """What is wrong with a text from this line on that has NUL, or bytes that are no UTF-8 (``surrogateescape``)."""
    fix, nul = "save the file as UTF-8", text.find("\0")
    if nul >= 0:  # UTF-16 without a byte order mark, or the zeros that a crash left at the end of a file
        return BadRow("a NUL byte in the text", fix, line + text.count("\n", 0, nul), code="nul")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return BadRow("not UTF-8", fix, line + text.count("\n", 0, error.start), code="utf-8")
    return None


def json_values(content: bytes, notes: list[str]) -> Iterator[tuple[int, dict[str, Any] | BadRow, bytes | None]]:
    """(line, object or what is wrong with it, its text) of each value of a JSON array, or of one after the other.

    A single object that holds many rows gives those, counted from 1. Raises ``BadRow`` where reading has to stop.
    """
    text = content.decode("utf-8", "surrogateescape")
    at = _next(text, 0)
    in_array = text.startswith("[", at)
    notes.append("holds a JSON array, read as such" if in_array else "holds JSON over several lines, read as such")
    line, counted, values, damaged, after_comma = 1, 0, 0, 0, True
    at += in_array
    while True:
        at = _next(text, at)
        line, counted = line + text.count("\n", counted, at), at
        sign = text[at : at + 1]
        ends = not sign or (in_array and sign == "]")
        if after_comma and (sign == "," or (sign and ends and values)):
            raise BadRow("a comma too many in the array", "delete it", line, "array")
        if ends:
            break
        if sign == ",":
            at, after_comma = at + 1, True
            continue
        try:
            row, end = _value_at(text, at, line)
        except ValueError as error:
            row, place = _no_json(error, line), getattr(error, "pos", at)
            damaged += 1
            # The next value most likely begins on a line that is not indented deeper than the line of this one.
            indent = at - text.rfind("\n", 0, at) - 1
            following = re.compile(rf"\n[ \t]{{0,{indent}}}(?=\{{|\]\s*\Z)").search(text, place)
            if not following or damaged > LARGEST_DAMAGE:
                if _next(text, place) == len(text) or str(error).startswith("Unterminated"):
                    row.line, row.fix, row.code = line, "write the JSON to its end", "unfinished"
                raise row from None
            end = following.start()
        rows = rows_of_document(row) if isinstance(row, dict) and not (in_array or values) else None
        if rows is not None and _next(text, end) == len(text):
            notes.append("its one object holds many rows, which are counted from 1")
            yield from ((number, row, None) for number, row in enumerate(rows, start=1))
        else:
            yield line, row, text[at:end].strip(" \t\r\n,").encode("utf-8", "surrogateescape")
        at, values, after_comma = end, values + 1, False
    if in_array and not sign:
        raise BadRow("the file ends without the ] of its array", "write the array to its end", line, "unfinished")
    rest = _next(text, at + 1)
    if rest < len(text):
        fix = "write one array, or one object a line"
        raise BadRow("text after the ] of the array", fix, line + text.count("\n", at, rest), "array")


def _next(text: str, at: int) -> int:
    """Where the white space ends that begins here."""
    found = _NO_SPACE.search(text, at)
    return found.start() if found else len(text)


def _value_at(text: str, at: int, line: int) -> tuple[dict[str, Any] | BadRow, int]:
    """The object that begins here or what is wrong with it, and where it ends. Raises ``ValueError`` for no JSON."""
    try:
        record, end = json.JSONDecoder(object_pairs_hook=_no_repeated_name, parse_int=_whole).raw_decode(text, at)
        if not isinstance(record, dict):
            return BadRow(f"a JSON {type(record).__name__} instead of an object", ONE_A_LINE, code="json"), end
        if flaw := undecoded(text[at:end], line):
            return flaw, end
        json.dumps(record, ensure_ascii=False).encode()
    except BadRow as bad:
        return bad, json.JSONDecoder().raw_decode(text, at)[1]
    except UnicodeEncodeError:
        what = "holds half a surrogate pair, which is no character"
        return BadRow(what, "write the character itself", code="surrogate"), end
    except RecursionError:
        raise BadRow(TOO_DEEP, ONE_A_LINE, line, "json") from None
    return record, end


def _no_json(error: ValueError, line: int) -> BadRow:
    if isinstance(error, json.JSONDecodeError):
        return BadRow(f"not valid JSON ({error.msg}, column {error.colno})", ONE_A_LINE, error.lineno, "json")
    return BadRow(f"not valid JSON ({error})", ONE_A_LINE, line, "json")  # a whole number of too many digits


def _whole(digits: str) -> int | float:
    """A whole number; one of more than 64 bits is a float, as to orjson."""
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def _no_repeated_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow(f"{json.dumps(shown(twice))} stands twice in one row", "keep one of the two", code="name-twice")
    return record
