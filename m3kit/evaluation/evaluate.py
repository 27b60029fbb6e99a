"""Compare models on test data: retrieval (BEIR), semantic similarity, classification and clustering.

    python -m m3kit evaluate --models base=BAAI/bge-m3 tuned=outputs/run --eval_data eval --output_dir outputs/run

Retrieval is measured by dense, sparse, ColBERT and hybrid scores, the other three tasks by dense vectors. The table
goes to stdout, all numbers and settings to metrics.json in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from m3kit.errors import KitError
from m3kit.evaluation.beir import EvalData
from m3kit.evaluation.folder import LAYOUT, EvalFolder, read_eval_folder
from m3kit.evaluation.metrics import measure
from m3kit.evaluation.table import SCORES, changes, render_table, verdict
from m3kit.evaluation.tasks import KMEANS_SEEDS, Task

# Texts encoded at once, in batches: enough for FlagEmbedding's sorting by length, and a bound on memory.
BATCHES_A_CHUNK = 64

TIES = "of equal scores the passage whose id sorts last ranks first, as in trec_eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME=PATH",
        help="model folders or hub names; the first is the base",
    )
    parser.add_argument("--eval_data", type=Path, required=True, help=f"folder with {LAYOUT}")
    parser.add_argument("--output_dir", type=Path, required=True, help="where metrics.json is written")
    # encoding, as the models were trained
    parser.add_argument("--query_max_len", type=_positive, default=512, help="tokens")
    parser.add_argument("--passage_max_len", type=_positive, default=512, help="tokens")
    parser.add_argument("--batch_size", type=_positive, default=32, help="texts; smaller needs less memory")
    parser.add_argument("--pooling_method", choices=["cls", "mean", "last_token"], default="cls")
    parser.add_argument("--normalize_embeddings", type=_true_or_false, default=True, metavar="True|False")
    parser.add_argument("--query_instruction_for_retrieval", help="text put before each query")
    # machine
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--cache_dir", help="where hub models are kept (default: the hub library's own place)")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def run(args: argparse.Namespace) -> None:
    paths = parse_models(args.models)
    data = read_eval_folder(args.eval_data)
    make_folder(args.output_dir)
    metrics = evaluate(
        paths,
        data,
        cache_dir=args.cache_dir,
        device=args.device,
        precision=args.precision,
        query_max_len=args.query_max_len,
        passage_max_len=args.passage_max_len,
        batch_size=args.batch_size,
        pooling_method=args.pooling_method,
        normalize_embeddings=args.normalize_embeddings,
        query_instruction_for_retrieval=args.query_instruction_for_retrieval,
    )
    written = write_metrics(metrics, args.output_dir)
    print(render_table(metrics))
    print()
    print(verdict(metrics))
    _say(f"All numbers and settings are in {written}.")


def parse_models(given: list[str]) -> dict[str, str]:
    """NAME=PATH arguments in their order. Raises ``KitError``."""
    models: dict[str, str] = {}
    for argument in given:
        name, equals, path = argument.partition("=")
        if not equals or not path or not re.fullmatch(r"[\w.-]+", name):
            raise KitError(
                f"--models {argument!r} is not NAME=PATH; write for example base=BAAI/bge-m3 tuned=outputs/run"
            )
        if name in models:
            raise KitError(f"--models names {name!r} twice; give each model its own name")
        models[name] = path
    return models


def evaluate(
    paths: dict[str, str],
    data: EvalFolder,
    device: str = "auto",
    precision: str = "auto",
    cache_dir: str | None = None,
    **encode_settings,
) -> dict:
    """Score every model on the data; returns what metrics.json holds. ``encode_settings``: see ``EncodeSettings``."""
    # Late, so that errors in arguments and data do not wait for torch.
    from m3kit.evaluation.encode import EncodeSettings
    from m3kit.evaluation.models import choose_device, choose_precision, find_model

    if data.retrieval and data.retrieval.queries_left_out:
        _say(f"Queries left out, as the qrels give them no relevant passage: {data.retrieval.queries_left_out}.")
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    _say(f"Device {device} ({device_reason}), precision {precision} ({precision_reason}).")
    settings = EncodeSettings(device=device, precision=precision, **encode_settings)
    # All models are found before the first is encoded: a wrong path must not cost the time of another model.
    models = [find_model(name, path, cache_dir) for name, path in paths.items()]
    reasons = {"device_reason": device_reason, "precision_reason": precision_reason}
    metrics = {
        "eval_data": str(data.folder),
        **_counts(data),
        "settings": asdict(settings) | reasons | _method(data),
        "models": {model.name: _evaluate_model(model, data, settings) for model in models},
    }
    if len(models) > 1:
        metrics["change"] = changes(metrics["models"])
    return metrics


def _counts(data: EvalFolder) -> dict:
    """How much of what was tested: the entries of metrics.json that the folder's parts add."""
    counts: dict = {}
    if data.retrieval:
        counts = {
            "queries": len(data.retrieval.queries),
            "queries_left_out": data.retrieval.queries_left_out,
            "passages": len(data.retrieval.passages),
            "relevant_pairs": data.retrieval.relevant_pairs,
        }
    if data.tasks:
        counts["tasks"] = {name: task.counts for name, task in data.tasks.items()}
    return counts


def _method(data: EvalFolder) -> dict:
    """What else decides the numbers: constants and versions of the parts that the folder has."""
    from m3kit.evaluation.scores import CANDIDATES, HYBRID_WEIGHTS

    method: dict = {}
    libraries = ["FlagEmbedding", "torch", "transformers"]
    if data.retrieval:
        method |= {"hybrid_weights": HYBRID_WEIGHTS, "candidates": CANDIDATES, "ties": TIES}
        libraries.append("ir-measures")
    if data.tasks:
        method["kmeans_seeds"] = KMEANS_SEEDS
        libraries += ["scipy", "scikit-learn"]
    return method | {"versions": {name: version(name) for name in libraries}}


def _evaluate_model(model, data: EvalFolder, settings) -> dict:
    """One model's entry in metrics.json. ``seconds`` counts encoding and scoring, not loading."""
    from m3kit.evaluation.encode import Encoder

    entry: dict = {"path": model.given}
    with closing(Encoder(model, settings)) as encoder:
        for note in encoder.notes:
            encoder.say(note)
        start = time.monotonic()
        if data.retrieval:
            entry |= measure_retrieval(encoder, data.retrieval)
        if data.tasks:
            entry["tasks"] = {name: measure_task(encoder, name, task) for name, task in data.tasks.items()}
        seconds = time.monotonic() - start
        notes = encoder.notes
    return entry | {"notes": notes, "seconds": round(seconds, 1)}


def measure_retrieval(encoder, data: EvalData) -> dict:
    """Each score's metrics with an ``Encoder``, or the reason why the model has none."""
    from m3kit.evaluation.scores import Ranker

    # Ranker ranks the earlier of two equal passages first: this order is the rule in TIES.
    passage_ids = sorted(data.passages, reverse=True)
    query_ids = list(data.queries)
    model, settings = encoder.model, encoder.settings
    encoder.say(f"{model.name}: encoding {len(query_ids)} queries with {model.given}")
    ranker = Ranker(encoder.queries([data.queries[key] for key in query_ids]), encoder.vocabulary, settings.device)
    for first, ids in _chunks(passage_ids, settings.batch_size):
        encoder.say(f"{model.name}: encoding passages {first + 1} to {first + len(ids)} of {len(passage_ids)}")
        ranker.add(encoder.passages([data.passages[key] for key in ids]))
    rankings = ranker.rankings()
    measured: dict = {}
    for score in SCORES:
        if score in rankings:
            lists = [[passage_ids[number] for number in ranked] for ranked in rankings[score]]
            measured[score] = measure(dict(zip(query_ids, lists, strict=True)), data.qrels)
        else:
            measured[score] = {"scores": None, "reason": model.no_heads_reason}
    return measured


def measure_task(encoder, name: str, task: Task) -> dict[str, float]:
    """A task's metrics with the dense vectors of an ``Encoder``."""
    model, vectors = encoder.model, []
    for first, texts in _chunks(task.texts, encoder.settings.batch_size):
        numbers = f"{first + 1} to {first + len(texts)} of {len(task.texts)}"
        encoder.say(f"{model.name}: encoding texts {numbers} for {name} with {model.given}")
        vectors.append(encoder.dense(texts))
    return task.measure(np.concatenate(vectors))


def _chunks(items: list[str], batch_size: int) -> Iterator[tuple[int, list[str]]]:
    """The items in chunks of BATCHES_A_CHUNK batches, each with the place of its first item."""
    size = BATCHES_A_CHUNK * batch_size
    for first in range(0, len(items), size):
        yield first, items[first : first + size]


def make_folder(folder: Path) -> None:
    """Make the output folder, before hours are spent on what would be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"--output_dir {folder} cannot be made ({error}); choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise KitError(f"--output_dir {folder} may not be written to; choose another folder or change its rights")


def write_metrics(metrics: dict, output_dir: Path) -> Path:
    """Write metrics.json under a temporary name and rename it, so that no reader meets half a file."""
    target = output_dir / "metrics.json"
    temporary = output_dir / "metrics.json.tmp"
    temporary.write_text(json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return target


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
