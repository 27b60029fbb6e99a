"""The page of m3kit search --serve, by its requests: what it shows, keeps and refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from search_helpers import search_of, write_run

from m3kit.errors import KitError
from m3kit.search.marks import check_marks, mark, read_marks
from m3kit.search.server import LARGEST, LONGEST, listen, make_app, meant_for
from m3kit.test_data.beir import read_eval_data

TEXTS = {"d1": "one", "d2": "two"}


@pytest.fixture(scope="module")
def search(model_folder, tmp_path_factory):
    return search_of(write_run(tmp_path_factory.mktemp("page"), model_folder))


@pytest.fixture
def page(search, tmp_path):
    return make_app(search, tmp_path / "marked", "127.0.0.1", 5, "dense").test_client()


# ---- the page ------------------------------------------------------------------------------------------------------


def test_it_shows_both_sides_and_loads_nothing_from_elsewhere(page):
    assert page.get("/").status_code == 200
    answer = page.get("/?q=river+stone")
    text = answer.text
    assert text.index("Before</h2>") < text.index("After</h2>") and "<mark>river</mark>" in text
    assert text.count("<li id=") == 10 and "ColBERT" in text
    assert set(re.findall(r'(?:src|href|action)="([^"?#]*)', text)) <= {
        "",
        "/",
        "/mark",
        "/static/search.css",
        "data:,",
    }
    assert "script" not in text and "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert page.get("/static/search.css").status_code == 200


def test_what_is_typed_is_text(page):
    text = page.get("/?q=%3Cscript%3Ealert(1)%3C/script%3E%22").text
    assert "<script" not in text and "&lt;script&gt;" in text


def test_marks_are_set_changed_and_taken_back(page, tmp_path):
    def send(**fields):
        answer = page.post("/mark", data={"q": "river stone", "score": "dense", **fields})
        assert answer.status_code == 303, answer.text
        return page.get(answer.location).text

    folder = tmp_path / "marked"
    shown = send(right="3")
    assert shown.count('aria-pressed="true"') == 1 and "Also marked as right" in shown
    send(right="0")
    send(better="after")
    data = read_eval_data(folder)
    (key,) = data.queries
    assert data.queries[key] == "river stone" and data.qrels == {key: {"d3": 1, "d0": 1}} and len(data.passages) == 12
    assert json.loads((folder / "marks.jsonl").read_text())["better"] == "after"
    send(better="neither")
    send(not_right="3")
    assert list(read_eval_data(folder).qrels[key]) == ["d0"]
    send(not_right="0")
    assert "Marked so far: 1 query" in send(better="neither")
    assert "Marked so far" not in send(better="")
    assert (folder / "marks.jsonl").read_text() == "" == (folder / "queries.jsonl").read_text()
    assert not list(folder.rglob("*.tmp"))


def test_marks_are_evaluated(page, search, tmp_path):
    from m3kit.__main__ import main

    page.post("/mark", data={"q": "river stone", "right": "0"})
    models = [f"{name}={given}" for name, given in search.subject.models.items()]
    words = ["evaluate", "--models", *models, "--eval_data", str(tmp_path / "marked"), "--output_dir", str(tmp_path)]
    assert main([*words, "--general_data", "none", "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["queries"] == 1


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "path", "given"),
    [
        (400, "get", f"/?q={'x' * (LONGEST + 1)}", {}),
        (400, "get", "/?q=a%00b", {}),
        (400, "get", "/?q=x&score=nope", {}),
        (404, "get", "/other", {}),
        (405, "get", "/mark", {}),
        (405, "post", "/", {}),
        (405, "options", "/mark", {}),
        (413, "post", "/mark", {"data": {"q": "x" * LARGEST, "right": "1"}}),
        (400, "post", "/mark", {"data": {"q": "x"}}),
        (400, "post", "/mark", {"data": {"right": "1"}}),
        (400, "post", "/mark", {"data": {"q": "x", "right": "1", "better": "after"}}),
        (400, "post", "/mark", {"data": {"q": "x", "better": "best"}}),
        (400, "post", "/mark", {"json": {"q": "x", "right": 1}}),
        (400, "post", "/mark", {"data": b"\xff\x00", "content_type": "application/x-www-form-urlencoded"}),
        *((400, "post", "/mark", {"data": {"q": "x", "right": n}}) for n in ("12", "-1", "1.5", "²", "9" * 30, "")),
        (403, "post", "/mark", {"data": {"q": "x", "right": "1"}, "headers": {"Origin": "http://evil.example"}}),
        (403, "post", "/mark", {"data": {"q": "x", "right": "1"}, "headers": {"Origin": "null"}}),
        (403, "post", "/mark", {"data": {"q": "x", "right": "1"}, "headers": {"Sec-Fetch-Site": "cross-site"}}),
        (403, "get", "/", {"headers": {"Host": "evil.example:8008"}}),
        (403, "get", "/static/search.css", {"headers": {"Host": "evil.example"}}),
    ],
)
def test_what_is_oversized_malformed_or_foreign_is_refused_with_a_sentence(page, tmp_path, status, method, path, given):
    answer = getattr(page, method)(path, **given)
    assert answer.status_code == status
    (sentence,) = re.findall(r'role="alert">([^<]+)<', answer.text)
    assert sentence.endswith(".") and "Traceback" not in answer.text
    assert not (tmp_path / "marked").exists()


def test_it_answers_to_its_own_names_only():
    own = ("localhost:8008", "127.0.0.1:8008", "127.0.0.1", "[::1]:80")
    assert all(meant_for(name, "127.0.0.1") for name in own)
    foreign = ("", "evil.example", "127.0.0.1.evil.example", "192.168.1.5", "localhost.evil", "[", "a b")
    assert not any(meant_for(name, "127.0.0.1") for name in foreign)
    assert meant_for("192.168.1.5:8008", "0.0.0.0") and meant_for("gpu1:8008", "gpu1")
    assert not meant_for("evil.example", "0.0.0.0")


def test_a_mark_that_cannot_be_kept_is_told(page, tmp_path):
    (tmp_path / "marked").write_text("a file")
    answer = page.post("/mark", data={"q": "x", "right": "1"})
    assert answer.status_code == 503 and "Traceback" not in answer.text


# ---- the set of marks ----------------------------------------------------------------------------------------------


def test_an_existing_set_is_added_to(tmp_path):
    mark(tmp_path, TEXTS, "a", ["d1"], None)
    mark(tmp_path, TEXTS, "b", [], "both")
    mark(tmp_path, TEXTS, "c", ["d2"], "before")
    assert read_marks(tmp_path) == {
        "a": {"right": ["d1"], "better": None},
        "b": {"right": [], "better": "both"},
        "c": {"right": ["d2"], "better": "before"},
    }
    assert list(read_eval_data(tmp_path).queries.values()) == ["a", "c"]


def test_other_passages_and_other_data_are_not_mixed_in(tmp_path):
    mark(tmp_path, TEXTS, "a", ["d1"], None)
    with pytest.raises(KitError, match="about other passages; move .* or keep the marks elsewhere with --marks"):
        check_marks(tmp_path, {**TEXTS, "d3": "three"})
    (tmp_path / "marks.jsonl").write_text("{")
    with pytest.raises(KitError, match="is damaged"):
        check_marks(tmp_path, TEXTS)
    (tmp_path / "marks.jsonl").unlink()
    with pytest.raises(KitError, match="were not marked here"):
        check_marks(tmp_path, TEXTS)


# ---- the server ----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(KitError, match=r"cannot listen on port \d+ of 127.0.0.1 .*; give another --port, or 0"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(KitError, match="cannot listen .*; leave --host out"):
        listen("no.such.host.invalid", 0)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_serves_until_ctrl_c(search, host):
    words = [sys.executable, "-m", "m3kit", "search", str(search.subject.run), "--serve", "--port", "0", "--host", host]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", server.stdout.readline())[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"<mark>river</mark>" in opener.open(f"{url}?q=river", timeout=60).read()
        # The server itself, without Flask before it: a request of no known form.
        port = int(re.search(r":(\d+)/", url)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
            raw.sendall(b"\x00\x01nonsense\r\n\r\n")
            assert b" 400 " in raw.recv(1000)
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=60)
    assert server.returncode == 0 and err.endswith("Search ended.\n") and "Traceback" not in err
    assert ("WARNING: whoever reaches port" in err) == (host == "0.0.0.0")
