"""The page of ``m3kit search --serve``: a query, before and after, and marks. Answers only who is meant to ask."""

from __future__ import annotations

import errno
import ipaddress
import logging
import shlex
import socket
import threading
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import Flask, abort, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from m3kit.errors import KitError
from m3kit.evaluation.serving import NAMES
from m3kit.progress import say
from m3kit.search.engine import Search
from m3kit.search.marks import SIDES, check_marks, mark, read_marks
from m3kit.search.subject import AFTER, BEFORE
from m3kit.search.words import CONTROL, marked, moved, shortened

UNMARKED: dict[str, Any] = {"right": [], "better": None}
LONGEST = 400  # characters of a query
LARGEST = 8192  # bytes of a request's body
IDLE = 60  # seconds that a connection may say nothing
POLICY = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": with that, browsers hide where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app(search: Search, folder: Path, host: str, k: int, first_score: str) -> Flask:
    """The page over a search. ``folder`` keeps the marks; ``host`` is where it listens."""
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=LARGEST, MAX_FORM_PARTS=20)
    subject, keys, one_at_a_time = search.subject, search.keys, threading.Lock()
    models = [f"{name}={given}" for name, given in subject.models.items()]
    command = ["python", "-m", "m3kit", "evaluate", "--models", *models]
    command += ["--eval_data", str(folder), "--output_dir", str(folder)]
    # What the page itself could not ask for is not offered.
    examples = [query for query in subject.examples if len(query) <= LONGEST]
    app.jinja_env.filters.update(marked=marked, shortened=shortened, moved=moved)
    app.jinja_env.globals.update(
        {"scores": search.weights, "names": NAMES, "sides": SIDES, "longest": LONGEST, "subject": subject},
        **{"notes": search.notes, "examples": examples, "command": shlex.join(command), "folder": folder},
        **{"before": BEFORE, "after": AFTER},
    )

    # So that the page comes back at once after a mark.
    ask = lru_cache(64)(partial(search.ask, k=k))

    def wanted(values: Any) -> tuple[str, str]:
        """The query and the score that a request names."""
        query, score = " ".join(values.get("q", "").split()), values.get("score", first_score)
        if len(query) > LONGEST:
            abort(400, f"A query has at most {LONGEST} characters, and this one has {len(query)}: shorten it.")
        if CONTROL.search(query):
            abort(400, "The query holds characters that cannot be printed: type it again.")
        if score not in search.weights:
            abort(400, f"There is no such score: choose one of {', '.join(search.weights)}.")
        return query, score

    def page(query: str = "", score: str = first_score, **shown: Any) -> str:
        return render_template("search.html", query=query, score=score, **shown)

    @app.before_request
    def refuse_strangers() -> None:
        # A foreign page may have a name of its own lead here (DNS rebinding), or send a form here.
        if not meant_for(request.host, host):
            abort(403, "This page answers only to the address that the command printed: open that one.")
        own = f"{request.scheme}://{request.host}"
        known = request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
        if request.method == "POST" and (request.headers.get("Origin", own) != own or not known):
            abort(403, "A mark is taken from this page alone: open it and mark there.")

    @app.after_request
    def with_headers(response: Any) -> Any:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    @app.errorhandler(KitError)
    def refused(error: Exception) -> tuple[str, int]:
        return page(problem=getattr(error, "description", str(error))), getattr(error, "code", 503)

    @app.get("/", provide_automatic_options=False)
    def show() -> str:
        query, score = wanted(request.args)
        with one_at_a_time:
            marks = read_marks(folder)
            found = ask(query, score) if query else None
        mine = marks.get(query, UNMARKED)
        shown = {hit["_id"] for hits in found["models"].values() for hit in hits} if found else set()
        unseen = [(keys.index(key), key, subject.passages[key]) for key in mine["right"] if key not in shown]
        return page(query, score, found=found, marks=marks, unseen=unseen, **mine)

    @app.post("/mark", provide_automatic_options=False)
    def take_mark() -> Any:
        query, score = wanted(request.form)
        given = [name for name in ("right", "not_right", "better") if name in request.form]
        if not query or len(given) != 1:
            abort(400, "A mark names its query, and one passage or one side: mark on the page.")
        (kind,), side, number = given, request.form.get("better"), request.form.get(given[0], -1, type=int)
        if kind == "better" and side not in ("", *SIDES):
            abort(400, f"A side is one of {', '.join(SIDES)}.")
        if kind != "better" and not 0 <= number < len(keys):
            abort(400, "There is no such passage: search again.")
        with one_at_a_time:
            mine = read_marks(folder).get(query, UNMARKED)
            if kind == "better":
                mine = mine | {"better": side or None}
            else:
                others = [key for key in mine["right"] if key != keys[number]]
                mine = mine | {"right": others + [keys[number]] * (kind == "right")}
            mark(folder, subject.passages, query, **mine)
        place = "verdict" if kind == "better" else f"p{number}"
        return redirect(f"/?{urlencode({'q': query, 'score': score})}#{place}", 303)

    return app


def meant_for(given: str, host: str) -> bool:
    """Whether a Host header names this server: its own name, or an address, which no foreign name can lead to."""
    name = given.lower()
    try:
        name = urlsplit(f"//{given}").hostname or ""
        address = ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and name in ("localhost", host.lower())
    return address.is_loopback or not is_loopback(host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Handler(WSGIRequestHandler):
    timeout = IDLE


def serve(search: Search, folder: Path, host: str, port: int, k: int, first_score: str) -> None:
    """Serve the page until Ctrl-C. Raises ``KitError`` where nothing can be served."""
    check_marks(folder, search.subject.passages)
    app = make_app(search, folder, host, k, first_score)
    with listen(host, port) as listening:
        search.ask("a first query", first_score, 1)  # loads the models: the next one need not wait for that
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        server = make_server(host, port, app, threaded=True, request_handler=Handler, fd=listening.fileno())
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        if not is_loopback(host):
            say(f"WARNING: whoever reaches port {port} of this machine can search these passages and set marks.")
            shown = "localhost" if host in ("0.0.0.0", "::") else shown
        print(f"Search at http://{shown}:{port}/ (marks go to {folder}; Ctrl-C ends)", flush=True)
        server.serve_forever()  # returns at Ctrl-C
        say("Search ended.")


def listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        unknown = (socket.EAI_NONAME, socket.EAI_AGAIN, errno.EADDRNOTAVAIL)
        of_host = getattr(error, "errno", None) in unknown
        cure = "leave --host out" if of_host else "give another --port, or 0 for any that is free"
        raise KitError(f"cannot listen on port {port} of {host} ({error}); {cure}") from error
