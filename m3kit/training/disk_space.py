"""A full disk: noticed before a checkpoint is written where it can be, and explained where it could not."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError

from m3kit.errors import KitError
from m3kit.training.checkpoints import clear_scratch, list_checkpoints, newest_intact, scratch

FULL = (errno.ENOSPC, errno.EDQUOT)
# What safetensors and torch.save's older format say; both hide the OSError.
SAYS_FULL = ("No space left on device", "Disk quota exceeded", "os error 28", "os error 122")
# What torch.save says on a full disk, and on any other failure to write: the reason itself is lost in its C++.
FAILED_TO_WRITE = ("PytorchStreamWriter", "inline_container.cc", "basic_ios::clear")


def check_space(output_dir: Path, needed: int) -> None:
    """Raise ``KitError`` when the disk of ``output_dir`` has fewer than ``needed`` bytes free for a checkpoint."""
    if _free(output_dir) < needed:
        raise KitError(_explain(output_dir, needed))


def explain_failed_save(error: BaseException, output_dir: Path, needed: int) -> KitError | None:
    """What to tell about an exception raised while saving, or None when it has nothing to do with the disk's room.

    What the failed save has written is removed, for it may be all that fills the disk.
    """
    says = _full_disk(error)
    if says is None:
        return None
    _empty(scratch(output_dir))
    clear_scratch(output_dir)
    if _free(output_dir) < needed:
        return KitError(_explain(output_dir, needed))
    return KitError(
        f"writing a checkpoint of {output_dir} failed ({says}), though its disk has {_size(_free(output_dir))} free "
        f"now: something else may have filled it meanwhile, or a quota limits you; {_what_to_do(output_dir)}"
    )


def _empty(folder: Path) -> None:
    """Free the room now: torch's failed writer, which the error's frames keep, holds its file open, deleted or not."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            os.truncate(path, 0)


def _full_disk(error: BaseException | None) -> str | None:
    """Torch's second error hides the first: all that led to it are looked at. Returns what tells of a full disk."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        says = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno in FULL:
            return error.strerror or says
        if isinstance(error, (OSError, RuntimeError, SafetensorError)) and any(word in says for word in SAYS_FULL):
            return says
        if isinstance(error, RuntimeError) and any(word in says for word in FAILED_TO_WRITE):
            return says
        error = error.__cause__ or error.__context__
    return None


def _explain(output_dir: Path, needed: int) -> str:
    return (
        f"the disk of {output_dir} has {_size(_free(output_dir))} free, and a checkpoint needs {_size(needed)}; "
        f"{_what_to_do(output_dir)}"
    )


def _what_to_do(output_dir: Path) -> str:
    newest, _ = newest_intact(output_dir, thorough=False)
    if newest is None:
        return "no checkpoint has been saved yet. Free space, then run the same command again"
    # With a single checkpoint there is none that a limit would delete.
    limit = " (or give --save_total_limit 1)" if len(list_checkpoints(output_dir)) > 1 else ""
    return (
        f"nothing of the run is lost up to its last checkpoint: {newest.name} stays. "
        f"Free space{limit}, then run the same command again"
    )


def _free(output_dir: Path) -> int:
    return shutil.disk_usage(output_dir).free


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
