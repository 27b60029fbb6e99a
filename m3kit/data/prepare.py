"""Check the training data and turn it into rows that FlagEmbedding trains on."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from m3kit.data.convert import Converted, Settings, convert
from m3kit.data.formats import read_rows
from m3kit.data.problems import BadRow, Problem, refuse
from m3kit.errors import KitError

# A folder of this name holds evaluation data in BEIR form, never training rows.
EVAL_FOLDER = "eval"
NO_IN_BATCH_NEG = "no_in_batch_neg"
LABELLED_TASKS = ("classification", "clustering")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train_data", nargs="+", required=True, metavar="PATH", help="JSONL files, task folders, or a folder of these"
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the prepared folders are written")
    parser.add_argument("--train_group_size", type=int, default=8, help="passages a query, its positive included")
    parser.add_argument("--seed", type=int, default=42, help="of the drawn negatives")
    parser.add_argument("--query_instruction_for_retrieval", default="", help="put before every retrieval query")
    parser.add_argument(
        "--classification_positives",
        choices=("labels", "texts", "both"),
        default="labels",
        help="what a classified text is drawn to: its label's text, other texts of the label, or both",
    )


def run(args: argparse.Namespace) -> None:
    settings = Settings(
        train_group_size=args.train_group_size,
        seed=args.seed,
        query_instruction_for_retrieval=args.query_instruction_for_retrieval,
        classification_positives=args.classification_positives,
    )
    for folder in prepare([Path(path) for path in args.train_data], args.output_dir, settings):
        print(folder)


def prepare(train_data: list[Path], output_dir: Path, settings: Settings) -> list[Path]:
    """Write one prepared folder a task folder and ``manifest.json``; same input and settings, same bytes.

    Returns the prepared folders. Raises ``KitError`` that names every file and line to be put right; then nothing is
    written.
    """
    if settings.train_group_size < 2:
        raise KitError("train_group_size must be 2 or more: a softmax over one candidate teaches nothing")
    if output_dir.exists() and not (output_dir / "manifest.json").is_file() and any(output_dir.iterdir()):
        raise KitError(f"{output_dir} holds files that prepare did not write; choose an empty or new folder")

    problems: list[Problem] = []
    entries, outputs = [], []
    for source in find_files(train_data):
        entry, result = _convert_file(source, settings, problems)
        if result is not None:
            entries.append(entry)
            outputs.append(result)
    refuse(problems, "the training data, nothing was prepared")

    temporary = output_dir.with_name(f"{output_dir.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for entry, result in zip(entries, outputs, strict=True):
        entry["output"] = _free_name(temporary, Path(entry["folder"]), Path(entry["input"]).stem)
        _write_rows(temporary / entry["output"], result.rows)
        _tell(entry)
    manifest = {"settings": dataclasses.asdict(settings), "sets": entries}
    (temporary / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
    shutil.rmtree(output_dir, ignore_errors=True)
    temporary.rename(output_dir)
    return list(dict.fromkeys(output_dir / Path(entry["output"]).parent for entry in entries))


def find_files(train_data: Iterable[Path]) -> list[Path]:
    """The JSONL files behind the given paths, in order: a file, a task folder's files, or those of its task folders."""
    files: list[Path] = []
    for path in train_data:
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = _jsonl_files(path)
            for folder in sorted(child for child in path.iterdir() if child.is_dir() and child.name != EVAL_FOLDER):
                found += _jsonl_files(folder)
        else:
            raise KitError(f"no such file or folder: {str(path)!r}; several are given one by one, see --help")
        if not found:
            raise KitError(f"no .jsonl file in {path} or in a folder in it; the four formats are in the README")
        files += [file for file in found if file not in files]
    return files


def _jsonl_files(folder: Path) -> list[Path]:
    files = sorted(child for child in folder.iterdir() if child.is_file() and not child.name.startswith("."))
    for file in files:
        if file.suffix != ".jsonl" and file.name != "labels.json":
            print(f"not read: {file} (only .jsonl files are)", file=sys.stderr)
    return [file for file in files if file.suffix == ".jsonl"]


def _convert_file(source: Path, settings: Settings, problems: list[Problem]) -> tuple[dict[str, Any], Converted | None]:
    """One file's manifest entry and converted rows; what is wrong goes to ``problems``."""
    before = len(problems)
    kind, rows, unused = read_rows(source, problems)
    if not rows:
        if len(problems) == before:
            problems.append(Problem(source, 1, "the file holds no row", "fill it or leave it out"))
        return {}, None
    folder = source.resolve().parent.name
    try:
        task = _task(kind, folder)
        labels = _labels_beside(source) if task == "classification" else {}
        result = convert(task, rows, settings, labels)
    except BadRow as bad:
        problems.append(Problem(source, bad.line or rows[0].line, bad.what, bad.fix))
        return {}, None
    if task in LABELLED_TASKS and not folder.endswith(NO_IN_BATCH_NEG):
        folder = f"{task}-{NO_IN_BATCH_NEG}"  # rows of one label in a batch would be each other's false negatives (D4)
    entry = {
        "input": str(source),
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "task": task,
        "columns_not_used": unused,
        "folder": folder,
        "rows_read": result.read,
        "rows_used": result.used,
        "rows_merged": result.merged,
        "rows_set_aside": dict(result.set_aside),
        "rows_written": len(result.rows),
        "negatives_added": result.negatives_added,
        "texts_removed": dict(result.texts_removed),
    }
    return entry, result


def _task(kind: str, folder: str) -> str:
    """The task of a file: labelled rows are told apart by their folder's name, all others by their columns."""
    if kind != "labelled":
        return kind
    for task in LABELLED_TASKS:
        if folder.startswith(task):
            return task
    raise BadRow(
        f"rows of text and label in a folder named {folder!r} may be meant for classification or clustering",
        f"put the file in a folder named classification-{NO_IN_BATCH_NEG} or clustering-{NO_IN_BATCH_NEG}",
    )


def _labels_beside(source: Path) -> dict[str, str]:
    """``labels.json`` beside the file: label to description; empty where there is none."""
    path = source.with_name("labels.json")
    if not path.is_file():
        return {}
    try:
        labels = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise KitError(f"{path} is not valid JSON ({error}); write one object of label and description") from error
    if not isinstance(labels, dict) or not all(isinstance(text, str) and text.strip() for text in labels.values()):
        raise KitError(f"{path} must be one object of label and description; every description a text")
    return labels


def _free_name(root: Path, folder: Path, stem: str) -> str:
    """``folder/stem.jsonl`` under ``root``, numbered where another input already has that name."""
    name, number = f"{folder}/{stem}.jsonl", 1
    while (root / name).exists():
        number += 1
        name = f"{folder}/{stem}-{number}.jsonl"
    return name


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _tell(entry: dict[str, Any]) -> None:
    """One line a file: what was read and what became of it."""
    aside = sum(entry["rows_set_aside"].values())
    parts = [f"{entry['rows_read']} rows read", f"{entry['rows_used']} used"]
    if entry["rows_merged"]:
        parts.append(f"{entry['rows_merged']} merged")
    if aside:
        reasons = ", ".join(f"{count}: {reason}" for reason, count in entry["rows_set_aside"].items())
        parts.append(f"{aside} set aside ({reasons})")
    if entry["negatives_added"]:
        parts.append(f"{entry['negatives_added']} negatives drawn from the set")
    for reason, count in entry["texts_removed"].items():
        parts.append(f"{count} texts left out ({reason})")
    if entry["columns_not_used"]:
        parts.append(f"columns not used: {', '.join(entry['columns_not_used'])}")
    print(f"{entry['input']}: {entry['task']}; {', '.join(parts)}", file=sys.stderr)
