"""Which model is meant, on which device, in which precision: all decided before any text is encoded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from m3kit.errors import KitError
from m3kit.hub import HEADS, find_model_folder, loading, missing_heads

# What decides a vector, besides configuration and weights in any form.
MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt")
# What the kit writes beside a model about it: another evaluation makes no other model.
RECORDS = ("run.json", "metrics.json", "hybrid.json", "merge.json")
LIBRARIES = ("FlagEmbedding", "torch", "transformers")


@dataclass(frozen=True)
class ModelFolder:
    """A model on this disk. ``colbert_size`` is None where the heads cannot be used, with the reason beside it."""

    name: str
    given: str
    folder: Path
    colbert_size: int | None
    no_heads_reason: str | None


def find_model(name: str, given: str, cache_dir: str | None = None) -> ModelFolder:
    """Find a model's folder, downloading a Hub model once, and look at its heads. Raises ``KitError``."""
    try:
        folder = find_model_folder(given, cache_dir)
    except KitError as error:
        raise KitError(f"{name}: {error}") from error
    colbert_size, reason = _heads(folder)
    return ModelFolder(name, given, folder, colbert_size, reason)


def _heads(folder: Path) -> tuple[int | None, str | None]:
    """The ColBERT head's output size, or why the heads cannot be used.

    FlagEmbedding loads the two heads only together; with one missing it makes both at random and says so only in a log.
    """
    missing = missing_heads(folder)
    if missing:
        return None, f"{' and '.join(missing)} missing in {folder}: FlagEmbedding would make both heads at random"
    with loading(f"the heads in {folder}"):
        colbert, _ = (torch.load(folder / file, map_location="cpu", weights_only=True) for file in HEADS)
        size = colbert["weight"].shape[0]
    return size, None


def choose_device(wanted: str) -> tuple[str, str]:
    """(device, reason) for "auto", "cpu", "cuda" or "cuda:N": one device always, no pool of processes."""
    available = torch.cuda.is_available()
    if wanted == "auto":
        return ("cuda:0", "a CUDA GPU was found") if available else ("cpu", "no CUDA GPU was found")
    if wanted == "cpu":
        return "cpu", "asked for"
    found = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if not found:
        raise KitError(f"--device {wanted} is not known; give auto, cpu, cuda or cuda:N")
    number = int(found[1] or 0)
    if not available:
        raise KitError(
            f"--device {wanted}: PyTorch finds no CUDA GPU here; give --device cpu, or see python -m m3kit doctor"
        )
    if number >= torch.cuda.device_count():
        raise KitError(f"--device {wanted}: there are {torch.cuda.device_count()} GPUs, counted from cuda:0")
    return f"cuda:{number}", "asked for"


def choose_precision(wanted: str, device: str) -> tuple[str, str]:
    """(precision, reason) for "auto", "fp32", "fp16" or "bf16"."""
    if device == "cpu" and wanted in ("fp16", "bf16"):
        return "fp32", f"{wanted} was asked for, but FlagEmbedding always computes in fp32 on a CPU"
    if wanted == "auto":
        return ("fp32", "on a CPU") if device == "cpu" else ("fp16", "on CUDA, as FlagEmbedding does by default")
    return wanted, "asked for"


def longest_input(folder: Path) -> int | None:
    """Tokens that the model has positions for, or None where its configuration does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    positions = getattr(config, "max_position_embeddings", None)
    if positions and "roberta" in config.model_type:
        # RoBERTa counts positions from the padding id + 1: bge-m3 has 8194 for 8192 tokens.
        positions -= config.pad_token_id + 1
    return positions


def model_digest(folder: Path) -> str:
    """A digest of the files that make a model, by their names and bytes."""
    digest = xxhash.xxh3_128()
    files = {file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(file for file in files if file.name not in RECORDS):
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as opened:
            while block := opened.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
