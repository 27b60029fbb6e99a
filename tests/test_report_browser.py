"""The report as a reader has it: in a real browser, light and dark, on a phone and on paper."""

from __future__ import annotations

import pytest
import report_browser
from report_helpers import make_log, make_run, write_run
from report_metrics import make_metrics

from m3kit.report.command import make_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(report_browser.missing()), reason=f"no browser: {report_browser.missing()}"),
]

LONG_NAME = "a-model-with-a-very-long-name.of.forty.letters"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with report_browser.Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "a run & [more]",
        metrics=make_metrics(("base-of-long.name", LONG_NAME, "a", "b", "another-of.long_name", "tuned-LONGER-NAME")),
        log=make_log(700),
    )
    make_report(folder)
    return folder


def test_the_browser_shows_every_figure_and_neither_asks_nor_complains(browser, run):
    browser.look(width=1200)
    report_browser.assert_true_and_quiet(browser, run)


# Text that sticks out of its plot, by more than a pixel.
CLIPPED = """
return [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const at = text.getBoundingClientRect();
    return at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1;
  }).map(text => svg.parentElement.id + ': ' + text.textContent);
})
"""
# Pairs of texts of one plot that lie over each other.
OVERLAPPING = """
return [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
  const boxes = texts.map(text => text.getBoundingClientRect());
  const found = [];
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const a = boxes[i], b = boxes[j];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) found.push([svg.parentElement.id, texts[i].textContent, texts[j].textContent]);
  }
  return found;
})
"""


# What is wider than the place that it has.
CUT = """
return [...document.querySelectorAll('.scroll, pre, .firsts > div')].filter(it => it.scrollWidth > it.clientWidth + 1)
  .map(it => it.getAttribute('aria-labelledby') + ' ' + it.scrollWidth)
"""


@pytest.mark.parametrize("width", [360, 390, 800, 1200])
def test_nothing_is_cut_and_nothing_scrolls_sideways(browser, whole_run, whole_page, width):
    browser.look(width=width)
    browser.open(whole_run / "report.html")
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CUT) == []
    assert browser.run(CLIPPED) == [] and browser.run(OVERLAPPING) == []


@pytest.mark.parametrize("width", [390, 1200])
def test_of_many_models_only_tables_scroll_sideways(browser, run, width):
    browser.look(width=width)
    browser.open(run / "report.html")
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CLIPPED) == [] and browser.run(OVERLAPPING) == []


@pytest.mark.skipif(not report_browser.axe(), reason="no axe-core: pip install -r tests/requirements.txt")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["whole", "many models", "stopped"])
def test_nothing_keeps_people_from_reading_it(browser, run, whole_run, whole_page, tmp_path, scheme, kind):
    if kind == "stopped":
        folder = write_run(tmp_path / "run", metrics=None, run=make_run("stopped", "/kit/cache/starter"))
        make_report(folder)
    browser.look(width=390 if kind == "whole" else 1200, scheme=scheme)
    browser.open({"whole": whole_run, "many models": run}.get(kind, tmp_path / "run") / "report.html")
    assert report_browser.violations(browser) == []
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert report_browser.violations(browser) == []


def test_the_keyboard_goes_through_it_in_order(browser, whole_run, whole_page):
    browser.look(width=1200)
    browser.open(whole_run / "report.html")
    reached = []
    for _ in range(10):
        for kind in ("rawKeyDown", "keyUp"):
            browser.devtools("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(browser.run("return document.activeElement.getBoundingClientRect().top + scrollY"))
        if len(reached) == 1:
            assert browser.run("return document.activeElement.className") == "skip"
    assert reached == sorted(reached) and len(set(reached)) == 10


def test_colours_follow_the_readers_scheme_and_paper_is_white(browser, run):
    browser.open(run / "report.html")
    colours = {}
    for scheme, media in (("light", ""), ("dark", ""), ("dark", "print")):
        browser.look(width=1200, scheme=scheme, media=media)
        ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
        paper = "getComputedStyle(document.body).backgroundColor"
        colours[scheme, media] = browser.run(f"return [{ink}, {paper}]")
    assert colours["light", ""][1] == colours["dark", "print"][1] == "rgb(255, 255, 255)"
    assert colours["dark", ""][1] == "rgb(18, 22, 27)"
    assert colours["light", ""][0] != colours["dark", ""][0]


def test_it_prints(browser, run, tmp_path):
    browser.look(width=1200)
    browser.open(run / "report.html")
    browser.pdf(tmp_path / "report.pdf")
    printed = (tmp_path / "report.pdf").read_bytes()
    # A4 in points.
    assert printed.startswith(b"%PDF") and (b"[0 0 595" in printed or b"[0 0 594" in printed)
