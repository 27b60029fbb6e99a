"""A terminal in place of stderr."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Of 0 × 0, as in a container. Yields a function that gives what was shown since it was called last."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    stream, before = os.fdopen(follower, "w", encoding="utf-8"), sys.stderr

    def shown() -> str:
        stream.flush()
        pieces = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(leader, 1 << 16):
                pieces.append(piece)
        return b"".join(pieces).decode("utf-8")

    sys.stderr = stream
    try:
        yield shown
    finally:
        sys.stderr = before
        stream.close()
        os.close(leader)
