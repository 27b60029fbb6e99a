"""What a step did: counted where it happens, added up over the processes, told in one line."""

from __future__ import annotations

import resource
import statistics
import time
from collections import deque

import torch
import torch.distributed as dist

# The parts of M3's loss as the model names them, unweighted.
PARTS = ("dense", "sparse", "colbert", "ensemble", "self_distill")
# Of all processes together; after the parts, whose sums and counts come in the same vector.
COUNTS = ("micro_batches", "loss", "queries", "texts", "tokens", "positions")


class Meter:
    """Adds up over the micro-batches of a step; ``reduce`` shares it, ``figures`` are what one line of the log says."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.log_totals = dict.fromkeys((*COUNTS, *PARTS, *(f"{part}_count" for part in PARTS)), 0.0)
        self.queries = 0.0
        self.durations: deque[float] = deque(maxlen=50)
        self.waited = 0.0
        self._clear()
        self.mark()

    def _clear(self) -> None:
        self.step_totals = {name: torch.zeros((), device=self.device) for name in self.log_totals}

    def mark(self) -> None:
        """From here on time counts as the next step's: evaluating and saving are left out of the speed."""
        self.started = time.monotonic()

    def add(self, inputs: dict, loss: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """One micro-batch: FlagEmbedding's inputs, the loss and its parts (scalars). Nothing waits for the GPU."""
        totals = self.step_totals
        totals["micro_batches"] += 1
        totals["loss"] += loss.detach().float()
        for name, value in parts.items():
            totals[name] += value.detach().float()
            totals[f"{name}_count"] += 1
        for side in ("queries", "passages"):
            batches = inputs[side] if isinstance(inputs[side], list) else [inputs[side]]
            for mask in (batch["attention_mask"] for batch in batches):
                totals["texts"] += len(mask)
                totals["queries"] += len(mask) if side == "queries" else 0
                totals["tokens"] += mask.sum()
                totals["positions"] += mask.numel()

    def reduce(self, extra: list[torch.Tensor | float]) -> tuple[dict[str, float], list[float]]:
        """End of a step: its totals, and ``extra``, summed over all processes: one exchange for all."""
        values = [*self.step_totals.values(), *extra]
        vector = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(vector)
        summed = vector.tolist()
        step = dict(zip(self.step_totals, summed, strict=False))
        for name, value in step.items():
            self.log_totals[name] += value
        self.queries += step["queries"]
        duration = time.monotonic() - self.started
        self.durations.append(duration)
        self.waited += duration
        self._clear()
        return step, summed[len(step) :]

    def figures(self, steps_left: int) -> dict[str, float]:
        """What happened since the last call. Speeds per second, ``padding`` a share, ``memory_gb`` the peak so far."""
        totals, seconds = self.log_totals, max(self.waited, 1e-9)
        figures = {f"loss_{part}": totals[part] / totals[f"{part}_count"] for part in PARTS if totals[f"{part}_count"]}
        figures |= {
            "texts_per_second": totals["texts"] / seconds,
            "tokens_per_second": totals["tokens"] / seconds,
            "padding": 1 - totals["tokens"] / max(totals["positions"], 1),
            "memory_gb": _peak_memory() / 1e9,
            # The first steps are slower (warming up, compiling), and the median does not mind them.
            "seconds_left": statistics.median(self.durations or [0.0]) * steps_left,
        }
        self.log_totals = dict.fromkeys(totals, 0.0)
        self.waited = 0.0
        return figures

    def take_queries(self) -> int:
        """Queries trained on since the last call, by all processes: an epoch's, if called at its end."""
        queries, self.queries = self.queries, 0.0
        return round(queries)


def _peak_memory() -> int:
    """Bytes: of the GPU as PyTorch allotted it, or of this process where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def line(epoch: float, step: int, steps: int, figures: dict[str, float]) -> str:
    """A step in one line, for a reader; the same figures go to train_log.jsonl and TensorBoard."""
    parts = " ".join(f"{part} {figures[f'loss_{part}']:.4g}" for part in PARTS if f"loss_{part}" in figures)
    return (
        f"epoch {epoch:.2f}  step {step}/{steps}  loss {figures['loss']:.4f} ({parts})  "
        f"lr {figures['learning_rate']:.2e}  {figures['texts_per_second']:,.1f} texts/s  "
        f"{figures['tokens_per_second']:,.0f} tokens/s  padding {figures['padding']:.0%}  "
        f"memory {figures['memory_gb']:.1f} GB  left {time_left(figures)}"
    )


def time_left(figures: dict[str, float]) -> str:
    left = int(figures["seconds_left"])
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
