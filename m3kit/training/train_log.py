"""The log of a run: a line a step on the terminal and in train.log, the same for programs in train_log.jsonl."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from m3kit.training.meter import line


class TrainLog:
    """Of the first process only. What is here of later steps than a run goes on from is dropped: they come again."""

    def __init__(self, output_dir: Path) -> None:
        self.text, self.rows = output_dir / "train.log", output_dir / "train_log.jsonl"

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
            self.say(line(state.epoch, state.global_step, state.max_steps, figures))
        elif "eval_seconds" in figures:
            shown = "  ".join(
                f"{name.removeprefix('eval_').replace('_', ' ')} {value:.3f}"
                for name, value in figures.items()
                if name.startswith("eval_") and name != "eval_seconds"
            )
            self.say(f"evaluation after step {state.global_step}: {shown}  ({figures['eval_seconds']:.0f} s)")

    def end_epoch(self, state, queries: int) -> None:
        self.say(f"epoch {round(state.epoch)} is over: {queries:,} rows trained")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        with self.text.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _step(row: str) -> int:
    """The step of a line of train_log.jsonl; of half a line, which a kill may leave, one that is never kept."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError):
        return sys.maxsize
