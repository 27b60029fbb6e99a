"""Which plots a run has figures for, and their drawing one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from m3kit.evaluation.metrics import SCORES
from m3kit.report import curves, plots
from m3kit.report.about_run import best_step
from m3kit.report.figure import Plot, drawing
from m3kit.report.record import Record

# Every plot that there may be.
NAMES = (
    *("scores", "tasks", "general-yours", "general", "loss", "loss-parts", "learning-rate", "evaluation"),
    *("evaluation-tasks", *(f"scores-{score}" for score in SCORES)),
)
Drawn = Sequence[Plot | None]


def plots_to_draw(record: Record) -> list[Callable[[], Drawn]]:
    """Each draws one plot, or a few; in the order of the page."""
    metrics = record.metrics
    wanted: list[Callable[[], Drawn]] = []
    if metrics:
        wanted += [lambda: [_scores(metrics)], lambda: [plots.tasks_before_and_after(metrics)]]
        if metrics.get("general"):
            wanted += [lambda: [_general_yours(metrics)], lambda: [_general(metrics)]]
    if record.log:
        wanted.append(lambda: curves.draw_training(record.log, best_step(record)))
    for score, measured in metrics.get("distributions", {}).items():
        wanted.append(partial(_distribution, score, measured))
    return wanted


def draw(wanted: list[Callable[[], Drawn]], done: Callable[[int], Any]) -> dict[str, Plot]:
    """The plots by their names; ``done`` is called after each."""
    drawn: dict[str, Plot] = {}
    with drawing():
        for make in wanted:
            drawn |= {plot.name: plot for plot in make() if plot}
            done(1)
    return drawn


def _distribution(score: str, measured: Mapping[str, Any]) -> Drawn:
    return [plots.distribution(score, measured)]


def _scores(metrics: Mapping[str, Any]) -> Plot | None:
    title = "Before and after" if len(metrics["models"]) > 1 else "Scores"
    return plots.before_and_after(metrics, "scores", title, None)


def _general_yours(metrics: Mapping[str, Any]) -> Plot | None:
    """The user's text again, on the same axis as general text: the two stand side by side."""
    return plots.before_and_after(metrics, "general-yours", "Your text", plots.span_of(metrics, metrics["general"]))


def _general(metrics: Mapping[str, Any]) -> Plot | None:
    span = plots.span_of(metrics, metrics["general"])
    return plots.before_and_after(metrics["general"], "general", "General text", span)
