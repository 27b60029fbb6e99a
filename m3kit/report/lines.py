"""Figures side by side: a line a figure, with its value of each model and the change of the last one."""

from __future__ import annotations

from typing import NamedTuple

from m3kit.records import HEADLINE, SCORES, Change, Metrics, Retrieval
from m3kit.report.words import SCORE_NAMES, TASK_NAMES


class Line(NamedTuple):
    """``values``: one a model, None where it was not measured. ``change`` is None where nothing was compared."""

    label: str
    metric: str
    values: list[float | None]
    change: Change | None

    @property
    def ends(self) -> list[float | None]:
        """Of the base and of the model that it is about."""
        return [self.values[0], self.values[-1]] if len(self.values) > 1 else self.values


def score_lines(measured: Retrieval, *metrics: str) -> list[Line]:
    """Of each score that any model has; these metrics, or all."""
    lines = []
    for score in SCORES:
        models = [model.figures(score) for model in measured.models.values()]
        for metric in metrics or dict.fromkeys(name for figures in models for name in figures):
            if any(metric in figures for figures in models):
                values = [figures.get(metric) for figures in models]
                lines.append(Line(SCORE_NAMES[score], metric, values, measured.change(score, metric)))
    return lines


def served_lines(metrics: Metrics) -> list[Line]:
    """The weighted score to serve, where that is no single one."""
    served = metrics.serving.models if metrics.serving else {}
    last = served.get(metrics.last)
    if last is None or sum(weight > 0 for weight in last.weights.values()) < 2:
        return []
    values = [served[name].figures.get(HEADLINE) if name in served else None for name in metrics.models]
    return [Line(last.says, HEADLINE, values, last.against.get("base_served"))]


def task_lines(metrics: Metrics) -> list[Line]:
    models, compared = [model.tasks for model in metrics.models.values()], metrics.task_comparisons
    names = dict.fromkeys((task, metric) for tasks in models for task in tasks for metric in tasks[task])
    return [
        Line(
            TASK_NAMES.get(task, task),
            metric,
            [tasks.get(task, {}).get(metric) for tasks in models],
            compared.get(metrics.last, {}).get(task, {}).get(metric),
        )
        for task, metric in names
    ]
