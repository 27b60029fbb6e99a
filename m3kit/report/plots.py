"""The plots of evaluations: before and after, your text and other text, and how scores are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from m3kit.evaluation.metrics import HEADLINE, SCORES
from m3kit.evaluation.table import has_scores
from m3kit.report.figure import COLOURS, MARKERS, MODEL_COLOURS, Plot, finish, mark, new_figure
from m3kit.report.words import SCORE_NAMES, TASK_NAMES, shorten, signed

# Of a model's name in a plot; the tables have it whole.
LONGEST_NAME = 22


@dataclass(frozen=True)
class Line:
    """A line of a before/after plot: a value of each model (None: it has none), and the interval of the last change."""

    label: str
    values: Sequence[float | None]
    interval: Sequence[float] | None = None


def before_and_after(
    metrics: Mapping[str, Any], name: str, title: str, span: tuple[float, float] | None
) -> Plot | None:
    """nDCG@10 of each score, a marker a model, with BM25 as a line; ``span``: the x axis, to compare two plots by."""
    lines = score_lines(metrics)
    if not lines:
        return None
    names = list(metrics["models"])
    reference = metrics.get("bm25", {}).get(HEADLINE)
    caption = f"{HEADLINE} of each score; further right is better."
    if len(names) > 1 and any(line.interval for line in lines):
        caption += f" The thin bar is the 95 % interval of {names[-1]}'s change."
    if reference is not None:
        caption += f" The dashed line is BM25, which compares words and needs no model ({reference:.3f})."
    return _dumbbells(name, title, caption, names, lines, span, reference, HEADLINE)


def tasks_before_and_after(metrics: Mapping[str, Any]) -> Plot | None:
    """The figures of the other tasks."""
    lines = task_lines(metrics)
    if not lines:
        return None
    names = list(metrics["models"])
    caption = "Figures of the other tasks; further right is better."
    if any(line.interval for line in lines):
        caption += f" The thin bar is the 95 % interval of {names[-1]}'s change."
    return _dumbbells("tasks", "Other tasks, before and after", caption, names, lines, None, None, "")


def score_lines(metrics: Mapping[str, Any]) -> list[Line]:
    """One for each score that any model has."""
    models, lines = metrics["models"], []
    for score in SCORES:
        values = [model[score][HEADLINE] if has_scores(model, score) else None for model in models.values()]
        if any(value is not None for value in values):
            lines.append(Line(SCORE_NAMES[score], values, _interval(metrics, score, HEADLINE)))
    return lines


def task_lines(metrics: Mapping[str, Any]) -> list[Line]:
    """One for each figure of each task that any model has."""
    entries = [model.get("tasks", {}) for model in metrics["models"].values()]
    lines = []
    for task in dict.fromkeys(task for entry in entries for task in entry):
        for metric in dict.fromkeys(metric for entry in entries for metric in entry.get(task, {})):
            values = [entry.get(task, {}).get(metric) for entry in entries]
            lines.append(
                Line(f"{TASK_NAMES.get(task, task)}\n{metric}", values, _interval(metrics, "tasks", task, metric))
            )
    return lines


def span_of(*parts: Mapping[str, Any]) -> tuple[float, float] | None:
    """An x axis that holds the scores of several parts of metrics.json, so that their plots can be compared."""
    spans = [_span(lines, part.get("bm25", {}).get(HEADLINE)) for part in parts if (lines := score_lines(part))]
    return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None


def _interval(metrics: Mapping[str, Any], *path: str) -> Sequence[float] | None:
    """The interval of the last model's change."""
    found: Any = metrics.get("comparisons", {}).get(list(metrics["models"])[-1], {})
    for key in path:
        found = found.get(key, {})
    return found.get("interval")


def _ends(line: Line) -> list[float]:
    """All that a line's markers and bar reach."""
    values = [value for value in line.values if value is not None]
    if line.interval and line.values[0] is not None:
        values += [line.values[0] + change for change in line.interval]
    return values


def _span(lines: Sequence[Line], reference: float | None) -> tuple[float, float]:
    ends = [end for line in lines for end in _ends(line)] + ([] if reference is None else [reference])
    low, high = min(ends), max(ends)
    margin = max(0.06 * (high - low), 0.02)
    return low - margin, high + margin


def _dumbbells(
    name: str,
    title: str,
    caption: str,
    models: Sequence[str],
    lines: Sequence[Line],
    span: tuple[float, float] | None,
    reference: float | None,
    unit: str,
) -> Plot:
    step = 44 if len(models) > 3 else 40 if any("\n" in line.label for line in lines) else 34
    figure, (axes,) = new_figure(66 + step * len(lines) + (0 if reference is None and span is None else 16))
    # Markers of one line stand a little below each other where there are many.
    shift = 0.0 if len(models) < 3 else 0.52 / len(models)
    for place, line in enumerate(lines):
        known = [value for value in line.values if value is not None]
        if len(models) == 2:
            axes.plot([min(known), max(known)], [place] * 2, color=COLOURS["grid"], linewidth=5, solid_capstyle="round")
        for number, value in enumerate(line.values):
            if value is None:
                continue
            height = place + shift * (number - (len(models) - 1) / 2)
            if number == len(models) - 1 and line.interval and line.values[0] is not None:
                low, high = (line.values[0] + change for change in line.interval)
                axes.plot([low, high], [height] * 2, color=_colour(number), linewidth=1.4, marker="|", markersize=7)
            face = COLOURS["paper"] if number == 0 and len(models) > 1 else _colour(number)
            axes.plot(
                [value],
                [height],
                marker=_marker(number),
                markersize=8 if len(models) < 3 else 6.5,
                markerfacecolor=face,
                markeredgecolor=_colour(number),
                markeredgewidth=1.8,
                linestyle="none",
                label=shorten(models[number], LONGEST_NAME) if place == _first_with(lines, number) else None,
                zorder=4 - (number == 0),
            )
        axes.annotate(
            _told(line.values),
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS["ink"],
            annotation_clip=False,
        )
    if reference is not None:
        mark(axes, reference, f"BM25 {reference:.3f}", "center")
    axes.set_xlim(span or _span(lines, reference))
    axes.set_ylim(len(lines) - 0.45, -0.55)
    axes.set_yticks([])
    for place, line in enumerate(lines):
        _label(axes, place, line.label.split("\n"))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(unit)
    if len(models) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=_columns(models))
    spoken = "; ".join(
        f"{' '.join(line.label.split())}: "
        + ", ".join(
            f"{model} {value:.3f}" for model, value in zip(models, line.values, strict=True) if value is not None
        )
        for line in lines
    )
    alt = f"{title}. {spoken}." + ("" if reference is None else f" BM25: {reference:.3f}.")
    return finish(figure, name, title, caption, alt)


def _columns(models: Sequence[str]) -> int:
    """As many names side by side as the plot has room for."""
    widest = 4 + max(len(shorten(model, LONGEST_NAME)) for model in models)
    return max(1, min(len(models), 3, 54 // widest))


def _label(axes: Axes, place: int, parts: Sequence[str]) -> None:
    """At the left of a line, a text a part: matplotlib aligns several by widths of its own font, not of the page's."""
    for number, part in enumerate(parts):
        axes.annotate(
            part,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-8, 15 * ((len(parts) - 1) / 2 - number)),
            textcoords="offset points",
            ha="right",
            va="center",
            color=COLOURS["soft" if number else "ink"],
            annotation_clip=False,
        )


def _first_with(lines: Sequence[Line], number: int) -> int:
    return next(place for place, line in enumerate(lines) if line.values[number] is not None)


def _told(values: Sequence[float | None]) -> str:
    """What stands at the right end of a line: the last value, and its change."""
    first, last = values[0], values[-1]
    if last is None:
        return "–"
    if len(values) == 1 or first is None:
        return f"{last:.3f}"
    return f"{last:.3f}  {signed(first, last)}"


def _colour(number: int) -> str:
    return COLOURS[MODEL_COLOURS[number % len(MODEL_COLOURS)]]


def _marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


# ---- distributions -------------------------------------------------------------------------------------------------


def distribution(score: str, measured: Mapping[str, Any]) -> Plot:
    """Of one score: a panel a model, relevant passages beside the best of the others, as shares of each."""
    models, edges = measured["models"], measured["edges"]
    figure, panels = new_figure(52 + 92 * len(models), len(models))
    for axes, (model, counts) in zip(panels, models.items(), strict=True):
        _panel(axes, edges, counts)
        axes.set_title(shorten(model, LONGEST_NAME), color=COLOURS["ink"], pad=3)
    panels[-1].set_xlabel(f"{SCORE_NAMES[score]} score")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    title = f"Scores: {SCORE_NAMES[score]}"
    spoken = "; ".join(
        f"{model}: half of the relevant passages score above {_median(edges, counts['relevant']):.3f}, "
        f"half of the best others above {_median(edges, counts['others']):.3f}"
        for model, counts in models.items()
        if sum(counts["relevant"]) and sum(counts["others"])
    )
    caption = "Shares of the relevant passages (filled) and of the ten best others of each query (dashed)."
    return finish(figure, f"scores-{score}", title, caption, f"{title}, by model. {spoken}.")


def _panel(axes: Axes, edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> None:
    relevant, others = (_shares(counts[kind]) for kind in ("relevant", "others"))
    axes.stairs(relevant, edges, fill=True, color=COLOURS["fifth"], alpha=0.3)
    axes.stairs(relevant, edges, color=COLOURS["fifth"], linewidth=1.6, label="relevant")
    axes.stairs(others, edges, color=COLOURS["fourth"], linewidth=1.6, linestyle=(0, (3, 1.5)), label="best others")
    axes.set_ylim(0, max(*relevant, *others, 0.01) * 1.12)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}".replace("%", " %"))
    axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=7)


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def _median(edges: Sequence[float], counts: Sequence[int]) -> float:
    """The middle of the bin that holds the middle one."""
    seen = 0
    for place, count in enumerate(counts):
        seen += count
        if 2 * seen >= sum(counts):
            return (edges[place] + edges[place + 1]) / 2
    return edges[-1]
