"""What evaluation costs beside encoding: the kit's four scores and all its figures, and FlagEmbedding's encoding alone.

    python benchmarks/evaluation.py --model FOLDER --eval_data FOLDER --output results.json

FlagEmbedding encodes the passages once with all three vectors, and nothing else; the kit evaluates the model on the
same passages: it encodes queries and passages, ranks by four scores and by BM25, and measures. Both are timed several
times in turn, each in a process of its own, after the model is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

KIT = Path(__file__).resolve().parent.parent
CONTENDERS = ("FlagEmbedding", "kit")
PACKAGES = ("FlagEmbedding", "torch", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a model folder with both heads")
    parser.add_argument("--eval_data", type=Path, default=KIT / "example_data" / "eval", help="a folder in BEIR form")
    parser.add_argument("--passages", type=int, default=10_000, help="at most so many")
    parser.add_argument("--max_len", type=int, default=512, help="tokens of a query or a passage")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(measure(args)))
        return
    runs: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    for _ in range(args.repeats):
        for name in CONTENDERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, runs[name][-1], file=sys.stderr, flush=True)
    medians = {name: statistics.median(run["seconds"] for run in of) for name, of in runs.items()}
    ratio = medians["kit"] / medians["FlagEmbedding"]
    results = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.device}",
        "versions": {name: version(name) for name in PACKAGES},
        "model": str(args.model),
        "eval_data": str(args.eval_data),
        "max_len": args.max_len,
        "runs": runs,
        "seconds": medians,
        "ratio": ratio,
    }
    passages, queries = runs["kit"][0]["passages"], runs["kit"][0]["queries"]
    print(
        f"{passages:,} passages, {queries} queries: FlagEmbedding encodes the passages in "
        f"{medians['FlagEmbedding']:.1f} s, the kit evaluates in {medians['kit']:.1f} s = {ratio:.2f}x"
    )
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


def measure(args: argparse.Namespace) -> dict:
    sys.path.insert(0, str(KIT))
    from m3kit.test_data.beir import read_eval_data

    data = first_passages(read_eval_data(args.eval_data), args.passages)
    seconds = (encode_once if args.contender == "FlagEmbedding" else evaluate)(args, data)
    return {"seconds": seconds, "passages": len(data.passages), "queries": len(data.queries)}


def first_passages(data, count: int):
    """The data with at most so many passages, those that answer a query among them."""
    from dataclasses import replace

    judged = {passage for grades in data.qrels.values() for passage in grades}
    others = [passage for passage in data.passages if passage not in judged]
    kept = judged.union(others[: max(0, count - len(judged))])
    return replace(data, passages={key: text for key, text in data.passages.items() if key in kept})


def encode_once(args: argparse.Namespace, data) -> float:
    """As FlagEmbedding's documentation encodes a corpus for all three scores; nothing of the kit."""
    import torch
    from FlagEmbedding import BGEM3FlagModel

    colbert = torch.load(args.model / "colbert_linear.pt", weights_only=True)["weight"].shape[0]
    model = BGEM3FlagModel(
        str(args.model), use_fp16=args.device != "cpu", devices=[args.device], batch_size=args.batch_size,
        passage_max_length=args.max_len, colbert_dim=colbert, return_sparse=True, return_colbert_vecs=True,
    )  # fmt: skip
    texts = list(data.passages.values())
    model.encode_corpus(texts[: args.batch_size])
    start = time.perf_counter()
    model.encode_corpus(texts)
    return time.perf_counter() - start


def evaluate(args: argparse.Namespace, data) -> float:
    """Everything that the kit's command does with a model once it is loaded, but for the check of general text."""
    from m3kit.encoding.encode import Encoder
    from m3kit.evaluation.comparison import evaluate as whole
    from m3kit.test_data.folder import EvalFolder

    loading = []
    load = Encoder.flag_model.func

    def timed(self):
        start = time.perf_counter()
        model = load(self)
        loading.append(time.perf_counter() - start)
        return model

    Encoder.flag_model.func = timed
    lengths = {"query_max_len": args.max_len, "passage_max_len": args.max_len}
    start = time.perf_counter()
    whole(
        {"model": str(args.model)}, EvalFolder(args.eval_data, data, {}), device=args.device,
        batch_size=args.batch_size, encoding=lengths,
    )  # fmt: skip
    return time.perf_counter() - start - sum(loading)


if __name__ == "__main__":
    main()
