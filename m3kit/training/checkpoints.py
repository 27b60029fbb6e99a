"""Checkpoints: whole under their own name, or not there. A folder ``OUTPUT/checkpoint-STEP`` each.

A checkpoint is written in a hidden folder (``scratch``), sealed with the size and hash of every file (``seal``), and
only then renamed (``put_in_place``). So a kill leaves none by halves; what a full disk, a power failure or a copy
damages afterwards is found by its seal. All of these are called by one process, while the others wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Set
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from xxhash import xxh3_64

SEAL = "checkpoint.json"
WEIGHTS = "model.safetensors"
ADAPTERS = "lora_adapters.safetensors"
NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
# Of what a checkpoint holds, what only going on needs; DeepSpeed's are the last three. Any other file is the model's.
NOT_THE_MODEL = (
    SEAL,
    ADAPTERS,
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    "global_step*",
    "latest",
    "zero_to_fp32.py",
)
# Hidden names that only a kill in the middle leaves; clear_scratch puts them right.
REPLACED, DELETED = ".replaced-", ".deleted-"
CHUNK = 1 << 24


class Broken(ValueError):
    """Why a checkpoint is not intact."""


def scratch(output_dir: Path) -> Path:
    """The folder, made where missing, in which a checkpoint is written: on the disk that it will be renamed on."""
    folder = output_dir / ".saving"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clear_scratch(output_dir: Path) -> None:
    """Put right what a killed process left: half a save, half a deletion, a checkpoint set aside for its successor."""
    for path in list(output_dir.glob(f"{REPLACED}*")):
        target = output_dir / path.name[len(REPLACED) :]
        if target.exists():
            _delete(path)
        else:
            os.rename(path, target)
    for path in [output_dir / ".saving", *output_dir.glob(f"{DELETED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write ``checkpoint.json``, by which ``flaw`` tells damage, when all else is there; and have all of it on disk.

    The step is that of the folder's name, ``checkpoint-STEP``.
    """
    step = int(folder.name.removeprefix("checkpoint-"))
    (folder / SEAL).unlink(missing_ok=True)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "xxh3_64": _hash(path)}
    (folder / SEAL).write_text(json.dumps({"step": step, "files": files}, indent=1) + "\n", encoding="utf-8")
    sync(folder / SEAL)
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


def put_in_place(folder: Path, output_dir: Path) -> Path:
    """Give a sealed folder its name ``checkpoint-STEP``, in the place of one that has it already.

    A kill leaves the old one or the new one (after ``clear_scratch``). Raises ``Broken`` for a folder without its seal.
    """
    target = output_dir / f"checkpoint-{_read_seal(folder)['step']}"
    replaced = target.with_name(f"{REPLACED}{target.name}")
    if target.exists():
        # A folder cannot be renamed over another that is not empty.
        os.rename(target, replaced)
    os.rename(folder, target)
    sync(output_dir)
    if replaced.exists():
        _delete(replaced)
    return target


def list_checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """All, intact or not, as (step, folder), the newest first."""
    found = ((NAME.fullmatch(path.name), path) for path in output_dir.glob("checkpoint-*") if path.is_dir())
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def flaw(folder: Path, thorough: bool = True) -> str | None:
    """Why a checkpoint is not intact, or None. Without ``thorough`` only sizes are compared, which takes no time."""
    name = SEAL
    try:
        sealed = _read_seal(folder)
        match = NAME.fullmatch(folder.name)
        if match and int(match[1]) != sealed["step"]:
            raise Broken(f"its {SEAL} is that of step {sealed['step']}")
        for name, entry in sealed["files"].items():
            _check_size(folder / name, name, entry["bytes"])
        for name, entry in sealed["files"].items() if thorough else ():
            if _hash(folder / name) != entry["xxh3_64"]:
                raise Broken(f"{name} does not hold what was written")
    except Broken as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None


def newest_intact(output_dir: Path, thorough: bool = True) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, and a sentence about each newer one that is not."""
    passed_over: list[str] = []
    for _, folder in list_checkpoints(output_dir):
        found = flaw(folder, thorough)
        if not found:
            return folder, passed_over
        passed_over.append(f"{folder.name} is passed over: {found}")
    return None, passed_over


def rotate(output_dir: Path, limit: int | None, keep: Set[int] = frozenset()) -> None:
    """Delete what is older than the ``limit`` newest intact checkpoints, except the steps of ``keep``.

    Broken ones do not count towards the limit, and are deleted when an intact one is newer. Without a limit, or a
    limit of 0, nothing is deleted; without an intact checkpoint nothing either.
    """
    if limit is None or limit <= 0:
        return
    found = list_checkpoints(output_dir)
    intact = [step for step, folder in found if not flaw(folder, thorough=False)]
    kept = {*intact[:limit], *keep}
    for step, folder in reversed(found):
        if intact and step < intact[0] and step not in kept:
            _delete(folder)


def publish(checkpoint: Path, output_dir: Path) -> None:
    """Copy a checkpoint's model into ``output_dir``, the weights last: no reader ever meets half a file.

    Copies, not links: who edits the model there must not change the checkpoint.
    """
    files = [path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()]
    names = [name for name in files if not any(fnmatch(name.parts[0], pattern) for pattern in NOT_THE_MODEL)]
    names.sort(key=lambda name: (name.as_posix() == WEIGHTS, name))
    copies = scratch(output_dir) / "model"
    shutil.rmtree(copies, ignore_errors=True)
    for name in names:
        (copies / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint / name, copies / name)
        shutil.copymode(checkpoint / name, copies / name)
        sync(copies / name)
    for name in names:
        (output_dir / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(copies / name, output_dir / name)
    # modules.json names a folder with nothing in it.
    for part in ("1_Pooling", "2_Normalize"):
        if (checkpoint / part).is_dir():
            (output_dir / part).mkdir(exist_ok=True)
    for folder in {(output_dir / name).parent for name in names}:
        sync(folder)
    shutil.rmtree(copies, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on disk, where a power failure does not lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems cannot do this for a folder; they do it by themselves, or nobody can.
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(path: Path) -> str:
    digest, buffer = xxh3_64(), memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _read_seal(folder: Path) -> dict[str, Any]:
    path = folder / SEAL
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Broken(f"{SEAL} is missing") from None
    try:
        sealed = json.loads(content)
        entries = sealed["files"].values()
        right = type(sealed["step"]) is int and all(
            type(entry["bytes"]) is int and isinstance(entry["xxh3_64"], str) for entry in entries
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        right = False
    if not right or not entries:
        raise Broken(f"{SEAL} is {'damaged' if content else 'empty'}")
    return sealed


def _check_size(path: Path, name: str, expected: int) -> None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    # A damaged seal may name anything.
    except ValueError:
        raise Broken(f"{SEAL} is damaged") from None
    if not status or not stat.S_ISREG(status.st_mode):
        raise Broken(f"{name} is missing")
    if status.st_size != expected:
        raise Broken(f"{name} is {status.st_size:,} bytes instead of {expected:,}")


def _delete(folder: Path) -> None:
    """Hide it first, so that a kill in the middle leaves no half checkpoint under its name."""
    # The time: a name that is free even where an earlier deletion could not be finished.
    grave = folder.with_name(f"{DELETED}{time.time_ns()}-{folder.name.lstrip('.')}")
    os.rename(folder, grave)
    if grave.is_symlink():
        grave.unlink()
    else:
        shutil.rmtree(grave, ignore_errors=True)
