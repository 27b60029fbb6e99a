"""Reckon the memory that weights, gradients and optimizer take, and name the smallest card that is enough."""

from __future__ import annotations

import json
from pathlib import Path

from m3kit.errors import KitError
from m3kit.planning.machine import Setup
from m3kit.planning.request import Request

GIB = 2**30
# Its configuration, for whoever has not downloaded it yet.
BGE_M3 = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
}
# As their makers sell them, in GB.
CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 141)
# Bytes: CUDA with its kernels, and one part of a batch, for parts are made as small as is needed.
BESIDE = 3 * GIB


def tell_memory(request: Request, setup: Setup) -> str:
    """Return the sentence for a dry run; empty where the model's configuration is not on this machine."""
    name = request["model_name_or_path"]
    try:
        # Of packages that may not be installed yet.
        from m3kit.hub import find_local_config

        config = json.loads(find_local_config(name, request["cache_dir"] or None).read_bytes())
    except (ImportError, KitError, OSError, ValueError):
        if name != "BAAI/bge-m3":
            return ""
        config = BGE_M3
    try:
        held = _held(request, setup, config)
    except (KeyError, TypeError):
        return ""
    where = "of the machine's memory a process" if setup.device == "cpu" else "on each GPU"
    card = next((size for size in CARDS if size * 1e9 > held + BESIDE), None)
    told = f"Memory: weights, gradients and optimizer take about {held / GIB:.1f} GiB {where}"
    if setup.device == "cpu":
        return f"{told}; the texts take more, by sub_batch_tokens."
    enough = f"a card of {card} GB is enough" if card else "no single card is enough"
    return f"{told}; {enough}: sub_batch_tokens is found to fit. Reckoned, not measured."


def count_parameters(config: dict) -> int:
    """About how many parameters an encoder with this ``config.json`` has: word and place vectors, and its layers."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    table = config["vocab_size"] + config.get("max_position_embeddings", 0)
    return table * width + layers * (4 * width + 2 * config.get("intermediate_size", 4 * width)) * width


def _held(request: Request, setup: Setup, config: dict) -> int:
    """Bytes of a process in the optimizer's step. Adam has two moments in 32 bits for each trained parameter."""
    parameters = count_parameters(config)
    trained = parameters
    if request["lora_rank"] != "0" or request.is_on("fix_encoder"):
        trained = 0  # adapters and heads are small beside the encoder
    elif request.is_on("freeze_word_embeddings"):
        trained -= config["vocab_size"] * config["hidden_size"]
    if setup.deepspeed and _offloads(setup.deepspeed):
        return 4 * parameters  # weights and gradients of 16 bits; all else is on the CPU
    if setup.deepspeed:
        # In 16 bits it trains a copy in 32, and makes one more of the gradients.
        return (2 if setup.precision_name in ("fp16", "bf16", "auto") else 4) * parameters + 22 * trained
    # Between processes a second copy of the gradients is sent.
    return 4 * parameters + (16 if setup.processes > 1 else 12) * trained


def _offloads(configuration: str) -> bool:
    try:
        zero = json.loads(Path(configuration).read_bytes())["zero_optimization"]
        return zero["offload_optimizer"]["device"] != "none"
    except (OSError, ValueError, KeyError, TypeError):
        return False
