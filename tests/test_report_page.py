"""The page itself: it needs nothing, is read by everybody, follows light, dark and paper, and is the same each time."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import KIT
from report_helpers import write_run
from report_metrics import ARABIC, LONG_WORD
from report_reading import Page, report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run; its path has what paths may have."""
    return write_run(tmp_path_factory.mktemp("runs") / "mein 'Lauf' [1] & <b>")


@pytest.fixture(scope="module")
def page(run) -> Page:
    return report(run)


def test_the_page_asks_nobody_for_anything(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
        assert tag not in ("script", "iframe", "object", "embed", "img"), tag
        assert not any(name.startswith("on") for name in attributes)
    assert re.findall(r"url\((?!#)", page.text) == [] and "@import" not in page.text


def test_ids_are_unique_and_every_reference_leads_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    names = set(ids)
    for _, attributes in page.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= names
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in names
    assert set(re.findall(r"url\(#([^)]+)\)", page.text)) <= names


def test_the_page_is_read_by_ear_and_by_keyboard(page):
    assert page.all("html") == [{"lang": "en"}] and page.unclosed == []
    levels = [level for level, _ in page.headings]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1
    first_link = page.all("a")[0]
    assert first_link["class"] == "skip" and first_link["href"] == "#main"
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 20 for plot in page.all("svg"))
    assert len(page.all("svg")) == len(page.all("figure")) == len(page.all("figcaption"))
    scrolling = [found for _, found in page.tags if found.get("class") == "scroll"]
    assert scrolling and all(found["tabindex"] == "0" and found["aria-labelledby"] for found in scrolling)


def test_the_page_follows_light_dark_and_paper(page):
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert "@media print" in page.text and "prefers-color-scheme: dark" in page.text and "size: A4" in page.text
    plots = re.findall(r"<svg.*?</svg>", page.text, re.DOTALL)
    assert plots and not any(re.search(r"#[0-9a-f]{6}\b", plot) for plot in plots)
    assert all("<text" in plot and "font-family" not in plot for plot in plots)
    variables = set(re.findall(r"var\((--\w+)\)", "".join(plots)))
    assert variables <= set(re.findall(r"(--\w+):", page.text))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours such as #1c2127."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_every_colour_is_read_on_its_ground_in_both_schemes_and_on_paper(page):
    schemes = [dict(re.findall(r"(--\w+): (#\w{6})", block)) for block in re.findall(r":root \{[^}]*\}", page.text)]
    assert len(schemes) == 3
    for scheme in schemes:
        for name, colour in scheme.items():
            if name not in ("--grid", "--paper", "--panel"):
                least = 3 if name == "--edge" else 4.5
                assert all(contrast(colour, scheme[ground]) >= least for ground in ("--paper", "--panel")), (
                    name,
                    colour,
                )


def test_what_users_wrote_stays_text(page):
    assert "<script>alert" not in page.text and "<script>alert('x')</script> & \"quotes\" | pipes" in page.said
    assert ARABIC in page.said and 'dir="auto"' in page.text
    assert LONG_WORD not in page.said and "(9,900 characters)" in page.said
    assert page.headings[0] == (1, "mein 'Lauf' [1] & <b>")


def test_the_same_input_gives_the_same_bytes(run, page, tmp_path):
    def files() -> dict[str, bytes]:
        made = [run / "report.html", run / "README.md", *sorted((run / "plots").iterdir())]
        return {path.name: path.read_bytes() for path in made}

    before = files()
    # Another process, for hashes of strings differ between processes.
    subprocess.run([sys.executable, "-m", "m3kit", "report", run], cwd=KIT, check=True, capture_output=True)
    assert files() == before
