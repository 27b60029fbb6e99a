"""What is told on stdout: a table of all metrics, and in plain sentences what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from m3kit.evaluation.metrics import HEADLINE, MEASURES, SCORES


def has_scores(model: Mapping, score: str) -> bool:
    """Whether a model's entry in metrics.json has numbers for this score (no heads: dense only; no retrieval: none)."""
    return HEADLINE in model.get(score, {})


def headline_score(first: Mapping, last: Mapping) -> str:
    """The score that decides: hybrid, or dense where a model has no heads."""
    return "hybrid" if has_scores(first, "hybrid") and has_scores(last, "hybrid") else "dense"


def shown_change(before: float, after: float) -> float:
    """The difference of the numbers as shown, so that what a reader sees adds up; metrics.json has the exact one."""
    return round(round(after, 3) - round(before, 3), 3)


# ---- the table -----------------------------------------------------------------------------------------------------


def render_table(metrics: dict) -> str:
    """Rows: score × metric, hybrid last, then the tasks and general text. Columns: the models, and last against first.

    Below: BM25, and what there is to say about the models.
    """
    models = metrics["models"]
    columns = [*models] + (["change"] if len(models) > 1 else [])
    counts, lines = [], []
    # A table of retrieval alone needs less room than the names of tasks do.
    width = 16 if "tasks" in metrics else 10
    if "queries" in metrics:
        counts.append(_counted(metrics))
        lines += ["", *_table("score", _retrieval_rows(metrics, MEASURES), columns, width), _bm25_line(metrics["bm25"])]
        lines += [_served_line(metrics["serving"])] if "serving" in metrics else []
    if "tasks" in metrics:
        for task, numbers in metrics["tasks"].items():
            counts.append(f"{task}: " + ", ".join(f"{count} {what}" for what, count in numbers.items()))
        lines += ["", *_table("task", _task_rows(metrics), columns, width)]
    if "general" in metrics:
        general = metrics["general"]
        lines += ["", f"general text, for what was forgotten: {_counted(general)}"]
        lines += _table("score", _retrieval_rows(general, [HEADLINE]), columns, width)
    notes = list(dict.fromkeys(note for model in models.values() for note in model["notes"]))
    return "\n".join([*counts, *lines, *([""] if notes else []), *notes])


def _counted(part: Mapping) -> str:
    return f"{part['queries']} queries, {part['passages']} passages, {part['relevant_pairs']} relevant pairs"


def _bm25_line(bm25: Mapping) -> str:
    figures = ", ".join(f"{metric} {bm25[metric]:.3f}" for metric in MEASURES)
    return f"For reference, BM25 ({bm25['settings']['language']}): {figures}"


def _served_line(serving: Mapping) -> str:
    told = ", ".join(f"{name} {each[HEADLINE]:.3f} ({each['says']})" for name, each in serving["models"].items())
    return f"Served by the weights of each: {HEADLINE} {told}"


Row = tuple[str, str, list[str], str]


def _retrieval_rows(part: Mapping, measures: Iterable[str]) -> Iterator[Row]:
    models = part["models"].values()
    for score in (score for score in SCORES if any(has_scores(model, score) for model in models)):
        for metric in measures:
            values = [model[score][metric] if has_scores(model, score) else None for model in models]
            yield score if metric == HEADLINE else "", metric, *_cells(values, _compared(part).get(score, {}), metric)


def _task_rows(metrics: Mapping) -> Iterator[Row]:
    entries = list(metrics["models"].values())
    for task, measured in entries[0]["tasks"].items():
        compared = _compared(metrics).get("tasks", {}).get(task, {})
        for metric in measured:
            yield task, metric, *_cells([entry["tasks"][task][metric] for entry in entries], compared, metric)


def _compared(part: Mapping) -> Mapping:
    """The last model against the first."""
    return part["comparisons"].get(list(part["models"])[-1], {})


def _cells(values: list[float | None], compared: Mapping, metric: str) -> tuple[list[str], str]:
    """A cell a column, and the word beside them."""
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    if len(values) > 1:
        before, after = values[0], values[-1]
        cells.append("-" if before is None or after is None else f"{shown_change(before, after):+.3f}")
    return cells, compared[metric]["verdict"] if metric in compared else ""


def _table(title: str, rows: Iterable[Row], columns: list[str], label_width: int) -> list[str]:
    widths = [max(len(column), 7) for column in columns]

    def line(label: str, metric: str, cells: list[str], word: str) -> str:
        padded = (f"{cell:>{width + 2}}" for cell, width in zip(cells, widths, strict=True))
        return f"{label:<{label_width}}{metric:<14}{''.join(padded)}  {word}".rstrip()

    head = line(title, "metric", columns, "")
    return [head, "-" * len(head), *(line(*row) for row in rows)]


# ---- sentences -----------------------------------------------------------------------------------------------------


def verdict(metrics: Mapping) -> str:
    """A sentence about nDCG@10 of hybrid (of dense where a model has no heads), and one about general text.

    Without retrieval: one about each task, each on its line. The last line says which score to serve.
    """
    names = list(metrics["models"])
    lines: list[str] = []
    if "queries" in metrics:
        lines.append(_retrieval_sentence(metrics, f"{metrics['queries']} queries"))
    else:
        first, last = metrics["models"][names[0]], metrics["models"][names[-1]]
        for task, measured in first["tasks"].items():
            count, what = next((count, what) for what, count in metrics["tasks"][task].items())
            compared = _compared(metrics).get("tasks", {}).get(task, {})
            lines += [
                _sentence(
                    f"{metric[0].upper()}{metric[1:]} of {task}",
                    names,
                    before,
                    last["tasks"][task][metric],
                    compared.get(metric),
                    f"{count} {what}",
                )
                for metric, before in measured.items()
            ]
    if "general" in metrics and len(names) > 1:
        general = metrics["general"]
        lines.append("On general text: " + _retrieval_sentence(general, f"{general['queries']} queries"))
    if "serving" in metrics:
        lines.append(_serving_sentence(metrics["serving"]))
    return "\n".join(lines)


def _retrieval_sentence(part: Mapping, items: str) -> str:
    names = list(part["models"])
    first, last = part["models"][names[0]], part["models"][names[-1]]
    score = headline_score(first, last)
    compared = _compared(part).get(score, {}).get(HEADLINE)
    return _sentence(
        f"{HEADLINE} of the {score} score", names, first[score][HEADLINE], last[score][HEADLINE], compared, items
    )


def _serving_sentence(serving: Mapping) -> str:
    """Which score of the last model to serve, what it is worth, and beside what of the first."""
    first, name = next(iter(serving["models"])), list(serving["models"])[-1]
    base, model = serving["models"][first], serving["models"][name]
    low, high = model["interval"]
    how = f"{serving['folds']}-fold cross-validation" if serving["folds"] else f"the default: {serving['reason']}"
    told = (
        f"Serve {name} by {model['says']}: {HEADLINE} {model[HEADLINE]:.3f} (95 % interval {low:.3f} to {high:.3f}; "
        f"{how}); dense alone {model['alone']['dense']:.3f}, BM25 alone {model['alone']['bm25']:.3f}."
    )
    beside = {"base_dense": f"the dense score of {first} ({base['alone']['dense']:.3f})"}
    if first != name:
        beside["base_served"] = f"{first} by {base['says']} ({base[HEADLINE]:.3f})"
    return (
        f"{told} That is " + ", and ".join(_against(model["against"][key], what) for key, what in beside.items()) + "."
    )


def _against(compared: Mapping, what: str) -> str:
    low, high = compared["interval"]
    word = {"no difference": "no clear difference from"}.get(compared["verdict"], compared["verdict"] + " than")
    return f"{word} {what}: {compared['change']:+.3f} ({low:+.3f} to {high:+.3f})"


def _sentence(what: str, names: list[str], before: float, after: float, compared: Mapping | None, items: str) -> str:
    if compared is None:
        return f"{what} of {names[0]} is {after:.3f}."
    difference = shown_change(before, after)
    low, high = compared["interval"]
    certainty = f"95 % interval {low:+.3f} to {high:+.3f}, p = {compared['p']:.2g}"
    if difference == 0:
        went = f"{what} stayed at {after:.3f}"
    else:
        went = f"{what} went from {before:.3f} to {after:.3f} ({difference:+.3f})"
    if compared["verdict"] == "no difference":
        return f"{went}: no difference that {items} can show ({certainty})."
    if compared["verdict"] == "better":
        return f"{went}: better ({certainty})."
    return f"The {names[-1]} model is WORSE than the {names[0]}: {went} ({certainty})."
