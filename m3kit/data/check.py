"""Check training data and tell what is wrong with it, without writing anything."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from m3kit.data.prepare import Room, about, left_out, sentence
from m3kit.data.settings import add_reading_arguments, settings_of
from m3kit.progress import bar
from m3kit.reading.problems import ASIDE, ERROR, NOTE, WARNING
from m3kit.reading.sources import find_sources

_TOLD = {ERROR: "errors", ASIDE: "bad rows that would be set aside", WARNING: "warnings", NOTE: "notes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, task folders, or a folder of these")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when there are errors."""
    settings = settings_of(args)
    sources = find_sources(Path(path) for path in args.paths)
    with bar(None, "reading", "rows") as shown:
        room = Room(settings, shown)
        # As far as `prepare` would go: some rows turn out to be of no use only when they are converted.
        sets = room.read(sources)
        if room.findings.errors:
            room.try_converting(sets)
        entries = list(map(about, sets)) if room.findings.errors else room.convert(sets, None)
    findings = room.findings
    if args.json:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 whatever the terminal is
        problems = [problem.as_json() for problem in findings.problems]
        found = {"errors": findings.errors, "sets": entries, "summary": findings.summary(), "problems": problems}
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        for entry in entries:
            print(sentence(entry))
        for path, split in left_out(sources).items():
            print(f"left out of training: {path} (its name says {split})")
        findings.tell(sys.stdout, _TOLD)
        told = ", ".join(f"{count} {name}" for severity, name in _TOLD.items() if (count := findings.count(severity)))
        print(f"found: {told or 'nothing that is wrong'}")
    return 1 if findings.errors else 0
