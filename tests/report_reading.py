"""What a test asks of a page: its figures, where it reaches out, its headings and ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from m3kit.report.command import make_report
from m3kit.report.page import render_page
from m3kit.report.record import read_record
from m3kit.report.view import make_view

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A parsed report."""

    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, tuple[str, str]] = {}  # place in metrics.json: exact, shown
        self.headings: list[tuple[int, str]] = []
        self.words: list[str] = []
        self.unclosed: list[str] = []
        self._figure: str | None = None
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag in ("td", "th", "p", "li", "dt", "dd"):
            self.words.append(" ")
        if tag not in VOID:
            self.unclosed.append(tag)
        if tag == "data":
            self._figure = found["data-from"]
            self.figures[self._figure] = (found["value"], "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag, f"</{tag}> at {self.getpos()}"
        if tag == "data":
            self._figure = None

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self._figure is not None:
            exact, shown = self.figures[self._figure]
            self.figures[self._figure] = (exact, shown + data)
        if any(re.fullmatch("h[1-6]", tag) for tag in self.unclosed):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "style" not in self.unclosed:
            self.words.append(data)

    @property
    def said(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def numbers(part: Any, *path: str) -> Iterator[tuple[str, float]]:
    """Every number of a JSON value, with its place."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from numbers(value, *path, key)
    elif isinstance(part, list):
        for place, value in enumerate(part):
            yield from numbers(value, *path, str(place))
    elif isinstance(part, (int, float)) and not isinstance(part, bool):
        yield "/".join(path), part


def measured_numbers(metrics: dict) -> dict[str, float]:
    """Every figure of metrics.json by its place: all but settings, how many texts a task had, and serving.

    Of serving the page tells what the verdict says of it.
    """
    return {
        place: value
        for place, value in numbers(metrics)
        if "settings" not in place.split("/") and not place.startswith(("tasks/", "serving/"))
    }


def report(folder: Path) -> Page:
    return Page(Path(make_report(folder)["report"]).read_text("utf-8"))


def words(folder: Path) -> Page:
    """The page without its plots, which take long to draw."""
    return Page(render_page(make_view(read_record(folder)), {}, "README.md"))
