"""Check the training data and turn it into rows that FlagEmbedding trains on."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from m3kit.arguments import add_settings
from m3kit.data.check_rows import near_duplicates, set_problems
from m3kit.data.convert import Conversion, shared_positives
from m3kit.data.eval_files import write_eval
from m3kit.data.holdout import LEAST, hold_out
from m3kit.data.leaks import find_leaks
from m3kit.data.lengths import too_long
from m3kit.data.rowset import RowSet
from m3kit.data.sets import raw_rows, read_sets, rejected_line
from m3kit.data.settings import Settings, add_reading_arguments, settings_of
from m3kit.errors import KitError
from m3kit.progress import Bar, bar
from m3kit.reading.problems import ASIDE, ERROR, NOTE, BadRow, Findings
from m3kit.reading.rows import HELD_OUT, MERGED
from m3kit.reading.sources import EVAL_FOLDER, SPLITS, Source, data_stem, find_sources
from m3kit.workspace import alone_with, replace_folder, workspace

MANIFEST, REJECTED, PROBLEMS = "manifest.json", "rejected.jsonl", "problems.jsonl"
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
    if not args.json:
        print(*folders, sep="\n")
        return
    manifest = json.loads((args.output_dir / MANIFEST).read_text("utf-8"))
    del manifest["settings"]
    held_out = str(args.output_dir / EVAL_FOLDER) if manifest["held_out"] else None
    about = {"folders": list(map(str, folders)), "manifest": str(args.output_dir / MANIFEST), "eval_data": held_out}
    print(json.dumps(about | manifest, indent=2))


def prepare(train_data: list[Path], output_dir: Path, settings: Settings) -> list[Path]:
    """Write one prepared folder a task folder and ``manifest.json``; same input and settings, same bytes.

    Returns the prepared folders. Raises ``KitError`` that names every file and line to be put right; then nothing is
    written.
    """
    settings.check()
    if output_dir.exists() and not (output_dir / MANIFEST).is_file() and any(output_dir.iterdir()):
        raise KitError(f"{output_dir} holds files that prepare did not write; choose an empty or new folder")
    sources = find_sources(train_data)
    try:
        with alone_with(output_dir):
            manifest = _prepare(sources, output_dir, settings)
    except OSError as error:
        raise KitError(f"cannot write {output_dir} ({error.strerror or error}); choose another --output_dir") from error
    return list(dict.fromkeys(output_dir / Path(entry["output"]).parent for entry in manifest["sets"]))


def _prepare(sources: list[Source], output_dir: Path, settings: Settings) -> dict[str, Any]:
    with ExitStack() as stack:
        output = stack.enter_context(workspace(output_dir)) / "prepared"
        shown = stack.enter_context(bar(None, "reading", "rows"))
        output.mkdir()
        room = Room(settings, shown)
        sets = room.read(sources)
        room.findings.refuse(NOTHING)
        held_out = room.hold_out(sets, sources, output)
        entries = room.convert(sets, output)
        room.findings.refuse(NOTHING)
        manifest = {
            "settings": asdict(settings),
            "sets": entries,
            "left_out": left_out(sources),
            "held_out": held_out,
            "rows_rejected": len(room.rejected),
            "problems": room.findings.summary(),
        }
        (output / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
        room.findings.write(output / PROBLEMS)
        if room.rejected:
            (output / REJECTED).write_bytes(b"".join(room.rejected))
        replace_folder(output, output_dir)
    room.findings.tell(sys.stderr)
    _tell(manifest, output_dir)
    return manifest


@dataclass
class Room:
    """The steps from files to prepared rows. Problems are collected in ``findings``; the caller decides after each step
    whether to stop."""

    settings: Settings
    bar: Bar
    findings: Findings = field(init=False)
    rejected: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.findings = Findings(self.settings.strict)

    def read(self, sources: list[Source]) -> list[RowSet]:
        """Read the files to train on, and check their rows."""
        training = [source for source in sources if source.split == "train"]
        sets = read_sets(training, self.settings, self.findings, self.rejected, self.bar)
        self.bar.say("comparing the rows")
        for data in sets:
            self.findings.add(*set_problems(data, self.settings))
        self.findings.add(*too_long(sets, self.settings))
        for data in sets:
            self.findings.add(*near_duplicates(data))
        if self.settings.eval_data:
            self.bar.say("comparing with the evaluation data")
            self.findings.add(*find_leaks(sets, Path(self.settings.eval_data)))
        return sets

    def hold_out(self, sets: list[RowSet], sources: list[Source], output: Path) -> dict[str, int]:
        """Keep rows back for evaluation and write them; returns how many queries of each task."""
        if not self.settings.holdout:
            return {}
        tests = self._read_tests([source for source in sources if source.split != "train"])
        self.bar.say("holding out")
        hold_out(sets, tests, self.settings.holdout, self.settings.seed)
        return write_eval([*sets, *tests], output / EVAL_FOLDER)

    def _read_tests(self, sources: list[Source]) -> list[RowSet]:
        """The sets to test with, of each task those of the split that is meant most for it."""
        found = Findings()
        tests = read_sets(sources, self.settings, found, [], self.bar)
        # What is wrong costs only a row to test with.
        wrong = [problem for problem in found.problems if problem.severity in (ERROR, ASIDE)]
        self.findings.add(*(replace(problem, severity=NOTE) for problem in wrong))
        best = {task: min(SPLITS.index(data.split) for data in tests if data.task == task) for task in
                {data.task for data in tests}}  # fmt: skip
        return [data for data in tests if SPLITS.index(data.split) == best[data.task]]

    def convert(self, sets: list[RowSet], output: Path | None) -> list[dict[str, Any]]:
        """Convert the sets, and write them where there is an output; returns their entries for the manifest."""
        shared = shared_positives([data for data in sets if data.task == "retrieval"])
        entries = []
        for data in sets:
            job = Conversion(data, self.settings, shared)
            self.bar.say(f"writing {data.source.name}")
            try:
                entries.append(self._convert(job, output))
            except BadRow as bad:
                self._cannot_teach(data, bad)
        return entries

    def try_converting(self, sets: list[RowSet]) -> None:
        """Tell which sets cannot teach what they are for, without a look at each of their rows."""
        for data in sets:
            try:
                next(Conversion(data, self.settings).rows(), None)
            except BadRow as bad:
                self._cannot_teach(data, bad)

    def _cannot_teach(self, data: RowSet, bad: BadRow) -> None:
        if not data.bad or self.settings.skip_bad_rows:  # what it lacks may be in the rows that are to be put right
            self.findings.add(bad.at(data.source, data.rows[0].line))

    def _convert(self, job: Conversion, output: Path | None) -> dict[str, Any]:
        data, rows, bad = job.data, 0, {}
        name = _free_name(output, data.folder, data_stem(data.source)) if output else ""
        with ExitStack() as stack:
            file = None
            if output:
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((output / name).open("wb"))
            for row, made in job.rows():
                if isinstance(made, BadRow):
                    skip = self.settings.skip_bad_rows
                    self.findings.add(made.at(data.source, row.line, ASIDE if skip else ERROR))
                    row.fate, bad[row.number] = made.what, made
                    continue
                rows += 1
                if file:
                    file.write(orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
        if not rows and (not bad or self.settings.skip_bad_rows):
            what = "no row is left to train on"
            self.findings.add(data.problem(1, ERROR, what, "see what is set aside, and why", "nothing-left"))
        self._reject(data, bad)
        return about(data) | {
            "output": name,
            "rows_used": sum(1 for _ in data.used),
            "rows_merged": sum(row.fate == MERGED for row in data.rows),
            "rows_set_aside": {f"bad rows: {code}": count for code, count in data.bad.items()} | data.set_aside(),
            "rows_written": rows,
            "type": job.type,
            "negatives_added": job.negatives_added,
            "texts_removed": dict(+job.texts_removed),
        }

    def _reject(self, data: RowSet, bad: dict[int, BadRow]) -> None:
        """Note each row that is set aside, as it stands in the file."""
        aside = [row for row in data.rows if row.fate not in ("", MERGED, HELD_OUT)]
        found = raw_rows(data, {row.number for row in aside})
        for row in aside:
            code, fix = (bad[row.number].code, bad[row.number].fix) if row.number in bad else ("set-aside", "")
            text = found.get(row.number, "")
            self.rejected.append(rejected_line(data.source, row.line, code, row.fate, fix, text))


def left_out(sources: list[Source]) -> dict[str, str]:
    """What is not trained on: the split that its name says, by its path."""
    tests = [source for source in sources if source.split != "train"]
    return {
        str(source.path / "qrels" / f"{source.split}.tsv" if source.path.is_dir() else source.path): source.split
        for source in tests
    }


def about(data: RowSet) -> dict[str, Any]:
    """What is known of a set once it is read."""
    return {
        "input": str(data.source),
        "sha256": data.sha256,
        "task": data.task,
        "task_told": data.reason,
        "columns_not_used": data.unused_columns,
        "notes": data.notes,
        "rows_read": len(data.rows) + data.bad.total(),
        "rows_bad": data.bad.total(),
    }


def sentence(entry: dict[str, Any]) -> str:
    """What was read of a file, and what became of it, on one line."""
    parts = [f"{entry['rows_read']} rows read"]
    if "rows_used" not in entry:
        parts += [f"{entry['rows_bad']} of them bad"] if entry["rows_bad"] else []
    else:
        parts.append(f"{entry['rows_used']} used")
        if entry["rows_merged"]:
            parts.append(f"{entry['rows_merged']} merged")
        if aside := sum(entry["rows_set_aside"].values()):
            reasons = ", ".join(f"{count}: {reason}" for reason, count in entry["rows_set_aside"].items())
            parts.append(f"{aside} set aside ({reasons})")
        if entry["negatives_added"]:
            parts.append(f"{entry['negatives_added']} negatives drawn from the set")
        parts += [f"{count} texts left out ({reason})" for reason, count in entry["texts_removed"].items()]
    if entry["columns_not_used"]:
        parts.append(f"columns not used: {', '.join(entry['columns_not_used'])}")
    return f"{entry['input']}: {entry['task']} ({entry['task_told']}); {', '.join([*parts, *entry['notes']])}"


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    """One line a file: what was read and what became of it; then what is true of all."""
    for entry in manifest["sets"]:
        print(sentence(entry), file=sys.stderr)
    for path, split in manifest["left_out"].items():
        print(f"left out of training: {path} (its name says {split})", file=sys.stderr)
    if manifest["held_out"]:
        counts = ", ".join(f"{count} of {task}" for task, count in manifest["held_out"].items())
        few = "; so few show only large differences" if min(manifest["held_out"].values()) < LEAST else ""
        print(f"held out for evaluation in {output_dir / EVAL_FOLDER}: {counts}{few}", file=sys.stderr)
    elif manifest["settings"]["holdout"]:
        print("nothing held out for evaluation: there are too few rows", file=sys.stderr)
    elif manifest["left_out"]:
        print("to evaluate with what is left out: --holdout 0.05", file=sys.stderr)
    if manifest["rows_rejected"]:
        print(f"the rows set aside are in {output_dir / REJECTED}", file=sys.stderr)


def _free_name(root: Path, folder: str, stem: str) -> str:
    """``folder/stem.jsonl`` under ``root``, numbered where another input already has that name."""
    # What is put after it must not make the name longer than a file's may be.
    stem = stem.encode()[:200].decode(errors="ignore")
    name, number = f"{folder}/{stem}.jsonl", 1
    while (root / name).exists():
        number += 1
        name = f"{folder}/{stem}-{number}.jsonl"
    return name
