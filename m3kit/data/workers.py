"""Run a function over many parts on all cores, results in the order of the parts."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from m3kit.errors import KitError

Part = TypeVar("Part")
Result = TypeVar("Result")

# Below this many bytes the start of processes costs more than it saves.
WORTH_PROCESSES = 8 * 1024 * 1024
# From malloc.h. The first: how much a process may keep for its next part; the second: blocks up to this size are kept
# at all, and glibc takes no larger number.
M_TRIM_THRESHOLD, KEPT_BYTES = -1, 256 * 1024 * 1024
M_MMAP_THRESHOLD, LARGEST_BLOCK = -3, 32 * 1024 * 1024


class Workers:
    """``map`` in other processes, or in this one where the data is small."""

    def __init__(self, pool: ProcessPoolExecutor | None, count: int):
        self._pool, self._count = pool, count

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """Results in order. Only a few parts are under way at once: memory does not grow with their number."""
        if self._pool is None:
            yield from map(function, parts)
            return
        waiting: deque = deque()
        try:
            for part in parts:
                waiting.append(self._pool.submit(function, part))
                if len(waiting) > 2 * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise KitError(
                "a process that reads the data was ended from outside, most likely for want of memory; "
                "free some, or prepare on a larger machine"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def workers(data_bytes: int) -> Iterator[Workers]:
    """All the cores this process may use, for data of that size."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count == 1 or data_bytes < WORTH_PROCESSES:
        yield Workers(None, 1)
        return
    # Not fork: a copy of a process with threads (a progress bar's, a library's) may hang.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start) as pool:
        yield Workers(pool, count)


def _start() -> None:
    """What each process does first."""
    # Ctrl-C reaches every process of the terminal; the one that gives out the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # glibc gives large blocks back to the system at once, and every part needs as many again: a fifth of all the time.
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
