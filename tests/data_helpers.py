"""Run the data room on rows given in a test."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from conftest import KIT, read_jsonl, write_jsonl

from m3kit.cli import main
from m3kit.data.prepare import Room, prepare
from m3kit.data.settings import Settings
from m3kit.progress import bar
from m3kit.reading.sources import Source

FOLDERS = {
    "retrieval": "retrieval",
    "sts": "sts",
    "classification": "classification-no_in_batch_neg",
    "clustering": "clustering-no_in_batch_neg",
}

PAIRS = [{"query": f"query {i}", "positive": f"passage {i}"} for i in range(4)]


def run(*arguments, cwd=KIT, **environment) -> subprocess.CompletedProcess:
    """`m3kit prepare` as a user types it."""
    command = [sys.executable, "-m", "m3kit", "prepare", *map(str, arguments)]
    env = {"PYTHONPATH": str(KIT), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)


def call(*words: object, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """``m3kit`` with these words, in this process: a new one takes longer than what it is asked for."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors) for errors in ("strict", "backslashreplace"))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([*map(str, words)])
        except SystemExit as left:  # what argparse refuses
            status = left.code
    said = []
    for stream in (out, err):
        stream.flush()
        # JSON is UTF-8 on any terminal.
        content = stream.buffer.getvalue()
        said.append(content.decode("utf-8", "strict" if encoding == "utf-8" else "backslashreplace"))
    return subprocess.CompletedProcess(words, status, *said)


def inspect(*files: Path, **settings) -> tuple[list, list[dict[str, Any]]]:
    """(sets, problems as JSON) of checking the files."""
    with bar(None, "reading", "rows") as shown:
        room = Room(Settings(**settings), shown)
        sets = room.read([Source(file) for file in files])
    return sets, [problem.as_json() for problem in room.findings.problems]


def prepared(task: str, rows: list[dict], labels: dict[str, str] | None = None, **settings) -> tuple[list[dict], dict]:
    """(prepared rows, the file's entry in the manifest) of preparing the rows."""
    with tempfile.TemporaryDirectory() as scratch:
        file = write_jsonl(Path(scratch) / FOLDERS[task] / "rows.jsonl", rows)
        if labels:
            file.with_name("labels.json").write_text(json.dumps(labels))
        output = Path(scratch) / "prepared"
        prepare([file], output, Settings(**settings))
        (entry,) = json.loads((output / "manifest.json").read_text())["sets"]
        check_counts(entry)
        rejected = read_jsonl(output / "rejected.jsonl") if (output / "rejected.jsonl").exists() else []
        held_out = entry["rows_set_aside"].get("held out for evaluation", 0)
        assert len(rejected) == sum(entry["rows_set_aside"].values()) - held_out
        return read_jsonl(output / entry["output"]), entry


def check_counts(entry: dict) -> None:
    """Every row read is accounted for."""
    aside = sum(entry["rows_set_aside"].values())
    assert entry["rows_read"] == entry["rows_used"] + entry["rows_merged"] + aside
