"""The log of a run: a line a step in train.log, the same for programs in train_log.jsonl, and what the screen shows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from m3kit.screen import STATUS, VARIABLE, say
from m3kit.training.meter import line, time_left


class TrainLog:
    """Of the first process only. What is here of later steps than a run goes on from is dropped: they come again."""

    def __init__(self, output_dir: Path) -> None:
        self.text, self.rows = output_dir / "train.log", output_dir / "train_log.jsonl"
        # The figure by which checkpoints are chosen, and what it was before training and is now.
        self.headline = ""
        self.before: float | None = None
        self._now: float | None = None

    def go_on_from(self, step: int) -> None:
        self.say(f"Going on from step {step}.")
        if self.rows.exists():
            kept = [row for row in self.rows.read_text("utf-8").splitlines(keepends=True) if _step(row) <= step]
            temporary = self.rows.with_suffix(".tmp")
            temporary.write_text("".join(kept), "utf-8")
            os.replace(temporary, self.rows)

    def add(self, state, figures: dict[str, float]) -> None:
        """What the trainer logs: a step's figures, an evaluation's, or those of the whole training."""
        row = {"step": state.global_step, **{name: value for name, value in figures.items() if value is not None}}
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if "loss" in figures:
            text = line(state.epoch, state.global_step, state.max_steps, figures)
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
            self._now = figures.get(f"eval_{self.headline}")
            self.before = self._now if self.before is None else self.before
            self._tell(f"evaluation after step {state.global_step}: {shown}  ({figures['eval_seconds']:.0f} s)")

    def end_epoch(self, state, queries: int) -> None:
        self._tell(f"epoch {round(state.epoch)} is over: {queries:,} rows trained")

    def say(self, text: str) -> None:
        """For the reader and the log."""
        say(text)
        self._write(text)

    def _tell(self, text: str) -> None:
        """For the log; and for the reader where no status line says it."""
        if not os.environ.get(VARIABLE):
            say(text)
        self._write(text)

    def _show_status(self, state, figures: dict[str, float]) -> None:
        """One line that the next takes the place of: step, loss, the held-out figure before → now, time left."""
        parts = [f"{state.global_step}/{state.max_steps} loss {figures['loss']:.4f}"]
        if self.before is not None:
            change = f" → {self._now:.3f}" if self._now not in (None, self.before) else ""
            parts.append(f"{self.headline.replace('_', ' ')} {self.before:.3f}{change}")
        print(STATUS + "  ".join([*parts, f"left {time_left(figures)}"]), file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        with self.text.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _step(row: str) -> int:
    """The step of a line of train_log.jsonl; of half a line, which a kill may leave, one that is never kept."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError):
        return sys.maxsize
