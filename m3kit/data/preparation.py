"""The steps from files to prepared rows, in a folder of their own; `prepare` keeps what comes out, `check` does not."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from m3kit.data.convert.plan import Plan, Tally
from m3kit.data.convert.retrieval import shared_positives
from m3kit.data.dataset import HELD_OUT, MERGED, USED, DataSet
from m3kit.data.eval_files import write_eval
from m3kit.data.holdout import hold_out
from m3kit.data.inspection import Inspector, Rejected
from m3kit.data.problems import BadRow, Findings, Problem
from m3kit.data.progress import Progress
from m3kit.data.settings import Settings
from m3kit.data.sources import EVAL_FOLDER, data_stem
from m3kit.data.workers import Workers
from m3kit.data.writing import plan_set, write_part, write_parts

REJECTED = "rejected.jsonl"
PROBLEMS = "problems.jsonl"


class Preparation:
    """What is wrong goes to ``findings``; whether that ends everything is for the caller to say after each step."""

    def __init__(self, settings: Settings, folder: Path, pool: Workers, bar: Progress):
        self.settings, self._pool, self._bar = settings, pool, bar
        self.output, self._scratch = folder / "prepared", folder / "scratch"
        self.output.mkdir()
        self._scratch.mkdir()
        self.findings = Findings(self.output / PROBLEMS, settings.strict)
        self.rejected = Rejected(self.output / REJECTED)

    def inspect(self, files: list[Path]) -> list[DataSet]:
        """Read and check the files."""
        inspector = Inspector(self.settings, self._scratch, self._pool, self.findings, self.rejected, self._bar)
        return inspector.inspect(files)

    def hold_out(self, sets: list[DataSet]) -> dict[str, int]:
        """Keep rows back and write them; returns how many queries of each task."""
        if not self.settings.holdout:
            return {}
        self._bar.say("holding out")
        hold_out(sets, self.settings.holdout, self.settings.seed, self._pool)
        self._bar.say("writing what is held out")
        return write_eval(sets, self.output / EVAL_FOLDER, self._pool)

    def plan(self, sets: list[DataSet]) -> list[Plan]:
        """Decide about each set as a whole. A set that cannot be planned is left out, and reported as a finding."""
        self._bar.say("planning")
        shared = shared_positives([data for data in sets if data.task == "retrieval"], self._scratch / "shared.npy")
        plans: list[Plan] = []
        for data in sets:
            try:
                plans.append(plan_set(data, self.settings, shared))
            except BadRow as bad:
                if data.bad and not self.settings.skip_bad_rows:
                    continue  # what the set lacks may be in the rows that are to be put right
                line = bad.line or int(data.index.column("line", 0, 1)[0])
                self.findings.add([Problem(data.source, line, bad.what, bad.fix, bad.code)])
        return plans

    def write(self, data: DataSet, plan: Plan, kept: bool = True) -> dict[str, Any]:
        """Convert a set and write its prepared rows, unless they are not to be ``kept``; returns its manifest entry."""
        name = _free_name(self.output, data.folder, data_stem(data.source))
        self._bar.say(f"{'writing' if kept else 'trying'} {data.source.name}")
        tally, rows = Tally(), 0
        bad: Counter[str] = Counter()
        with ExitStack() as stack:
            file = None
            if kept:
                (self.output / name).parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context((self.output / name).open("wb"))
            for written in self._pool.map(write_part, write_parts(plan, data)):
                if file:
                    file.write(written.data)
                rows += written.rows
                tally += written.tally
                bad += Counter(problem.what for problem in written.bad)
                self.findings.add(written.bad, self.settings.skip_bad_rows)
                self.rejected.write(written.rejected)
                self._bar.written(written.read)
        if not rows and (not bad or self.settings.skip_bad_rows):
            what = "no row is left to train on"
            self.findings.add([Problem(data.source, 1, what, "see what is set aside, and why", "nothing-left")])
        fates = data.fates
        set_aside = Counter({f"bad rows: {code}": count for code, count in data.bad.items()})
        set_aside += fates.counts_by_reason() + bad + Counter({"held out for evaluation": fates.count(HELD_OUT)})
        return about(data) | {
            "output": name,
            "rows_used": fates.count(USED) - bad.total(),
            "rows_merged": fates.count(MERGED),
            "rows_set_aside": dict(set_aside),
            "rows_written": rows,
            "type": plan.type,
            "negatives_added": tally.negatives_added,
            "texts_removed": dict(tally.texts_removed),
        }


def about(data: DataSet) -> dict[str, Any]:
    """What is known of a set once it is read."""
    return {
        "input": str(data.source),
        "sha256": data.sha256,
        "task": data.task,
        "task_told": data.reason,
        "columns_not_used": data.unused_columns,
        "notes": data.notes,
        "rows_read": data.read,
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


def _free_name(root: Path, folder: str, stem: str) -> str:
    """``folder/stem.jsonl`` under ``root``, numbered where another input already has that name."""
    # What is put after it must not make the name longer than a file's may be.
    stem = stem.encode()[:200].decode(errors="ignore")
    name, number = f"{folder}/{stem}.jsonl", 1
    while (root / name).exists():
        number += 1
        name = f"{folder}/{stem}-{number}.jsonl"
    return name
