"""A figure in the page: rounded for the reader, exact in the HTML, with the place it comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from m3kit.report.words import decimals


@dataclass(frozen=True)
class Number:
    """``where`` is the path in metrics.json, by which anybody (and a test) can compare the page with it."""

    value: float
    where: str
    shown: str

    def __html__(self) -> str:
        return Markup('<data value="{}" data-from="{}">{}</data>').format(
            json.dumps(self.value), self.where, self.shown
        )

    def __str__(self) -> str:
        return self.shown


class Source:
    """A part of metrics.json that knows where it stands in it."""

    def __init__(self, part: Mapping[str, Any], *path: str):
        self.part, self.path = part, path

    def __bool__(self) -> bool:
        return bool(self.part)

    def of(self, *path: str) -> Source:
        """A part of this one; an empty one where there is none."""
        part: Any = self.part
        for key in path:
            part = part.get(key, {})
        return Source(part if isinstance(part, Mapping) else {}, *self.path, *path)

    def number(self, *path: str | int, show: Callable[[Any], str] = decimals) -> Number | None:
        """The figure at a path; None where there is none."""
        found: Any = self.part
        for key in path:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return None
        return Number(found, "/".join(map(str, (*self.path, *path))), show(found))
