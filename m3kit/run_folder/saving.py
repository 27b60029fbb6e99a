"""What FlagEmbedding leaves out of a saved model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from m3kit.hub import HEADS

# FlagEmbedding's name of a pooling method → what sentence-transformers calls it.
POOLING = {"cls": "cls_token", "mean": "mean_tokens", "last_token": "lasttoken"}


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
    write_sentence_transformers_files(folder, **pooling)


def write_sentence_transformers_files(
    folder: Path, *, dimension: int, pooling: str, normalize: bool, max_length: int
) -> None:
    """Write ``modules.json`` and what it names: without, SentenceTransformer takes mean pooling without a word (S5).

    The form is that of BAAI/bge-m3's own repository, which every version of sentence-transformers reads, and
    text-embeddings-inference too. ``dimension`` is that of the dense vector, ``max_length`` is in tokens.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Normalize": "Normalize"} if normalize else {})
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    modes = {f"pooling_mode_{mode}": name == pooling for name, mode in POOLING.items()}
    for path in kinds:
        (folder / path).mkdir(exist_ok=True)
    for path, content in {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": dimension, **modes},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
    }.items():
        (folder / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
