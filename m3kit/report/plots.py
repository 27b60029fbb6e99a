"""The five plots: scores, other tasks, general text, held-out figure while training, loss."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m3kit.records import HEADLINE, SCORES
from m3kit.report.lines import NAMES, Line, cut, score_lines, task_lines
from m3kit.report.record import Record

# The page's colours, by their CSS variables, which take their place in the page. Those of the files are the light ones.
CSS = Path(__file__).with_name("templates") / "report.css"
COLOURS = dict(re.findall(r"--(\w+): light-dark\((#\w{6})", CSS.read_text("utf-8")))
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), COLOURS["soft"]),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    # The last: a name may hold a dollar sign.
    **dict.fromkeys(
        ("axes.spines.left", "axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False
    ),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "grid.color": COLOURS["grid"],
    "svg.fonttype": "none",
    "svg.hashsalt": "m3kit",
    "text.color": COLOURS["ink"],
}
FILES = ("scores", "tasks", "general", "evaluation", "loss")
# Of the base, empty, and of the model that the report is about.
MARKERS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "edgecolors": COLOURS["base"], "facecolors": COLOURS["paper"], "zorder": 3},
    {"marker": "D", "color": COLOURS["tuned"], "zorder": 4},
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (2, 1.2)), "-", (0, (6, 1.5, 1.5, 1.5)))
CURVES = tuple(zip(("third", "fourth", "fifth", "ink", "sixth"), DASHES, strict=True))
# Points of the loss; of more the means are drawn. A name in a plot is cut, tables have it whole.
MOST_POINTS, LONGEST_NAME = 200, 22
WIDTH = 390 / 72  # inches: half the page, or a phone


@dataclass(frozen=True)
class Plot:
    """A finished plot: ``svg`` and ``png`` are the files, ``inline`` is what stands in the page."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes
    inline: str


def draw_plots(record: Record) -> dict[str, Plot]:
    """Those that there are figures for, by their names, in the order of ``FILES``."""
    made: list[Plot | None] = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that DejaVu Sans lacks are boxes in the PNG; the page and the SVG have the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        if metrics := record.metrics:
            lines, names = score_lines(metrics, HEADLINE), list(metrics.models)
            made.append(_before_and_after("scores", "Your text", lines, names, metrics.bm25.get(HEADLINE)))
            made.append(_before_and_after("tasks", "Other tasks", task_lines(metrics), names))
            if general := metrics.general:
                lines = score_lines(general, HEADLINE)
                made.append(_before_and_after("general", "General text", lines, list(general.models)))
        made += [_evaluation(record), _loss(record.steps)]
    return {plot.name: plot for plot in made if plot}


def _before_and_after(
    name: str, title: str, lines: Sequence[Line], models: Sequence[str], bm25: float | None = None
) -> Plot | None:
    """The base, the last model, the interval of the change as a bar, and BM25 as a dashed line."""
    if not lines:
        return None
    figure = Figure(figsize=(WIDTH, (76 + 38 * len(lines)) / 72), layout="constrained")
    axes = figure.subplots()
    for row, line in enumerate(lines):
        if line.change and (value := line.values[-1]) is not None:
            ends = [value - line.change.change + end for end in line.change.interval]
            axes.plot(ends, [row] * 2, color=COLOURS["tuned"], linewidth=1.4, marker="|", markersize=7)
    # A model without a value has no place, and its legend even so.
    for place, model, marker in ((0, models[0], MARKERS[0]), (-1, models[-1], MARKERS[1]))[-len(lines[0].ends) :]:
        values = np.array([line.values[place] for line in lines], dtype=float)
        axes.scatter(values, range(len(lines)), s=64, linewidths=1.8, label=cut(model, LONGEST_NAME), **marker)
    axes.set_yticks(range(len(lines)), [line.metric if name == "tasks" else line.label for line in lines])
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(lines)), [line.told for line in lines])
    right.spines["right"].set_visible(False)
    if bm25 is not None:
        mark(axes, bm25, f"BM25 {bm25:.3f}", "center")
    axes.margins(x=0.08)
    axes.set(xlabel="" if name == "tasks" else HEADLINE, ylim=(len(lines) - 0.45, -0.55))
    axes.locator_params(axis="x", nbins=6)
    caption = "Further right is better."
    caption += " The thin bar is the 95 % interval of the change." if any(line.change for line in lines) else ""
    caption += " Dashed: BM25, plain keyword search." if bm25 is not None else ""
    spoken = "; ".join(f"{line.label} {line.metric} {line.told}" for line in lines)
    return finish(figure, name, title, caption, f"{title}, {models[-1]} and its difference from {models[0]}: {spoken}.")


def _evaluation(record: Record) -> Plot | None:
    """nDCG@10 of each score; the figures of other tasks where no retrieval was measured."""
    names = dict.fromkeys(name for row in record.evaluations for name in row if name.startswith("eval_"))
    curves = {name: NAMES[score] for score in SCORES if (name := f"eval_{score}_{HEADLINE}") in names}
    tasks = {name: name[5:].replace("_", " ") for name in names if name != "eval_seconds"}
    best = ((record.run and record.run.best) or {}).get("step")
    caption = "On held-out data (a sample where it is large); step 0 is the base."
    caption += f" The model of step {best:.0f} was kept." if best is not None else ""
    about, unit = ("evaluation", "While training", caption), HEADLINE if curves else ""
    return _curves(about, record.evaluations, curves or tasks, unit, best)


def _loss(steps: Sequence[Mapping[str, float]]) -> Plot | None:
    """With its parts."""
    names = dict.fromkeys(name for row in steps for name in row if name.startswith("loss_"))
    curves = {name: NAMES.get(name[5:], name[5:]) for name in names} | {"loss": "loss"}
    caption = f"What was trained on{', and its parts before they are weighted' if names else ''}."
    return _curves(("loss", "Loss", caption), steps, curves, "loss")


def _curves(
    about: tuple[str, str, str], rows: Sequence[Mapping[str, float]], curves: dict[str, str], unit: str, best=None
) -> Plot | None:
    """A curve a name, of a long loss the means; ``best``: the step that is marked; ``about``: name, title, caption."""
    if not rows or not curves:
        return None
    (name, title, caption), size = about, -(-len(rows) // MOST_POINTS) if about[0] == "loss" else 1
    caption += f" Each point is the mean of {size} logged steps." if size > 1 else ""
    figure = Figure(figsize=(WIDTH, 270 / 72), layout="constrained")
    axes = figure.subplots()
    spoken = []
    for (key, label), (colour, dashes) in zip(curves.items(), cycle(CURVES), strict=False):
        points = np.array([(row["step"], row[key]) for row in rows if key in row])
        x, y = np.transpose([points[start : start + size].mean(axis=0) for start in range(0, len(points), size)])
        style: dict[str, Any] = {"color": COLOURS[colour], "linestyle": dashes, "linewidth": 1.6}
        style |= {"color": COLOURS["tuned"], "linestyle": "-", "linewidth": 2.4} if key == "loss" else {}
        axes.plot(x, y, label=label, marker="o" if len(rows) < 20 else None, markersize=4, **style)
        spoken.append(f"{label} from {y[0]:.3f} to {y[-1]:.3f}")
    if best is not None:
        mark(axes, best, f"kept: step {best:.0f}", "right" if best > 0.6 * rows[-1]["step"] else "left")
    axes.set(xlabel="step", ylabel=unit)
    axes.locator_params(axis="x", nbins=7, integer=True)
    axes.margins(x=0.02)
    return finish(figure, name, title, caption, f"{title}: {'; '.join(spoken)}.")


def mark(axes: Axes, x: float, told: str, side: str) -> None:
    """A dashed line from top to bottom, with what it means above its end; ``side``: of the words that lies at it."""
    axes.axvline(x, color=COLOURS["reference"], linewidth=1.4, linestyle=(0, (4, 3)), zorder=1.5)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(told, (x, 1), xytext=(0, 4), ha=side, color=COLOURS["reference"], **place)


def finish(figure: Figure, name: str, title: str, caption: str, alt: str) -> Plot:
    """Write a figure out; the same figure gives the same bytes. ``alt`` is for those who do not see it."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper left", ncols=2)
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.set_layout_engine("none")  # laid out already
    figure.savefig(png, format="png", dpi=216, metadata={"Software": None})
    text = re.sub(r" +$", "", svg.getvalue(), flags=re.MULTILINE).replace("'DejaVu Sans'", "'DejaVu Sans', sans-serif")
    # In the page: its colours and font, and ids of its own.
    size, body = re.findall(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', text, re.DOTALL)[0]
    body = re.sub(r' font-family: [^;]*;| transform="rotate\(-0 [^"]*"|(?<=\n) +', "", body)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body).replace("xlink:href", "href")
    for colour, value in COLOURS.items():
        body = body.replace(value, f"var(--{colour})")
    inline = f'<svg {size} role="img" aria-label="{escape(alt)}">{body}'.rstrip()
    return Plot(name, title, caption, text.encode(), png.getvalue(), inline)
