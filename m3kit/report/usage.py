"""How the model is used: with the lengths, pooling, prompt and weights that it was measured with."""

from __future__ import annotations

from typing import Any

from m3kit.report.record import Record

# What M3 is trained to rank by, where nothing else was measured.
WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}


def usage(record: Record, path: str) -> dict[str, Any]:
    """What usage.py.j2 writes code with: of the last model of metrics.json, or of the one that the run made."""
    metrics = record.metrics
    model = metrics.models[metrics.last] if metrics else None
    sources = [model.settings if model else {}, record.settings, metrics.settings if metrics else {}]

    def setting(name: str, default: Any) -> Any:
        names = (name, f"sentence_{name}")
        return next((at[key] for at in sources for key in names if at.get(key) is not None), default)

    served = metrics.serving.models.get(metrics.last) if metrics and metrics.serving else None
    weights = dict(served.weights if served else WEIGHTS)
    bm25 = weights.pop("bm25", 0)
    if model and not model.hybrid:
        weights = {}
    dim = record.settings.get("colbert_dim") or -1
    return {
        "path": path,
        "pooling": str(setting("pooling_method", "cls")),
        "normalize": bool(setting("normalize_embeddings", True)),
        "query_max_len": setting("query_max_len", 512),
        "passage_max_len": setting("passage_max_len", 512),
        "instruction": str(setting("query_instruction_for_retrieval", "")),
        "weights": {name: weight for name, weight in weights.items() if weight} or {"dense": 1.0},
        "bm25": bm25,
        "colbert_dim": dim if dim != -1 else None,
    }
