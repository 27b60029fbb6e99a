"""The base mixed into the tuned model after training: WiSE-FT (arXiv 2109.01903), LM-Cocktail (arXiv 2311.13534).

With few rows training goes too far: a model between base and tuned is often better than both, in what was trained and
in what was not. Which share is best costs no training to find out, only an evaluation each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner

from m3kit.hub import HEADS, missing_heads
from m3kit.merge import POOLER, WEIGHTS, read_tensors, write_tensors

# The parts of a model, and the files of a saved one that hold them.
FILES = {"model": WEIGHTS[0], **{head.removesuffix(".pt"): head for head in HEADS}}


class Mixture:
    """A model in memory whose weights are ``share`` × tuned + (1 - share) × base, in float32.

    Heads are mixed where the base has them: random ones are no base. ``model`` encodes as FlagEmbedding's does.
    """

    def __init__(self, base: Path, tuned: Path, tokenizer, device: torch.device, **encoding) -> None:
        modules, own = (EncoderOnlyEmbedderM3Runner.get_model(str(folder)) for folder in (tuned, base))
        self._parts = list(FILES)[: 1 if missing_heads(base) or missing_heads(tuned) else None]
        self.model = EncoderOnlyEmbedderM3Model(modules, tokenizer=tokenizer, **encoding).to(device).float().eval()
        # (part, name) → the parameter, and its numbers in base and tuned model.
        self._mixed = {}
        for part in self._parts:
            base_values = dict(own[part].named_parameters())
            for name, mixed in modules[part].named_parameters():
                if not name.startswith(POOLER):  # it serves no score, and not all have one
                    self._mixed[part, name] = (mixed.data, base_values[name].data.to(mixed), mixed.data.clone())

    def set(self, share: float) -> None:
        for mixed, base, tuned in self._mixed.values():
            mixed.copy_(torch.lerp(base, tuned, share))

    def save(self, folder: Path) -> None:
        """Put the mixture's weights in the place of those in a model's folder; each file is renamed into place."""
        for part in self._parts:
            path, new = folder / FILES[part], folder / f".{FILES[part]}.tmp"
            tensors = dict(read_tensors(folder, path))
            for name, saved in tensors.items():
                if (part, name) in self._mixed:
                    tensors[name] = self._mixed[part, name][0].to("cpu", saved.dtype)
            write_tensors(tensors, new)
            shutil.copymode(path, new)
            new.replace(path)
