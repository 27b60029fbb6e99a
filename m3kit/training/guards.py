"""What ends a run that no longer learns, with the reason and the likely cures."""

from __future__ import annotations

import math

import torch

from m3kit.errors import KitError
from m3kit.training.model import M3Model

# A single loss or gradient of 0 can be an easy batch: at temperature 0.02 a lead of 0.4 in cosine is a loss of exactly
# 0 in 32 bits. A single step of fp16 may overflow, and is skipped. What lasts this many steps does not mend itself.
PATIENCE = 10

SMALLER_RATE = "lower learning_rate (5e-6), or raise warmup_steps"


class Guard:
    """Watches loss and gradients; every process comes to the same verdict, for it is given figures of all of them."""

    def __init__(self, model: M3Model, mixed_fp16: bool) -> None:
        self.mixed_fp16 = mixed_fp16
        self.seen: dict[str, torch.Tensor] = {}
        self.steps_of_zero_loss = self.skipped_steps = 0
        watched = {
            "encoder": [parameter for parameter in model.model.parameters() if parameter.requires_grad][-1:],
            "ColBERT head": model.colbert_linear and [model.colbert_linear.weight],
            "sparse head": model.sparse_linear and [model.sparse_linear.weight],
        }
        # One tensor of each: hooks see the gradient under DDP and DeepSpeed alike, which clear it before a callback.
        self.watched = {name: found[0] for name, found in watched.items() if found and found[0].requires_grad}
        self.dead_steps = dict.fromkeys(self.watched, 0)
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
        norm = float(gradient_norm) if gradient_norm is not None else 0.0
        bad = skipped or not math.isfinite(norm) or not all(map(math.isfinite, gradients))
        if bad and not self.mixed_fp16:
            raise KitError(
                f"step {step}: a gradient is not finite (NaN or infinite), with a loss of {loss:.4f}. {self._cures()}"
            )
        self.skipped_steps = self.skipped_steps + 1 if bad else 0
        # fp16 finds its scale by overflowing: more than PATIENCE halvings of it at the start are nothing unusual.
        if self.skipped_steps >= 3 * PATIENCE:
            raise KitError(
                f"step {step}: the gradients overflowed in {self.skipped_steps} steps on end, and none of these was "
                f"made. {self._cures()}"
            )
        self._check_zeros(step, loss, gradients, bad)

    def _check_zeros(self, step: int, loss: float, gradients: list[float], bad: bool) -> None:
        self.steps_of_zero_loss = self.steps_of_zero_loss + 1 if loss == 0 else 0
        if self.steps_of_zero_loss >= PATIENCE:
            raise KitError(
                f"step {step}: the loss was exactly 0 for {PATIENCE} steps on end, so there is nothing left to learn "
                "from these rows. Either the negatives are too easy (give harder ones, or a larger "
                "per_device_train_batch_size), or fp16 rounded everything away (precision=bf16 or fp32)"
            )
        for name, largest in zip(self.watched, gradients, strict=True):
            self.dead_steps[name] = self.dead_steps[name] + 1 if largest == 0 and not bad else 0
            if self.dead_steps[name] >= PATIENCE:
                why = (
                    " (it gives every token the weight 0, from which ReLU lets no gradient back)"
                    if "sparse" in name
                    else ""
                )
                raise KitError(
                    f"step {step}: the {name} has had no gradient for {PATIENCE} steps on end{why}, so it learns "
                    f"nothing. Train from another base model, or without it (unified_finetuning=False); "
                    f"or {SMALLER_RATE}"
                )

    def _cures(self) -> str:
        first = (
            "Likely cures: precision=bf16 (fp16 overflows where bf16 does not)" if self.mixed_fp16 else "Likely cures"
        )
        return f"{first}{'; or' if self.mixed_fp16 else ':'} {SMALLER_RATE}; look at the rows of the last steps"
