"""Read what a run left in its folder. Whatever is not there is told with why it matters; what is broken is an error."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3kit.errors import KitError
from m3kit.report import shapes

METRICS, RUN, LOG = "metrics.json", "run.json", "train_log.jsonl"
MANIFEST, PROBLEMS = "prepared/manifest.json", "prepared/problems.jsonl"
AGAIN = {
    METRICS: "run `python -m m3kit evaluate` again, which writes it anew, or delete it",
    RUN: "put a good copy of it back, or delete it to have a report without it",
    LOG: "put a good copy of it back, or delete it to have a report without it",
    MANIFEST: "prepare the data again, or delete it to have a report without it",
    PROBLEMS: "prepare the data again, or delete it to have a report without it",
}
# Problems of one code that are shown; the others are counted.
SHOWN_OF_A_CODE = 3


@dataclass(frozen=True)
class Missing:
    """A piece that the report has to do without."""

    what: str
    why: str


@dataclass
class Problems:
    """What was found in the data: how many of each (severity, code), and the first of each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Record:
    """All that the report is made from; what was not there is empty."""

    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    missing: list[Missing] = field(default_factory=list)
    log_lines_lost: int = 0

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.resolve().name or "run"


def read_record(folder: Path) -> Record:
    """What ``folder`` holds of a run. Raises ``KitError`` where that is nothing, or cannot be read."""
    if not folder.is_dir():
        raise KitError(f"there is no folder {folder}; give the output_dir of a run")
    record = Record(folder)
    record.metrics = _object(folder, METRICS, shapes.METRICS)
    record.run = _object(folder, RUN, shapes.RUN)
    record.manifest = _object(folder, MANIFEST, shapes.MANIFEST)
    _read_log(record)
    _read_problems(record)
    if not (record.metrics or record.run or record.log or record.manifest):
        raise KitError(
            f"{folder} holds none of {METRICS}, {RUN}, {LOG} and {MANIFEST}, so there is nothing to report; "
            "give the output_dir of a run, or evaluate a model into it first: python -m m3kit evaluate --help"
        )
    record.missing = _missing(record)
    return record


def _missing(record: Record) -> list[Missing]:
    def absent(name: str) -> bool:
        return not (record.folder / name).exists()

    metrics, found = record.metrics, []
    if absent(METRICS):
        found.append(
            Missing(
                METRICS,
                "the models were not evaluated, so nobody knows whether training helped. "
                "`python -m m3kit evaluate` writes it",
            )
        )
    elif len(metrics["models"]) > 1 and not metrics.get("comparisons"):
        found.append(
            Missing(
                f"comparisons in {METRICS}",
                "it was written by another version of the kit: differences are shown, "
                "but not whether they are larger than chance. Evaluate again",
            )
        )
    if metrics and "queries" in metrics and "general" not in metrics:
        found.append(Missing("the general set", "what the model forgot of text that is not yours was not measured"))
    if absent(RUN):
        found.append(Missing(RUN, "with which settings and versions the model was trained is not known"))
    if not record.log:
        found.append(Missing(LOG, "there are no loss and learning curves, speeds or memory to show"))
    if absent(MANIFEST):
        found.append(Missing(MANIFEST, "what the model was trained on, and which rows were set aside, is not known"))
    elif absent(PROBLEMS) and record.manifest.get("problems"):
        found.append(Missing(PROBLEMS, "what the checks of the data found can be counted, but not shown"))
    return found


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _object(folder: Path, name: str, shape: shapes.Shape) -> dict[str, Any]:
    """A JSON object of that shape; empty where there is no file."""
    text = _text(folder, name)
    if text is None:
        return {}
    try:
        value = json.loads(text, parse_constant=_refuse)
        wrong = shape.wrong(value)
        if wrong is None:
            return value
        reason = f"{wrong or 'what it holds'} is missing, or is not what the kit writes there"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise KitError(f"{folder / name} is damaged ({reason}); {AGAIN[name]}")


def _text(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise KitError(f"{folder / name} cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError as error:
        raise KitError(f"{folder / name} is damaged (it is not UTF-8); {AGAIN[name]}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


# ---- lines of JSON -------------------------------------------------------------------------------------------------


def _read_log(record: Record) -> None:
    """A kill may leave half a line: such lines are counted. Of a step that stands twice (a resumed run), the last."""
    text = _text(record.folder, LOG)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for line in (text or "").splitlines():
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not _finite(row.get("step")):
                raise ValueError
            kind = "loss" if "loss" in row else "evaluation" if "eval_seconds" in row else "summary"
            rows[kind, row["step"]] = {key: value for key, value in row.items() if _finite(value)}
        except ValueError:
            record.log_lines_lost += 1
    record.log = [rows[key] for key in sorted(rows, key=lambda key: key[1])]
    if text and text.strip() and not rows:
        raise KitError(f"{record.folder / LOG} is damaged (no line of it can be read); {AGAIN[LOG]}")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _read_problems(record: Record) -> None:
    """Line by line: a large data set may have a million of them."""
    path = record.folder / PROBLEMS
    if not path.is_file():
        # What prepared/manifest.json counts is better than nothing.
        for entry in record.manifest.get("problems", []):
            record.problems.counts[entry["severity"], entry["code"]] += entry["count"]
        return
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                problem = json.loads(line)
                if (wrong := shapes.PROBLEM.wrong(problem)) is not None:
                    raise ValueError(f"{wrong or 'a line'} is missing, or is not what the kit writes there")
                key = (problem["severity"], problem["code"])
                record.problems.counts[key] += 1
                first = record.problems.first.setdefault(key, [])
                if len(first) < SHOWN_OF_A_CODE:
                    first.append(problem)
    except ValueError as error:
        raise KitError(f"{path} is damaged ({error}); {AGAIN[PROBLEMS]}") from error
    except OSError as error:
        raise KitError(f"{path} cannot be read ({error.strerror}); make it readable") from error
