"""The log of a run: what each step did, in train.log, train_log.jsonl and TensorBoard's files, and on the screen."""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from m3kit.screen import STATUS, VARIABLE, say

# The parts of M3's loss as the model names them, unweighted.
PARTS = ("dense", "sparse", "colbert", "ensemble", "self_distill")
COUNTS = ("micro_batches", "loss", "queries", "texts", "tokens", "positions")
# What TensorBoard shows beside the loss, its parts and the held-out figures.
CURVES = "learning_rate grad_norm texts_per_second tokens_per_second padding memory_gb skipped_steps".split()


class Meter:
    """Adds up over the micro-batches of a step; ``reduce`` shares it, ``figures`` are what one line of the log says."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.step: Counter[str] = Counter()  # of this process; numbers, or scalars on the device
        self.since_log: Counter[str] = Counter()  # of all processes
        self.queries = 0.0
        self.durations: deque[float] = deque(maxlen=50)
        self.waited = 0.0
        self.mark()

    def mark(self) -> None:
        """From here on time counts as the next step's: evaluating and saving are left out of the speed."""
        self.started = time.monotonic()

    def add(self, inputs: dict, loss: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """One micro-batch: the trainer's inputs, the loss and its parts (scalars). Nothing waits for the GPU."""
        found: dict[str, Any] = {"micro_batches": 1, "loss": loss.detach()}
        for name, value in parts.items():
            found |= {name: value, f"{name}_count": 1}
        self.step.update(found)
        for side in ("queries", "passages"):
            for part in inputs[side]:
                mask = part["attention_mask"]
                queries = len(mask) if side == "queries" else 0
                self.step.update(texts=len(mask), queries=queries, tokens=mask.sum(), positions=mask.numel())

    def reduce(self, extra: list[torch.Tensor | float]) -> tuple[Counter[str], list[float]]:
        """End of a step: its totals, and ``extra``, summed over all processes: one exchange for all."""
        names = [*COUNTS, *PARTS, *(f"{part}_count" for part in PARTS)]
        values = [*(self.step[name] for name in names), *extra]
        # Numbers go to the device in one piece, beside what is there already.
        nothing = torch.zeros((), dtype=torch.float64, device=self.device)
        there = torch.stack([value.double() if isinstance(value, torch.Tensor) else nothing for value in values])
        numbers = [0.0 if isinstance(value, torch.Tensor) else value for value in values]
        vector = there + torch.tensor(numbers, dtype=torch.float64).to(self.device)
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(vector)
        summed = vector.tolist()
        step = Counter(dict(zip(names, summed, strict=False)))
        self.since_log.update(step)
        self.queries += step["queries"]
        self.durations.append(time.monotonic() - self.started)
        self.waited += self.durations[-1]
        self.step = Counter()
        return step, summed[len(names) :]

    def figures(self, steps_left: int) -> dict[str, float]:
        """What happened since the last call. Speeds per second, ``padding`` a share, ``memory_gb`` the peak so far."""
        totals, seconds = self.since_log, max(self.waited, 1e-9)
        figures = {f"loss_{part}": totals[part] / totals[f"{part}_count"] for part in PARTS if totals[f"{part}_count"]}
        figures |= {
            "texts_per_second": totals["texts"] / seconds,
            "tokens_per_second": totals["tokens"] / seconds,
            "padding": 1 - totals["tokens"] / max(totals["positions"], 1),
            "memory_gb": _peak_memory() / 1e9,
            # The first steps are slower (warming up, compiling), and the median does not mind them.
            "seconds_left": statistics.median(self.durations or [0.0]) * steps_left,
        }
        self.since_log, self.waited = Counter(), 0.0
        return figures

    def take_queries(self) -> int:
        """Queries trained on since the last call, by all processes: an epoch's, if called at its end."""
        queries, self.queries = self.queries, 0.0
        return round(queries)


class TrainLog:
    """Of the first process only; ``has_curves``: TensorBoard is asked for."""

    def __init__(self, output_dir: Path, has_curves: bool) -> None:
        self.text, self.rows, self._has_curves = output_dir / "train.log", output_dir / "train_log.jsonl", has_curves
        self._curves: Any = None
        # The figure by which checkpoints are chosen, and what it was before training.
        self.headline = ""
        self.before: float | None = None

    def begin(self, step: int) -> None:
        """What is here of later steps is dropped, for it comes again; of 0 what was measured before the first too."""
        if self._has_curves:
            from torch.utils.tensorboard import SummaryWriter

            self._curves = SummaryWriter(str(self.rows.with_name("runs")), purge_step=step + 1 if step else 0)
        if self.rows.exists():
            rows = self.rows.read_text("utf-8").splitlines(keepends=True) if step else []
            kept = [row for row in rows if _step(row) <= step]
            temporary = self.rows.with_suffix(".tmp")
            temporary.write_text("".join(kept), "utf-8")
            os.replace(temporary, self.rows)

    def add(self, state, figures: dict[str, float]) -> None:
        """What the trainer logs: a step's figures, an evaluation's, or those of the whole training."""
        row = {"step": state.global_step, **{name: value for name, value in figures.items() if value is not None}}
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._draw(row)
        if "loss" in figures:
            text = _line(state, figures)
            self._write(text)
            if os.environ.get(VARIABLE):
                self._show_status(state, figures)
            else:
                print(text, file=sys.stderr, flush=True)
        elif "eval_seconds" in figures:
            shown = "  ".join(
                f"{name.removeprefix('eval_').replace('_', ' ')} {value:.3f}"
                for name, value in figures.items()
                if name.startswith("eval_") and name != "eval_seconds"
            )
            self.before = figures.get(f"eval_{self.headline}") if self.before is None else self.before
            self.tell(f"evaluation after step {state.global_step}: {shown}  ({figures['eval_seconds']:.0f} s)")

    def say(self, text: str) -> None:
        """For the reader and the log."""
        say(text)
        self._write(text)

    def tell(self, text: str) -> None:
        """For the log; and for the reader where no status line says it."""
        if not os.environ.get(VARIABLE):
            say(text)
        self._write(text)

    def _show_status(self, state, figures: dict[str, float]) -> None:
        """One line that the next takes the place of: step, loss, the held-out figure before → the best, time left."""
        parts = [f"{state.global_step}/{state.max_steps} loss {figures['loss']:.4f}"]
        if self.before is not None:
            change = f" → {state.best_metric:.3f} (best)" if state.best_metric is not None else ""
            parts.append(f"{self.headline.replace('_', ' ')} {self.before:.3f}{change}")
        print(STATUS + "  ".join([*parts, f"left {_time_left(figures)}"]), file=sys.stderr, flush=True)

    def _draw(self, row: dict[str, float]) -> None:
        if not self._curves:
            return
        for name, value in row.items():
            if name in CURVES or name.startswith("loss"):
                self._curves.add_scalar(f"train/{name}", value, row["step"])
            elif name.startswith("eval_") and name != "eval_seconds":
                self._curves.add_scalar(f"eval/{name.removeprefix('eval_')}", value, row["step"])
        self._curves.flush()

    def _write(self, text: str) -> None:
        with self.text.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def tell_best(figure: str, before: float, after: float, step: int, state) -> str:
    """In a sentence: which step was the best, and whether training helped."""
    told = f"The best of all checkpoints is that of step {step} of {state.max_steps}: {figure} {after:.3f}, "
    if f"{after:.3f}" == f"{before:.3f}":
        return told + "as before training: it has not helped."
    if after > before:
        return told + f"and {before:.3f} before training."
    return told + f"WORSE than the {before:.3f} before training. Keep the base model; README says what to try."


def _peak_memory() -> int:
    """Bytes: of the GPU as PyTorch allotted it, or of this process where there is none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _line(state, figures: dict[str, float]) -> str:
    """A step in one line, for a reader; the same figures go to train_log.jsonl and TensorBoard."""
    parts = " ".join(f"{part} {figures[f'loss_{part}']:.4g}" for part in PARTS if f"loss_{part}" in figures)
    skipped = "  SKIPPED: the gradients overflowed in fp16" if figures.get("skipped_steps") else ""
    return (
        f"epoch {state.epoch:.2f}  step {state.global_step}/{state.max_steps}  loss {figures['loss']:.4f} ({parts})  "
        f"lr {figures['learning_rate']:.2e}  {figures['texts_per_second']:,.1f} texts/s  "
        f"{figures['tokens_per_second']:,.0f} tokens/s  padding {figures['padding']:.0%}  "
        f"memory {figures['memory_gb']:.1f} GB  left {_time_left(figures)}{skipped}"
    )


def _time_left(figures: dict[str, float]) -> str:
    left = int(figures["seconds_left"])
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


def _step(row: str) -> int:
    """The step of a line of train_log.jsonl; of half a line, which a kill may leave, one that is never kept."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError):
        return sys.maxsize
