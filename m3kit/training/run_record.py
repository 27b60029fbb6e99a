"""``run.json``: what was run, with what, on what; and the guard of a folder that holds a run already."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from m3kit.errors import KitError

PACKAGES = ("FlagEmbedding", "torch", "transformers", "accelerate", "datasets", "deepspeed", "sentence-transformers")
# What a run leaves, by which it is known and which is deleted when it is to be overwritten; nothing else ever is.
MARKS = ("run.json", "model.safetensors")
LEFT_BY_A_RUN = (*MARKS, "metrics.json", "colbert_linear.pt", "sparse_linear.pt", "runs")


def claim_output_dir(output_dir: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a run, or clear it where that was asked for (S3)."""
    checkpoints = list(output_dir.glob("checkpoint-*"))
    if not checkpoints and not any((output_dir / mark).exists() for mark in MARKS):
        return
    if not overwrite:
        raise KitError(
            f"{output_dir} already holds a training run; choose another --output_dir, "
            "or give --overwrite_output_dir True to delete that run"
        )
    for path in [*checkpoints, *(output_dir / name for name in LEFT_BY_A_RUN)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class RunRecord:
    """Written when training starts, and again when it is over."""

    def __init__(self, output_dir: Path, settings: dict[str, Any], data: list[dict[str, Any]], world_size: int):
        self._path = output_dir / "run.json"
        self._started = time.time()
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
        self._record = {
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "world_size": world_size,
            "device": device,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "data": data,
            "settings": settings,
        }
        self._write()

    def finish(self, steps: int, train_loss: float) -> None:
        self._record |= {
            "status": "finished",
            "seconds": round(time.time() - self._started, 1),
            "steps": steps,
            "train_loss": train_loss,
        }
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f"run.json.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._record, ensure_ascii=False, indent=2, default=str) + "\n", "utf-8")
        temporary.rename(self._path)
