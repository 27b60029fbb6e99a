"""The plots of a training: loss, its parts, the learning rate, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from m3kit.evaluation.metrics import HEADLINE
from m3kit.report.figure import COLOURS, Plot, finish, mark, new_figure
from m3kit.report.words import SCORE_NAMES, TASK_NAMES

# Points of a curve, and rows of the table beside it.
MOST_POINTS = 500
# Of this many points a line through single steps is a blur: their means over a window are drawn with it.
SMOOTH_FROM = 60
LINES = {
    "dense": ("third", "o", "-"),
    "sparse": ("fourth", "s", (0, (5, 1.5))),
    "colbert": ("fifth", "^", (0, (2, 1.2))),
    "hybrid": ("ink", "D", "-"),
    "ensemble": ("ink", "D", "-"),
    "self_distill": ("sixth", "v", (0, (6, 1.5, 1.5, 1.5))),
}
PART_NAMES = {**SCORE_NAMES, "ensemble": "all three (ensemble)", "self_distill": "self-distillation"}


def thin(rows: Sequence[Mapping[str, float]]) -> tuple[list[dict[str, float]], int]:
    """At most MOST_POINTS rows, each the means of so many logged ones, at the last step of these."""
    size = -(-len(rows) // MOST_POINTS) or 1
    thinned = []
    for start in range(0, len(rows), size):
        group = rows[start : start + size]
        names = dict.fromkeys(name for row in group for name in row)
        means = {name: _mean([row[name] for row in group if name in row]) for name in names}
        # Memory is the peak so far, and time left what it is now.
        thinned.append(means | {name: group[-1][name] for name in ("step", "epoch", "memory_gb") if name in group[-1]})
    return thinned, size


def figures_of(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of all figures: self-distillation may begin after some steps."""
    return list(dict.fromkeys(name for row in rows for name in row))


def draw_training(log: Sequence[Mapping[str, float]], best_step: int | None) -> list[Plot]:
    """Every plot that the log has rows for."""
    steps, size = thin([row for row in log if "loss" in row])
    plots = []
    if steps:
        told = "" if size == 1 else f" Each point is the mean of {size} logged steps."
        plots.append(_loss(steps, told))
        parts = [name.removeprefix("loss_") for name in figures_of(steps) if name.startswith("loss_")]
        if len(parts) > 1:
            plots.append(_parts(steps, parts, told))
        if any("learning_rate" in row for row in steps):
            plots.append(_learning_rate(steps, told))
    measured = [row for row in log if "eval_seconds" in row]
    if measured:
        plots += _measured(measured, best_step)
    return plots


def _loss(steps: list[dict[str, float]], told: str) -> Plot:
    figure, (axes,) = new_figure(230)
    x, y = [row["step"] for row in steps], [row["loss"] for row in steps]
    window = _window(len(steps))
    if window > 1:
        axes.plot(x, y, color=COLOURS["base"], linewidth=0.8, alpha=0.6, label="logged")
        axes.plot(x, _smooth(y, window), color=COLOURS["tuned"], linewidth=2, label=f"mean of {window} points")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    else:
        axes.plot(x, y, color=COLOURS["tuned"], linewidth=2, marker="o" if len(x) < 20 else None, markersize=4)
    _steps(axes, "loss")
    caption = "The loss that was trained on. A small loss alone may only mean that the negatives are easy." + told
    alt = f"Loss by step: from {y[0]:.3f} at step {x[0]:.0f} to {y[-1]:.3f} at step {x[-1]:.0f}."
    return finish(figure, "loss", "Loss", caption, alt)


def _parts(steps: list[dict[str, float]], parts: list[str], told: str) -> Plot:
    figure, (axes,) = new_figure(230)
    window, ends = _window(len(steps)), []
    for part in parts:
        points = [(row["step"], row[f"loss_{part}"]) for row in steps if f"loss_{part}" in row]
        colour, _, dashes = LINES.get(part, ("base", "o", "-"))
        x, y = [point[0] for point in points], _smooth([point[1] for point in points], window)
        name = PART_NAMES.get(part, part)
        axes.plot(x, y, color=COLOURS[colour], linestyle=dashes, linewidth=1.7, label=name)
        ends.append(f"{name} {y[0]:.3f} to {y[-1]:.3f}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    _steps(axes, "loss")
    caption = "The parts of the loss, before they are weighted."
    caption += f" Means of {window} points." if window > 1 else ""
    return finish(figure, "loss-parts", "Parts of the loss", caption + told, f"Parts of the loss: {'; '.join(ends)}.")


def _learning_rate(steps: list[dict[str, float]], told: str) -> Plot:
    figure, (axes,) = new_figure(230)
    points = [(row["step"], row["learning_rate"]) for row in steps if "learning_rate" in row]
    x, y = [point[0] for point in points], [point[1] for point in points]
    axes.plot(x, y, color=COLOURS["tuned"], linewidth=2)
    _steps(axes, "learning rate")
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.1e}".replace("e-0", "e-") if rate else "0")
    alt = f"Learning rate by step: at most {max(y):.2e}, {y[-1]:.2e} at the end."
    return finish(figure, "learning-rate", "Learning rate", "The learning rate of each step." + told, alt)


def _measured(rows: Sequence[Mapping[str, float]], best_step: int | None) -> list[Plot]:
    """Curves of the scores, and of the other tasks, which have another meaning."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name.startswith("eval_")]
    names = [name.removeprefix("eval_") for name in names if name != "eval_seconds"]
    scores = [name for name in names if name.endswith(f"_{HEADLINE}") and name.split("_")[0] in SCORE_NAMES]
    plots = []
    if scores:
        labels = {name: SCORE_NAMES[name.split("_")[0]] for name in scores}
        plots.append(_curves("evaluation", f"{HEADLINE} while training", HEADLINE, rows, labels, best_step))
    if others := [name for name in names if name not in scores]:
        labels = {name: _task_label(name) for name in others}
        plots.append(_curves("evaluation-tasks", "Other tasks while training", "", rows, labels, best_step))
    return plots


def _curves(
    name: str,
    title: str,
    unit: str,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    best_step: int | None,
) -> Plot:
    figure, (axes,) = new_figure(250 + 14 * max(0, (len(labels) - 3) // 2))
    spoken, fallback = [], [line for kind, line in LINES.items() if kind != "ensemble"]
    for number, (key, label) in enumerate(labels.items()):
        points = [(row["step"], row[f"eval_{key}"]) for row in rows if f"eval_{key}" in row]
        colour, marker, dashes = LINES.get(key.split("_")[0], fallback[number % len(fallback)])
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(
            x, y, color=COLOURS[colour], linestyle=dashes, linewidth=1.7, marker=marker, markersize=5, label=label
        )
        spoken.append(f"{label} from {y[0]:.3f} to {y[-1]:.3f}")
    caption = "Measured on the test data (a sample where it is large) between steps; step 0 is the base."
    if best_step is not None:
        right = best_step > 0.6 * max(row["step"] for row in rows)
        mark(axes, best_step, f"best: step {best_step}", "right" if right else "left")
        caption += f" The dashed line marks step {best_step}, whose model was kept."
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2 if len(labels) != 3 else 3)
    _steps(axes, unit)
    best = "" if best_step is None else f" Best: step {best_step}."
    return finish(figure, name, title, caption, f"{title}: {'; '.join(spoken)}.{best}")


def _task_label(name: str) -> str:
    task, _, metric = name.partition("_")
    return f"{TASK_NAMES.get(task, task)}: {metric.replace('_', ' ')}"


def _steps(axes: Axes, unit: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.locator_params(axis="x", nbins=7, integer=True)
    axes.locator_params(axis="y", nbins=6)
    axes.margins(x=0.02)


def _window(points: int) -> int:
    """An odd number of points; 1 where there are few."""
    return 1 if points < SMOOTH_FROM else max(points // 25, 3) // 2 * 2 + 1


def _smooth(values: Sequence[float], window: int) -> list[float]:
    half = window // 2
    return [_mean(values[max(0, place - half) : place + half + 1]) for place in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
