"""A run to search: the tiny model before and after, and its test data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny import write_beir

from m3kit.search.engine import Search
from m3kit.search.subject import find_subject

LENGTHS = {"query_max_len": 32, "passage_max_len": 32}


def write_run(folder: Path, base: Path, **settings) -> Path:
    """A finished run whose model is the base with noise on its weights."""
    run = Path(shutil.copytree(base, folder / "run 'ä'"))
    weights = load_file(run / "model.safetensors")
    torch.manual_seed(1)
    save_file({name: w + torch.randn_like(w) / 5 for name, w in weights.items()}, run / "model.safetensors")
    settings = {"model_name_or_path": str(base), "eval_data": str(write_beir(folder / "eval")), **LENGTHS, **settings}
    (run / "run.json").write_text(json.dumps({"status": "finished", "settings": settings}))
    return run


def search_of(run: Path, **given) -> Search:
    return Search(find_subject(run, given.get("base"), given.get("corpus"), {}), device="cpu")
