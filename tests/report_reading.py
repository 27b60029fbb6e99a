"""What a test asks of a page: what it says, where it reaches out, its headings and ids."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from m3kit.report.command import make_report
from m3kit.report.page import render_page
from m3kit.report.record import read_record

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A parsed report."""

    def __init__(self, text: str):
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.words: list[str] = []
        self.unclosed: list[str] = []
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag in ("td", "th", "p", "li", "dt", "dd", "small", "caption", "h2", "summary", "div", "option", "title"):
            self.words.append(" ")
        if tag not in VOID:
            self.unclosed.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
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


def report(folder: Path) -> Page:
    return Page(Path(make_report(folder)["report"]).read_text("utf-8"))


def words(folder: Path) -> Page:
    """The page without its plots, which take long to draw."""
    return Page(render_page(read_record(folder), {}, "README.md"))
