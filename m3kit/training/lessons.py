"""Steps that teach nothing: the dense loss is near 0, so the gradient is too, however long training goes on.

With batches of 2 that is most of all steps: the one other passage is rarely close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# At temperature 0.02 a loss of 0.01 is a positive that leads by 0.09 in cosine.
NEAR_ZERO = 0.01
# It is told after so many steps, and once more at the end.
FIRST = 100
# Queries in a step that are enough for one another's negatives.
LARGE = 32


def count_empty(history: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """(logged steps, those with a dense loss near 0) of a trainer's ``log_history``, which a resumed run keeps."""
    losses = [entry["loss_dense"] for entry in history if "loss_dense" in entry]
    return len(losses), sum(loss < NEAR_ZERO for loss in losses)


def tell_empty(history: Sequence[dict[str, Any]], batch_size: int) -> str | None:
    """A sentence with the cure where most steps teach nothing, or None. ``batch_size``: of all processes together."""
    steps, empty = count_empty(history)
    if 2 * empty <= steps:
        return None
    cures = "fewer epochs, or harder negatives (python -m m3kit mine --help)"
    if batch_size < LARGE:
        cures = f"recipe=best, or larger batches (per_device_train_batch_size; now {batch_size} queries a step)"
    return f"In {empty} of {steps} steps the dense loss was below {NEAR_ZERO}: they taught nothing. Try {cures}."
