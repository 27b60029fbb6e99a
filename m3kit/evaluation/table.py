"""The figures on stdout: one table of retrieval, one of the other tasks, one of general text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from m3kit.evaluation.metrics import MEASURES
from m3kit.evaluation.verdict import shown_change
from m3kit.records import HEADLINE, SCORES, Change, Metrics, Retrieval

# A score or task, a metric, a value a model, and what changed.
Row = tuple[str, str, list[float | None], Change | None]


def render_table(metrics: Metrics) -> str:
    """Rows: score × metric, then the tasks and general text. Columns: the models, and last against first.

    Below: what there is to say about the models.
    """
    names = list(metrics.models)
    lines: list[str] = []
    if metrics.lead:
        lines += [_counted(metrics), *_table("score", [*_scores(metrics, MEASURES), *_bm25(metrics)], names), ""]
    if metrics.tasks:
        for task, counts in metrics.tasks.items():
            lines.append(f"{task}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        lines += [*_table("task", _tasks(metrics), names), ""]
    if metrics.general:
        lines.append(f"general text, for what was forgotten: {_counted(metrics.general)}")
        lines += [*_table("score", _scores(metrics.general, [HEADLINE]), names), ""]
    lines += dict.fromkeys(note for model in metrics.models.values() for note in model.notes)
    return "\n".join(lines).rstrip()


def _counted(part: Retrieval) -> str:
    counts = (
        (part.queries, "query", "queries"),
        (part.passages, "passage", "passages"),
        (part.relevant_pairs, "relevant pair", "relevant pairs"),
    )
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts)


def _scores(part: Retrieval, measures: Iterable[str]) -> Iterator[Row]:
    for score in SCORES:
        figures = [model.figures(score) for model in part.models.values()]
        for metric in measures if any(figures) else ():
            yield score, metric, [of.get(metric) for of in figures], part.change(score, metric)


def _bm25(metrics: Metrics) -> Iterator[Row]:
    """The line of reference, which needs no model."""
    for metric, value in metrics.bm25.items():
        yield "BM25", metric, [value] + [None] * (len(metrics.models) - 1), None


def _tasks(metrics: Metrics) -> Iterator[Row]:
    models = list(metrics.models.values())
    for task, figures in models[0].tasks.items():
        changes = metrics.task_comparisons.get(metrics.last, {}).get(task, {})
        for metric in figures:
            yield task, metric, [model.tasks[task].get(metric) for model in models], changes.get(metric)


def _table(title: str, rows: Iterable[Row], names: list[str]) -> list[str]:
    cells: list[tuple[str, ...]] = []
    for label, metric, values, change in rows:
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        before, after = values[0], values[-1]
        if len(names) > 1:
            shown.append("-" if before is None or after is None else f"{shown_change(before, after):+.3f}")
        repeated = bool(cells) and label == cells[-1][0]
        cells.append((label, "" if repeated else label, metric, *shown, change.verdict if change else ""))
    head = ("", title, "metric", *names, *(["change"] if len(names) > 1 else []), "")
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(1, len(head))]
    lines = []
    for row in [head, *cells]:
        texts = [f"{text:<{width}}" for text, width in zip(row[1:3], widths, strict=False)]
        numbers = [f"{text:>{max(width, 7)}}" for text, width in zip(row[3:-1], widths[2:], strict=False)]
        lines.append("  ".join([*texts, *numbers, row[-1]]).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
