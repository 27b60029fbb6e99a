"""What the run itself tells, for the page and the card: its curves as numbers, its cost, its data and its settings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from m3kit.report.curves import figures_of, thin
from m3kit.report.numbers import Source
from m3kit.report.record import Record
from m3kit.report.words import duration

# Settings that a reader asks for first, with the names they are known by.
KEY_SETTINGS = {
    "model_name_or_path": "Base model",
    "num_train_epochs": "Epochs",
    "learning_rate": "Learning rate",
    "lr_scheduler_type": "Schedule",
    "warmup_steps": "Warm-up",
    "per_device_train_batch_size": "Queries a batch and device",
    "gradient_accumulation_steps": "Gradient accumulation",
    "train_group_size": "Passages a query",
    "query_max_len": "Query length, tokens",
    "passage_max_len": "Passage length, tokens",
    "temperature": "Temperature",
    "unified_finetuning": "All three scores trained",
    "use_self_distill": "Self-distillation",
    "knowledge_distillation": "Teacher scores",
    "fix_encoder": "Heads only",
    "lora_rank": "LoRA rank (0: all weights)",
    "sentence_pooling_method": "Pooling",
    "normalize_embeddings": "Normalised vectors",
    "query_instruction_for_retrieval": "Query prompt",
    "precision": "Precision",
    "seed": "Seed",
}
SEVERITIES = {"error": "✖", "set aside": "✖", "warning": "▲", "note": "ℹ"}


# ---- training ------------------------------------------------------------------------------------------------------


def best_step(record: Record) -> int | None:
    """The step whose model was kept, if the run came so far."""
    return record.run.get("best", {}).get("step")


def curves(record: Record) -> dict[str, Any]:
    if not record.log:
        return {}
    rows = [row for row in record.log if "loss" in row]
    steps, size = thin(rows)
    names = figures_of(steps)
    shown = ["step", "loss", *(name for name in names if name.startswith("loss_"))]
    shown = [name for name in [*shown, "learning_rate", "tokens_per_second", "memory_gb"] if name in names]
    measured = [row for row in record.log if "eval_seconds" in row]
    figures = [name for name in figures_of(measured) if name.startswith("eval_")]
    return {
        "columns": shown,
        "steps": steps,
        "size": size,
        "logged": len(rows),
        "figures": [name for name in figures if name != "eval_seconds"],
        "measured": measured,
        "best": best_step(record),
        "lost": record.log_lines_lost,
        "resumed": record.run.get("resumed", []),
    }


def time_and_memory(record: Record, metrics: Source) -> list[tuple[str, Any]]:
    """What it took, as far as it was measured."""
    rows = [row for row in record.log if "loss" in row]
    run, found = record.run, []

    def told(label: str, value: Any) -> None:
        if value is not None:
            found.append((label, value))

    def column(name: str) -> list[float]:
        return [row[name] for row in rows if name in row]

    told("Training", duration(run["seconds"]) if "seconds" in run else None)
    evaluating = sum(row["eval_seconds"] for row in record.log if "eval_seconds" in row)
    told("Of that, evaluating between steps", duration(evaluating) if evaluating else None)
    told("Steps", f"{run['steps']:,}" if "steps" in run else f"{max(column('step')):,.0f}" if rows else None)
    for label, name in (
        ("Tokens a second, median", "tokens_per_second"),
        ("Texts a second, median", "texts_per_second"),
    ):
        told(label, f"{statistics.median(column(name)):,.0f}" if column(name) else None)
    told("Padding, mean", f"{100 * statistics.fmean(column('padding')):.1f} %" if column("padding") else None)
    memory = max(column("memory_gb"), default=None)
    told("Peak memory (of the GPU; of the process without one)", f"{memory:.2f} GB" if memory is not None else None)
    told("Device", run.get("device"))
    told("Processes", run.get("world_size"))
    for name in record.metrics.get("models", {}):
        told(f"Evaluating {name}", metrics.number("models", name, "seconds", show=duration))
        told(f"Texts of {name} encoded earlier", metrics.number("models", name, "cached_texts", show="{:,}".format))
    return found


# ---- data and settings ---------------------------------------------------------------------------------------------


def data(record: Record) -> dict[str, Any] | None:
    """Rows read, used and set aside, by file."""
    sets = record.manifest.get("sets")
    if sets is None:
        return None
    columns = ("rows_read", "rows_used", "rows_merged", "aside", "negatives_added", "rows_written")
    rows = [dict(entry, aside=sum(entry.get("rows_set_aside", {}).values()), told=_fates(entry)) for entry in sets]
    return {
        "rows": rows,
        "columns": columns,
        "totals": {name: sum(row.get(name) or 0 for row in rows) for name in columns},
        "held_out": record.manifest.get("held_out", {}),
        "holdout": record.manifest.get("settings", {}).get("holdout"),
    }


def _fates(entry: Mapping[str, Any]) -> str:
    """Why rows and texts of a file were not used, in words."""
    parts = [f"{count:,} set aside ({reason})" for reason, count in entry.get("rows_set_aside", {}).items()]
    parts += [f"{count:,} texts left out ({reason})" for reason, count in entry.get("texts_removed", {}).items()]
    if entry.get("columns_not_used"):
        parts.append(f"columns not used: {', '.join(entry['columns_not_used'])}")
    return "; ".join([*parts, *entry.get("notes", [])])


def problems(record: Record) -> list[dict[str, Any]]:
    """What the checks found: of each kind how many, and the first."""
    order = list(SEVERITIES)
    counts = sorted(record.problems.counts.items(), key=lambda item: (_place(order, item[0][0]), item[0][1]))
    return [
        {
            "severity": severity,
            "mark": SEVERITIES.get(severity, "•"),
            "code": code,
            "count": count,
            "first": record.problems.first.get((severity, code), []),
        }
        for (severity, code), count in counts
    ]


def _place(order: list[str], word: str) -> int:
    return order.index(word) if word in order else len(order)


def settings(record: Record) -> dict[str, Any]:
    """Those that matter first, all of them, and the versions; nothing that may be a secret."""
    if not record.run and not record.metrics:
        return {}
    given = {key: value for key, value in record.run.get("settings", {}).items() if not key.endswith("_token")}
    measured = record.metrics.get("settings", {})
    return {
        "key": [(label, said(given[key])) for key, label in KEY_SETTINGS.items() if key in given],
        "all": [(key, said(value)) for key, value in given.items()],
        "evaluation": [(key, said(value)) for key, value in measured.items() if key != "versions"],
        "bm25": [(key, said(value)) for key, value in record.metrics.get("bm25", {}).get("settings", {}).items()],
        "models": [
            (
                name,
                [(key, said(value)) for key, value in {"path": model.get("path"), **model.get("settings", {})}.items()],
            )
            for name, model in record.metrics.get("models", {}).items()
        ],
        "versions": _versions(record),
    }


def _versions(record: Record) -> list[tuple[str, str, str]]:
    """Name, version in training, version in the evaluation."""
    trained = dict(record.run.get("versions", {}))
    if "python" in record.run:
        trained["Python"] = record.run["python"]
    measured = record.metrics.get("settings", {}).get("versions", {})
    names = dict.fromkeys([*trained, *measured])
    return [(name, str(trained.get(name, "–")), str(measured.get(name, "–"))) for name in names]


def said(value: Any) -> str:
    """A setting in words."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(said(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {said(item)}" for key, item in value.items()) or "none"
    return str(value)
