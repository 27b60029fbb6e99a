"""Check training data and tell what is wrong with it, without writing anything."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from m3kit.data.preparation import Preparation, about, sentence
from m3kit.data.problems import ERROR, NOTE, WARNING, Findings
from m3kit.data.progress import progress
from m3kit.data.settings import add_reading_arguments, settings_of
from m3kit.data.sources import find_files
from m3kit.data.workers import workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, task folders, or a folder of these")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when there are errors."""
    settings = settings_of(args)
    files = find_files(Path(path) for path in args.paths)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m3kit-check-")))
        bar = stack.enter_context(progress(both=True))
        pool = stack.enter_context(workers(sum(file.stat().st_size for file in files if file.is_file())))
        preparation = Preparation(settings, folder, pool, bar)
        entries = _try(preparation, files)
        bar.close()
        if args.json:
            _print_json(entries, preparation.findings)
        else:
            _print(entries, preparation.findings)
    return 1 if preparation.findings.errors else 0


def _try(preparation: Preparation, files: list[Path]) -> list[dict[str, Any]]:
    """Go as far as `prepare` would: some rows turn out to be of no use only when they are converted."""
    sets = preparation.inspect(files)
    plans = preparation.plan(sets)
    if preparation.findings.errors:
        return [about(data) for data in sets]
    return [preparation.write(data, plan, kept=False) for data, plan in zip(sets, plans, strict=True)]


def _print(entries: list[dict[str, Any]], findings: Findings) -> None:
    for entry in entries:
        print(sentence(entry))
    findings.tell(sys.stdout, _TOLD)
    counts = {severity: sum(n for (found, _), n in findings.counts.items() if found == severity) for severity in _TOLD}
    told = ", ".join(f"{count} {_TOLD[severity]}" for severity, count in counts.items() if count)
    print(f"found: {told or 'nothing that is wrong'}")


_TOLD = {ERROR: "errors", "set aside": "bad rows that would be set aside", WARNING: "warnings", NOTE: "notes"}


def _print_json(entries: list[dict[str, Any]], findings: Findings) -> None:
    """The problems go out as they lie on the disk: there may be more than memory holds."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 whatever the terminal is
    sets = json.dumps(entries, ensure_ascii=False)
    summary = json.dumps(findings.summary(), ensure_ascii=False)
    sys.stdout.write(f'{{"errors": {findings.errors}, "sets": {sets}, "summary": {summary}, "problems": [')
    with findings.path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            sys.stdout.write(("," if number else "") + "\n" + line.rstrip("\n"))
    sys.stdout.write("\n]}\n")
