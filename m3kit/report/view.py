"""From a run's record to what the page shows, in the page's order. Nothing is drawn or written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3kit.evaluation.metrics import HEADLINE, SCORES
from m3kit.evaluation.table import has_scores, headline_score
from m3kit.report.about_run import curves, data, problems, settings, time_and_memory
from m3kit.report.numbers import Source
from m3kit.report.record import Record
from m3kit.report.tables import (
    OUTCOMES,
    beside_general,
    bins,
    bm25_rows,
    counted,
    examples,
    retrieval_tables,
    task_tables,
)
from m3kit.report.usage import make_usage
from m3kit.report.words import SCORE_NAMES, duration, signed

NOT_EVALUATED = "The model was not evaluated: nobody knows whether it is better than the base."
NO_VERDICT = "The evaluation holds no verdict: it was written by another version of the kit. Evaluate again."


def make_view(record: Record) -> dict[str, Any]:
    """All that the page's template needs but for the plots."""
    metrics = Source(record.metrics)
    models = list(record.metrics.get("models", {}))
    view = {
        "name": record.name,
        "base": model_paths(record)[0],
        "started": record.run.get("started", "").replace("T", " ").replace("Z", " UTC"),
        "models": models,
        "eval_data": record.metrics.get("eval_data", ""),
        "verdict": verdict(record),
        "glance": glance(record),
        "state": state(record),
        "missing": record.missing,
        "retrieval": retrieval_tables(metrics, record.metrics) if metrics else [],
        "tasks": task_tables(metrics) if metrics else [],
        "bm25": bm25_rows(metrics),
        "counts": {key: metrics.number(key, show="{:,}".format) for key in _COUNTS},
        "counted": counted(record.metrics),
        "resamples": record.metrics.get("settings", {}).get("resamples"),
        "notes": [note for model in record.metrics.get("models", {}).values() for note in model.get("notes", [])],
        "general": _general(metrics),
        "distributions": {
            score: bins(metrics, score) for score in SCORES if score in record.metrics.get("distributions", {})
        },
        "score_names": SCORE_NAMES,
        "examples": _examples(metrics),
        "examples_of": record.metrics.get("examples", {}),
        "curves": curves(record),
        "data": data(record),
        "problems": problems(record),
        "settings": settings(record),
        "time": time_and_memory(record, metrics),
        "usage": make_usage(record, model_paths(record)[1]),
        "weights": _weights(metrics),
    }
    return view | {"contents": [(id, title) for id, title, pieces in SECTIONS if any(view[piece] for piece in pieces)]}


# A section is left out, with its link, where all that it shows is empty.
SECTIONS = (
    ("results", "Before and after", ("retrieval", "tasks")),
    ("forgot", "What it forgot", ("general",)),
    ("training", "Training", ("curves",)),
    ("scores", "Scores", ("distributions",)),
    ("queries", "Queries", ("examples",)),
    ("data", "Data", ("data", "problems")),
    ("settings", "Settings", ("settings",)),
    ("time", "Time", ("time",)),
    ("use", "Use", ("usage",)),
)
_COUNTS = ("queries", "queries_left_out", "passages", "relevant_pairs")


def model_paths(record: Record) -> tuple[str, str]:
    """Where the base and the model in question are: the first and last of metrics.json, or as run.json says."""
    paths = [str(model.get("path", "")) for model in record.metrics.get("models", {}).values()]
    base = record.run.get("settings", {}).get("model_name_or_path", "")
    return (paths[0] if len(paths) > 1 else base), (paths[-1] if paths and paths[-1] else str(record.folder))


def _weights(metrics: Source) -> dict[str, dict[str, Any]]:
    """Of the hybrid score, by model."""
    weights = {
        name: {score: metrics.number("models", name, "hybrid_weights", score, show="{:g}".format) for score in given}
        for name, model in metrics.part.get("models", {}).items()
        if (given := model.get("hybrid_weights"))
    }
    return weights


def hub_name(given: str | None) -> str | None:
    """``given`` if it is a model's name on the Hub. A folder beside it, or one that it would lie in, says it is not."""
    if not given or not re.fullmatch(r"[\w.-]+/[\w.-]+", given, re.ASCII) or given.startswith("."):
        return None
    return None if Path(given).parent.is_dir() else given


# ---- the verdict ---------------------------------------------------------------------------------------------------


def verdict(record: Record) -> dict[str, Any]:
    """What came of it: metrics.json's own sentence, and better, worse, same or unknown for the mark beside it."""
    metrics = record.metrics
    if not metrics:
        return {"lines": [NOT_EVALUATED], "kind": "unknown", "mark": "?", "label": "Not evaluated"}
    lines = [line for line in str(metrics.get("verdict") or NO_VERDICT).splitlines() if line.strip()]
    if len(metrics["models"]) == 1:
        return {"lines": lines, "kind": "single", "mark": "•", "label": "One model, nothing to compare it with"}
    found = _verdicts(metrics)
    # One that is worse at any of its tasks is not presented as a success.
    kind = next((word for word in ("worse", "better", "no difference") if word in found), None)
    label = {"better": "Better", "worse": "Worse", "no difference": "No difference that can be shown"}
    if kind is None:
        return {"lines": lines, "kind": "unknown", "mark": "?", "label": "Not compared"}
    css, mark = OUTCOMES[kind]
    forgot = "worse" in _verdicts(metrics["general"]) if metrics.get("general") else False
    if forgot and kind == "better":
        return {"lines": lines, "kind": "mixed", "mark": "▲▼", "label": "Better on your text, worse on general text"}
    return {"lines": lines, "kind": css, "mark": mark, "label": label[kind]}


def decisive_score(metrics: Mapping[str, Any]) -> str | None:
    """Hybrid, or dense where a model has no heads; None where no retrieval was measured."""
    entries = list(metrics["models"].values())
    ends = (entries[0], entries[-1])
    return headline_score(*ends) if all(has_scores(model, "dense") for model in ends) else None


def _verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Of the figure that decides; without retrieval those of all tasks."""
    compared = metrics.get("comparisons", {}).get(list(metrics["models"])[-1], {})
    if score := decisive_score(metrics):
        return [compared.get(score, {}).get(HEADLINE, {}).get("verdict")]
    tasks = compared.get("tasks", {}).values()
    return [changes.get("verdict") for task in tasks for changes in task.values()]


def glance(record: Record) -> list[dict[str, str]]:
    """The few figures that are read first."""
    found, metrics = [], record.metrics
    if metrics and (score := decisive_score(metrics)):
        found.append(_headline(metrics, score, f"{HEADLINE}, {SCORE_NAMES[score]}, your text"))
        general = metrics.get("general")
        if general and decisive_score(general) == score:
            found.append(_headline(general, score, f"{HEADLINE}, {SCORE_NAMES[score]}, general text"))
    if HEADLINE in metrics.get("bm25", {}):
        found.append({"label": f"{HEADLINE} of BM25", "value": f"{metrics['bm25'][HEADLINE]:.3f}", "more": "no model"})
    if "seconds" in record.run:
        steps = f"{record.run['steps']:,} steps" if "steps" in record.run else ""
        found.append({"label": "Training", "value": duration(record.run["seconds"]), "more": steps})
    return found


def _headline(metrics: Mapping[str, Any], score: str, label: str) -> dict[str, str]:
    entries = list(metrics["models"].values())
    before, after = entries[0][score][HEADLINE], entries[-1][score][HEADLINE]
    if len(entries) == 1:
        return {"label": label, "value": f"{after:.3f}", "more": ""}
    return {"label": label, "value": f"{before:.3f} → {after:.3f}", "more": signed(before, after)}


def state(record: Record) -> dict[str, Any] | None:
    """A sentence where the training did not end as it should."""
    status = record.run.get("status")
    if status in (None, "finished"):
        return None
    if status == "stopped":
        text = f"The training stopped before its end: {record.run.get('reason', 'no reason was written')}."
    else:
        text = "The training has not ended: it is still running, or it was killed."
    rows = [row["step"] for row in record.log if "loss" in row]
    reached = f" It had logged {max(rows):,.0f} steps." if rows else ""
    return {"text": text.replace("..", ".") + reached, "status": status}


def _examples(metrics: Source) -> dict[str, list[Any]]:
    found = {kind: examples(metrics, kind) for kind in ("gained", "lost")}
    return found if any(found.values()) else {}


def _general(metrics: Source) -> dict[str, Any] | None:
    general = metrics.of("general")
    if not general:
        return None
    return {
        "beside": beside_general(metrics),
        "tables": retrieval_tables(general, general.part),
        "counts": {key: general.number(key, show="{:,}".format) for key in _COUNTS},
        "counted": counted(general.part),
        "eval_data": general.part.get("eval_data", ""),
        "bm25": bm25_rows(general),
    }
