"""Work on a folder: one process at a time, beside where it will go, and nothing half done stays."""

from __future__ import annotations

import fcntl
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from m3kit.progress import bar


@contextmanager
def alone_with(output_dir: Path) -> Iterator[None]:
    """Wait until no other process works on the folder, and keep others waiting."""
    path = output_dir.absolute().with_name(f".{output_dir.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is preparing {output_dir}; waiting for it", file=sys.stderr)
            with bar(None, "waiting", ""):
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


@contextmanager
def workspace(output_dir: Path) -> Iterator[Path]:
    """A new folder on the same disk as ``output_dir``, for who is alone with it."""
    parent, prefix = output_dir.absolute().parent, f".{output_dir.name}."
    for path in parent.iterdir():
        if path.name.startswith(prefix) and path.suffix == ".tmp":
            shutil.rmtree(path, ignore_errors=True)  # of a process that was killed
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder of a workspace in the place of an earlier one."""
    with suppress(FileNotFoundError):
        # Moved into the workspace, for that is done at once; removing a large folder takes a while.
        old.rename(new.with_name("replaced"))
    new.rename(old)
