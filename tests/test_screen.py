"""What a training shows: the kit's sentences and one line that moves; what libraries say is in the log."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parents[1]
LINES = (
    "Loading weights: 100%\n"
    "11/26/2026 21:00:00 - INFO - m3kit.training.runner -   Precision: fp32\n"
    "11/26/2026 21:00:00 - WARNING - m3kit.batches.dataset -   graded pairs: batches of 16\n"
    "11/26/2026 21:00:00 - WARNING - other.library -   deprecated\n"
    + "".join(f"\x1f{step}/200 loss {step}\n" for step in range(1, 201))
    + "\x1eThe best checkpoint is that of step 150.\n"
)


def show(log: Path, environment: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "m3kit.screen", str(log)]
    surroundings = {**os.environ, "PYTHONPATH": str(KIT), **(environment or {})}
    return subprocess.run(command, input=LINES, text=True, env=surroundings, check=True, **kwargs)


def test_a_pipe_gets_about_ten_lines_of_the_steps(tmp_path):
    told = show(tmp_path / "train.log", capture_output=True).stderr.splitlines()
    assert told[0] == "warning: graded pairs: batches of 16"
    assert told[-1] == "The best checkpoint is that of step 150."
    steps = told[1:-1]
    assert 9 <= len(steps) <= 12 and steps[0] == "step 1/200  loss 1" and steps[-1] == "step 200/200  loss 200"


def test_what_libraries_say_is_in_the_log_and_nothing_else_of_it_on_the_screen(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("from before\n")
    told = show(log, capture_output=True).stderr
    assert "Loading" not in told and "deprecated" not in told and "Precision" not in told
    kept = log.read_text("utf-8")
    assert kept.startswith("from before\nLoading weights") and "deprecated" in kept and "Precision: fp32" in kept
    assert "Loading weights" in show(log, {"M3KIT_DEBUG": "1"}, capture_output=True).stderr


def test_a_terminal_has_one_line_that_moves(tmp_path):
    terminal, end = pty.openpty()
    show(tmp_path / "train.log", stderr=end)
    os.close(end)
    seen = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    shown = seen.decode()
    assert shown.count("\n") == 3  # the warning, the sentence, and the end of the line that moves
    assert "\rstep 200/200  loss 200\x1b[K" in shown
