"""What is told on stderr: talk, and how long things take, as a bar where it is a terminal; and CPU time."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

# Seconds: what is done sooner shows no bar; what is shown moves this often.
DELAY = 2.0
EVERY = 0.5
# Characters for what is being done.
WIDEST = 30
TIME_ALONE = "{desc} … {elapsed}"
_quiet = False


class Bar(tqdm):
    # The thread below does what tqdm's own would do.
    monitor_interval = 0
    total: float | None

    def __init__(self, *args, **settings):
        self._ended, self._mover = threading.Event(), None
        super().__init__(*args, **settings)
        if not self.disable:
            self._mover = threading.Thread(target=self._move, daemon=True)
            self._mover.start()

    @property
    def format_dict(self) -> dict[str, Any]:
        told = super().format_dict
        elapsed, unit = told["elapsed"], self.unit
        if self.total == 0:
            told["bar_format"] = TIME_ALONE  # not known yet
        if not self.n or not elapsed:
            told["speed"] = "?"
        elif unit == "B":
            told["speed"] = f"{self.format_sizeof(self.n / elapsed, divisor=1024)}B/s"
        elif self.n < elapsed:
            told["speed"] = f"{elapsed / self.n:.1f} s each"
        else:
            told["speed"] = f"{self.n / elapsed:,.{0 if self.n > 10 * elapsed else 1}f} {unit}/s"
        return told

    def say(self, title: str) -> None:
        """What is being done now."""
        # Not shown at once: that is the thread's.
        self.set_description_str(_cut(title), refresh=False)

    def close(self) -> None:
        """Before anything is printed where the bar stands."""
        self._ended.set()
        if self._mover is not None:
            self._mover.join()
        super().close()

    def _move(self) -> None:
        pause = DELAY
        while not self._ended.wait(pause):
            if self.total and self.n > self.total:
                self.total = self.n  # more came than was thought
            # Else tqdm takes it for never shown, and leaves it standing at the end.
            self.last_print_t = self._time()
            self.refresh()
            pause = EVERY


def bar(total: float | None, title: str, unit: str) -> Bar:
    """A bar, for ``with``, to ``update(n)`` as so many are done; it goes away at the end.

    ``unit`` is a word for several ("rows"), or "B" for bytes. Without a ``total`` what is counted stands there with the
    time, without a unit ("") the time alone; that too while the total is 0, which ``total`` may be set from later. It
    moves by itself, so that one long call may stand within.
    """
    done, every = ("{n_fmt}", "{total_fmt}") if unit == "B" else ("{n:,.0f}", "{total:,.0f}")
    counted = f" {unit}" if unit != "B" else unit
    if total is not None:
        shown = f"{{desc}}: {{percentage:3.0f}}% |{{bar}}| {done}/{every}{counted} "
        shown += "[{elapsed}<{remaining}, {speed}]"
    else:
        shown = f"{{desc}}: {done}{counted} [{{elapsed}}, {{speed}}]" if unit else TIME_ALONE
    columns, lines = _size()
    return Bar(
        desc=_cut(title),
        bar_format=shown,
        total=total,
        unit=unit,
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
    )


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


def say(text: str) -> None:
    """Talk on stderr, but for ``quiet`` ones."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Nothing that is only talk is shown within; bars are."""
    global _quiet
    before, _quiet = _quiet, wanted
    try:
        yield
    finally:
        _quiet = before


def cpu_seconds() -> float:
    """User and system time of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
