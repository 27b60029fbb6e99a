"""What a training shows: the kit's own sentences and one line that moves; all that libraries say goes into the log.

    torchrun … -m m3kit.training … 2>&1 | python -m m3kit.screen OUTPUT_DIR/train.log

Lines that begin with SAY are shown; those that begin with STATUS (then STEP/STEPS, a space, a text) are one line that
moves where stderr is a terminal, and about ten lines elsewhere. All others are written to the log. M3KIT_DEBUG=1 shows
them too.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TextIO

SAY, STATUS = "\x1e", "\x1f"
# Set where the output goes through this module.
VARIABLE = "M3KIT_SCREEN"
# A warning of the kit's own, as `logging` writes it.
WARNING = re.compile(r".* - WARNING - m3kit[\w.]* -\s+(.*)")
# Of a run, so many lines where nothing moves.
LINES = 10


def say(text: str) -> None:
    """Show a sentence, of this process or through the screen."""
    mark = SAY if os.environ.get(VARIABLE) else ""
    print("".join(f"{mark}{line}\n" for line in text.splitlines()), end="", file=sys.stderr, flush=True)


class Screen:
    """``log`` is opened for each line, as the trainer may have put a new one there."""

    def __init__(self, log: Path, out: TextIO, debug: bool = False) -> None:
        self.log, self.out, self.debug = log, out, debug
        self.moves = out.isatty()
        self.status = ""
        self._shown = -1

    def show(self, line: str) -> None:
        text = line.rstrip("\n")
        if text.startswith(STATUS):
            self._move(text[1:])
        elif text.startswith(SAY):
            self._print(text[1:])
        else:
            if found := WARNING.fullmatch(text):
                self._print(f"warning: {found[1]}")
            elif self.debug:
                self._print(text)
            if text.strip():
                self._write(line)

    def close(self) -> None:
        if self.moves and self.status:
            print(file=self.out, flush=True)

    def _move(self, text: str) -> None:
        place, _, told = text.partition(" ")
        step, _, steps = place.partition("/")
        self.status = f"step {place}  {told}"
        if self.moves:
            width = os.get_terminal_size(self.out.fileno()).columns or 80
            print(f"\r{self.status[: width - 1]}\x1b[K", end="", file=self.out, flush=True)
        elif (tenth := LINES * int(step) // max(int(steps), 1)) != self._shown:
            self._shown = tenth
            print(self.status, file=self.out, flush=True)

    def _print(self, text: str) -> None:
        if self.moves and self.status:
            print(f"\r\x1b[K{text}\n{self.status}", end="", file=self.out, flush=True)
        else:
            print(text, file=self.out, flush=True)

    def _write(self, line: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line if line.endswith("\n") else line + "\n")


def main(log: str) -> None:
    # A signal is for the training, whose last words are to be shown.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    screen = Screen(Path(log), sys.stderr, bool(os.environ.get("M3KIT_DEBUG")))
    with open(sys.stdin.fileno(), encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            screen.show(line)
    screen.close()


if __name__ == "__main__":
    main(sys.argv[1])
