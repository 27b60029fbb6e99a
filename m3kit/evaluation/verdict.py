"""What came of it, in sentences for a reader who has never heard of nDCG; and in one word.

All is about one score, the lead: dense vectors, unless another is better by more than chance over both models together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from m3kit.evaluation.serving import HYBRID
from m3kit.evaluation.significance import compare_means
from m3kit.records import FOUND, HEADLINE, SCORES, Change, Metrics, Outcome, Retrieval

SCORE_WORDS = {
    "dense": "dense vectors",
    "sparse": "sparse weights",
    "colbert": "ColBERT vectors",
    "hybrid": "the hybrid of its three scores",
}
# A difference that is not shown yet, but likelier than not: more test queries would tell.
LIKELY = 0.3


def choose_lead(values: list[Mapping[str, np.ndarray]]) -> str:
    """The score to speak of. ``values``: of the first and the last model, score → nDCG@10 of each query.

    Of their sums, so that the choice prefers neither model.
    """
    shared = [score for score in SCORES if all(score in of for of in values)]
    lead = "dense"
    for score in shared[1:]:
        before, after = (np.sum([of[name] for of in values], axis=0) for name in (lead, score))
        if compare_means(before, after).verdict == "better":
            lead = score
    return lead


def below_bm25(metrics: Metrics) -> bool:
    """Whether plain keyword search is better than every score of the last model."""
    model = metrics.models[metrics.last]
    scores = [model.figures(score)[HEADLINE] for score in SCORES if model.figures(score)]
    return bool(scores) and metrics.bm25[HEADLINE] > max(scores)


def outcome(metrics: Metrics) -> Outcome:
    """One of the words that ``Metrics.outcome`` may be. Never "better" where keyword search is better still."""
    if len(metrics.models) == 1:
        return "single"
    tasks = [change.verdict for change in _task_changes(metrics)]
    forgot = metrics.general and _verdict(metrics.general, metrics.lead or "dense") == "worse"
    if metrics.lead is None:
        # A model that is worse at any of its tasks is no success.
        return "worse" if "worse" in tasks else "same" if "better" not in tasks else "mixed" if forgot else "better"
    change = _verdict(metrics, metrics.lead)
    if change == "worse":
        return "worse"
    if below_bm25(metrics):
        return "keyword search"
    return "same" if change != "better" else "mixed" if forgot or "worse" in tasks else "better"


def verdict(metrics: Metrics, by_recipe: bool = False) -> str:
    """A sentence a line: how often the right passage is found, which score to serve, what was forgotten, what next.

    ``by_recipe``: recipe=best chose the settings of the last model, so it is no advice.
    """
    lines: list[str] = []
    if metrics.lead:
        lines += _retrieval(metrics, metrics.lead)
    lines += _tasks(metrics)
    if len(metrics.models) > 1:
        lines += _forgotten(metrics)
        lines.append(f"Next: {_next(metrics, by_recipe)}.")
    return "\n".join(lines)


# ---- retrieval -----------------------------------------------------------------------------------------------------


def _found(part: Retrieval, name: str, score: str) -> int:
    """For how many queries the right passage is among the first ten."""
    return round(part.models[name].figures(score)[FOUND] * part.queries)


def _retrieval(metrics: Metrics, lead: str) -> Iterator[str]:
    base, last, queries = metrics.base, metrics.last, metrics.queries
    after = _found(metrics, last, lead)
    yield _how_often(metrics, lead) + "."
    change = metrics.change(lead)
    if change:
        yield _sentence(
            f"{HEADLINE} by {SCORE_WORDS[lead]}", metrics, *_figures(metrics, lead), change, _questions(queries)
        )
    if change and lead != "dense":
        dense, before = (_found(metrics, name, "dense") for name in (last, base))
        yield f"By dense vectors alone, which a vector database needs, it is {dense}; {_before(metrics)} {before}."
    words = round(metrics.bm25[FOUND] * queries)
    if below_bm25(metrics):
        yield f"Plain keyword search (BM25) finds it for {words}: it is STILL BETTER than every score of {last}."
    else:
        ranks = "" if words < after else ", but ranks it lower"
        yield f"Plain keyword search (BM25) finds it for {words}{ranks}."
    yield _serving(metrics)


def _how_often(metrics: Metrics, lead: str) -> str:
    told = f"The right passage is among the first ten for {_found(metrics, metrics.last, lead)} of "
    told += _questions(metrics.queries)
    if len(metrics.models) == 1:
        return f"{told} ({metrics.last}, by {SCORE_WORDS[lead]})"
    return f"{told}; {_before(metrics)} for {_found(metrics, metrics.base, lead)}"


def _before(metrics: Metrics) -> str:
    return "before," if (metrics.base, metrics.last) == ("base", "tuned") else f"with {metrics.base},"


def _serving(metrics: Metrics) -> str:
    """Which score to serve, and why."""
    assert metrics.serving
    served = metrics.serving.models[metrics.last]
    found = round(served.figures[FOUND] * metrics.serving.queries)
    if served.says == "dense":
        return f"Serve {metrics.last} by its dense vectors: no other score, and no mixture, is better by enough."
    if served.says == "BM25":
        return f"Serve plain keyword search (BM25): no score of {metrics.last} beside it is worth its cost."
    told = f"Serve {metrics.last} by {served.says} ({HYBRID}): {found} of {metrics.serving.queries}, {HEADLINE} "
    told += f"{served.figures[HEADLINE]:.3f}"
    if metrics.serving.reason:
        return f"{told}; these weights are a default, for {metrics.serving.reason}."
    if served.against["dense"].verdict == "better":
        return f"{told}, better than dense vectors alone ({served.alone['dense']:.3f}) by more than chance."
    return (
        f"{told}; dense vectors alone ({served.alone['dense']:.3f}) are within chance of that, and enough for a "
        "vector database."
    )


# ---- other tasks and text ------------------------------------------------------------------------------------------


def _tasks(metrics: Metrics) -> Iterator[str]:
    """A sentence a figure; beside retrieval only of what changed by more than chance."""
    base, last = metrics.models[metrics.base], metrics.models[metrics.last]
    for task, figures in last.tasks.items():
        count, what = next((count, what) for what, count in metrics.tasks[task].items())
        for metric, after in figures.items():
            change = metrics.task_comparisons.get(metrics.last, {}).get(task, {}).get(metric)
            if change is None and not metrics.lead:
                yield f"{metric[0].upper()}{metric[1:]} of {task} is {after:.3f} ({metrics.last})."
            if change and (not metrics.lead or change.verdict != "no difference"):
                what_of = f"{metric[0].upper()}{metric[1:]} of {task}"
                yield _sentence(what_of, metrics, base.tasks[task][metric], after, change, f"{count} {what}")


def _task_changes(metrics: Metrics) -> list[Change]:
    found = metrics.task_comparisons.get(metrics.last, {})
    return [change for changes in found.values() for change in changes.values()]


def _forgotten(metrics: Metrics) -> Iterator[str]:
    general = metrics.general
    if not general:
        return
    lead = metrics.lead or "dense"
    before, after = _figures(general, lead)
    told = f"{HEADLINE} of general text by {SCORE_WORDS[lead]}: {before:.3f} before, {after:.3f} after"
    word = _verdict(general, lead)
    if word == "worse":
        yield f"It FORGOT some of what it knew. {told}."
    else:
        kept = "It forgot nothing" if word == "no difference" else "It got better on other text too"
        yield f"{kept}, as far as {_questions(general.queries)} on general text can show. {told}."


# ---- what to do next -----------------------------------------------------------------------------------------------


def _next(metrics: Metrics, by_recipe: bool) -> str:
    best = "more rows of your own data"
    slower, mixing = "try fewer epochs or a lower learning rate", "python -m m3kit merge"
    if not by_recipe:
        best += ", and --recipe best, which fits the settings to them"
        slower += ", or --recipe best, which mixes some of the base back in"
        mixing += ", or --recipe best"
    outcome = metrics.outcome
    if outcome == "better" and metrics.serving and metrics.serving.models[metrics.last].says == "BM25":
        outcome = "keyword search"
    if outcome == "better":
        return "use it"
    if outcome == "worse":
        return f"keep {metrics.base}; {slower}"
    if outcome == "mixed":
        return f"use it for text like your own only, or mix some of {metrics.base} back in ({mixing})"
    if outcome == "keyword search":
        return f"serve keyword search meanwhile, alone or beside the model; what is most likely to help: {best}"
    change = metrics.change(metrics.lead) if metrics.lead else None
    if change and change.change > 0 and change.p < LIKELY:
        return f"more test questions: {metrics.queries} are too few to tell whether so small a gain is real; and {best}"
    return f"nothing speaks for it yet; what is most likely to help: {best}"


# ---- pieces --------------------------------------------------------------------------------------------------------


def _questions(number: int) -> str:
    return f"{number} question" if number == 1 else f"{number} questions"


def _figures(part: Retrieval, score: str) -> tuple[float, float]:
    """Of the first and the last model."""
    before, after = (part.models[name].figures(score)[HEADLINE] for name in (part.base, part.last))
    return before, after


def _verdict(part: Retrieval, score: str) -> str:
    change = part.change(score)
    return change.verdict if change else "no difference"


def shown_change(before: float, after: float) -> float:
    """The difference of the numbers as shown, so that what a reader sees adds up; metrics.json has the exact one."""
    return round(round(after, 3) - round(before, 3), 3)


def _sentence(what: str, metrics: Metrics, before: float, after: float, change: Change, items: str) -> str:
    difference = shown_change(before, after)
    went = f"{what} went from {before:.3f} to {after:.3f} ({difference:+.3f})"
    if difference == 0:
        went = f"{what} stayed at {after:.3f}"
    if change.verdict == "no difference":
        return f"{went}: no difference that {items} can show (p = {change.p:.2g})."
    certainty = f"p = {change.p:.2g}" if change.p >= 0.001 else "p < 0.001"
    if change.verdict == "better":
        return f"{went}: better, by more than chance ({certainty})."
    return f"The {metrics.last} model is WORSE than the {metrics.base}: {went}, by more than chance ({certainty})."
