"""report.html: the record and the plots, put into the template. One file that loads nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from m3kit.encoding.trained_with import Encoding
from m3kit.records import FOUND, HEADLINE
from m3kit.report import lines
from m3kit.report.lines import score_lines, served_lines, task_lines
from m3kit.report.plots import Plot
from m3kit.report.record import NOT_EVALUATED, Record

# How each outcome of metrics.json is marked and named; only "better" is green.
OUTCOMES = {
    "better": ("▲", "Better"),
    "worse": ("▼", "Worse"),
    "same": ("=", "No difference that can be shown"),
    "mixed": ("◆", "Better in one thing, worse in another"),
    "keyword search": ("◆", "Keyword search is still better"),
    "single": ("•", "One model, compared with none"),
    "unknown": ("?", "Not evaluated"),
}
MARKS = {"better": "▲", "worse": "▼"}
# What M3 is trained to rank by, where nothing else was measured.
WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
EVALUATING = "Of that, evaluating between steps"


def environment(**options: Any) -> Environment:
    """Templates beside this module; what they lack is an error, not an empty place."""
    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    made = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
    made.filters |= {name: getattr(lines, name) for name in ("cut", "fixed", "plus", "duration", "said")}
    made.filters["python"] = lambda text: json.dumps(text, ensure_ascii=False)
    made.globals.update(OUTCOMES=OUTCOMES, MARKS=MARKS, EVALUATING=EVALUATING, HEADLINE=HEADLINE, FOUND=FOUND)
    made.globals.update(score_lines=score_lines, signed=lines.signed)
    return made


def make_view(record: Record, path: str) -> dict[str, Any]:
    """What page and card show; ``path`` is the model's in the snippets."""
    metrics, use = record.metrics, _usage(record, path)
    code: Any = environment().get_template("usage.py.j2").module
    return {
        "record": record,
        "run": record.run,
        "metrics": metrics,
        "general": metrics.general if metrics else None,
        "outcome": metrics.outcome if metrics else "unknown",
        "verdict": (metrics.verdict if metrics else NOT_EVALUATED).splitlines(),
        "headline": score_lines(metrics, HEADLINE) + served_lines(metrics) if metrics else [],
        "tasks": task_lines(metrics) if metrics else [],
        "cost": _cost(record),
        "use": use,
        "flag_embedding": str(code.flag_embedding(use)).strip(),
        "sentence_transformers": str(code.sentence_transformers(use)).strip(),
    }


def render_page(record: Record, plots: Mapping[str, Plot], card: str) -> str:
    """The page; ``card`` is the name of the model card's file."""
    path = record.metrics.models[record.metrics.last].path if record.metrics else ""
    template = environment(autoescape=True).get_template("report.html.j2")
    return template.render(make_view(record, path or str(record.folder)), plots=plots, card=card)


def _cost(record: Record) -> dict[str, str]:
    """What it took, as far as it was measured."""
    run, models = record.run, record.metrics.models if record.metrics else {}
    between = sum(row["eval_seconds"] for row in record.evaluations)
    seconds = {"Training": run.seconds if run else 0, EVALUATING: between}
    seconds |= {f"Evaluating {name}": model.seconds for name, model in models.items()}
    cost = {label: lines.duration(value) for label, value in seconds.items() if value}
    for label, name, shown, of in (
        ("Steps", "step", "{:,.0f}", max),
        ("Tokens a second, median", "tokens_per_second", "{:,.0f}", statistics.median),
        ("Peak memory", "memory_gb", "{:.2f} GB", max),
    ):
        if values := [row[name] for row in record.steps if name in row]:
            cost[label] = shown.format(of(values))
    return cost | ({"Processes": str(run.world_size), "Device": run.device or "not known"} if run else {})


def _usage(record: Record, path: str) -> dict[str, Any]:
    """What usage.py.j2 writes code with: of the last model of metrics.json, or of the one that the run made."""
    metrics, measured, weights = record.metrics, dict[str, Any](), WEIGHTS
    if metrics:
        model, served = metrics.models[metrics.last], metrics.serving and metrics.serving.models.get(metrics.last)
        measured, weights = metrics.settings | model.settings, served.weights if served else WEIGHTS
        weights = weights if model.hybrid else {"dense": 1.0, "bm25": weights.get("bm25", 0.0)}
    trained = {name.removeprefix("sentence_"): value for name, value in record.settings.items()}
    use: dict[str, Any] = asdict(Encoding()) | {"colbert_dim": -1}
    for settings in (trained, measured):
        use |= {name: settings[name] for name in use if settings.get(name) is not None}
    weighted = {name: weight for name, weight in weights.items() if weight and name != "bm25"} or {"dense": 1.0}
    return use | {"path": path, "weights": weighted, "bm25": weights.get("bm25", 0.0)}
