"""How the model is used: two snippets, with the lengths, pooling and prompt that it was measured with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from m3kit.evaluation.table import has_scores
from m3kit.report.record import Record

# What M3 is trained to rank by, where metrics.json says nothing else.
HYBRID_WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}


@dataclass(frozen=True)
class Usage:
    """Code to copy, and what to know about it."""

    flag_embedding: str
    sentence_transformers: str
    heads: bool
    weights: dict[str, float]
    pooling: str
    normalize: bool
    query_max_len: int
    passage_max_len: int
    instruction: str


def make_usage(record: Record, path: str) -> Usage:
    """For the last model of metrics.json, or for the one that the run made."""
    model: dict[str, Any] = {}
    if record.metrics:
        model = list(record.metrics["models"].values())[-1]
    run, measured = record.run.get("settings", {}), model.get("settings", {})
    shared = record.metrics.get("settings", {})

    def setting(name: str, trained_as: str, default: Any) -> Any:
        for source, key in ((measured, name), (run, trained_as), (shared, name)):
            if source.get(key) is not None:
                return source[key]
        return default

    heads = has_scores(model, "hybrid") if "dense" in model else True
    weights = model.get("hybrid_weights") or shared.get("hybrid_weights")
    usage = Usage(
        "",
        "",
        heads,
        weights if isinstance(weights, dict) else HYBRID_WEIGHTS,
        setting("pooling_method", "sentence_pooling_method", "cls"),
        setting("normalize_embeddings", "normalize_embeddings", True),
        setting("query_max_len", "query_max_len", 512),
        setting("passage_max_len", "passage_max_len", 512),
        setting("query_instruction_for_retrieval", "query_instruction_for_retrieval", "") or "",
    )
    colbert_dim = run.get("colbert_dim", -1)
    code = {
        "flag_embedding": _flag_embedding(usage, path, colbert_dim),
        "sentence_transformers": _sentence_transformers(usage, path),
    }
    return Usage(**{**usage.__dict__, **code})


def _flag_embedding(usage: Usage, path: str, colbert_dim: int) -> str:
    arguments = [
        _text(path),
        f"pooling_method={_text(usage.pooling)}",
        f"normalize_embeddings={usage.normalize}",
        f"query_max_length={usage.query_max_len}",
        f"passage_max_length={usage.passage_max_len}",
    ]
    if usage.instruction:
        arguments.append(f"query_instruction_for_retrieval={_text(usage.instruction)}")
    if colbert_dim not in (-1, None):
        arguments.append(f"colbert_dim={colbert_dim}")
    every = ", return_sparse=True, return_colbert_vecs=True" if usage.heads else ""
    lines = [
        *(["import numpy as np"] if usage.heads else []),
        "from FlagEmbedding import BGEM3FlagModel",
        "",
        "model = BGEM3FlagModel(",
        *(f"    {argument}," for argument in arguments),
        ")",
        'queries, passages = ["a question"], ["a passage", "another one"]',
        f"q = model.encode_queries(queries{every})",
        f"p = model.encode_corpus(passages{every})",
        "",
        "# scores: a row a query, a column a passage",
        'dense = q["dense_vecs"] @ p["dense_vecs"].T',
    ]
    best = "dense"
    if usage.heads:
        best = " + ".join(f"{weight} * {name}" for name, weight in usage.weights.items())
        lines += [
            'sparse = np.array(model.compute_lexical_matching_score(q["lexical_weights"], p["lexical_weights"]))',
            'vectors = q["colbert_vecs"], p["colbert_vecs"]',
            "colbert = np.array([[float(model.colbert_score(a, b)) for b in vectors[1]] for a in vectors[0]])",
            f"hybrid = {best}",
        ]
        best = "hybrid"
    return "\n".join([*lines, f"print({best}.argsort()[:, ::-1])  # of each query the best passage first"])


def _sentence_transformers(usage: Usage, path: str) -> str:
    prompt = f", prompt={_text(usage.instruction)}" if usage.instruction else ""
    same = usage.query_max_len == usage.passage_max_len
    return "\n".join(
        [
            "from sentence_transformers import SentenceTransformer",
            "",
            f"model = SentenceTransformer({_text(path)})",
            f"model.max_seq_length = {usage.query_max_len}",
            f'queries = model.encode(["a question"]{prompt})',
            *([] if same else [f"model.max_seq_length = {usage.passage_max_len}"]),
            'passages = model.encode(["a passage", "another one"])',
            "print(queries @ passages.T)" if usage.normalize else "print(model.similarity(queries, passages))",
        ]
    )


def _text(text: str) -> str:
    """As Python source."""
    return json.dumps(text, ensure_ascii=False)
