"""Checks of rows by themselves. Each yields (row, severity, what and fix)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from m3kit.data.near import near_pairs
from m3kit.data.problems import ERROR, NOTE, WARNING, BadRow
from m3kit.data.text import damage, is_blank

Found = tuple[int, str, BadRow]
# STS pairs of the same text that are said to mean less than this are contradictory.
SAME_TEXT_SCORE = 0.8


def check_texts(
    flat: list[str],
    plain: list[bool],
    same: list[str],
    first: np.ndarray,
    positives: list[int],
    name_of: Callable[[int, int], str],
) -> Iterator[Found]:
    """Texts that are empty or damaged. ``flat`` has the texts of row r at first[r]:first[r + 1], ``plain`` whether
    each is printable ASCII, ``same`` their ``same_text`` forms; ``name_of`` gives the column for a place in a row and
    the row's number of positives."""
    # With a plain text nothing can be wrong but that there is nothing in it.
    for number in [n for n, is_plain in enumerate(plain) if not is_plain or not same[n]]:
        text = flat[number]
        row = int(np.searchsorted(first, number, side="right")) - 1
        name = name_of(number - int(first[row]), positives[row])
        if is_blank(text):
            what = "is empty" if not text else "is empty (nothing but white space or invisible characters)"
            yield row, ERROR, BadRow(f'"{name}" {what}', "fill it in or delete the row", code="empty")
        elif found := damage(text):
            code, what = found
            yield row, WARNING, BadRow(f'"{name}" {what}', "write the text again from its source", code=code)


def check_near_negatives(same: list[str], key: np.ndarray, first: np.ndarray, positives: np.ndarray) -> Iterator[Found]:
    """Negatives that are nearly a positive of their query, and so most likely right answers too."""
    counts = np.diff(first) - 1
    row = np.repeat(np.arange(len(counts)), positives * (counts - positives))
    if not len(row):
        return
    # the pairs of each row, one after the other: each of its positives with each of its negatives
    sizes = positives * (counts - positives)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    negatives = (counts - positives)[row]
    right = first[row] + 1 + place // negatives
    wrong = first[row] + 1 + positives[row] + place % negatives
    different = key[right] != key[wrong]
    row, right, wrong = row[different], right[different], wrong[different]
    fix = "delete it if it answers the query too"
    for pair, alike in near_pairs(same, right, wrong):
        what = f"a negative is nearly a positive of its query (similarity {alike:.2f})"
        yield int(row[pair]), NOTE, BadRow(what, fix, code="negative-near-positive")


def check_repeats(
    key: np.ndarray, first: np.ndarray, positives: list[int], values: list[Any], rows: np.ndarray, kind: str | None
) -> Iterator[Found]:
    """Rows in which two texts are the same; ``rows`` are those, the other arguments as in ``check_texts``."""
    for row in rows.tolist():
        keys = key[first[row] : first[row + 1]].tolist()
        if kind == "sts":
            if values[row] < SAME_TEXT_SCORE:
                what = f"both sentences are the same text, and the score is {values[row]:g}"
                yield row, WARNING, BadRow(what, "correct the score or delete the row", code="sts-same-text")
            continue
        query, right, wrong = keys[0], keys[1 : 1 + positives[row]], keys[1 + positives[row] :]
        if query in right:
            what = "a positive is the query itself: it teaches nothing"
            yield row, WARNING, BadRow(what, "give the passage that answers the query", code="positive-is-query")
        if query in wrong:
            what = "a negative is the query itself"
            yield row, WARNING, BadRow(what, "delete that negative", code="negative-is-query")
        if set(right) & set(wrong):
            what = "a negative is a positive of its query"
            yield row, WARNING, BadRow(what, "delete the one that is wrong", code="negative-is-positive")
        if len(set(right)) < len(right) or len(set(wrong)) < len(wrong):
            yield row, WARNING, BadRow("a passage is given twice", "delete the repeat", code="passage-twice")
