"""The search page in a real browser: a query typed, before and after seen, a mark set, and the set evaluated."""

from __future__ import annotations

import json
import threading
import time

import pytest
import report_browser
from search_helpers import search_of, write_run
from werkzeug.serving import make_server

from m3kit.__main__ import main
from m3kit.search.server import make_app
from m3kit.test_data.beir import read_eval_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(report_browser.missing()), reason=f"no browser: {report_browser.missing()}"),
]

ENTER = "\ue007"


@pytest.fixture(scope="module")
def search(model_folder, tmp_path_factory):
    return search_of(write_run(tmp_path_factory.mktemp("browser"), model_folder))


@pytest.fixture
def url(search, tmp_path):
    server = make_server("127.0.0.1", 0, make_app(search, tmp_path / "marked", "127.0.0.1", 5, "dense"), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with report_browser.Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def until(browser, condition: str) -> None:
    for _ in range(100):
        if browser.run(f"return {condition}"):
            return
        time.sleep(0.1)
    raise AssertionError(condition)


def test_a_query_is_typed_marked_and_evaluated(browser, url, search, tmp_path):
    browser.complaints()
    browser.requests()
    browser.open(url)
    browser.look(width=1200)
    browser.type("#q", f"river stone{ENTER}")
    until(browser, "document.querySelectorAll('section li').length == 10")
    titles = browser.run("return [...document.querySelectorAll('section h2')].map(title => title.textContent)")
    assert titles == ["Before", "After"]
    left, right = browser.run("return [...document.querySelectorAll('section')].map(s => s.getBoundingClientRect().x)")
    assert left + 300 < right
    number = browser.run("return document.querySelector('section.after li').id.slice(1)")
    browser.run("document.querySelector('section.after li button').click()")
    until(browser, "document.querySelector('section.after li button').ariaPressed == 'true'")
    browser.run("document.querySelector('fieldset button:nth-of-type(2)').focus()")
    browser.type("fieldset button:nth-of-type(2)", " ")
    until(browser, "document.querySelector('fieldset button:nth-of-type(2)').ariaPressed == 'true'")
    assert browser.complaints() == []
    assert all(address.startswith((url, "data:")) for address in browser.requests())

    marked = tmp_path / "marked"
    (grades,) = read_eval_data(marked).qrels.values()
    assert grades == {search.keys[int(number)]: 1}
    assert json.loads((marked / "marks.jsonl").read_text())["better"] == "after"
    models = [f"{name}={given}" for name, given in search.subject.models.items()]
    words = ["evaluate", "--models", *models, "--eval_data", str(marked), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--general_data", "none", "--device", "cpu"]) == 0

    browser.run("document.querySelector('section.after li button').click()")
    until(browser, "document.querySelector('section.after li button').ariaPressed == 'false'")
    assert (marked / "queries.jsonl").read_text() == ""


@pytest.mark.parametrize("width", [360, 390, 1200])
def test_it_never_scrolls_sideways(browser, url, width):
    browser.look(width=width)
    browser.open(f"{url}?q=river")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(not report_browser.axe(), reason="no axe-core: pip install -r tests/requirements.txt")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, url, scheme):
    browser.devtools("Page.setBypassCSP", enabled=True)
    browser.look(width=1200, scheme=scheme)
    for page in ("", "?q=river+stone", "?q=river&score=nope"):
        browser.open(url + page)
        assert report_browser.violations(browser) == []
