"""What the recipe decides by: the trainer's arguments, prepared rows, the base's configuration, held-out queries."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import TypeVar

from m3kit.data.convert import CLASSIFIED
from m3kit.errors import KitError
from m3kit.hub import CONFIG, find_model_folder, missing_heads
from m3kit.planning.memory import count_parameters
from m3kit.prepared import find_prepared, read_prepared
from m3kit.recipe.calibrate import base_temperature
from m3kit.recipe.decide import Facts
from m3kit.settings import BY_NAME
from m3kit.test_data.folder import read_eval_folder
from m3kit.test_data.sample import choosing_half

Default = TypeVar("Default")

BATCH = "per_device_train_batch_size"


class Arguments(dict[str, list[str]]):
    """The trainer's arguments: name → its words."""

    def one(self, name: str, default: Default) -> str | Default:
        return self[name][0] if self.get(name) else default

    def differs(self, name: str) -> bool:
        """Whether a setting's value is given that is not its default."""
        value, default = self.one(name, None), BY_NAME[name].default
        parse = BY_NAME[name].parse
        return value is not None and not (default and parse(value) == parse(default))


def read_arguments(words: list[str]) -> Arguments:
    """Words such as ``-- --learning_rate 1e-5 --train_data a b``; of a name that comes twice the last counts."""
    found = Arguments()
    name = None
    for word in words[1:] if words[:1] == ["--"] else words:
        if word.startswith("--"):
            name, equals, value = word[2:].replace("-", "_").partition("=")
            found[name] = [value] if equals else []
        elif name is None:
            raise KitError(f"{word} is no argument of the trainer; write -- --name value …")
        else:
            found[name].append(word)
    for needed in ("train_data", "model_name_or_path"):
        if not found.get(needed):
            raise KitError(f"the trainer's arguments have no --{needed}; write -- --{needed} …")
    return found


def facts_of(given: Arguments, kept: set[str], processes: int, device: str) -> Facts:
    """``kept``: the settings that the user has set."""
    base = find_model_folder(given["model_name_or_path"][0], given.one("cache_dir", None))
    try:
        config = json.loads((base / CONFIG).read_bytes())
        tokens = given.one("sub_batch_tokens", "auto")
        in_32_bits = device == "cpu" or given.one("precision", "") == "fp32"
        needed = _memory_needed(config, 16384 if tokens == "auto" else int(tokens), in_32_bits)
        width = int(config["hidden_size"])
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"{base / CONFIG} is no encoder's configuration ({error}); give a model's folder") from error
    rows = [row for file in _files(given) for row in read_prepared(file)]
    retrieval = [row.data for row in rows if row.is_retrieval]
    return Facts(
        rows=len(rows),
        retrieval_rows=len(retrieval),
        classified_rows=sum(row.data.get("type") == CLASSIFIED for row in rows),
        held_out=_choosing_queries(given),
        width=width,
        heads=not missing_heads(base),
        processes=processes,
        needed_gb=needed / 1e9,
        memory_gb=_memory(device) / 1e9,
        batch=processes * int(batch) if BATCH in kept and (batch := given.one(BATCH, None)) else None,
        temperature=base_temperature(retrieval, str(base), encoding_of(given), device, given.one("cache_dir", None)),
    )


def encoding_of(given: Arguments) -> dict:
    """How the training encodes, by the names that evaluation has for it."""
    return {
        "pooling_method": given.one("sentence_pooling_method", "cls"),
        "normalize_embeddings": given.one("normalize_embeddings", "True").lower() == "true",
        "query_max_len": int(given.one("query_max_len", "512")),
        "passage_max_len": int(given.one("passage_max_len", "512")),
    }


def _memory_needed(config: dict, tokens: int, in_32_bits: bool) -> float:
    """Bytes to train without gradient checkpointing: weights, gradients, Adam, and the activations of so many tokens.

    Activations: 34 bytes a token, layer and unit of width in 16 bits, with an attention that keeps no scores
    (Korthikanti et al. 2022, arXiv 2205.05198). Mixed precision keeps some of it in 32 bits: twice as much is reckoned.
    In 32 bits alone it is four times as much: 134 bytes were measured on a CPU.
    """
    each = 136 if in_32_bits else 68
    return 16 * count_parameters(config) + each * tokens * config["num_hidden_layers"] * config["hidden_size"]


def _memory(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0.0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _files(given: Arguments) -> list[Path]:
    return list(find_prepared([Path(path) for path in given["train_data"]]).values())


def _choosing_queries(given: Arguments) -> int:
    folder = given.one("eval_data", None)
    retrieval = choosing_half(read_eval_folder(Path(folder)))[0].retrieval if folder else None
    return len(retrieval.queries) if retrieval else 0


def _queries(given: Arguments) -> bytes:
    """The queries of the evaluation data, a line each; nothing where there is none of retrieval."""
    folder = given.one("eval_data", None)
    file = Path(folder) / "queries.jsonl" if folder else None
    return file.read_bytes() if file and file.is_file() else b""


def digest(given: Arguments, args: argparse.Namespace) -> str:
    """Of all that the choice depends on: arguments, rows, evaluation queries."""
    found = hashlib.sha256(json.dumps([given, args.processes, sorted(args.kept), args.mine_negatives]).encode())
    for content in (*(file.read_bytes() for file in _files(given)), _queries(given)):
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()
