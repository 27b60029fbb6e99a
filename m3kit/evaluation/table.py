"""What is told on stdout: a table of all metrics, and one sentence that says what came of it."""

from __future__ import annotations

from m3kit.evaluation.metrics import MEASURES

SCORES = ("dense", "sparse", "colbert", "hybrid")
HEADLINE = "nDCG@10"


def has_scores(model: dict, score: str) -> bool:
    """Whether a model's entry in metrics.json has numbers for this score (no heads, no sparse, colbert and hybrid)."""
    return HEADLINE in model[score]


def changes(models: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Last model minus first, for every score that both have."""
    first, *_, last = models.values()
    return {
        score: {metric: last[score][metric] - first[score][metric] for metric in MEASURES}
        for score in SCORES
        if has_scores(first, score) and has_scores(last, score)
    }


def _shown_change(before: float, after: float) -> float:
    """The difference of the numbers as shown, so that what a reader sees adds up; metrics.json has the exact one."""
    return round(round(after, 3) - round(before, 3), 3)


def render_table(metrics: dict) -> str:
    """Rows: score × metric, hybrid last. Columns: the models side by side, and the last minus the first."""
    models, compared = metrics["models"], "change" in metrics
    columns = [*models] + (["change"] if compared else [])
    entries = list(models.values())
    first, last = entries[0], entries[-1]
    widths = [max(len(column), 7) for column in columns]
    lines = [_row("score", "metric", columns, widths)]
    lines.append("-" * len(lines[0]))
    for score in SCORES:
        for metric in MEASURES:
            cells = [f"{model[score][metric]:.3f}" if has_scores(model, score) else "-" for model in models.values()]
            if compared:
                shown = score in metrics["change"]
                cells.append(f"{_shown_change(first[score][metric], last[score][metric]):+.3f}" if shown else "-")
            lines.append(_row(score if metric == HEADLINE else "", metric, cells, widths))
    counts = f"{metrics['queries']} queries, {metrics['passages']} passages, {metrics['relevant_pairs']} relevant pairs"
    notes = [note for model in models.values() for note in model["notes"]]
    return "\n".join([counts, "", *lines, *notes])


def _row(score: str, metric: str, cells: list[str], widths: list[int]) -> str:
    return f"{score:<8}{metric:<12}" + "".join(
        f"{cell:>{width + 2}}" for cell, width in zip(cells, widths, strict=True)
    )


def verdict(metrics: dict) -> str:
    """One plain sentence about nDCG@10 of hybrid, or of dense where a model has no heads."""
    models = metrics["models"]
    entries = list(models.items())
    (first_name, first), (last_name, last) = entries[0], entries[-1]
    score = "hybrid" if has_scores(first, "hybrid") and has_scores(last, "hybrid") else "dense"
    before, after = first[score][HEADLINE], last[score][HEADLINE]
    if len(models) == 1:
        return f"{HEADLINE} of the {score} score of {first_name} is {after:.3f}."
    difference = _shown_change(before, after)
    if difference == 0:
        return f"{HEADLINE} of the {score} score stayed at {after:.3f}."
    went = f"{HEADLINE} of the {score} score went from {before:.3f} to {after:.3f} ({difference:+.3f})."
    if difference > 0:
        return went
    return f"The {last_name} model is WORSE than the {first_name} by {-difference:.3f}: {went}"
