"""The page itself: it needs nothing, is read by everybody, follows light, dark and paper, and is the same each time."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from conftest import KIT
from report_metrics import ARABIC, LONG_WORD


def test_the_page_asks_nobody_for_anything(whole_page):
    for tag, attributes in whole_page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
        assert tag not in ("script", "iframe", "object", "embed", "img"), tag
        assert not any(name.startswith("on") for name in attributes)
    assert re.findall(r"url\((?!#)", whole_page.text) == [] and "@import" not in whole_page.text


def test_ids_are_unique_and_every_reference_leads_somewhere(whole_page):
    ids = [attributes["id"] for _, attributes in whole_page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    names = set(ids)
    for _, attributes in whole_page.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= names
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in names
    assert set(re.findall(r"url\(#([^)]+)\)", whole_page.text)) <= names


def test_the_page_is_read_by_ear_and_by_keyboard(whole_page):
    assert whole_page.all("html") == [{"lang": "en"}] and whole_page.unclosed == []
    levels = [level for level, _ in whole_page.headings]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for landmark in ("header", "main", "footer"):
        assert len(whole_page.all(landmark)) == 1
    first_link = whole_page.all("a")[0]
    assert first_link["class"] == "skip" and first_link["href"] == "#main"
    assert len(whole_page.all("table")) == len(whole_page.all("caption"))
    assert all(cell.get("scope") for cell in whole_page.all("th"))
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 20 for plot in whole_page.all("svg"))
    assert len(whole_page.all("svg")) == len(whole_page.all("figure")) == len(whole_page.all("figcaption"))
    scrolling = [found for _, found in whole_page.tags if found.get("class") == "scroll"]
    assert scrolling and all(found["tabindex"] == "0" and found["aria-labelledby"] for found in scrolling)


def test_the_page_follows_light_dark_and_paper(whole_page):
    assert {"name": "color-scheme", "content": "light dark"} in whole_page.all("meta")
    assert (
        "@media print" in whole_page.text
        and "color-scheme: light dark" in whole_page.text
        and "size: A4" in whole_page.text
    )
    plots = re.findall(r"<svg.*?</svg>", whole_page.text, re.DOTALL)
    assert plots and not any(re.search(r"#[0-9a-f]{6}\b", plot) for plot in plots)
    assert all("<text" in plot and "font-family" not in plot for plot in plots)
    variables = set(re.findall(r"var\((--\w+)\)", "".join(plots)))
    assert variables <= set(re.findall(r"(--\w+):", whole_page.text))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours such as #1c2127."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_every_colour_is_read_on_its_ground_in_both_schemes(whole_page):
    colours = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", whole_page.text)
    assert len(colours) == 17
    for place in (1, 2):
        scheme = {colour[0]: colour[place] for colour in colours}
        for name, colour in scheme.items():
            if name not in ("grid", "paper", "panel"):
                least = 3 if name == "edge" else 4.5
                assert all(contrast(colour, scheme[ground]) >= least for ground in ("paper", "panel")), (name, colour)


def test_what_users_wrote_stays_text(whole_page):
    assert (
        "<script>alert" not in whole_page.text and "<script>alert('x')</script> & \"quotes\" | pipes" in whole_page.said
    )
    assert ARABIC in whole_page.said and 'dir="auto"' in whole_page.text
    assert LONG_WORD not in whole_page.said and f"{LONG_WORD[:199]}…" in whole_page.said
    # What would turn around the text beside it.
    assert "\u202e" not in whole_page.text
    assert whole_page.headings[0] == (1, "mein 'Lauf' [1] & <b>")


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(whole_run, whole_page, tmp_path):
    def files() -> dict[str, bytes]:
        made = [whole_run / "report.html", whole_run / "README.md", *sorted((whole_run / "plots").iterdir())]
        return {path.name: path.read_bytes() for path in made}

    before = files()
    # Another process, for hashes of strings differ between processes.
    subprocess.run([sys.executable, "-m", "m3kit", "report", whole_run], cwd=KIT, check=True, capture_output=True)
    assert files() == before
