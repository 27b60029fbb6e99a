"""End a run that no longer learns, with the reason and the likely cures; tell of steps that teach nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from m3kit.errors import KitError
from m3kit.training.model import M3Model

# A single loss or gradient of 0 can be an easy batch: at temperature 0.02 a lead of 0.4 in cosine is a loss of exactly
# 0 in 32 bits. A single step of fp16 may overflow, and is skipped. What lasts this many steps does not mend itself.
PATIENCE = 10
SMALLER_RATE = "lower learning_rate (5e-6), or raise warmup_steps"
# A step teaches nothing with a dense loss below this: at temperature 0.02 a positive that leads by 0.09 in cosine.
NEAR_ZERO = 0.01
# Queries in a step that are enough for one another's negatives.
LARGE = 32


class Guard:
    """Watches loss and gradients; every process comes to the same verdict, for it is given figures of all of them."""

    def __init__(self, model: M3Model, mixed_fp16: bool) -> None:
        self.mixed_fp16 = mixed_fp16
        self.seen: dict[str, torch.Tensor] = {}
        self.zero_losses = self.skipped = 0
        watched = {
            "encoder": [parameter for parameter in model.model.parameters() if parameter.requires_grad][-1:],
            "ColBERT head": model.colbert_linear and [model.colbert_linear.weight],
            "sparse head": model.sparse_linear and [model.sparse_linear.weight],
        }
        # One tensor of each: hooks see the gradient under DDP and DeepSpeed alike, which clear it before a callback.
        self.watched = {name: found[0] for name, found in watched.items() if found and found[0].requires_grad}
        self.dead = dict.fromkeys(self.watched, 0)
        for name, parameter in self.watched.items():
            parameter.register_hook(lambda gradient, name=name: self._note(name, gradient))

    def _note(self, name: str, gradient: torch.Tensor) -> None:
        largest = gradient.detach().abs().amax().float()
        self.seen[name] = torch.maximum(self.seen[name], largest) if name in self.seen else largest

    def take_gradients(self) -> list[torch.Tensor | float]:
        """The largest entry of each watched gradient of this process since the last call; 0 where there was none."""
        largest = [self.seen.get(name, 0.0) for name in self.watched]
        self.seen = {}
        return largest

    def check(self, step: int, loss: float, gradient_norm: float | None, gradients: list[float], skipped: bool) -> None:
        """After a step: its mean loss over all processes, and what ``take_gradients`` gave, summed over them.

        Raises ``KitError`` when the run has come to nothing.
        """
        if not math.isfinite(loss):
            raise KitError(f"step {step}: the loss is {loss}. {self._cures()}")
        bad = skipped or not all(map(math.isfinite, [gradient_norm or 0.0, *gradients]))
        if bad and not self.mixed_fp16:
            raise KitError(
                f"step {step}: a gradient is not finite (NaN or infinite), with a loss of {loss:.4f}. {self._cures()}"
            )
        self.skipped = self.skipped + 1 if bad else 0
        # fp16 finds its scale by overflowing: more than PATIENCE halvings of it at the start are nothing unusual.
        if self.skipped >= 3 * PATIENCE:
            raise KitError(
                f"step {step}: the gradients overflowed in {self.skipped} steps on end, and none of these was made. "
                f"{self._cures()}"
            )
        self.zero_losses = self.zero_losses + 1 if loss == 0 else 0
        if self.zero_losses >= PATIENCE:
            raise KitError(
                f"step {step}: the loss was exactly 0 for {PATIENCE} steps on end, so there is nothing left to learn "
                "from these rows. Either the negatives are too easy (give harder ones, or a larger "
                "per_device_train_batch_size), or fp16 rounded everything away (precision=bf16 or fp32)"
            )
        for name, largest in zip(self.watched, gradients, strict=True):
            self.dead[name] = self.dead[name] + 1 if largest == 0 and not bad else 0
            if self.dead[name] >= PATIENCE:
                relu = " (it gives every token the weight 0, from which ReLU lets no gradient back)"
                raise KitError(
                    f"step {step}: the {name} has had no gradient for {PATIENCE} steps on end"
                    f"{relu if 'sparse' in name else ''}, so it learns nothing. Train from another base model, or "
                    f"without it (unified_finetuning=False); or {SMALLER_RATE}"
                )

    def _cures(self) -> str:
        bf16 = " precision=bf16 (fp16 overflows where bf16 does not); or" if self.mixed_fp16 else ""
        return f"Likely cures:{bf16} {SMALLER_RATE}; look at the rows of the last steps"


def tell_empty(history: Sequence[dict[str, Any]], batch_size: int) -> str | None:
    """A sentence with the cure where most logged steps taught nothing, or None.

    ``history``: a trainer's ``log_history``, which a resumed run keeps. ``batch_size``: of all processes together.
    """
    losses = [entry["loss_dense"] for entry in history if "loss_dense" in entry]
    empty = sum(loss < NEAR_ZERO for loss in losses)
    if 2 * empty <= len(losses):
        return None
    cures = "fewer epochs, or harder negatives (python -m m3kit mine --help)"
    if batch_size < LARGE:
        cures = f"recipe=best, or larger batches (per_device_train_batch_size; now {batch_size} queries a step)"
    return f"In {empty} of {len(losses)} steps the dense loss was below {NEAR_ZERO}: they taught nothing. Try {cures}."
