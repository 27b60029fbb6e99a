"""What a run leaves in its folder, made up: every figure another, so that one in the wrong place is noticed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

from conftest import write_jsonl

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
    (first, base), *others = models.items()
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


# ---- the other files -----------------------------------------------------------------------------------------------


def make_log(steps: int = 120, evaluations: int = 4, heads: bool = True) -> list[dict]:
    """train_log.jsonl as rows: steps, evaluations between them, and the summary at the end."""
    random, rows = Random(3), []
    for step in range(steps + 1):
        if step:
            loss = 2.4 * math.exp(-step / steps * 2) + random.uniform(-0.3, 0.3) + 0.4
            row = {"step": step, "loss": loss, "grad_norm": 3.0, "learning_rate": 1e-5 * (1 - step / steps)}
            for number, part in enumerate(("dense", "sparse", "colbert", "ensemble", "self_distill") if heads else ()):
                # Self-distillation begins later.
                if part != "self_distill" or step > 10:
                    row[f"loss_{part}"] = loss * (1 + number / 5)
            rows.append(
                row
                | {
                    "texts_per_second": 600 + random.uniform(-50, 50),
                    "tokens_per_second": 9000 + random.uniform(-900, 900),
                    "padding": 0.04,
                    "memory_gb": 0.7 + step / 1000,
                    "seconds_left": 2.0 * (steps - step),
                    "epoch": step / steps * 4,
                }
            )
        if evaluations and step % (steps // evaluations) == 0:
            done = step / steps
            figures = {f"eval_{score}_nDCG@10": level + 0.1 * math.sin(2.4 * done) for score, level in LEVELS.items()}
            figures |= {"eval_sts_Spearman": 0.7 + 0.05 * done, "eval_classification_1-NN": 0.6 + 0.1 * done}
            rows.append({"step": step, **figures, "eval_seconds": 1.2, "epoch": 4 * done})
    return [*rows, {"step": steps, "train_runtime": 240.0, "train_loss": 1.3, "epoch": 4.0}]


def make_run(status: str = "finished", base: str = "BAAI/bge-m3") -> dict:
    run = {
        "status": status,
        "started": "2026-11-26T04:22:26Z",
        "device": "NVIDIA H100 80GB HBM3",
        "python": "3.11.7",
        "versions": {"FlagEmbedding": "1.4.2", "torch": "2.13.0", "transformers": "5.20.2"},
        "world_size": 2,
        "data": [{"path": "prepared/retrieval/train.jsonl", "type": "only_1neg", "rows": 218}],
        "settings": {
            "model_name_or_path": base,
            "learning_rate": 1e-5,
            "num_train_epochs": 4.0,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "train_group_size": 8,
            "query_max_len": 128,
            "passage_max_len": 256,
            "temperature": 0.02,
            "precision": "bf16",
            "unified_finetuning": True,
            "use_self_distill": True,
            "sentence_pooling_method": "cls",
            "normalize_embeddings": True,
            "query_instruction_for_retrieval": None,
            "seed": 42,
            "hub_token": "hf_secret",
        },
        "seconds": 244.5,
        "base": {"eval_hybrid_nDCG@10": 0.6},
    }
    if status == "finished":
        run |= {"best": {"step": 90, "eval_hybrid_nDCG@10": 0.69}, "steps": 120, "train_loss": 1.3}
    else:
        run["reason"] = "the loss is not finite (nan) after step 41"
        run["resumed"] = [
            {"at": "2026-11-26T05:00:00Z", "from_step": 30, "changed": ["precision bf16 instead of fp16"]}
        ]
    return run


def make_manifest() -> dict:
    one = {
        "input": "/home/somebody/custom data/retrieval/train.jsonl",
        "sha256": "7a87",
        "task": "retrieval",
        "task_told": "by its columns",
        "columns_not_used": ["id"],
        "notes": [],
        "rows_read": 1218,
        "rows_bad": 3,
        "output": "retrieval/train.jsonl",
        "rows_used": 1190,
        "rows_merged": 12,
        "rows_set_aside": {"bad rows: empty-query": 3, "held out for evaluation": 25},
        "rows_written": 1178,
        "type": "only_1neg",
        "negatives_added": 62,
        "texts_removed": {"given twice for one query": 4},
    }
    other = one | {"input": "sts/sts.jsonl", "task": "sts", "rows_set_aside": {"score between 0.4 and 0.8": 61}}
    return {
        "settings": {"seed": 42, "holdout": 0.05},
        "sets": [one, other],
        "held_out": {"retrieval": 50},
        "rows_rejected": 121,
        "problems": [{"severity": "warning", "code": "query-is-passage", "count": 5}],
    }


def make_problems() -> list[dict]:
    def problem(code: str, severity: str, line: int) -> dict:
        what, fix = f"the passage of row {line} is its query {HOSTILE}", "take it out"
        return {"code": code, "severity": severity, "file": "a/train.jsonl", "line": line, "what": what, "fix": fix}

    warnings = [problem("query-is-passage", "warning", line) for line in range(1, 6)]
    return [*warnings, problem("languages", "note", 1), problem("empty-query", "set aside", 9)]


def write_run(folder: Path, **pieces) -> Path:
    """Write a run's files: ``metrics``, ``run``, ``log``, ``manifest``, ``problems``; None: there is none."""
    made = {
        "metrics": make_metrics,
        "run": make_run,
        "log": make_log,
        "manifest": make_manifest,
        "problems": make_problems,
    }
    pieces = {name: pieces[name] if name in pieces else make() for name, make in made.items()}
    (folder / "prepared").mkdir(parents=True, exist_ok=True)
    files = {"metrics": "metrics.json", "run": "run.json", "manifest": "prepared/manifest.json"}
    for name, file in files.items():
        if pieces[name] is not None:
            (folder / file).write_text(json.dumps(pieces[name], ensure_ascii=False), encoding="utf-8")
    for name, file in {"log": "train_log.jsonl", "problems": "prepared/problems.jsonl"}.items():
        if pieces[name] is not None:
            write_jsonl(folder / file, pieces[name])
    return folder
