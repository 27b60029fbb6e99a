"""Results in the terminal: both models side by side, the query's words in bold."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Collection
from itertools import zip_longest
from typing import Any

from m3kit.evaluation.serving import NAMES
from m3kit.search.words import CONTROL, marked, moved, shortened

BOLD, PLAIN = "\x1b[1;4m", "\x1b[0m"
GAP = "   "
NARROWEST = 36  # of a column; below it one stands under the other


def render(found: dict[str, Any], models: dict[str, str], colour: bool | None = None) -> str:
    """What ``Search.ask`` found, as lines. ``colour`` (default: where stdout is a terminal) marks the words."""
    colour = sys.stdout.isatty() if colour is None else colour
    width = shutil.get_terminal_size((120, 24)).columns
    beside = (min(width, 180) - len(GAP)) // 2
    narrow = beside < NARROWEST
    room, words = (width if narrow else beside), set(found["words"])
    columns, query = [], _marked(found["query"], (), False)
    for number, (name, hits) in enumerate(found["models"].items()):
        title = f"{'AFTER' if number else 'BEFORE'} · {models[name]} · by {found['ranked_by'][name]}"
        cells = [_cell(hit, words, room, not number) for hit in hits]
        columns.append([[*textwrap.wrap(title, room), ""], *(cells or [["nothing found", ""]])])
    if narrow:
        lines = [line for column in columns for cell in column for line in cell]
        return "\n".join([query, "", *(_marked(line, words, colour) for line in lines)])
    lines = [query, ""]
    for left, right in zip_longest(*columns, fillvalue=[]):
        for one, two in zip_longest(left, right, fillvalue=""):
            pad = " " * (room - _width(one))
            lines.append(f"{_marked(one, words, colour)}{pad}{GAP}{_marked(two, words, colour)}".rstrip())
    return "\n".join(lines)


def _cell(hit: dict[str, Any], words: Collection[str], room: int, before: bool) -> list[str]:
    text = shortened(hit["text"], words, 220)
    # A wide character takes two columns.
    wrapped = textwrap.wrap(text, (room - 3) // (2 if _width(text) > 1.5 * len(text) else 1))
    scores = " ".join(f"{NAMES.get(name, name)}\xa0{value:.3f}" for name, value in hit["scores"].items())
    head = f"{hit['rank']:2} {hit['score']:.3f}  [{hit['_id']}]  {moved(hit, before)}"
    told = [line.replace("\xa0", " ") for line in textwrap.wrap(scores, room - 3)]
    return [head[:room], *(f"   {line}" for line in [*wrapped, *told]), ""]


def _width(text: str) -> int:
    """Columns that it takes."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _marked(line: str, words: Collection[str], colour: bool) -> str:
    pieces = marked(CONTROL.sub(" ", line), words)
    return "".join(f"{BOLD}{piece}{PLAIN}" if hit and colour else piece for piece, hit in pieces)
