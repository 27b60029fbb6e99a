"""The elements of a JSON array of any length, in constant memory, from their own text.

A parser would drop what stands twice in an object, and stop at the first mistake. Here an element is what stands
between two commas of the array, going by quotes and brackets; that it is JSON is for who reads it to check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from m3kit.data.problems import BadRow
from m3kit.data.sources import AS_UTF8, BLOCK, BOM, ROW_LIMIT, open_text

SPACE = b" \t\r\n"  # what JSON calls white space
_BETWEEN = re.compile(rb'[^"\[\]{},]+')
_TO_ITS_END = "write the array to its end"


def elements(source: Path) -> Iterator[tuple[int, bytes | BadRow]]:
    """The line in which each element begins, and the element on one line or what is wrong with it.

    Raises ``BadRow`` where what follows cannot be told apart any more.
    """
    with open_text(source) as stream:
        tokens, line = _tokens(stream), 1
        for token in tokens:
            line += token.count(b"\n")
            if token == b"[":
                break
        element, begun, depth, after_comma = bytearray(), line, 0, False
        for token in tokens:
            if depth == 0 and token in (b",", b"]"):
                if element:
                    yield begun, _on_one_line(element, begun)
                elif token == b"," or after_comma:
                    yield line, BadRow("a comma too many in the array", "delete it", code="array")
                element, after_comma = bytearray(), token == b","
                if token == b"]":
                    break
            elif element or token.strip(SPACE):
                if not element:
                    begun = line + _lines_before(token)
                element += token
                depth += (token in (b"[", b"{")) - (token in (b"]", b"}"))
                _check(token, depth, line)
                if len(element) > ROW_LIMIT:
                    raise BadRow(
                        f"an element of more than {ROW_LIMIT >> 20} MB", "close its brackets", begun, "too-long"
                    )
            line += token.count(b"\n")
        else:
            if depth:
                raise BadRow("the file ends within the element that begins here", _TO_ITS_END, begun, "unfinished")
            if element:
                yield begun, _on_one_line(element, begun)
            raise BadRow("the file ends without the ] of its array", _TO_ITS_END, line, "unfinished")
        for token in tokens:
            if token.strip(SPACE):
                fix = "write one array, or one object a line"
                raise BadRow("text after the ] of the array", fix, line + _lines_before(token), "array")
            line += token.count(b"\n")


def _check(token: bytes, depth: int, line: int) -> None:
    """Refuse a token after which nobody knows what is text and what is not."""
    if depth < 0:
        raise BadRow("a } that closes nothing", "delete it, or open it with {", line, "array")
    if token.startswith(b'"') and token.endswith(b"\n"):
        raise BadRow("a text that is not closed in its line", 'close it with ", write its line ends \\n', line, "array")


def _lines_before(token: bytes) -> int:
    """The line ends before what is to be seen of a token."""
    return token[: len(token) - len(token.lstrip(SPACE))].count(b"\n")


def _on_one_line(element: bytearray, begun: int) -> bytes | BadRow:
    """A line end is never within a text, so each is white space, which JSON has between two parts."""
    if element.isspace() or element.strip(SPACE) == BOM:  # who reads the lines would take it for a blank one
        return BadRow("an unseen character instead of an element", "delete it", begun, "array")
    try:
        element.decode("utf-8")
    except UnicodeDecodeError as error:
        row = element.decode("utf-8", "backslashreplace")
        return BadRow("not UTF-8", AS_UTF8, begun + element.count(b"\n", 0, error.start), "utf-8", row)
    return bytes(element.strip(SPACE).replace(b"\n", b" "))


def _tokens(stream: BinaryIO) -> Iterator[bytes]:
    """Texts in quotes, brackets and commas, and what stands between them. A text with a line end in it ends there."""
    buffer = b""
    # Of a text without an end, as much again is read as there is: with a block each time the search would be quadratic.
    while len(buffer) <= ROW_LIMIT and (block := stream.read(max(BLOCK, len(buffer)))):
        buffer += block
        at = 0
        while at < len(buffer):
            if buffer[at] == ord('"'):
                end = _text_end(buffer, at + 1)
                if end < 0:
                    break
            else:
                between = _BETWEEN.match(buffer, at)
                end = between.end() if between else at + 1
            yield buffer[at:end]
            at = end
        buffer = buffer[at:]
    if buffer:
        yield buffer


def _text_end(buffer: bytes, start: int) -> int:
    """Where the text ends that starts here: after its quote, or after its line if that ends first; -1: further on."""
    end, quote = -1, buffer.find(b'"', start)
    while quote >= 0 and end < 0:
        before = quote - 1
        while buffer[before] == ord("\\"):
            before -= 1
        if (quote - before) % 2:  # an even number of backslashes: the quote is not escaped
            end = quote + 1
        else:
            quote = buffer.find(b'"', quote + 1)
    line_end = buffer.find(b"\n", start, end if end >= 0 else len(buffer))
    return line_end + 1 if line_end >= 0 else end
