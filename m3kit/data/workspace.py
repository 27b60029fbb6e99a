"""A folder for what is not finished, beside where it will go; nothing of it stays, whatever ends the process."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def workspace(output_dir: Path) -> Iterator[Path]:
    """A new folder on the same disk as ``output_dir``. Those of processes that were killed are removed first."""
    parent = output_dir.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    _remove_left_behind(parent, output_dir.name)
    folder = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}.{os.getpid()}.", suffix=".tmp", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def _remove_left_behind(parent: Path, name: str) -> None:
    pattern = re.compile(rf"\.{re.escape(name)}\.(\d+)\..*\.tmp")
    for path in parent.iterdir():
        if (found := pattern.fullmatch(path.name)) and not _is_running(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # an earlier one of that number: this one has no folder yet
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
