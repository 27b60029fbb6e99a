"""The progress bar of everything that takes long: on stderr, where that is a terminal, and after two seconds only."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

# Seconds: what is done sooner shows no bar; what is shown moves this often.
DELAY = 2.0
EVERY = 0.5
# Characters for what is being done.
WIDEST = 30


class Bar(tqdm):
    # The thread below does what tqdm's own would do.
    monitor_interval = 0

    def say(self, title: str) -> None:
        """What is being done now."""
        # Not shown at once: that is the thread's.
        self.set_description_str(_cut(title), refresh=False)

    def _show(self) -> None:
        if self.total and self.n > self.total:
            self.total = self.n  # more came than was thought
        # Else tqdm takes it for never shown, and leaves it standing at the end.
        self.last_print_t = self._time()
        self.refresh()


@contextmanager
def bar(total: float | None, title: str, unit: str) -> Iterator[Bar]:
    """A bar to ``update(n)`` as so many are done; it goes away at the end.

    ``unit`` is a word for several ("rows"), or "B" for bytes. Without a ``total`` what is counted stands there with the
    time, without a unit ("") the time alone. It moves by itself, so that one long call may stand within.
    """
    if unit == "B":
        counts = "{n_fmt}/{total_fmt}B" if total is not None else "{n_fmt}B"
    else:
        counts = f"{{n:,.0f}}/{{total:,.0f}} {unit}" if total is not None else f"{{n:,.0f}} {unit}"
    if total is not None:
        shown = "{desc}: {percentage:3.0f}% |{bar}| " + counts + " [{elapsed}<{remaining}, {rate_fmt}]"
    else:
        shown = "{desc}: " + counts + " [{elapsed}, {rate_fmt}]" if unit else "{desc} … {elapsed}"
    columns, lines = _size()
    with Bar(
        desc=_cut(title),
        bar_format=shown,
        total=total,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        unit_divisor=1024,
        ncols=columns,
        nrows=lines,
        disable=None,
        file=sys.stderr,
        leave=False,
        delay=DELAY,
        miniters=float("inf"),  # the thread shows it
        smoothing=0,
    ) as made:
        if made.disable:
            yield made
            return
        ended = threading.Event()
        mover = threading.Thread(target=_move, args=(made, ended), daemon=True)
        mover.start()
        try:
            yield made
        finally:
            ended.set()
            mover.join()


def _move(made: Bar, ended: threading.Event) -> None:
    pause = DELAY
    while not ended.wait(pause) and not made.disable:
        made._show()
        pause = EVERY


def _cut(title: str) -> str:
    return title if len(title) <= WIDEST else title[: WIDEST - 1] + "…"


def _size() -> tuple[int, int]:
    """Of the terminal on stderr: results on stdout may go elsewhere."""
    try:
        columns, lines = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        columns, lines = 0, 0
    # tqdm takes a size of 0 × 0, which a terminal in a container may have, to the letter, and shows nothing.
    return columns or 80, lines or 24
