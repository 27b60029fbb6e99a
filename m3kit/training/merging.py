"""The base mixed into the tuned model after training: WiSE-FT (arXiv 2109.01903), LM-Cocktail (arXiv 2311.13534).

With few rows training goes too far: a model between base and tuned is often better than both, in what was trained and
in what was not. Which share is best costs no training to find out, only an evaluation each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model, EncoderOnlyEmbedderM3Runner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m3kit.hub import HEADS, missing_heads

WEIGHTS = "model.safetensors"
PARTS = ("model", "colbert_linear", "sparse_linear")


class Mixture:
    """A model in memory whose weights are ``share`` × tuned + (1 - share) × base, in float32.

    Heads are mixed where the base has them: random ones are no base. ``model`` encodes as FlagEmbedding's does.
    """

    def __init__(self, base: Path, tuned: Path, tokenizer, device: torch.device, **encoding) -> None:
        modules = EncoderOnlyEmbedderM3Runner.get_model(str(tuned))
        own = EncoderOnlyEmbedderM3Runner.get_model(str(base))
        parts = PARTS[:1] if missing_heads(base) or missing_heads(tuned) else PARTS
        self.model = EncoderOnlyEmbedderM3Model(modules, tokenizer=tokenizer, **encoding).to(device).float().eval()
        self._base = {name: tensor.to(device) for name, tensor in _weights(own, parts).items()}
        self._mixed = _weights(modules, parts)
        self._tuned = {name: tensor.clone() for name, tensor in self._mixed.items()}

    @torch.no_grad()
    def set(self, share: float) -> None:
        for name, tensor in self._mixed.items():
            tensor.copy_(torch.lerp(self._base[name].to(tensor.dtype), self._tuned[name], share))

    def save(self, folder: Path) -> None:
        """Put the mixture's weights in the place of those in a model's folder; each file is renamed into place."""
        saved = load_file(folder / WEIGHTS)
        names = {name.removeprefix("model."): tensor for name, tensor in self._mixed.items()}
        mixed = {name: names[name].to("cpu", saved[name].dtype) if name in names else saved[name] for name in saved}
        _replace(folder / WEIGHTS, lambda path: save_file(mixed, path, metadata={"format": "pt"}))
        for head in HEADS:
            part = head.removesuffix(".pt")
            found = {
                name.removeprefix(f"{part}."): tensor.cpu()
                for name, tensor in self._mixed.items()
                if name.startswith(f"{part}.")
            }
            if found:
                _replace(folder / head, partial(torch.save, found))


def best_share(measured: dict[float, float]) -> float:
    """The share with the best figure; of equals the one with most of the base."""
    return max(sorted(measured), key=lambda share: measured[share])


def measure_shares(
    mixture: Mixture, shares: Sequence[float], measure: Callable[[nn.Module], float]
) -> dict[float, float]:
    found = {}
    for share in shares:
        mixture.set(share)
        found[share] = measure(mixture.model)
    return found


def _weights(modules: dict[str, nn.Module], parts: Sequence[str]) -> dict[str, Tensor]:
    """The tensors themselves, by names such as model.encoder.…; the pooler serves no score, and not all have one."""
    return {
        f"{part}.{name}": tensor.data
        for part in parts
        for name, tensor in modules[part].named_parameters()
        if not name.startswith("pooler.")
    }


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    temporary.chmod(path.stat().st_mode)
    temporary.replace(path)
