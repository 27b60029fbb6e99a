"""What is told on stdout: a table of all metrics, and one sentence that says what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from m3kit.evaluation.metrics import MEASURES

SCORES = ("dense", "sparse", "colbert", "hybrid")
HEADLINE = "nDCG@10"


def has_scores(model: dict, score: str) -> bool:
    """Whether a model's entry in metrics.json has numbers for this score (no heads: dense only; no retrieval: none)."""
    return HEADLINE in model.get(score, {})


def changes(models: dict[str, dict]) -> dict:
    """Last model minus first, for every score that both have, and for the tasks under "tasks", as in their entries."""
    first, *_, last = models.values()
    change: dict = {
        score: {metric: last[score][metric] - first[score][metric] for metric in MEASURES}
        for score in SCORES
        if has_scores(first, score) and has_scores(last, score)
    }
    if "tasks" in first:
        change["tasks"] = {
            task: {metric: last["tasks"][task][metric] - before for metric, before in measured.items()}
            for task, measured in first["tasks"].items()
        }
    return change


def _shown_change(before: float, after: float) -> float:
    """The difference of the numbers as shown, so that what a reader sees adds up; metrics.json has the exact one."""
    return round(round(after, 3) - round(before, 3), 3)


def render_table(metrics: dict) -> str:
    """Rows: score × metric, hybrid last, then the tasks. Columns: the models, and the last minus the first."""
    models = metrics["models"]
    columns = [*models] + (["change"] if "change" in metrics else [])
    counts, lines = [], []
    # A table of retrieval alone needs less room than the names of tasks do.
    label_width = 16 if "tasks" in metrics else 8
    if "queries" in metrics:
        counts.append(
            f"{metrics['queries']} queries, {metrics['passages']} passages, {metrics['relevant_pairs']} relevant pairs"
        )
        lines += ["", *_table("score", _retrieval_rows(metrics), columns, label_width)]
    if "tasks" in metrics:
        for task, numbers in metrics["tasks"].items():
            counts.append(f"{task}: " + ", ".join(f"{count} {what}" for what, count in numbers.items()))
        lines += ["", *_table("task", _task_rows(metrics), columns, label_width)]
    notes = [note for model in models.values() for note in model["notes"]]
    return "\n".join([*counts, *lines, *notes])


def _retrieval_rows(metrics: dict) -> Iterator[tuple[str, str, list[str]]]:
    for score in SCORES:
        for metric in MEASURES:
            values = [
                model[score][metric] if has_scores(model, score) else None for model in metrics["models"].values()
            ]
            yield score if metric == HEADLINE else "", metric, _cells(values, "change" in metrics)


def _task_rows(metrics: dict) -> Iterator[tuple[str, str, list[str]]]:
    entries = list(metrics["models"].values())
    for task, measured in entries[0]["tasks"].items():
        for metric in measured:
            yield task, metric, _cells([entry["tasks"][task][metric] for entry in entries], "change" in metrics)


def _cells(values: list[float | None], compared: bool) -> list[str]:
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    if compared:
        first, last = values[0], values[-1]
        cells.append("-" if first is None or last is None else f"{_shown_change(first, last):+.3f}")
    return cells


def _table(title: str, rows: Iterable[tuple[str, str, list[str]]], columns: list[str], label_width: int) -> list[str]:
    widths = [max(len(column), 7) for column in columns]

    def line(label: str, metric: str, cells: list[str]) -> str:
        padded = (f"{cell:>{width + 2}}" for cell, width in zip(cells, widths, strict=True))
        return f"{label:<{label_width}}{metric:<12}" + "".join(padded)

    head = line(title, "metric", columns)
    return [head, "-" * len(head), *(line(*row) for row in rows)]


def verdict(metrics: dict) -> str:
    """One plain sentence about nDCG@10 of hybrid, or of dense where a model has no heads.

    Without retrieval: one about each task, each on its line.
    """
    names, entries = list(metrics["models"]), list(metrics["models"].values())
    first, last = entries[0], entries[-1]
    if "queries" in metrics:
        score = "hybrid" if has_scores(first, "hybrid") and has_scores(last, "hybrid") else "dense"
        return _sentence(f"{HEADLINE} of the {score} score", names, first[score][HEADLINE], last[score][HEADLINE])
    return "\n".join(
        _sentence(f"{metric[0].upper()}{metric[1:]} of {task}", names, before, last["tasks"][task][metric])
        for task, measured in first["tasks"].items()
        for metric, before in measured.items()
    )


def _sentence(what: str, names: list[str], before: float, after: float) -> str:
    if len(names) == 1:
        return f"{what} of {names[0]} is {after:.3f}."
    difference = _shown_change(before, after)
    if difference == 0:
        return f"{what} stayed at {after:.3f}."
    went = f"{what} went from {before:.3f} to {after:.3f} ({difference:+.3f})."
    if difference > 0:
        return went
    return f"The {names[-1]} model is WORSE than the {names[0]} by {-difference:.3f}: {went}"
