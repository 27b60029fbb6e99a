"""Search a run's passages with the model before and after training: in the terminal, or on a page with a search box.

    python -m m3kit search outputs/mine "a question"
    python -m m3kit search outputs/mine --serve

Without a question they are read, one a line. On the page (--serve) a person marks which passages are right, and which
side is better; the marks are test data for `m3kit evaluate`. Vectors of the passages are kept in RUN/.search.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from m3kit.arguments import add_encoding_arguments, positive
from m3kit.encoding.trained_with import Encoding
from m3kit.errors import KitError
from m3kit.evaluation.serving import HYBRID
from m3kit.progress import say
from m3kit.search.marks import MARKED
from m3kit.search.subject import NAMES, SERVED, find_subject
from m3kit.search.terminal import render

HOST, PORT = "127.0.0.1", 8008


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, __doc__
    # Options may stand between RUN and the query.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("query", nargs="?", help="what to look for (default: ask for it)")
    parser.add_argument(
        "--corpus", type=Path, help='passages: a BEIR folder, or a file of rows with "text" (default: the run\'s)'
    )
    parser.add_argument("--base", metavar="MODEL", help="the model before (default: what the run started from)")
    parser.add_argument("--score", choices=NAMES, help="ranks (default: what the evaluation says to serve, else dense)")
    parser.add_argument("--k", type=positive, default=10, help="passages shown of each model (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    parser.add_argument("--serve", action="store_true", help="serve a page with a search box, to this machine alone")
    parser.add_argument("--port", type=int, default=PORT, help="of the page; 0: any free (default: %(default)s)")
    parser.add_argument("--host", default=HOST, help="0.0.0.0: reachable from other machines (default: %(default)s)")
    parser.add_argument("--marks", type=Path, metavar="FOLDER", help=f"of the page (default: RUN/{MARKED})")
    add_encoding_arguments(parser, "(default: as the run was trained)")


def run(args: argparse.Namespace) -> None:
    if args.serve and (args.query or args.json):
        raise KitError("the page asks for the query itself; leave --serve out, or the query and --json")
    if args.query is not None and not args.query.strip():
        raise KitError("the query is empty; give one in quotes, or leave it out to be asked for it")
    given = {field.name: getattr(args, field.name) for field in fields(Encoding)}
    subject = find_subject(args.run, args.base, args.corpus, given)
    score = args.score or (SERVED if subject.served else "dense")
    if score == SERVED and not subject.served:
        command = f"python -m m3kit evaluate --output_dir {shlex.quote(str(args.run))}"
        raise KitError(f"{args.run} has no {HYBRID}; {command} writes it")
    say(f"{len(subject.passages)} passages of {subject.corpus}")
    # Late, so that errors in arguments and passages do not wait for torch.
    from m3kit.search.engine import Search

    search = Search(subject, args.device, args.precision, args.batch_size)
    for note in search.notes:
        say(note)
    if args.serve:
        from m3kit.search.server import serve

        serve(search, args.marks or args.run / MARKED, args.host, args.port, args.k, score)
        return
    answers = (search.ask(query, score, args.k) for query in ([args.query] if args.query else _queries(args.json)))
    if args.json:
        told = {"run": str(args.run), "corpus": str(subject.corpus), "models": subject.models, "notes": search.notes}
        print(json.dumps({**told, "queries": list(answers)}, ensure_ascii=False))
        return
    for answer in answers:
        print(render(answer, subject.models), flush=True)


def _queries(quiet: bool) -> Iterator[str]:
    """From stdin; on a terminal each is asked for, and an empty line ends."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    import readline  # noqa: F401  # lines can be edited

    while True:
        try:
            line = input("" if quiet else "Query (empty: end): ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line
