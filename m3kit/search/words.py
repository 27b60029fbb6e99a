"""Which words of a passage the query has, and the part of a long passage where most of them stand."""

from __future__ import annotations

import re
from collections.abc import Collection

from m3kit.encoding.bm25 import TERM

ROOM = 280  # characters of a passage that are shown
LEAD = 60  # of them before the first marked word
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # what a terminal might obey


def terms(text: str) -> list[str]:
    """Its words in lower case, each once, in their order."""
    return list(dict.fromkeys(word.casefold() for word in TERM.findall(text)))


def marked(text: str, words: Collection[str]) -> list[tuple[str, bool]]:
    """The text in pieces, and which of them are among the words."""
    pieces, end = [], 0
    for found in TERM.finditer(text):
        if found[0].casefold() in words:
            pieces += [(text[end : found.start()], False), (found[0], True)]
            end = found.end()
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]


def shortened(text: str, words: Collection[str], room: int = ROOM) -> str:
    """The text, or the part of it that has most of these words."""
    text = " ".join(text.split())
    if len(text) <= room:
        return text
    places = [(found.start(), found[0].casefold()) for found in TERM.finditer(text) if found[0].casefold() in words]
    best = max(
        (start for start, _ in places),
        key=lambda start: len({word for place, word in places if start <= place < start + room - LEAD}),
        default=0,
    )
    start = min(max(0, best - LEAD), len(text) - room)
    start = text.find(" ", start, start + LEAD) + 1 or start if start else 0
    end = text.rfind(" ", start, start + room) if start + room < len(text) else len(text)
    # Without a space near, as in Chinese, it is cut where it is.
    end = end if end > start + room // 2 else start + room
    return f"{'… ' if start else ''}{text[start:end]}{' …' if end < len(text) else ''}"


def moved(hit: dict, before: bool) -> str:
    """Where the other model has the passage."""
    other, name = hit["other_rank"], "after" if before else "before"
    return f"{name}: {other}" if other else f"{name}: not found"
