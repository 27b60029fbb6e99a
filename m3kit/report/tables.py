"""metrics.json as tables: before and after, other text, distributions, and queries to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from m3kit.evaluation.metrics import HEADLINE, MEASURES, SCORES
from m3kit.evaluation.table import has_scores
from m3kit.report.numbers import Number, Source
from m3kit.report.words import SCORE_NAMES, TASK_NAMES, chance, decimals, outcome, plus, signed

EXPLAINED = {
    "dense": "one vector a text",
    "sparse": "weighted words",
    "colbert": "a vector a token",
    "hybrid": "the three together",
}
OUTCOMES = {"better": ("better", "▲"), "worse": ("worse", "▼"), "no difference": ("same", "=")}


@dataclass(frozen=True)
class Row:
    """A metric of one score or task; what was not measured or not compared is None."""

    metric: str
    base: Number | None
    other: Number | None = None
    change: Number | None = None
    interval: tuple[Number, Number] | None = None
    p: Number | None = None
    kind: str = ""
    mark: str = ""
    word: str = ""

    @property
    def headline(self) -> bool:
        return self.metric == HEADLINE


@dataclass(frozen=True)
class Group:
    """The rows of a score or a task, or why there are none."""

    title: str
    about: str
    rows: list[Row] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """A table: one model beside the base, or one model alone (``other`` is empty then)."""

    base: str
    other: str
    groups: list[Group]
    compared: bool  # with intervals and p


def counted(metrics: Mapping[str, Any], task: str | None = None) -> str:
    """How many queries, pairs or texts a figure is of."""
    if task is None:
        return f"{metrics.get('queries', 0):,} queries"
    counts = metrics.get("tasks", {}).get(task, {})
    return next((f"{number:,} {what}" for what, number in counts.items()), "this many texts")


def retrieval_tables(metrics: Source, sizes: Mapping[str, Any]) -> list[Comparison]:
    """One for each model but the first, the last model's first; or one of the only model."""
    if not any(has_scores(model, score) for model in metrics.part["models"].values() for score in SCORES):
        return []
    return _tables(metrics, lambda base, other: _score_groups(metrics, base, other, counted(sizes)))


def task_tables(metrics: Source) -> list[Comparison]:
    """The same for the other tasks."""
    if not any(model.get("tasks") for model in metrics.part["models"].values()):
        return []
    return _tables(metrics, lambda base, other: _task_groups(metrics, base, other))


def _tables(metrics: Source, groups) -> list[Comparison]:
    base, *others = metrics.part["models"]
    if not others:
        return [Comparison(base, "", list(groups(base, "")), False)]
    compared = metrics.part.get("comparisons", {})
    return [Comparison(base, other, list(groups(base, other)), bool(compared.get(other))) for other in reversed(others)]


def _score_groups(metrics: Source, base: str, other: str, sizes: str) -> Iterator[Group]:
    for score in SCORES:
        entries = [metrics.part["models"].get(name, {}).get(score, {}) for name in (base, other) if name]
        known = [metric for metric in MEASURES if any(metric in entry for entry in entries)]
        reason = " ".join(entry["reason"] for entry in entries if entry.get("reason"))
        if known or reason:
            rows = [_row(metrics, metric, (score, metric), base, other, sizes) for metric in known]
            yield Group(SCORE_NAMES[score], EXPLAINED[score], rows, reason)


def _task_groups(metrics: Source, base: str, other: str) -> Iterator[Group]:
    entries = [metrics.part["models"][name].get("tasks", {}) for name in (base, other) if name]
    for task in dict.fromkeys(task for entry in entries for task in entry):
        names = dict.fromkeys(metric for entry in entries for metric in entry.get(task, {}))
        sizes = counted(metrics.part, task)
        rows = [_row(metrics, metric, ("tasks", task, metric), base, other, sizes) for metric in names]
        told = ", ".join(f"{number} {what}" for what, number in metrics.part.get("tasks", {}).get(task, {}).items())
        yield Group(TASK_NAMES.get(task, task), told, rows)


def _row(metrics: Source, metric: str, path: tuple[str, ...], base: str, other: str, sizes: str) -> Row:
    before = metrics.number("models", base, *path)
    if not other:
        return Row(metric, before)
    after = metrics.number("models", other, *path)
    at = ("comparisons", other, *path)
    change = metrics.number(*at, "change", show=plus)
    if before and after:
        difference = signed(before.value, after.value)
        # The exact change is the one that metrics.json holds; without it, that of the two figures.
        change = (
            Number(change.value, change.where, difference)
            if change
            else Number(after.value - before.value, "", difference)
        )
    ends = [metrics.number(*at, "interval", place, show=plus) for place in (0, 1)]
    p = metrics.number(*at, "p", show=chance)
    verdict = metrics.of(*at).part.get("verdict")
    kind, mark = OUTCOMES.get(verdict or "", ("", ""))
    interval = (ends[0], ends[1]) if ends[0] and ends[1] else None
    return Row(metric, before, after, change, interval, p, kind, mark, outcome(verdict, sizes) if verdict else "")


def bm25_rows(metrics: Source) -> list[tuple[str, Number]]:
    """The line of reference: words compared, no model."""
    found = [(metric, metrics.number("bm25", metric)) for metric in MEASURES]
    return [(metric, number) for metric, number in found if number]


# ---- other text ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A score's headline figure on the user's text and on general text."""

    score: str
    domain: Row
    general: Row


def beside_general(metrics: Source) -> list[Beside]:
    """The last model's headline figures, yours and general."""
    general, names = metrics.of("general"), list(metrics.part["models"])
    if not general or names[-1] not in general.part["models"] or names[0] not in general.part["models"]:
        return []
    base, other = names[0], names[-1] if len(names) > 1 else ""
    rows = []
    for score in SCORES:
        path = (score, HEADLINE)
        domain = _row(metrics, HEADLINE, path, base, other, counted(metrics.part))
        there = _row(general, HEADLINE, path, base, other, counted(general.part))
        if there.base or there.other:
            rows.append(Beside(SCORE_NAMES[score], domain, there))
    return rows


# ---- distributions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bins:
    """The numbers under a plot of scores: a row a bin."""

    models: list[str]
    rows: list[tuple[Number | None, Number | None, list[Number | None]]]


def bins(metrics: Source, score: str) -> Bins:
    at = metrics.of("distributions", score)
    models = list(at.part["models"])

    def count(model: str, kind: str, place: int) -> Number | None:
        return at.number("models", model, kind, place, show=str)

    rows = [
        (
            at.number("edges", place),
            at.number("edges", place + 1),
            [count(model, kind, place) for model in models for kind in ("relevant", "others")],
        )
        for place in range(len(at.part["edges"]) - 1)
    ]
    return Bins(models, rows)


# ---- queries to look at --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passage:
    """A passage of an example: where each model ranked it, with which scores and which words."""

    identifier: str
    text: str
    relevant: bool
    ranks: list[Number | None]
    scores: list[tuple[str, list[Number | None]]]
    tokens: list[list[tuple[str, Number]]]


@dataclass(frozen=True)
class Example:
    """A query that one of the models answers better."""

    query: str
    text: str
    before: Number | None
    after: Number | None
    passages: list[Passage]
    why: list[tuple[str, str]]


def examples(metrics: Source, kind: str) -> list[Example]:
    """``kind``: gained or lost."""
    found = metrics.of("examples")
    models, metric = found.part.get("models", []), found.part.get("metric", HEADLINE)
    return [
        _example(Source(entry, *found.path, kind, str(place)), models, metric)
        for place, entry in enumerate(found.part.get(kind, []))
    ]


def _example(at: Source, models: list[str], metric: str) -> Example:
    passages = [
        _passage(Source(entry, *at.path, "passages", str(place)), models)
        for place, entry in enumerate(at.part.get("passages", []))
    ]
    why = [(model, at.part["why"][model]) for model in models if at.part.get("why", {}).get(model)]
    before, after = at.number(metric, models[0]), at.number(metric, models[-1])
    return Example(str(at.part.get("query", "")), at.part.get("text", ""), before, after, passages, why)


def _passage(at: Source, models: list[str]) -> Passage:
    scores = [
        (SCORE_NAMES[score], [at.number("scores", model, score) for model in models])
        for score in SCORES
        if any(score in at.of("scores", model).part for model in models)
    ]
    tokens = []
    for model in models:
        listed = at.part.get("tokens", {}).get(model) or []
        numbers = [at.number("tokens", model, place, 1, show=decimals) for place in range(len(listed))]
        tokens.append([(token, number) for (token, _), number in zip(listed, numbers, strict=True) if number])
    ranks = [at.number("rank", model, show=str) for model in models]
    return Passage(
        str(at.part.get("passage", "")), at.part.get("text", ""), bool(at.part.get("relevant")), ranks, scores, tokens
    )
