"""Compare models on test data in BEIR form: dense, sparse, ColBERT and hybrid scores of each.

    python -m m3kit evaluate --models base=BAAI/bge-m3 tuned=outputs/run --eval_data eval --output_dir outputs/run

The table goes to stdout, all numbers and settings to metrics.json in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from m3kit.errors import KitError
from m3kit.evaluation.beir import EvalData, read_eval_data
from m3kit.evaluation.metrics import measure
from m3kit.evaluation.table import SCORES, changes, render_table, verdict

# Passages encoded at once, in batches: enough for FlagEmbedding's sorting by length, and a bound on memory.
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
    parser.add_argument(
        "--eval_data", type=Path, required=True, help="folder with corpus.jsonl, queries.jsonl, qrels/test.tsv"
    )
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
    data = read_eval_data(args.eval_data)
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
    data: EvalData,
    device: str = "auto",
    precision: str = "auto",
    cache_dir: str | None = None,
    **encode_settings,
) -> dict:
    """Score every model on the data; returns what metrics.json holds. ``encode_settings``: see ``EncodeSettings``."""
    # Late, so that errors in arguments and data do not wait for torch.
    from m3kit.evaluation.encode import EncodeSettings
    from m3kit.evaluation.models import choose_device, choose_precision, find_model
    from m3kit.evaluation.scores import CANDIDATES, HYBRID_WEIGHTS

    if data.queries_left_out:
        _say(f"Queries left out, as the qrels give them no relevant passage: {data.queries_left_out}.")
    device, device_reason = choose_device(device)
    precision, precision_reason = choose_precision(precision, device)
    _say(f"Device {device} ({device_reason}), precision {precision} ({precision_reason}).")
    settings = EncodeSettings(device=device, precision=precision, **encode_settings)
    # All models are found before the first is encoded: a wrong path must not cost the time of another model.
    models = [find_model(name, path, cache_dir) for name, path in paths.items()]
    metrics = {
        "eval_data": str(data.folder),
        "queries": len(data.queries),
        "queries_left_out": data.queries_left_out,
        "passages": len(data.passages),
        "relevant_pairs": data.relevant_pairs,
        "settings": asdict(settings)
        | {"device_reason": device_reason, "precision_reason": precision_reason}
        | {"hybrid_weights": HYBRID_WEIGHTS, "candidates": CANDIDATES, "ties": TIES}
        | {"versions": {name: version(name) for name in ("FlagEmbedding", "torch", "transformers", "ir-measures")}},
        "models": {model.name: _evaluate_model(model, data, settings) for model in models},
    }
    if len(models) > 1:
        metrics["change"] = changes(metrics["models"])
    return metrics


def _evaluate_model(model, data: EvalData, settings) -> dict:
    """One model's entry in metrics.json. ``seconds`` counts encoding and scoring, not loading."""
    from m3kit.evaluation.encode import Encoder
    from m3kit.evaluation.scores import Ranker

    # Ranker ranks the earlier of two equal passages first: this order is the rule in TIES.
    passage_ids = sorted(data.passages, reverse=True)
    query_ids = list(data.queries)
    chunk = BATCHES_A_CHUNK * settings.batch_size
    with closing(Encoder(model, settings)) as encoder:
        for note in encoder.notes:
            _say(note)
        start = time.monotonic()
        _say(f"{model.name}: encoding {len(query_ids)} queries with {model.given}")
        ranker = Ranker(encoder.queries([data.queries[key] for key in query_ids]), encoder.vocabulary, settings.device)
        for first in range(0, len(passage_ids), chunk):
            ids = passage_ids[first : first + chunk]
            _say(f"{model.name}: encoding passages {first + 1} to {first + len(ids)} of {len(passage_ids)}")
            ranker.add(encoder.passages([data.passages[key] for key in ids]))
        rankings = ranker.rankings()
        seconds = time.monotonic() - start
        notes = encoder.notes
    entry: dict = {"path": model.given}
    for score in SCORES:
        if score in rankings:
            lists = [[passage_ids[number] for number in ranked] for ranked in rankings[score]]
            entry[score] = measure(dict(zip(query_ids, lists, strict=True)), data.qrels)
        else:
            entry[score] = {"scores": None, "reason": model.no_heads_reason}
    return entry | {"notes": notes, "seconds": round(seconds, 1)}


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
