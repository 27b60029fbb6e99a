"""Any number of models on the same test data, each against the first: what metrics.json holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from m3kit.evaluation.beir import EvalData
from m3kit.evaluation.bm25 import Bm25
from m3kit.evaluation.distributions import distributions
from m3kit.evaluation.encode import Encoder, EncodeSettings
from m3kit.evaluation.examples import examples
from m3kit.evaluation.folder import EvalFolder
from m3kit.evaluation.metrics import HEADLINE, MEASURES, SCORES, measure
from m3kit.evaluation.models import ModelFolder, choose_device, choose_precision, find_model
from m3kit.evaluation.retrieval import TIES, Found, in_order, retrieve
from m3kit.evaluation.scores import CANDIDATES, HYBRID_WEIGHTS
from m3kit.evaluation.serving import serving
from m3kit.evaluation.significance import RESAMPLES, compare_means
from m3kit.evaluation.table import headline_score, verdict
from m3kit.evaluation.task_metrics import KMEANS_SEEDS, Outcomes
from m3kit.evaluation.trained_with import Encoding, trained_encoding, training_told
from m3kit.progress import bar, say

LIBRARIES = ("FlagEmbedding", "torch", "transformers", "ir-measures", "bm25s", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Retrieved:
    """What a model found in retrieval data, and score → metric → a value a query."""

    found: Found
    values: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Measured:
    """One model. ``seconds`` counts encoding and scoring; of ``cached`` texts the vectors were there already."""

    model: ModelFolder
    settings: EncodeSettings
    retrieved: Retrieved | None
    general: Retrieved | None
    tasks: dict[str, Outcomes]
    notes: list[str]
    seconds: float
    cached: int


def evaluate(
    paths: Mapping[str, str],
    data: EvalFolder,
    general: EvalData | None = None,
    weights: Mapping[str, float] = HYBRID_WEIGHTS,
    vector_cache: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache_dir: str | None = None,
    batch_size: int = 32,
    encoding: Mapping[str, Any] | None = None,
) -> dict:
    """Score every model on the data; returns what metrics.json holds.

    ``weights`` of the hybrid score; ``encoding``: what of ``Encoding`` is not to be as each model was trained;
    ``vector_cache``: a folder for the vectors of the first model. Raises ``KitError``.
    """
    if data.retrieval and data.retrieval.queries_left_out:
        say(f"Queries left out, as qrels/test.tsv gives them no relevant passage: {data.retrieval.queries_left_out}.")
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    say(f"Device {device} ({device_reason}), precision {precision} ({precision_reason}).")
    # All models are found before the first is encoded: a wrong path must not cost the time of another model.
    models = [find_model(name, path, cache_dir) for name, path in paths.items()]
    settings = {
        model.name: EncodeSettings(
            **asdict(trained_encoding(model.folder, encoding or {})),
            device=device,
            precision=precision,
            batch_size=batch_size,
        )
        for model in models
    }
    # Of the base alone: every other model is evaluated once, and its vectors would fill the disk.
    encoders = {
        model.name: Encoder(model, settings[model.name], vector_cache if model is models[0] else None)
        for model in models
    }
    bm25 = Bm25([data.retrieval.passages[key] for key in in_order(data.retrieval)]) if data.retrieval else None
    measured = {name: _measure(encoder, data, general, weights, bm25) for name, encoder in encoders.items()}
    metrics = {
        "verdict": "",
        "eval_data": str(data.folder),
        **_counts(data),
        "settings": {
            "device": device,
            "device_reason": device_reason,
            "precision": precision,
            "precision_reason": precision_reason,
            "batch_size": batch_size,
            "hybrid_weights": weights,
            "candidates": CANDIDATES,
            "ties": TIES,
            "kmeans_seeds": KMEANS_SEEDS,
            "resamples": RESAMPLES,
            "versions": {name: version(name) for name in LIBRARIES},
        },
        "models": {name: _entry(each, measured) for name, each in measured.items()},
    }
    with bar(None, "comparing", ""):
        metrics["comparisons"] = _comparisons({n: each.retrieved for n, each in measured.items() if each.retrieved})
        for name, compared in _task_comparisons(measured).items():
            metrics["comparisons"].setdefault(name, {})["tasks"] = compared
        if bm25:
            founds = {name: each.retrieved.found for name, each in measured.items() if each.retrieved}
            metrics["bm25"] = _bm25(founds[models[0].name], bm25)
            metrics["serving"] = serving(founds)
            metrics["distributions"] = distributions(founds)
    if general:
        retrieved = {name: each.general for name, each in measured.items() if each.general}
        metrics["general"] = {
            "eval_data": _name(general.folder),
            **_retrieval_counts(general),
            "models": {name: _means(each, measured[name]) for name, each in retrieved.items()},
            "comparisons": _comparisons(retrieved),
        }
    if data.retrieval and len(models) > 1:
        metrics["examples"] = _examples(encoders, measured, metrics["models"])
    told = training_told(models[-1].folder)
    return metrics | {"verdict": "\n".join([verdict(metrics), *([told] if told else [])])}


def _measure(
    encoder: Encoder, data: EvalFolder, general: EvalData | None, weights: Mapping[str, float], bm25: Bm25 | None
) -> Measured:
    with closing(encoder):
        for note in encoder.notes:
            say(note)
        start = time.monotonic()
        retrieved = _retrieve(encoder, data.retrieval, weights, bm25) if data.retrieval else None
        tasks: dict[str, Outcomes] = {}
        for name, task in data.tasks.items():
            with encoder.progress(len(task.texts), f"texts of {name}") as watch:
                dense = encoder.dense(task.texts, watch)
            with bar(None, f"{encoder.model.name}: {name}", ""):
                tasks[name] = task.outcomes(dense)
        forgotten = _retrieve(encoder, general, weights) if general else None
        seconds = time.monotonic() - start
    notes = [*encoder.notes, *(note for outcomes in tasks.values() for note in outcomes.notes)]
    cached = encoder.cache.found if encoder.cache else 0
    if cached:
        say(f"{encoder.model.name}: the vectors of {cached} texts were kept from an earlier evaluation.")
    return Measured(encoder.model, encoder.settings, retrieved, forgotten, tasks, notes, round(seconds, 1), cached)


def _retrieve(encoder: Encoder, data: EvalData, weights: Mapping[str, float], bm25: Bm25 | None = None) -> Retrieved:
    found = retrieve(encoder, data, weights, bm25)
    return Retrieved(found, found.outcomes())


# ---- entries of metrics.json ---------------------------------------------------------------------------------------


def _counts(data: EvalFolder) -> dict:
    """How much of what was tested: the entries that the folder's parts add."""
    counts = _retrieval_counts(data.retrieval) if data.retrieval else {}
    if data.tasks:
        counts["tasks"] = {name: task.counts for name, task in data.tasks.items()}
    return counts


def _name(folder: Path) -> str:
    """The folder of the general text as a reader knows it: what comes with the kit by its place in the kit."""
    kit = Path(__file__).parents[2]
    return str(folder.relative_to(kit) if folder.is_relative_to(kit) else folder)


def _retrieval_counts(data: EvalData) -> dict:
    return {
        "queries": len(data.queries),
        "queries_left_out": data.queries_left_out,
        "passages": len(data.passages),
        "relevant_pairs": data.relevant_pairs,
    }


def _entry(measured: Measured, every: Mapping[str, Measured]) -> dict:
    encoding = {field.name: getattr(measured.settings, field.name) for field in fields(Encoding)}
    entry: dict = {"path": measured.model.given, "settings": encoding}
    if measured.retrieved:
        entry |= _means(measured.retrieved, measured)
        entry["hybrid_weights"] = measured.retrieved.found.weights
    if measured.tasks:
        entry["tasks"] = {name: outcomes.metrics for name, outcomes in measured.tasks.items()}
    first = next(iter(every.values()))
    others = [
        f"{name} {value} instead of {getattr(first.settings, name)}"
        for name, value in encoding.items()
        if value != getattr(first.settings, name)
    ]
    notes = list(measured.notes)
    if others:
        notes.append(
            f"{measured.model.name} is encoded as it was trained, which is not as {first.model.name}: "
            f"{', '.join(others)}."
        )
    return entry | {"notes": notes, "seconds": measured.seconds, "cached_texts": measured.cached}


def _means(retrieved: Retrieved, measured: Measured) -> dict:
    """Each score's metrics, or the reason why the model has none."""
    return {
        score: {metric: float(values.mean()) for metric, values in retrieved.values[score].items()}
        if score in retrieved.values
        else {"scores": None, "reason": measured.model.no_heads_reason}
        for score in SCORES
    }


def _comparisons(retrieved: Mapping[str, Retrieved]) -> dict:
    """Every model but the first against the first: model → score → metric → comparison."""
    compared: dict = {}
    models = list(retrieved.items())
    for name, each in models[1:]:
        first = models[0][1]
        scores = [score for score in first.values if score in each.values]
        before, after = (
            np.stack([one.values[score][metric] for score in scores for metric in MEASURES]) for one in (first, each)
        )
        found = iter(compare_means(before, after))
        compared[name] = {score: {metric: next(found) for metric in MEASURES} for score in scores}
    return compared


def _task_comparisons(measured: Mapping[str, Measured]) -> dict:
    (_, first), *others = measured.items()
    if not first.tasks:
        return {}
    return {
        name: {task: outcomes.compare(each.tasks[task]) for task, outcomes in first.tasks.items()}
        for name, each in others
    }


def _bm25(found: Found, bm25: Bm25) -> dict:
    means = measure(found.rankings("bm25"), found.data.qrels)
    return {metric: float(values.mean()) for metric, values in means.items()} | {"settings": bm25.settings}


def _examples(encoders: Mapping[str, Encoder], measured: Mapping[str, Measured], models: Mapping[str, dict]) -> dict:
    names = list(measured)
    pair = (names[0], names[-1])
    score = headline_score(models[pair[0]], models[pair[1]])
    retrieved = {name: found for name in pair if (found := measured[name].retrieved)}
    return examples(
        {name: encoders[name] for name in pair},
        {name: each.found for name, each in retrieved.items()},
        {name: each.values[score][HEADLINE] for name, each in retrieved.items()},
        score,
    )
