"""Any number of models on the same test data, each against the first: what metrics.json holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from m3kit.encoding.bm25 import Bm25
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import choose_device, choose_precision, find_model
from m3kit.encoding.scores import CANDIDATES, HYBRID_WEIGHTS
from m3kit.encoding.trained_with import Encoding, recipe_chose, trained_encoding
from m3kit.evaluation.metrics import measure
from m3kit.evaluation.retrieval import TIES, Found, in_order, relevant_passages, retrieve
from m3kit.evaluation.serving import serving
from m3kit.evaluation.significance import RESAMPLES, compare_means
from m3kit.evaluation.task_metrics import KMEANS_SEEDS, Outcomes, measure_task
from m3kit.evaluation.verdict import choose_lead, outcome, verdict
from m3kit.progress import bar, say
from m3kit.records import FOUND, HEADLINE, Changes, Example, First, Metrics, ModelFigures, Retrieval
from m3kit.test_data.beir import EvalData
from m3kit.test_data.folder import EvalFolder

LIBRARIES = ("FlagEmbedding", "torch", "transformers", "ir-measures", "bm25s", "scipy", "scikit-learn")
# What is compared; all other figures of a score go the same way.
COMPARED = (HEADLINE, FOUND)
EXAMPLES = 5
SNIPPET = 300

# Score → metric → a value a query.
Values = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Measured:
    """One model: what it found in the user's and in general text, its tasks, and what is to be said about it."""

    figures: ModelFigures
    found: Found | None
    general: Found | None
    values: Values
    general_values: Values
    tasks: dict[str, Outcomes]


def evaluate(
    paths: Mapping[str, str],
    data: EvalFolder,
    general: EvalData | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache_dir: str | None = None,
    batch_size: int = 32,
    encoding: Mapping[str, Any] | None = None,
    judged_on: str = "",
) -> Metrics:
    """Score every model on the data; the first is the base.

    ``encoding``: what of ``Encoding`` is not to be as each model was trained; ``judged_on``: how the data was chosen,
    in words. Raises ``KitError``.
    """
    if data.retrieval and data.retrieval.queries_left_out:
        say(f"Queries left out, as qrels/test.tsv gives them no relevant passage: {data.retrieval.queries_left_out}.")
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    say(f"Device {device} ({device_reason}), precision {precision} ({precision_reason}).")
    # All models are found before the first is encoded: a wrong path must not cost the time of another model.
    models = [find_model(name, path, cache_dir) for name, path in paths.items()]
    encoders = []
    for model in models:
        trained = asdict(trained_encoding(model.folder, encoding or {}))
        how = EncodeSettings(**trained, device=device, precision=precision, batch_size=batch_size)
        encoders.append(Encoder(model, how))
    bm25 = Bm25([data.retrieval.passages[key] for key in in_order(data.retrieval)]) if data.retrieval else None
    measured = {encoder.model.name: _measure(encoder, encoders[0], data, general, bm25) for encoder in encoders}
    settings = {
        "device": device,
        "device_reason": device_reason,
        "precision": precision,
        "precision_reason": precision_reason,
        "batch_size": batch_size,
        "hybrid_weights": HYBRID_WEIGHTS,
        "candidates": CANDIDATES,
        "ties": TIES,
        "kmeans_seeds": KMEANS_SEEDS,
        "resamples": RESAMPLES,
        "bm25": bm25.settings if bm25 else None,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    with bar(None, "comparing", ""):
        found = {name: (each.figures, each.values) for name, each in measured.items()}
        forgotten = {name: (_figures(each.general_values), each.general_values) for name, each in measured.items()}
        metrics = Metrics(
            **_retrieval(data.retrieval, found) | {"eval_data": str(data.folder)},
            judged_on=judged_on,
            settings=settings,
            tasks={name: task.counts for name, task in data.tasks.items()},
            task_comparisons=_task_changes(measured),
            general=Retrieval(**_retrieval(general, forgotten)) if general else None,
            **_about_queries(measured),
        )
    metrics = replace(metrics, outcome=outcome(metrics))
    by_recipe = recipe_chose(models[-1].folder)
    return replace(metrics, verdict=verdict(metrics, by_recipe))


def _measure(
    encoder: Encoder, base: Encoder, data: EvalFolder, general: EvalData | None, bm25: Bm25 | None
) -> Measured:
    with closing(encoder):
        for note in encoder.notes:
            say(note)
        start = time.monotonic()
        found = retrieve(encoder, data.retrieval, bm25) if data.retrieval else None
        tasks: dict[str, Outcomes] = {}
        for name, task in data.tasks.items():
            with encoder.progress(len(task.texts), f"texts of {name}") as watch:
                dense = encoder.dense(task.texts, watch)
            with bar(None, f"{encoder.model.name}: {name}", ""):
                tasks[name] = measure_task(task, dense)
        forgotten = retrieve(encoder, general) if general else None
        seconds = time.monotonic() - start
    settings, of_base = ({name: getattr(one.settings, name) for name in asdict(Encoding())} for one in (encoder, base))
    notes = [*encoder.notes, *(note for outcomes in tasks.values() for note in outcomes.notes)]
    if others := [
        f"{name} {value} instead of {of_base[name]}" for name, value in settings.items() if value != of_base[name]
    ]:
        notes.append(
            f"{encoder.model.name} is encoded as it was trained, which is not as {base.model.name}: "
            f"{', '.join(others)}."
        )
    values = found.outcomes() if found else {}
    figures = replace(
        _figures(values),
        tasks={name: outcomes.metrics for name, outcomes in tasks.items()},
        path=encoder.model.given,
        settings=settings,
        notes=notes,
        seconds=round(seconds, 1),
    )
    return Measured(figures, found, forgotten, values, forgotten.outcomes() if forgotten else {}, tasks)


# ---- entries of metrics.json ---------------------------------------------------------------------------------------


def _means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {metric: float(of.mean()) for metric, of in values.items()}


def _figures(values: Values) -> ModelFigures:
    means = {score: _means(of) for score, of in values.items()}
    return ModelFigures(means.get("dense"), means.get("sparse"), means.get("colbert"), means.get("hybrid"))


def _retrieval(data: EvalData | None, models: Mapping[str, tuple[ModelFigures, Values]]) -> dict[str, Any]:
    """The fields of ``Retrieval``. Every model but the first is compared with the first."""
    (_, (_, first)), *others = models.items()
    counts = (
        {}
        if not data
        else {
            "eval_data": _name(data.folder),
            "queries": len(data.queries),
            "queries_left_out": data.queries_left_out,
            "passages": len(data.passages),
            "relevant_pairs": data.relevant_pairs,
        }
    )
    comparisons: dict[str, Changes] = {
        name: {
            score: {metric: compare_means(first[score][metric], of[metric]) for metric in COMPARED}
            for score, of in values.items()
            if score in first
        }
        for name, (_, values) in others
    }
    return counts | {"models": {name: figures for name, (figures, _) in models.items()}, "comparisons": comparisons}


def _name(folder: Path) -> str:
    """A folder as a reader knows it: what comes with the kit by its place in the kit."""
    kit = Path(__file__).parents[2]
    return str(folder.relative_to(kit) if folder.is_relative_to(kit) else folder)


def _task_changes(measured: Mapping[str, Measured]) -> dict[str, Changes]:
    (_, first), *others = measured.items()
    if not first.tasks:
        return {}
    return {
        name: {task: outcomes.compare(each.tasks[task]) for task, outcomes in first.tasks.items()}
        for name, each in others
    }


def _about_queries(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """What is told of retrieval beside each score's figures; nothing without retrieval."""
    founds = {name: each.found for name, each in measured.items() if each.found}
    if not founds:
        return {}
    first, *_, last = [*measured, *measured]
    lead = choose_lead([{score: of[HEADLINE] for score, of in measured[name].values.items()} for name in (first, last)])
    return {
        "lead": lead,
        "bm25": _means(measure(founds[first].rankings("bm25"), founds[first].data.qrels)),
        "serving": serving(founds),
        "examples": _examples({name: measured[name] for name in (first, last)}, lead),
    }


def _examples(ends: Mapping[str, Measured], lead: str) -> list[Example]:
    """The queries that changed most by the lead score; where nothing changed, the first ones. Of two models."""
    values = [each.values[lead][HEADLINE] for each in ends.values()]
    founds = {name: each.found for name, each in ends.items() if each.found}
    rankings = {name: found.rankings(lead) for name, found in founds.items()}
    data = next(iter(founds.values())).data
    queries = list(data.queries)
    order = np.argsort(-np.abs(values[-1] - values[0]), kind="stable")
    return [_example(queries[place], data, rankings) for place in order[:EXAMPLES]]


def _example(query: str, data: EvalData, rankings: Mapping[str, Mapping[str, list[str]]]) -> Example:
    right = relevant_passages(data.qrels[query])
    places = {
        name: next((place for place, passage in enumerate(of[query], 1) if passage in right), None)
        for name, of in rankings.items()
    }
    firsts = {
        name: First(of[query][0], _snippet(data.passages[of[query][0]]), of[query][0] in right)
        for name, of in rankings.items()
        if of[query]
    }
    return Example(query, data.queries[query], _snippet(data.passages[right[0]]), firsts, places)


def _snippet(text: str) -> str:
    return text if len(text) <= SNIPPET else text[: SNIPPET - 1] + "…"
