"""How a model was trained to encode: evaluation that encodes otherwise measures another model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3kit.errors import KitError

# bge-m3 takes 8192 tokens; nobody who evaluates on a few thousand passages means to pay for them without asking.
LONGEST_DEFAULT = 512
MERGED = "merge.json"  # what `m3kit merge` writes beside a model
# sentence-transformers' names, and in older files its switches, for what FlagEmbedding has.
POOLING = {
    **{"cls": "cls", "mean": "mean", "lasttoken": "last_token"},
    **{"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last_token"},
}


@dataclass(frozen=True)
class Encoding:
    """Lengths in tokens."""

    pooling_method: str = "cls"
    normalize_embeddings: bool = True
    query_max_len: int = LONGEST_DEFAULT
    passage_max_len: int = LONGEST_DEFAULT
    query_instruction_for_retrieval: str | None = None


def trained_encoding(folder: Path, given: Mapping[str, Any]) -> Encoding:
    """The encoding of a model in a folder: what is ``given`` (not None), else as it was trained, else bge-m3's.

    A run of the kit says so in run.json (for a checkpoint, in that of the folder above), a merge in merge.json, other
    models in the files of sentence-transformers. Raises ``KitError`` for a pooling that FlagEmbedding does not have.
    """
    known = {name: value for name, value in given.items() if value is not None}
    for place in (folder, folder.parent) if folder.name.startswith("checkpoint-") else (folder,):
        record = _read(place / "run.json") or _read(place / MERGED)
        if isinstance(record, dict) and isinstance(record.get("settings"), dict):
            settings = record["settings"]
            found = {name: settings[name] for name in asdict(Encoding()) if name in settings}
            found["pooling_method"] = settings.get("sentence_pooling_method", "cls")
            return Encoding(**{**found, **known})
    return Encoding(**{**_sentence_transformers(folder, "pooling_method" in known), **known})


def training_told(folder: Path) -> str | None:
    """What a run of the kit says of its own training that a verdict must repeat: that most steps taught nothing."""
    record = _read(folder / "run.json")
    told = record.get("empty_steps") if isinstance(record, dict) else None
    return told if isinstance(told, str) else None


def recipe_chose(folder: Path) -> bool:
    """Whether recipe=best chose the settings of the run in the folder."""
    return (folder / "recipe" / "recipe.json").exists()


def _sentence_transformers(folder: Path, pooling_given: bool) -> dict:
    """What modules.json and the files that it names say; nothing where a model has none."""
    modules = _read(folder / "modules.json")
    if not isinstance(modules, list):
        return {}
    kinds = {str(module.get("type", "")).rpartition(".")[2]: str(module.get("path", "")) for module in modules}
    found: dict = {"normalize_embeddings": "Normalize" in kinds}
    pooling = _read(folder / kinds["Pooling"] / "config.json") if "Pooling" in kinds else None
    if pooling and not pooling_given:
        named = pooling.get("pooling_mode") or [name for name, on in pooling.items() if "pooling_mode" in name and on]
        modes = [POOLING.get(mode) for mode in ([named] if isinstance(named, str) else named)]
        if len(modes) != 1 or not modes[0]:
            raise KitError(
                f"{folder / kinds['Pooling'] / 'config.json'} asks for a pooling other than cls, mean and lasttoken, "
                "which FlagEmbedding does not have; give --pooling_method to take one of these"
            )
        found["pooling_method"] = modes[0]
    length = (_read(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    if isinstance(length, int):
        found["query_max_len"] = found["passage_max_len"] = min(length, LONGEST_DEFAULT)
    return found


def _read(file: Path):
    try:
        return json.loads(file.read_bytes())
    except OSError:
        return None
    except ValueError as error:
        raise KitError(f"{file} is broken JSON ({error}); put a good copy of it there") from error
