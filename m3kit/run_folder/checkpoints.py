"""Checkpoints: whole under their own name, or not there. A folder ``OUTPUT/checkpoint-STEP`` each.

A checkpoint is written in the hidden folder ``OUTPUT/.saving``, sealed, and only then renamed, so a kill leaves none by
halves. All of this is called by one process, while the others wait.

The seal, ``checkpoint.json``, holds the size of every file and a digest of its first and last MiB. It tells a file that
is missing, cut off, longer, empty, of another step, or damaged at either end; files of up to 2 MiB are compared whole.
It does not tell damage in the middle of a larger file: weights and optimizer state, some 7 GB, are never read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from m3kit.errors import KitError

SEAL = "checkpoint.json"
SCRATCH = ".saving"
WEIGHTS = "model.safetensors"
ADAPTERS = "lora_adapters.safetensors"
NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
# Of what a checkpoint holds, what only going on needs; DeepSpeed's are the last three. Any other file is the model's.
NOT_THE_MODEL = [SEAL, ADAPTERS, "trainer_state.json", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth"]
NOT_THE_MODEL += ["global_step*", "latest", "zero_to_fp32.py"]
END = 1 << 20  # bytes
# What Python and safetensors say; and torch.save, on any failure to write: the reason is lost in its C++.
FULL = re.compile(r"No space left|Disk quota|os error (28|122)\b|PytorchStreamWriter|inline_container|basic_ios::clear")


def seal(folder: Path) -> None:
    """Write ``checkpoint.json`` into ``checkpoint-STEP`` when all else is there, and have all of it on disk."""
    step = int(folder.name.removeprefix("checkpoint-"))
    sealed = json.dumps({"step": step, "files": _contents(folder)}, indent=1)
    (folder / SEAL).write_text(f"{sealed}\n", encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def put_in_place(folder: Path, output_dir: Path) -> Path:
    """Move a sealed folder to ``output_dir``, over one of its name. After a kill one of the two is there, whole."""
    target = output_dir / folder.name
    if target.exists():
        # A folder cannot be renamed over another that is not empty.
        _set_aside(target)
    os.rename(folder, target)
    sync(output_dir)
    clear_scratch(output_dir)
    return target


def clear_scratch(output_dir: Path) -> None:
    """Delete what a killed process left by halves, and put back a whole checkpoint that it was about to replace."""
    for folder in (output_dir / SCRATCH).glob("aside/*"):
        if not (output_dir / folder.name).exists() and not flaw(folder):
            os.rename(folder, output_dir / folder.name)
    shutil.rmtree(output_dir / SCRATCH, ignore_errors=True)


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """All, intact or not, as (step, folder), the newest first."""
    found = ((NAME.fullmatch(path.name), path) for path in output_dir.glob("checkpoint-*") if path.is_dir())
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def flaw(folder: Path) -> str | None:
    """Why a checkpoint is not intact, or None."""
    try:
        content = (folder / SEAL).read_bytes()
        sealed, now = json.loads(content or "null"), _contents(folder)
        if folder.name != f"checkpoint-{sealed['step']}":
            return f"its {SEAL} is that of step {sealed['step']}"
        for name, entry in sealed["files"].items():
            if name not in now:
                return f"{name} is missing"
            if now[name]["bytes"] != entry["bytes"]:
                return f"{name} is {now[name]['bytes']:,} bytes instead of {entry['bytes']:,}"
            # Earlier versions of the kit kept a digest of the whole file: of these only the size is compared.
            if "xxh3_64" not in entry and now[name]["ends"] != entry["ends"]:
                return f"{name} does not hold what was written"
        return None if sealed["files"] else f"{SEAL} is damaged"
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except OSError as error:
        return f"{error.filename or 'a file of it'} cannot be read ({error.strerror})"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return f"{SEAL} is {'damaged' if content else 'empty'}"


def newest_intact(output_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, and a sentence about each newer one that is not."""
    passed_over: list[str] = []
    for _, folder in list_checkpoints(output_dir):
        found = flaw(folder)
        if not found:
            return folder, passed_over
        passed_over.append(f"{folder.name} is passed over: {found}")
    return None, passed_over


def rotate(output_dir: Path, limit: int | None, keep: Set[int] = frozenset()) -> None:
    """Delete what is older than the ``limit`` newest intact checkpoints, except the steps of ``keep``.

    Broken ones do not count, and are deleted when an intact one is newer. A limit of None or 0 deletes nothing.
    """
    found = list_checkpoints(output_dir)
    intact = [step for step, folder in found if not flaw(folder)] if limit and limit > 0 else []
    for step, folder in found:
        if intact and step < intact[0] and step not in {*intact[:limit], *keep}:
            _set_aside(folder)
    shutil.rmtree(output_dir / SCRATCH, ignore_errors=True)


def publish(checkpoint: Path, output_dir: Path) -> None:
    """Copy a checkpoint's model into ``output_dir``, the weights last: no reader ever meets half a file.

    Copies, not links: who edits the model there must not change the checkpoint. Raises ``KitError`` on a full disk.
    """
    copies, but = output_dir / SCRATCH / "model", shutil.ignore_patterns(*NOT_THE_MODEL)
    with full_disk_explained(output_dir, "the model", (checkpoint / WEIGHTS).stat().st_size):
        shutil.copytree(checkpoint, copies, ignore=but, copy_function=shutil.copy)
        names = sorted(path.relative_to(copies) for path in copies.rglob("*"))
        for name in names:
            sync(copies / name)
        for name in sorted(names, key=lambda name: name.as_posix() == WEIGHTS):
            if (copies / name).is_dir():
                (output_dir / name).mkdir(exist_ok=True)
            else:
                os.replace(copies / name, output_dir / name)
    for folder in {(output_dir / name).parent for name in names}:
        sync(folder)
    shutil.rmtree(output_dir / SCRATCH, ignore_errors=True)


@contextlib.contextmanager
def full_disk_explained(output_dir: Path, what: str, needed: int) -> Iterator[None]:
    """Write ``what``, of ``needed`` bytes, within this: ``KitError`` where the disk has no room for it.

    What has been written by then is removed, for it may be all that fills the disk.
    """
    if shutil.disk_usage(output_dir).free < needed:
        raise _no_room(output_dir, what, needed)
    try:
        yield
    except Exception as error:
        # Torch's second error hides the first: all that led to it are looked at.
        lines = [" ".join(line.split()) for line in traceback.format_exception(error, limit=0)]
        if not (says := next(filter(FULL.search, lines), None)):
            raise
        # Torch's failed writer, which the error's frames keep, holds its file open, deleted or not.
        for path in (output_dir / SCRATCH).glob("checkpoint-*/**/*"):
            with contextlib.suppress(OSError):
                os.truncate(path, 0)
        clear_scratch(output_dir)
        raise _no_room(output_dir, what, needed, f"; writing failed ({says})") from error


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on disk, where a power failure does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot do this for a folder; they do it by themselves, or nobody can.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _set_aside(folder: Path) -> None:
    """Out of sight before it is deleted, for a kill in the middle must not leave half of it."""
    aside = folder.parent / SCRATCH / "aside"
    aside.mkdir(parents=True, exist_ok=True)
    os.rename(folder, aside / folder.name)


def _contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each file but the seal: its size, and the digest of its first and last MiB."""
    contents = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL):
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(END)
            file.seek(max(END, size - END))
            digest = xxh3_64_hexdigest(first + file.read(END))
        contents[path.relative_to(folder).as_posix()] = {"bytes": size, "ends": digest}
    return contents


def _no_room(output_dir: Path, what: str, needed: int, failed: str = "") -> KitError:
    free, room = (
        f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
        for count in (shutil.disk_usage(output_dir).free, needed)
    )
    kept, limit = "no checkpoint has been saved yet", ""
    newest, _ = newest_intact(output_dir)
    if newest:
        kept = f"nothing of the run is lost up to its last checkpoint: {newest.name} stays"
        # With a single checkpoint there is none that a limit would delete.
        limit = " (or give --save_total_limit 1)" if len(list_checkpoints(output_dir)) > 1 else ""
    return KitError(
        f"the disk of {output_dir} has {free} free, and {what} needs {room}{failed}; "
        f"{kept}. Free space{limit}, then run the same command again"
    )
