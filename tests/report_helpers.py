"""What a run leaves in its folder, made up."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random

from conftest import write_jsonl
from report_metrics import HOSTILE, LEVELS, make_metrics

from m3kit.records import Run

ROWS = [
    {"query": HOSTILE, "pos": ["# a passage\nof two lines"], "neg": ["<b>no</b>"]},
    {"query": "www.a.example or me@a.example", "pos": ["$1 | 2"], "neg": []},
    {"query": "long " * 200, "pos": ["yes"], "neg": ["no"]},
    {"query": "the fourth", "pos": ["yes"], "neg": ["no"]},
]


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


def make_run(status: str = "finished", base: str = "BAAI/bge-m3") -> Run:
    settings = {
        "model_name_or_path": base,
        "learning_rate": 1e-5,
        "num_train_epochs": 4.0,
        "train_group_size": 8,
        "query_max_len": 128,
        "passage_max_len": 256,
        "sentence_pooling_method": "cls",
        "normalize_embeddings": True,
        "query_instruction_for_retrieval": None,
        "seed": 42,
        "hub_token": "hf_secret",
    }
    run = Run(
        status,
        settings,
        started="2026-11-26T04:22:26Z",
        device="NVIDIA H100 80GB HBM3",
        python="3.11.7",
        versions={"FlagEmbedding": "1.4.2", "torch": "2.13.0"},
        world_size=2,
        seconds=244.5,
    )
    if status == "finished":
        return replace(run, best={"step": 90, "eval_hybrid_nDCG@10": 0.69}, steps=120)
    resumed = [{"at": "2026-11-26T05:00:00Z", "from_step": 30, "changed": ["precision bf16 instead of fp16"]}]
    return replace(run, reason="the loss is not finite (nan) after step 41", resumed=resumed)


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
    other = one | {
        "input": "sts/sts.jsonl",
        "task": "sts",
        "output": "sts/sts.jsonl",
        "rows_set_aside": {"score between 0.4 and 0.8": 61},
    }
    return {
        "settings": {"seed": 42, "holdout": 0.05},
        "sets": [one, other],
        "held_out": {"retrieval": 50},
        "rows_rejected": 121,
        "problems": [{"severity": "warning", "code": "query-is-passage", "count": 5}],
    }


def write_run(folder: Path, **pieces) -> Path:
    """Write a run's files: ``metrics``, ``run``, ``log``, ``manifest``; None: there is none."""
    made = {
        "metrics": make_metrics,
        "run": make_run,
        "log": make_log,
        "manifest": make_manifest,
    }
    pieces = {name: pieces[name] if name in pieces else make() for name, make in made.items()}
    files = {"metrics": "metrics.json", "run": "run.json", "manifest": "prepared/manifest.json"}
    files["log"] = "train_log.jsonl"
    (folder / "prepared" / "retrieval").mkdir(parents=True, exist_ok=True)
    for name, content in pieces.items():
        if dataclasses.is_dataclass(content):
            content = dataclasses.asdict(content)
        if isinstance(content, list):
            write_jsonl(folder / files[name], content)
        elif content is not None:
            (folder / files[name]).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    if pieces["manifest"]:
        write_jsonl(folder / "prepared" / "retrieval" / "train.jsonl", ROWS)
    return folder
