"""Read what a run left in its folder. Whatever is not there is told with why it matters; what is broken is an error."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3kit import records
from m3kit.errors import KitError
from m3kit.records import METRICS, RUN, Metrics, Run

LOG, PREPARED = "train_log.jsonl", "prepared"
MANIFEST = f"{PREPARED}/manifest.json"
WITHOUT = "put a good copy of it back, or delete it to have a report without it"
NOT_EVALUATED = "The model was not evaluated: nobody knows whether it is better than the base."


@dataclass(frozen=True)
class DataFile:
    """A file of rows, and what became of them."""

    input: str
    task: str
    rows_read: int
    rows_used: int = 0
    rows_merged: int = 0
    rows_set_aside: dict[str, int] = field(default_factory=dict)
    texts_removed: dict[str, int] = field(default_factory=dict)
    negatives_added: int = 0
    notes: list[str] = field(default_factory=list)
    output: str = ""


@dataclass(frozen=True)
class Manifest:
    """``prepared/manifest.json``, as far as it is shown."""

    sets: list[DataFile]
    held_out: dict[str, int] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Record:
    """All that the report is made from; what was not there is None or empty. ``missing``: what, and what it costs."""

    folder: Path
    metrics: Metrics | None
    run: Run | None
    manifest: Manifest | None
    steps: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    log_lines_lost: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.resolve().name or "run"

    @property
    def settings(self) -> dict[str, Any]:
        """Of the training; nothing that may be a secret."""
        given = self.run.settings if self.run else {}
        return {name: value for name, value in given.items() if not name.endswith("_token")}

    @property
    def base(self) -> str:
        """The path or the Hub's name of the model that was trained from; empty where it is not known."""
        if self.metrics and len(self.metrics.models) > 1:
            return self.metrics.models[self.metrics.base].path
        return str(self.settings.get("model_name_or_path") or "")

    @property
    def is_toy(self) -> bool:
        """Whether the base is the kit's own starter model."""
        places = Path(self.base), Path(str(self.settings.get("model_name_or_path")))
        return any(path.parts[-2:] == ("cache", "starter") or (path / "starter.json").is_file() for path in places)


def read_record(folder: Path) -> Record:
    """What ``folder`` holds of a run. Raises ``KitError`` where that is nothing, or is damaged."""
    if not folder.is_dir():
        raise KitError(f"there is no folder {folder}; give the output_dir of a run")
    again = f"evaluate it: python -m m3kit evaluate --output_dir {shlex.quote(str(folder))}"
    metrics = records.read(folder / METRICS, Metrics, again)
    if metrics and not metrics.models:
        raise KitError(f"{folder / METRICS} is damaged (it names no model); {again}")
    run = records.read(folder / RUN, Run, WITHOUT)
    manifest = records.read(folder / MANIFEST, Manifest, WITHOUT)
    record = Record(folder, metrics, run, manifest)
    _read_log(record)
    missing = (
        (not metrics, METRICS, f"nobody knows whether training helped; {again}"),
        (metrics and metrics.queries and not metrics.general, "general text", "what was forgotten was not measured"),
        (not run, RUN, "with which settings and versions the model was trained is not known"),
        (not record.steps, LOG, "there are no curves of loss and held-out figure, no speeds and no memory to show"),
        (not manifest, MANIFEST, "what the model was trained on, and which rows were set aside, is not known"),
    )
    record.missing = [(what, why) for is_missing, what, why in missing if is_missing]
    if not (metrics or run or manifest or record.steps or record.evaluations):
        raise KitError(
            f"{folder} holds none of {METRICS}, {RUN}, {LOG} and {MANIFEST}, so there is nothing to report; "
            "give the output_dir of a run, or evaluate a model into it first: python -m m3kit evaluate --help"
        )
    return record


def _read_log(record: Record) -> None:
    """A kill may leave half a line: such lines are counted. Of a step that stands twice (a resumed run), the last."""
    file = record.folder / LOG
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines() if file.exists() else []
    except OSError as error:
        raise KitError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    found: dict[str, dict[float, dict[str, float]]] = {"loss": {}, "eval_seconds": {}, "train_loss": {}}
    for line in lines:
        try:
            row = json.loads(line).items()
        except (ValueError, AttributeError):
            row = ()
        figures = {name: value for name, value in row if type(value) in (int, float) and math.isfinite(value)}
        record.log_lines_lost += "step" not in figures
        for kind in found.keys() & figures.keys():
            found[kind][figures.get("step", 0)] = figures
    if record.log_lines_lost and not any(found.values()):
        raise KitError(f"{file} is damaged (no line of it can be read); {WITHOUT}")
    record.steps, record.evaluations, _ = ([rows[step] for step in sorted(rows)] for rows in found.values())
