"""A folder for what is not finished, beside where it will go; nothing of it stays, whatever ends the process."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRIES = 5


@contextmanager
def workspace(output_dir: Path) -> Iterator[Path]:
    """A new folder on the same disk as ``output_dir``. Those of processes that were killed are removed first."""
    parent = output_dir.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output_dir.name}."
    _remove_left_behind(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    for attempt in range(TRIES):
        with suppress(FileNotFoundError):
            # Moved, as that is done at once; the workspace is removed with it.
            old.rename(new.with_name(f"replaced-{attempt}"))
        try:
            new.rename(old)
            return
        except OSError as error:
            # Another process has put its own there meanwhile.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == TRIES - 1:
                raise


def _remove_left_behind(parent: Path, prefix: str) -> None:
    for folder in parent.iterdir():
        if folder.name.startswith(prefix) and folder.suffix == ".tmp":
            # Another process that is at work on it holds the lock. Its number would not do: containers share folders.
            with suppress(OSError):
                lock = _lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder for as long as this process lives. Raises ``OSError`` where another has."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
