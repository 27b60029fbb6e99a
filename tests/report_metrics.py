"""A metrics.json, made up: every figure another, so that one in the wrong place is noticed."""

from __future__ import annotations

import math
from random import Random

SCORES = ("dense", "sparse", "colbert", "hybrid")
MEASURES = ("nDCG@10", "MRR@10", "recall@10", "recall@100", "MAP")
LEVELS = {"dense": 0.42, "sparse": 0.55, "colbert": 0.5, "hybrid": 0.6}
ARABIC = "أين يمكنني استعادة حقيبتي المفقودة؟"
HOSTILE = "<script>alert('x')</script> & \"quotes\" | pipes 🧳 "
LONG_WORD = "Donaudampfschifffahrts" * 450


def make_metrics(
    names: tuple[str, ...] = ("base", "tuned"),
    *,
    retrieval: bool = True,
    tasks: bool = True,
    general: bool = True,
    headless: tuple[str, ...] = (),
    gain: float = 0.12,
    texts: tuple[str, ...] = (ARABIC, HOSTILE + "where is my bag", LONG_WORD),
) -> dict:
    """A metrics.json; ``headless`` models have a dense score alone, ``gain`` is how much better the last one is."""
    random = Random(7)
    metrics: dict = {"verdict": _verdict(names, gain, general and retrieval), "eval_data": "example_data/eval"}
    if retrieval:
        metrics |= {"queries": 83, "queries_left_out": 2, "passages": 1238, "relevant_pairs": 91}
        metrics["bm25"] = _measures(random, 0.52) | {"settings": {"k1": 0.9, "b": 0.4, "language": "english"}}
    if tasks:
        metrics["tasks"] = {
            "sts": {"pairs": 40},
            "classification": {"texts": 60, "labels": 10},
            "clustering": {"texts": 61, "labels": 8},
        }
    metrics["settings"] = {
        "device": "cuda:0",
        "device_reason": "the first GPU",
        "precision": "fp16",
        "precision_reason": "on a GPU",
        "batch_size": 32,
        "hybrid_weights": {"dense": 1.0, "sparse": 0.3, "colbert": 1.0},
        "candidates": 200,
        "ties": "of equal scores the passage whose id sorts last ranks first",
        "kmeans_seeds": [0, 1, 2, 3, 4],
        "resamples": 9999,
        "versions": {"FlagEmbedding": "1.4.2", "torch": "2.13.0", "transformers": "5.20.2"},
    }
    metrics["models"] = {
        name: _model(random, name, _part(names, number, gain), name not in headless, retrieval, tasks)
        for number, name in enumerate(names)
    }
    metrics["comparisons"] = _comparisons(random, metrics["models"])
    if retrieval:
        metrics["distributions"] = _distributions(random, metrics["models"])
        if len(names) > 1:
            metrics["examples"] = _examples(random, names[0], names[-1], texts)
    if retrieval and general:
        models = {
            name: _model(random, name, -_part(names, number, gain) / 3, name not in headless, True, False)
            for number, name in enumerate(names)
        }
        for model in models.values():
            for key in ("path", "settings", "hybrid_weights", "notes", "seconds", "cached_texts"):
                model.pop(key, None)
        metrics["general"] = {
            "eval_data": "general",
            "queries": 120,
            "queries_left_out": 0,
            "passages": 2000,
            "relevant_pairs": 131,
            "models": models,
            "comparisons": _comparisons(random, models),
        }
    return metrics


def _part(names: tuple[str, ...], number: int, gain: float) -> float:
    return gain * number / max(len(names) - 1, 1)


def _verdict(names: tuple[str, ...], gain: float, general: bool) -> str:
    if len(names) == 1:
        return f"nDCG@10 of the hybrid score of {names[0]} is 0.601."
    word = "better" if gain > 0 else "WORSE"
    said = f"nDCG@10 of the hybrid score went from 0.601 to {0.601 + gain:.3f} ({gain:+.3f}): {word}"
    said += f" (95 % interval {gain - 0.05:+.2f} to {gain + 0.05:+.2f}, p = 0.0001)."
    return said + (" On general text it lost 0.021 of 0.598: some of it was forgotten." if general else "")


def _measures(random: Random, level: float) -> dict[str, float]:
    steps = dict(zip(MEASURES, (0.0, -0.05, 0.15, 0.3, -0.06), strict=True))
    return {name: min(level + step + random.uniform(-0.02, 0.02), 0.999) for name, step in steps.items()}


def _model(random: Random, name: str, gain: float, heads: bool, retrieval: bool, tasks: bool) -> dict:
    model: dict = {
        "path": "BAAI/bge-m3" if name == "base" else f"outputs/{name}",
        "settings": {
            "pooling_method": "cls",
            "normalize_embeddings": True,
            "query_max_len": 128,
            "passage_max_len": 256,
            "query_instruction_for_retrieval": None,
        },
    }
    for score in SCORES if retrieval else ():
        model[score] = _measures(random, LEVELS[score] + gain)
        if score != "dense" and not heads:
            model[score] = {"scores": None, "reason": f"{name} has no sparse_linear.pt"}
    if retrieval and heads:
        model["hybrid_weights"] = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
    if tasks:
        model["tasks"] = {
            "sts": {"Spearman": 0.7 + gain + random.uniform(0, 0.01)},
            "classification": {
                "nearest label": 0.6 + gain + random.uniform(0, 0.01),
                "1-NN": 0.75 + random.uniform(0, 0.01),
                "probe": 0.8 + random.uniform(0, 0.01),
            },
            "clustering": {"V-measure": 0.5 + gain + random.uniform(0, 0.01)},
        }
    return model | {
        "notes": [f"{name} has positions for 512 tokens."],
        "seconds": random.uniform(3, 9),
        "cached_texts": 321,
    }


def _comparisons(random: Random, models: dict) -> dict:
    (_first, base), *others = models.items()
    compared: dict = {}
    for name, model in others:
        compared[name] = {
            score: _changes(random, base[score], model[score])
            for score in SCORES
            if "nDCG@10" in base.get(score, {}) and "nDCG@10" in model.get(score, {})
        }
        if "tasks" in base:
            compared[name]["tasks"] = {
                task: _changes(random, figures, model["tasks"][task]) for task, figures in base["tasks"].items()
            }
    return compared


def _changes(random: Random, before: dict, after: dict) -> dict:
    changes = {}
    for metric, value in before.items():
        change, half = after[metric] - value, random.uniform(0.03, 0.07)
        clear = abs(change) > half
        changes[metric] = {
            "change": change,
            "interval": [change - half, change + half * 1.1],
            "p": random.uniform(0.0001, 0.04) if clear else random.uniform(0.06, 0.9),
            "verdict": "no difference" if not clear else "better" if change > 0 else "worse",
        }
    return changes


def _distributions(random: Random, models: dict) -> dict:
    with_scores = [score for score in SCORES if all("nDCG@10" in model[score] for model in models.values())]

    def bell(center: float, total: int) -> list[int]:
        weights = [math.exp(-(((place - center) / 5) ** 2)) for place in range(40)]
        return [round(total * weight / sum(weights)) + random.randint(0, 1) for weight in weights]

    return {
        score: {
            "edges": [0.2 + (number + 1) * place / 100 for place in range(41)],
            "models": {
                name: {"relevant": bell(22 + 4 * place, 91), "others": bell(15, 830)}
                for place, name in enumerate(models)
            },
        }
        for number, score in enumerate(with_scores)
    }


def _examples(random: Random, first: str, last: str, texts: tuple[str, ...]) -> dict:
    def passage(identifier: str, text: str, relevant: bool, ranks: tuple[int | None, int | None]) -> dict:
        return {
            "passage": identifier,
            "text": text,
            "relevant": relevant,
            "rank": dict(zip((first, last), ranks, strict=True)),
            "scores": {name: {score: random.uniform(0.1, 1.4) for score in SCORES} for name in (first, last)},
            "tokens": {
                name: [[token, random.uniform(0.01, 0.3)] for token in ("port", "ĠHafen", "<b>", "حقيبة")]
                for name in (first, last)
            },
        }

    def example(number: int, better: bool) -> dict:
        right = passage(
            "d7", f"{texts[number % len(texts)]} … is kept at the desk", True, (57, 1) if better else (1, None)
        )
        wrong = passage("d<9>", "Bags are weighed before boarding.", False, (1, 14) if better else (6, 1))
        return {
            "query": f"q{number}",
            "text": texts[number % len(texts)],
            "nDCG@10": {first: 0.0 if better else 1.0, last: 1.0 if better else 0.387 + number / 1000},
            "passages": [right, wrong],
            "why": {
                first: "base put d<9> first: it shares the word “bag” with the query (sparse 0.41).",
                last: "tuned put d7 first: its dense score is the highest.",
            },
        }

    return {
        "score": "hybrid",
        "metric": "nDCG@10",
        "models": [first, last],
        "gained": [example(number, True) for number in range(3)],
        "lost": [example(number, False) for number in range(3, 5)],
    }
