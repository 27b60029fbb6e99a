"""A terminal in place of stderr."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Of 0 × 0, as in a container. Yields a function that gives what was shown since it was called last."""
    leader, follower = pty.openpty()
    stream, before = os.fdopen(follower, "w", encoding="utf-8"), sys.stderr
    pieces: list[bytes] = []

    def read() -> None:
        # All the time: a terminal holds little, and who writes more must wait.
        with contextlib.suppress(OSError):
            while piece := os.read(leader, 1 << 16):
                pieces.append(piece)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def shown() -> str:
        stream.flush()
        time.sleep(0.1)
        found = b"".join(pieces)
        pieces.clear()
        return found.decode("utf-8", "replace")

    sys.stderr = stream
    try:
        yield shown
    finally:
        sys.stderr = before
        stream.close()
        reader.join(10)
        os.close(leader)
