"""Figures side by side, a line a figure: its value of each model, and the change of the last one; and all in words."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from m3kit.records import HEADLINE, SCORES, Change, Changes, Figures, Metrics, Retrieval

NAMES = {
    **{"dense": "Dense", "sparse": "Sparse", "colbert": "ColBERT", "hybrid": "Hybrid"},
    **{"sts": "Similarity (STS)", "classification": "Classification", "clustering": "Clustering"},
    **{"ensemble": "all three", "self_distill": "self-distillation"},
}


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

    @property
    def told(self) -> str:
        """The last value, and its difference from the base."""
        first, last = self.values[0], self.values[-1]
        if len(self.values) == 1 or first is None or last is None:
            return fixed(last)
        return f"{last:.3f}  {signed(first, last)}"


def score_lines(measured: Retrieval, *metrics: str) -> list[Line]:
    """Of each score that any model has; these metrics, or all."""
    models = [{score: model.figures(score) for score in SCORES} for model in measured.models.values()]
    return _lines(models, measured.comparisons.get(measured.last, {}), metrics)


def task_lines(metrics: Metrics) -> list[Line]:
    return _lines([model.tasks for model in metrics.models.values()], metrics.task_comparisons.get(metrics.last, {}))


def served_lines(metrics: Metrics) -> list[Line]:
    """The weighted score to serve, where that is no single one."""
    served = metrics.serving.models if metrics.serving else {}
    last = served.get(metrics.last)
    if last is None or sum(weight > 0 for weight in last.weights.values()) < 2:
        return []
    values = [served[name].figures.get(HEADLINE) if name in served else None for name in metrics.models]
    return [Line(last.says, HEADLINE, values, last.against.get("base_served"))]


def _lines(models: list[dict[str, Figures]], changes: Changes, metrics: tuple[str, ...] = ()) -> list[Line]:
    found = ((key, name) for model in models for key in model for name in model[key] if not metrics or name in metrics)
    return [
        Line(NAMES.get(key, key), name, [one.get(key, {}).get(name) for one in models], changes.get(key, {}).get(name))
        for key, name in sorted(dict.fromkeys(found), key=lambda line: [*models[-1], *models[0]].index(line[0]))
    ]


def cut(text: Any, longest: int) -> str:
    """A user's text, at most so long, and without the marks that would turn around what stands beside it."""
    text = re.sub(r"[\u202a-\u202e\u2066-\u2069]", "", str(text))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def fixed(value: float | None, of: int | None = None) -> str:
    """A figure as it stands in tables, where a zero has no sign; a share ``of`` so many as "71 of 83"."""
    if value is None:
        return "–"
    return f"{value * of:.0f} of {of:,}" if of else f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def plus(change: float, of: int | None = None) -> str:
    shown = f"{change * of:+.0f}" if of else f"{change:+.3f}"
    return shown.replace("-", "−") if float(shown) else "±0"


def signed(before: float, after: float, of: int | None = None) -> str:
    """The difference of the figures as shown, so that what a reader sees adds up."""
    if of:
        return plus((round(after * of) - round(before * of)) / of, of)
    return plus(round(after, 3) - round(before, 3))


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def said(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, dict):
        value = [f"{key} {said(item)}" for key, item in value.items()]
    if isinstance(value, list):
        value = ", ".join(map(said, value))
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return {"True": "yes", "False": "no", "None": "none", "": "none"}.get(shown, shown)
