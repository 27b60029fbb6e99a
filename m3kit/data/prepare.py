"""Check the training data and turn it into rows that FlagEmbedding trains on."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3kit.data import cache
from m3kit.data.convert.plan import Plan, Tally
from m3kit.data.convert.retrieval import shared_positives
from m3kit.data.dataset import HELD_OUT, MERGED, USED, DataSet
from m3kit.data.eval_files import write_eval
from m3kit.data.holdout import LEAST, hold_out
from m3kit.data.inspection import Inspector, Rejected
from m3kit.data.problems import BadRow, Findings, Problem
from m3kit.data.progress import Progress, progress
from m3kit.data.settings import Settings, add_settings, settings_of
from m3kit.data.sources import EVAL_FOLDER, data_stem, find_files
from m3kit.data.workers import Workers, workers
from m3kit.data.workspace import replace_folder, workspace
from m3kit.data.writing import plan_set, write_part, write_parts
from m3kit.errors import KitError

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
PROBLEMS = "problems.jsonl"
NOTHING = "the training data, nothing was prepared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train_data", nargs="+", required=True, metavar="PATH", help="files, task folders, or a folder of these"
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the prepared folders are written")
    parser.add_argument("--train_group_size", type=int, default=8, help="passages a query, its positive included")
    parser.add_argument("--seed", type=int, default=42, help="of the drawn negatives and of what is held out")
    parser.add_argument("--query_instruction_for_retrieval", default="", help="put before every retrieval query")
    parser.add_argument(
        "--classification_positives",
        choices=("labels", "texts", "both"),
        default="labels",
        help="what a classified text is drawn to: its label's text, other texts of the label, or both",
    )
    parser.add_argument(
        "--holdout",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="keep back this share of the queries for evaluation, in OUTPUT_DIR/eval (0 = none)",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> None:
    for folder in prepare([Path(path) for path in args.train_data], args.output_dir, settings_of(args)):
        print(folder)


def prepare(train_data: list[Path], output_dir: Path, settings: Settings) -> list[Path]:
    """Write one prepared folder a task folder and ``manifest.json``; same input and settings, same bytes.

    Returns the prepared folders. Raises ``KitError`` that names every file and line to be put right; then nothing is
    written. What was prepared from the same files with the same settings before is left as it is.
    """
    settings.check()
    if output_dir.exists() and not (output_dir / MANIFEST).is_file() and any(output_dir.iterdir()):
        raise KitError(f"{output_dir} holds files that prepare did not write; choose an empty or new folder")
    files = find_files(train_data)
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
            manifest = preparation.run(files)
            replace_folder(preparation.output, output_dir)
        cache.remember(output_dir, now)
        preparation.findings.tell(sys.stderr)
        _tell(manifest, output_dir)
    return list(dict.fromkeys(output_dir / Path(entry["output"]).parent for entry in manifest["sets"]))


class Preparation:
    """One run of prepare, in a folder of its own."""

    def __init__(self, settings: Settings, folder: Path, pool: Workers, bar: Progress):
        self.settings, self.pool, self.bar = settings, pool, bar
        self.output, self.scratch = folder / "prepared", folder / "scratch"
        self.output.mkdir()
        self.scratch.mkdir()
        self.findings = Findings(self.output / PROBLEMS, settings.strict)
        self.rejected = Rejected(self.output / REJECTED)

    def run(self, files: list[Path]) -> dict[str, Any]:
        """Write everything into the output folder; returns the manifest."""
        settings = self.settings
        inspector = Inspector(settings, self.scratch, self.pool, self.findings, self.rejected, self.bar)
        sets = inspector.inspect(files)
        self.findings.refuse(NOTHING)
        held_out = self._hold_out(sets)
        plans = self._plan(sets)
        self.findings.refuse(NOTHING)
        entries = [self._write(data, plan) for data, plan in zip(sets, plans, strict=True)]
        self.findings.refuse(NOTHING)
        manifest = {
            "settings": asdict(settings),
            "sets": entries,
            "held_out": held_out,
            "rows_rejected": self.rejected.count,
            "problems": self.findings.summary(),
        }
        (self.output / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
        return manifest

    def _hold_out(self, sets: list[DataSet]) -> dict[str, int]:
        if not self.settings.holdout:
            return {}
        self.bar.say("holding out")
        hold_out(sets, self.settings.holdout, self.settings.seed)
        return write_eval(sets, self.output / EVAL_FOLDER, self.pool)

    def _plan(self, sets: list[DataSet]) -> list[Plan | None]:
        shared = shared_positives([d for d in sets if d.task == "retrieval"], self.scratch / "shared.npy")
        plans: list[Plan | None] = []
        for data in sets:
            try:
                plans.append(plan_set(data, self.settings, shared))
            except BadRow as bad:
                plans.append(None)
                line = bad.line or int(data.index.column("line", 0, 1)[0])
                self.findings.add([Problem(data.source, line, bad.what, bad.fix, bad.code)])
        return plans

    def _write(self, data: DataSet, plan: Plan) -> dict[str, Any]:
        """Write one set's prepared rows; returns its entry in the manifest."""
        self.bar.say(f"writing {data.source.name}")
        name = _free_name(self.output, data.folder, data_stem(data.source))
        path = self.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tally, rows, bad = Tally(), 0, Counter()
        with path.open("wb") as file:
            for written in self.pool.map(write_part, write_parts(plan, len(data.index))):
                file.write(written.data)
                rows += written.rows
                tally += written.tally
                bad += Counter(problem.what for problem in written.bad)
                self.findings.add(written.bad, self.settings.skip_bad_rows)
                self.rejected.write(written.rejected)
                self.bar.written(written.read)
        if not rows and not self.findings.errors:
            raise KitError(f"{data.source}: no row is left to train on; see what is set aside, and why")
        fates = data.fates
        set_aside = Counter({"bad rows": data.bad}) + fates.counts_by_reason() + bad
        set_aside += Counter({"held out for evaluation": fates.count(HELD_OUT)})
        return {
            "input": str(data.source),
            "sha256": data.sha256,
            "task": data.task,
            "task_told": data.reason,
            "columns_not_used": data.unused_columns,
            "notes": data.notes,
            "output": name,
            "rows_read": data.read,
            "rows_used": fates.count(USED) - bad.total(),
            "rows_merged": fates.count(MERGED),
            "rows_set_aside": dict(set_aside),
            "rows_written": rows,
            "type": plan.type,
            "negatives_added": tally.negatives_added,
            "texts_removed": dict(tally.texts_removed),
        }


def _free_name(root: Path, folder: str, stem: str) -> str:
    """``folder/stem.jsonl`` under ``root``, numbered where another input already has that name."""
    # What is put after it must not make the name longer than a file's may be.
    stem = stem.encode()[:200].decode(errors="ignore")
    name, number = f"{folder}/{stem}.jsonl", 1
    while (root / name).exists():
        number += 1
        name = f"{folder}/{stem}-{number}.jsonl"
    return name


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    """One line a file: what was read and what became of it; then what is true of all."""
    for entry in manifest["sets"]:
        parts = [f"{entry['rows_read']} rows read", f"{entry['rows_used']} used"]
        if entry["rows_merged"]:
            parts.append(f"{entry['rows_merged']} merged")
        if aside := sum(entry["rows_set_aside"].values()):
            reasons = ", ".join(f"{count}: {reason}" for reason, count in entry["rows_set_aside"].items())
            parts.append(f"{aside} set aside ({reasons})")
        if entry["negatives_added"]:
            parts.append(f"{entry['negatives_added']} negatives drawn from the set")
        for reason, count in entry["texts_removed"].items():
            parts.append(f"{count} texts left out ({reason})")
        if entry["columns_not_used"]:
            parts.append(f"columns not used: {', '.join(entry['columns_not_used'])}")
        parts += entry["notes"]
        print(f"{entry['input']}: {entry['task']} ({entry['task_told']}); {', '.join(parts)}", file=sys.stderr)
    if manifest["held_out"]:
        counts = ", ".join(f"{count} of {task}" for task, count in manifest["held_out"].items())
        few = "; so few show only large differences" if min(manifest["held_out"].values()) < LEAST else ""
        print(f"held out for evaluation in {output_dir / EVAL_FOLDER}: {counts}{few}", file=sys.stderr)
    elif manifest["settings"]["holdout"]:
        print("nothing held out for evaluation: there are too few rows", file=sys.stderr)
    if manifest["rows_rejected"]:
        print(f"the rows set aside are in {output_dir / REJECTED}", file=sys.stderr)
