"""Every system as its own command runs it, from the same base on the same rows; each in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from referee.sentence import cpu_seconds
from referee.sets import DataSet, texts_of

KIT = Path(__file__).resolve().parents[2]
LIBRARY = "FlagEmbedding.finetune.embedder.encoder_only.m3"
# sentence-transformers' variants: name → what differs. Its best is whichever is best on the test.
RATES = {"2e-5": 2e-5, "5e-5": 5e-5, "1e-4": 1e-4}
SENTENCE = {f"st-{rate}": {"learning_rate": value} for rate, value in RATES.items()}
SENTENCE |= {f"st-mined-{rate}": {"learning_rate": value, "mined": 2} for rate, value in RATES.items()}
SENTENCE |= {
    f"st-cached-{rate}": {"learning_rate": value, "cached": True, "batch_size": 128} for rate, value in RATES.items()
}
SENTENCE |= {
    f"st-{epochs}epochs-{rate}": {"learning_rate": value, "epochs": epochs}
    for epochs in (2, 3)
    for rate, value in RATES.items()
}


@dataclass(frozen=True)
class Job:
    """One cell of the table: a system on so many rows (all where None) of a set, with a seed."""

    data: DataSet
    rows: int | None
    system: str
    seed: int

    def folder(self, work: Path) -> Path:
        return work / self.data.name / str(self.rows or "all") / self.system / str(self.seed)


@dataclass(frozen=True)
class Machine:
    """What all systems share: ``base`` and its ``pooling``, tokens of a text, 16 bits or not."""

    base: Path
    pooling: str
    max_len: int
    bf16: bool


def train(job: Job, machine: Machine, work: Path) -> tuple[Path, float]:
    """(model folder, CPU seconds of training and all that belongs to it, without start-up)."""
    if job.system == "base":
        return machine.base, 0.0
    folder = job.folder(work)
    shutil.rmtree(folder, ignore_errors=True)
    rows = job.data.write(folder / "data", job.rows)
    if job.system.startswith("st-"):
        return _sentence_transformers(job, machine, folder, rows)
    if job.system == "flagembedding":
        return _flagembedding(job, machine, folder, rows)
    return _kit(job, machine, folder, rows)


def _sentence_transformers(job: Job, machine: Machine, folder: Path, rows: Path) -> tuple[Path, float]:
    few = (job.rows or len(job.data.rows)) <= 1000
    spec = {
        "base": str(machine.base),
        "rows": str(next(rows.glob("*.jsonl"))),
        "output_dir": str(folder / "model"),
        "result": str(folder / "training.json"),
        "max_len": machine.max_len,
        "bf16": machine.bf16,
        "seed": job.seed,
        # Its own defaults where rows are few: batch 8, three epochs.
        "epochs": 3 if few else 1,
        "batch_size": 8 if few else 32,
        **SENTENCE[job.system],
    }
    file = folder / "spec.json"
    file.write_text(json.dumps(spec), "utf-8")
    _run([sys.executable, "-m", "referee.sentence", file], folder, {"PYTHONPATH": str(KIT / "benchmarks")})
    return folder / "model", json.loads((folder / "training.json").read_text("utf-8"))["cpu_seconds"]


def _flagembedding(job: Job, machine: Machine, folder: Path, rows: Path) -> tuple[Path, float]:
    """Its published settings (``m3.sh``): batch 2, groups of 8, 1e-5, all losses; start-up counts here."""
    native = folder / "native" / "rows.jsonl"
    native.parent.mkdir()
    with native.open("w", encoding="utf-8") as file:
        read = [json.loads(line) for line in next(rows.glob("*.jsonl")).read_text("utf-8").splitlines()]
        for number, row in enumerate(read):
            # It takes no row without a negative: another row's positive.
            drawn = texts_of(read[number - 1], "positive")[:1]
            sides = {"pos": texts_of(row, "positive"), "neg": texts_of(row, "negative") or drawn}
            file.write(json.dumps({"query": row["query"], **sides}) + "\n")
    settings = {
        "model_name_or_path": machine.base,
        "train_data": native,
        "output_dir": folder / "model",
        "cache_path": folder / "cache",
        "learning_rate": 1e-5,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "train_group_size": 8,
        "query_max_len": machine.max_len,
        "passage_max_len": machine.max_len,
        "warmup_steps": 0.1,
        "temperature": 0.02,
        "sentence_pooling_method": machine.pooling,
        "normalize_embeddings": True,
        "unified_finetuning": True,
        "use_self_distill": True,
        "gradient_checkpointing": True,
        "dataloader_drop_last": True,
        "bf16": machine.bf16,
        "seed": job.seed,
        "report_to": "none",
        "save_strategy": "no",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    before = cpu_seconds()
    _run([sys.executable, "-m", "torch.distributed.run", "--standalone", "-m", LIBRARY, *words], folder, {})
    return folder / "model", cpu_seconds() - before


def _kit(job: Job, machine: Machine, folder: Path, rows: Path) -> tuple[Path, float]:
    """The training script, ``classic`` or ``best`` or either with settings: ``best:heads_reach=1,mine=False``."""
    recipe, _, changes = job.system.partition(":")
    settings = {
        "recipe": recipe,
        "model_name_or_path": machine.base,
        "train_data": rows,
        "output_dir": folder / "model",
        "sentence_pooling_method": machine.pooling,
        "query_max_len": machine.max_len,
        "passage_max_len": machine.max_len,
        "precision": "auto" if machine.bf16 else "fp32",
        "seed": job.seed,
        "report_to": "none",
        **dict(change.split("=") for change in changes.split(",") if change),
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    script = KIT / "run_flagembedding_training_single_gpu.sh"
    _run([script, *words], folder, {"ALLOW_CPU": "True", "PYTHON": sys.executable})
    records = [folder / "model" / name for name in ("run.json", "recipe/recipe.json")]
    used = [json.loads(file.read_text("utf-8")).get("cpu_seconds", 0.0) for file in records if file.exists()]
    return folder / "model", sum(used)


def _run(command: list, folder: Path, environment: dict[str, str]) -> None:
    log = folder / "log.txt"
    with log.open("w") as file:
        done = subprocess.run(
            list(map(str, command)),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{log}: exit code {done.returncode}\n{log.read_text('utf-8')[-2000:]}")
