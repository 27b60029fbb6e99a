"""``run.json``: what was run, with what, on what, and how it ended; and the claim to a folder that may hold a run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import torch

from m3kit.errors import KitError
from m3kit.training.checkpoints import clear_scratch, list_checkpoints, sync

logger = logging.getLogger(__name__)

PACKAGES = ("FlagEmbedding", "torch", "transformers", "accelerate", "datasets", "deepspeed", "sentence-transformers")
RECORD = "run.json"
LOCK = ".run.lock"
STATES = ("running", "stopped", "finished")
# What a run leaves beside its checkpoints: deleted when it is to be overwritten; nothing else ever is. The record is
# the last, so that a kill in the middle leaves a folder that is still known.
LEFT_BY_A_RUN = (
    "model.safetensors",
    "colbert_linear.pt",
    "sparse_linear.pt",
    "metrics.json",
    "hybrid.json",
    "report.html",
    "plots",
    "runs",
    "train_log.jsonl",
    "train.log",
    RECORD,
)
OVERWRITE = "give --overwrite_output_dir True to delete that run and train anew"
# Kept open for the life of the process, for the lock goes with it: by the folder's real path.
_locks: dict[Path, int] = {}


def claim_output_dir(output_dir: Path, overwrite: bool) -> Literal["new", "resume"]:
    """Lock the folder for this process, and say whether it is new, or holds a run to go on with (S3).

    With ``overwrite`` a run that it holds is deleted. Raises ``KitError`` for a folder that another process is
    training in, that cannot be written in, or that holds a run that is finished or not the kit's.
    """
    _lock(output_dir)
    clear_scratch(output_dir)
    if overwrite:
        _clear(output_dir)
        return "new"
    record = read_record(output_dir)
    if record is None:
        held = [folder.name for _, folder in list_checkpoints(output_dir)]
        held += ["model.safetensors"] if (output_dir / "model.safetensors").exists() else []
        if held:
            raise KitError(
                f"{output_dir} holds {held[0]} but no {RECORD}: it is not from this kit, or its {RECORD} was deleted, "
                f"and nobody knows how to go on with it; choose another --output_dir, or {OVERWRITE}"
            )
        return "new"
    if record["status"] == "finished":
        raise KitError(
            f"{output_dir} already holds a finished training run; choose another --output_dir, or {OVERWRITE}"
        )
    return "resume"


def read_record(output_dir: Path) -> dict[str, Any] | None:
    """What ``run.json`` holds, or None where there is none. Raises ``KitError`` when it is not a run's record."""
    path = output_dir / RECORD
    try:
        record = json.loads(path.read_bytes())
        kinds = {"settings": dict, "data": list, "world_size": int}
        right = record["status"] in STATES and all(isinstance(record[name], kind) for name, kind in kinds.items())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        right = False
    except OSError as error:
        raise KitError(
            f"{path} cannot be read ({error.strerror}); make it readable, or choose another --output_dir"
        ) from error
    if not right:
        raise KitError(
            f"{path} is damaged, or not of a run of this kit, so nobody knows how to go on with that run; put a good "
            f"copy of it back, choose another --output_dir, or {OVERWRITE}"
        )
    return record


class RunRecord:
    """Kept up to date from the start of training to its end; a kill leaves it as it was last."""

    def __init__(self, output_dir: Path, settings: dict[str, Any], data: list[dict[str, Any]], world_size: int):
        self._path = output_dir / RECORD
        self._started = time.time()
        self._seconds_before = 0.0
        self._record: dict[str, Any] = {
            "status": "running",
            "started": _now(),
            **_machine(),
            "world_size": world_size,
            "data": data,
            "settings": plain(settings),
        }
        self._write()

    @classmethod
    def resume(
        cls,
        output_dir: Path,
        settings: dict[str, Any],
        data: list[dict[str, Any]],
        world_size: int,
        from_step: int,
        changed: Sequence[str] = (),
    ) -> RunRecord:
        """Go on with the record that the folder holds: settings as they are now, and what is other than before told.

        ``changed`` is what ``differences`` found harmless; other versions of packages and another device are added.
        """
        record = cls.__new__(cls)
        record._path = output_dir / RECORD
        record._started = time.time()
        earlier = read_record(output_dir) or {}
        record._seconds_before = earlier.get("seconds", 0.0)
        earlier.pop("reason", None)
        changes = [*changed, *_other_machine(earlier)]
        record._record = earlier | {
            "status": "running",
            **_machine(),
            "world_size": world_size,
            "data": data,
            "settings": {**earlier.get("settings", {}), **plain(settings)},
            "resumed": [*earlier.get("resumed", []), {"at": _now(), "from_step": from_step, "changed": changes}],
        }
        record._write()
        return record

    @property
    def entries(self) -> dict[str, Any]:
        return self._record

    def update(self, **entries: Any) -> None:
        """Keep further entries: what the run found out about itself."""
        self._record |= {"seconds": self._seconds(), **entries}
        self._write()

    def stop(self, reason: str) -> None:
        """The run has ended before its end. A full disk must not hide the reason: a failure here is only a warning."""
        self._record |= {"status": "stopped", "reason": reason, "seconds": self._seconds()}
        try:
            self._write()
        except OSError as error:
            logger.warning("%s could not be brought up to date (%s)", self._path, error.strerror)

    def finish(self, steps: int, train_loss: float) -> None:
        entries = {"status": "finished", "seconds": self._seconds(), "steps": steps, "train_loss": train_loss}
        self._record |= entries
        self._write()

    def _seconds(self) -> float:
        return round(self._seconds_before + time.time() - self._started, 1)

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{RECORD}.tmp")
        try:
            temporary.write_text(json.dumps(plain(self._record), ensure_ascii=False, indent=2) + "\n", "utf-8")
            sync(temporary)
            os.replace(temporary, self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync(self._path.parent)


def plain(value: Any) -> Any:
    """A value as it comes back from JSON: what is compared with a record must have gone the same way."""
    return json.loads(json.dumps(value, default=lambda other: other.value if isinstance(other, Enum) else str(other)))


def _machine() -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _other_machine(earlier: dict[str, Any]) -> list[str]:
    def flat(machine: dict[str, Any]) -> dict[str, Any]:
        return {name: machine.get(name) for name in ("device", "python")} | dict(machine.get("versions", {}))

    before, now = flat(earlier), flat(_machine())
    return [
        f"{name} {now[name]} instead of {before[name]}" for name in now if before.get(name) not in (None, now[name])
    ]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _clear(output_dir: Path) -> None:
    for path in [
        *(folder for _, folder in list_checkpoints(output_dir)),
        *(output_dir / name for name in LEFT_BY_A_RUN),
    ]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _lock(output_dir: Path) -> None:
    """Hold the folder until this process ends, however it ends: the kernel lets go of a lock of a killed process.

    A POSIX lock, for it belongs to this process alone: one of the other kind (flock) would be held on by the workers
    that load data, which outlive a killed process by some seconds.
    """
    path = output_dir / LOCK
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if path.resolve() in _locks:
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise KitError(f"cannot write in {output_dir} ({error.strerror}); choose another --output_dir") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        os.close(descriptor)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning("%s cannot be locked (%s): do not start a second run there", output_dir, error.strerror)
            return
        raise KitError(
            f"another training run is using {output_dir}{f' ({holder})' if holder else ''}; wait for its end, stop it, "
            "or choose another --output_dir"
        ) from None
    _locks[path.resolve()] = descriptor
    # Only for the message above, so a disk too full for it is no matter.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n".encode(), 0)
