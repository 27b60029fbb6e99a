"""A headless Chromium for tests, spoken to by WebDriver: what a page shows, asks for, and complains about."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from m3kit.records import HEADLINE, SCORES, Metrics, read

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def missing() -> str:
    """Why there is no browser here; empty where there is one."""
    lacks = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"{' and '.join(lacks)} not on PATH (Debian: apt-get install chromium chromium-driver)" if lacks else ""


class Browser:
    """One window; use as a context manager."""

    def __init__(self, profile: Path):
        self._profile = profile

    def __enter__(self) -> Browser:
        self._driver = subprocess.Popen(
            [shutil.which("chromedriver"), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        said = ""
        for line in self._driver.stdout:
            said += line
            if port := re.search(r"on port (\d+)\.", line):
                break
        else:
            raise RuntimeError(f"chromedriver did not start: {said}")
        self._url = f"http://127.0.0.1:{port[1]}/session"
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={self._profile}"],
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        try:
            session = self._ask("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._driver.kill()
            raise
        self._url += f"/{session}"
        # The browser's own first page asks for much.
        self._ask("/url", {"url": "about:blank"})
        self.requests()
        return self

    def __exit__(self, *_) -> None:
        try:
            self._ask("", method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait(10)

    def _ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", content, {"Content-Type": "application/json"}, method=method
        )
        # This machine's own port: never through a proxy.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path | str) -> None:
        """A file, or an address."""
        self._ask("/url", {"url": page if isinstance(page, str) else page.resolve().as_uri()})

    def type(self, selector: str, keys: str) -> None:
        """Into the element, by key strokes."""
        element = next(iter(self._ask("/element", {"using": "css selector", "value": selector}).values()))
        self._ask(f"/element/{element}/value", {"text": keys})

    def run(self, script: str) -> Any:
        """The value that a script returns."""
        return self._ask("/execute/sync", {"script": script, "args": []})

    def look(self, *, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """Show the page as a device of this size would, in the light or the dark scheme, or as printed."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, file: Path, whole: bool = True) -> None:
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        file.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, file: Path) -> None:
        printed = self.devtools("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        file.write_bytes(base64.b64decode(printed["data"]))

    def complaints(self) -> list[str]:
        """What stands on the console since the last call."""
        return [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """What the pages asked for since the last call, themselves included."""
        events = [json.loads(entry["message"])["message"] for entry in self._ask("/se/log", {"type": "performance"})]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def assert_true_and_quiet(browser: Browser, run: Path) -> None:
    """The report of a run shows the verdict of metrics.json and the figures that it rests on, asks for nothing and
    complains of nothing."""
    page = run / "report.html"
    browser.complaints()
    browser.requests()
    browser.open(page)
    metrics = read(run / "metrics.json", Metrics, "")
    assert metrics is not None
    shown = browser.run("return document.body.innerText")
    assert all(line in shown for line in metrics.verdict.splitlines())
    for model in (metrics.models[metrics.base], metrics.models[metrics.last]):
        assert all(f"{model.figures(score)[HEADLINE]:.3f}" in shown for score in SCORES if model.figures(score))
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.complaints() == []


def axe() -> Path | None:
    """axe-core's script, which looks for what keeps people from reading a page; None where it is not installed."""
    package = importlib.util.find_spec("selenium_axe_python")
    return Path(package.origin).parent / "axe-core" / "axe.min.js" if package and package.origin else None


def violations(browser: Browser) -> list[str]:
    """What the open page does against WCAG 2.2 AA, and where."""
    script = axe()
    assert script is not None
    browser.run(script.read_text("utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = browser.run(f"return axe.run({{runOnly: {tags}}})")
    assert len(found["passes"]) > 20
    return [
        f"{broken['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for broken in found["violations"]
        for node in broken["nodes"]
    ]
