"""A signal asks for the end: the step is finished, a checkpoint saved, and only then the process goes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from m3kit.screen import say

# What `docker stop`, Ctrl-C and a lost terminal send; torchrun passes each on to every process.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """The run was asked to end; ``exit_code`` is what a shell expects of a process that a signal ended.

    No ``Exception``: libraries that catch those to go on must not swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopRequest:
    """Holds the signal that comes. Outside of training it ends the process at once, for there is nothing to save.

    transformers' own `enable_jit_checkpoint` has each process decide alone, and waits three seconds first: two
    processes then save after different steps, or wait for each other for ever.
    """

    def __init__(self) -> None:
        self.number = 0
        self.patient = False
        # What a step takes at most.
        self.seconds = 0.0
        for number in SIGNALS:
            signal.signal(number, self._note)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block at once, in training too; afterwards ``number`` says that one came."""
        patient, self.patient = self.patient, False
        try:
            yield
        except Stopped:
            if not patient:
                raise
        finally:
            self.patient = patient

    def _note(self, number: int, frame) -> None:
        # torchrun sends a second one; it changes nothing.
        first, self.number = not self.number, self.number or number
        if not self.patient:
            raise Stopped(self.number)
        if first and os.environ.get("RANK", "0") == "0":
            longest = f", up to {self.seconds:.0f} s" if self.seconds else ""
            with contextlib.suppress(RuntimeError):  # it came while something was being printed
                say(f"stopping after this step{longest}, with a checkpoint; Ctrl-C once more ends without saving")


def ignore_signals(*_) -> None:
    """For processes that make batches: a signal to the whole group must not end them before the step is done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
