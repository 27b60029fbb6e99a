"""What FlagEmbedding leaves out of a saved model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from m3kit.hub import HEADS

# FlagEmbedding's name of a pooling method → the key in 1_Pooling/config.json that switches it on.
POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last_token": "pooling_mode_lasttoken",
}


def write_model_extras(folder: Path, base_folder: Path | None, **pooling) -> None:
    """Complete a model saved by FlagEmbedding; ``pooling``: see below.

    ``base_folder`` is given where the heads were not trained: FlagEmbedding saves none then, and whoever loads the
    model gets random ones without a word (S4). The base's fit the encoder better than that.
    """
    # The weights are written for their owner alone: a server under another user could not read them.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    for name in HEADS:
        if base_folder and (base_folder / name).is_file():
            shutil.copyfile(base_folder / name, folder / name)
    # Without these SentenceTransformer(path) falls back to mean pooling without a word (S5).
    write_sentence_transformers_files(folder, **pooling)


def write_sentence_transformers_files(
    folder: Path, *, dimension: int, pooling: str, normalize: bool, max_length: int
) -> None:
    """Write ``modules.json`` and what it names beside a saved model.

    The form is that of BAAI/bge-m3's own repository, which every version of sentence-transformers reads, and
    text-embeddings-inference too. ``dimension`` is that of the dense vector, ``max_length`` is in tokens.
    """
    modules = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    if normalize:
        modules.append(("2_Normalize", "models.Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    pooling_config = {"word_embedding_dimension": dimension}
    pooling_config.update({key: key == POOLING_KEYS[pooling] for key in POOLING_KEYS.values()})
    for path, _ in modules[1:]:
        (folder / path).mkdir(exist_ok=True)
    _write(folder / "modules.json", listed)
    _write(folder / "1_Pooling" / "config.json", pooling_config)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


def _write(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
