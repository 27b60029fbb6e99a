"""Check the training data and turn it into rows that FlagEmbedding trains on."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3kit.arguments import add_settings
from m3kit.data import cache
from m3kit.data.holdout import LEAST
from m3kit.data.preparation import REJECTED, Preparation, sentence
from m3kit.data.progress import progress
from m3kit.data.settings import Settings, add_reading_arguments, settings_of
from m3kit.data.sources import EVAL_FOLDER, find_files
from m3kit.data.workers import workers
from m3kit.data.workspace import alone_with, replace_folder, workspace
from m3kit.errors import KitError

MANIFEST = "manifest.json"
NOTHING = "the training data, nothing was prepared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train_data", nargs="+", required=True, metavar="PATH", help="files, task folders, or a folder of these"
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the prepared folders are written")
    add_settings(parser, "train_group_size", "seed", "classification_positives")
    add_settings(parser, "query_instruction_for_retrieval", "holdout", query_instruction_for_retrieval="", holdout=0.0)
    parser.add_argument("--json", action="store_true", help="print folders and counts as one JSON object")
    add_reading_arguments(parser)


def run(args: argparse.Namespace) -> None:
    folders = prepare([Path(path) for path in args.train_data], args.output_dir, settings_of(args))
    if args.json:
        print(json.dumps(about(args.output_dir, folders), indent=2))
        return
    for folder in folders:
        print(folder)


def about(output_dir: Path, folders: list[Path]) -> dict[str, Any]:
    """The prepared folders and, from the manifest, what became of each file's rows."""
    manifest = json.loads((output_dir / MANIFEST).read_text("utf-8"))
    del manifest["settings"]
    held_out = str(output_dir / EVAL_FOLDER) if manifest["held_out"] else None
    return {
        "folders": [str(folder) for folder in folders],
        "manifest": str(output_dir / MANIFEST),
        "eval_data": held_out,
        **manifest,
    }


def prepare(train_data: list[Path], output_dir: Path, settings: Settings) -> list[Path]:
    """Write one prepared folder a task folder and ``manifest.json``; same input and settings, same bytes.

    Returns the prepared folders. Raises ``KitError`` that names every file and line to be put right; then nothing is
    written. What was prepared from the same files with the same settings before is left as it is.
    """
    settings.check()
    if output_dir.exists() and not (output_dir / MANIFEST).is_file() and any(output_dir.iterdir()):
        raise KitError(f"{output_dir} holds files that prepare did not write; choose an empty or new folder")
    files = find_files(train_data)
    with alone_with(output_dir):
        now = cache.stamp(files, settings)
        if cache.is_unchanged(output_dir, now):
            manifest = json.loads((output_dir / MANIFEST).read_text("utf-8"))
            _tell(manifest, output_dir)
            print(f"{output_dir}: prepared from the same data before, left as it is", file=sys.stderr)
        else:
            with ExitStack() as stack:
                folder = stack.enter_context(workspace(output_dir))
                bar = stack.enter_context(progress(both=True))
                pool = stack.enter_context(workers(sum(file.stat().st_size for file in files if file.is_file())))
                preparation = Preparation(settings, folder, pool, bar)
                manifest = _prepare(preparation, files)
                replace_folder(preparation.output, output_dir)
                cache.remember(output_dir, now)
            preparation.findings.tell(sys.stderr)
            _tell(manifest, output_dir)
    return list(dict.fromkeys(output_dir / Path(entry["output"]).parent for entry in manifest["sets"]))


def _prepare(preparation: Preparation, files: list[Path]) -> dict[str, Any]:
    """Write everything into the preparation's output folder; returns the manifest."""
    findings = preparation.findings
    sets = preparation.inspect(files)
    findings.refuse(NOTHING)
    held_out = preparation.hold_out(sets)
    plans = preparation.plan(sets)
    findings.refuse(NOTHING)
    entries = [preparation.write(data, plan) for data, plan in zip(sets, plans, strict=True)]
    findings.refuse(NOTHING)
    manifest = {
        "settings": asdict(preparation.settings),
        "sets": entries,
        "held_out": held_out,
        "rows_rejected": preparation.rejected.count,
        "problems": findings.summary(),
    }
    (preparation.output / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return manifest


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    """One line a file: what was read and what became of it; then what is true of all."""
    for entry in manifest["sets"]:
        print(sentence(entry), file=sys.stderr)
    if manifest["held_out"]:
        counts = ", ".join(f"{count} of {task}" for task, count in manifest["held_out"].items())
        few = "; so few show only large differences" if min(manifest["held_out"].values()) < LEAST else ""
        print(f"held out for evaluation in {output_dir / EVAL_FOLDER}: {counts}{few}", file=sys.stderr)
    elif manifest["settings"]["holdout"]:
        print("nothing held out for evaluation: there are too few rows", file=sys.stderr)
    if manifest["rows_rejected"]:
        print(f"the rows set aside are in {output_dir / REJECTED}", file=sys.stderr)
