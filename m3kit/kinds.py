"""What values a setting takes: how they are read, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Kind:
    """``words`` ends the sentence "NAME is …"; ``parse`` raises ``ValueError`` for what is no such value.

    ``many``: any number of words, from one on, each of which ``parse`` takes; ``type``: of a value in the trainer.
    """

    words: str
    parse: Callable[[str], Any]
    metavar: str
    many: bool = False
    type: type = str


def whole(low: int | None, auto: bool = False, words: str = "") -> Kind:
    """Whole numbers from ``low`` on, and with ``auto`` this word too."""

    def parse(text: str) -> int | str:
        if auto and text == "auto":
            return text
        value = int(text)
        if low is not None and value < low:
            raise ValueError
        return value

    plain = "a whole number" + ("" if low is None else " above 0" if low == 1 else f", {low} or more")
    if auto:
        return Kind(words or f"auto or {plain}", parse, "N|auto")
    return Kind(words or plain, parse, "N", type=int)


def number(low: float = -math.inf, above: float = -math.inf, high: float = math.inf, words: str = "") -> Kind:
    """Finite numbers from ``low`` (or beyond ``above``) to ``high``."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < low or value <= above or value > high:
            raise ValueError
        return value

    plain = "a number" + (f" above {above:g}" if above > -math.inf else f", {low:g} or more" if low > -math.inf else "")
    return Kind(words or plain, parse, "X", type=float)


def share(from_zero: bool = False, below_one: bool = False, words: str = "") -> Kind:
    """Numbers from 0 (or above it) to 1 (or below it)."""

    def parse(text: str) -> float:
        value = float(text)
        if not 0 <= value <= 1 or (value == 0 and not from_zero) or (value == 1 and below_one):
            raise ValueError
        return value

    return Kind(words or f"a share from {'0' if from_zero else 'above 0'} to 1", parse, "SHARE", type=float)


def choice(*names: str) -> Kind:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    if len(names) > 12:
        return Kind(f"one of {', '.join(names[:5])} and {len(names) - 5} others", parse, "NAME")
    listed = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
    return Kind(listed, parse, "|".join(names))


def several(of: Kind) -> Kind:
    return Kind(f"one or more words, each {of.words}", of.parse, of.metavar, many=True, type=of.type)


def _switch(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError
    return text.lower() in TRUE


TEXT = Kind("a text", str, "TEXT")
NUMBER = number()
POSITIVE = whole(1)
SWITCH = Kind("True or False", _switch, "True|False", type=bool)
