"""``run.json``: what was run, with what, on what, and how it ended; and whether a folder's run may go on as asked."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import socket
import time
from collections import defaultdict
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import torch

from m3kit import records
from m3kit.errors import KitError
from m3kit.records import RUN, Run
from m3kit.run_folder.checkpoints import WEIGHTS, clear_scratch, list_checkpoints, sync

logger = logging.getLogger(__name__)

PACKAGES = ("FlagEmbedding", "torch", "transformers", "accelerate", "datasets", "deepspeed", "sentence-transformers")
# Where a run is kept and what is told about it, and what other settings say too: no word of it when these differ.
UNSAID = """output_dir overwrite_output_dir resume_from_checkpoint run_name local_rank log_* hub_* push_to_hub* project
    trackio_* activation_checkpointing* do_* debug skip_memory_metrics precision""".split()
# How, not what, the model learns: these may change from one part of a run to the next, and that is told. Of deepspeed
# this is meant of the file, of train_data of the folder: the rows themselves are compared.
FREE = """logging_* save_* *eval_* include_for_metrics prediction_loss_only report_to disable_tqdm dataloader_* cache_*
    gradient_checkpointing* sub_batch_* pad_to_multiple_of fp16* bf16* tf32 attn_implementation use_cpu ddp_*
    torch_compile* torch_empty_cache_steps train_data deepspeed""".split()
# What a run leaves beside its checkpoints: deleted when it is to be overwritten; nothing else ever is. The record is
# the last, so that a kill in the middle leaves a folder that is still known.
LEFT_BY_A_RUN = """model.safetensors colbert_linear.pt sparse_linear.pt metrics.json hybrid.json report.html plots runs
    train_log.jsonl train.log .sub_batch_tokens run.json""".split()
OVERWRITE = "give --overwrite_output_dir True to delete that run and train anew"


def claim_output_dir(output_dir: Path, overwrite: bool) -> None:
    """Lock the folder for this process: it is new, or holds a run to go on with (S3).

    With ``overwrite`` a run that it holds is deleted. Raises ``KitError`` for a folder that another process is
    training in, that cannot be written in, or that holds a run that is finished or not the kit's.
    """
    _lock(output_dir)
    clear_scratch(output_dir)
    held = [folder for _, folder in list_checkpoints(output_dir)]
    if overwrite:
        for path in [*held, *(output_dir / name for name in LEFT_BY_A_RUN)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return
    record = read_record(output_dir)
    held += [output_dir / WEIGHTS] if (output_dir / WEIGHTS).exists() else []
    if held and not record:
        raise KitError(
            f"{output_dir} holds {held[0].name} but no {RUN}: it is not from this kit, or its {RUN} was deleted, "
            f"and nobody knows how to go on with it; choose another --output_dir, or {OVERWRITE}"
        )
    if record and record.status == "finished":
        raise KitError(
            f"{output_dir} already holds a finished training run; choose another --output_dir, or {OVERWRITE}"
        )


def _lock(output_dir: Path) -> None:
    """Hold the folder until this process ends, however it ends: the kernel lets go of a lock of a killed process.

    A POSIX lock, for it belongs to this process alone: one of the other kind (flock) would be held on by the workers
    that load data, which outlive a killed process by some seconds.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        # Never closed: the lock goes with it.
        descriptor = os.open(output_dir / ".run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise KitError(f"cannot write in {output_dir} ({error.strerror}); choose another --output_dir") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "unknown"
        raise KitError(
            f"another training run is using {output_dir} ({holder}); wait for its end, stop it, or choose another "
            "--output_dir"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): do not start a second run there", output_dir, error.strerror)
    # Only for the message above, so a disk too full for it is no matter.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n".encode(), 0)


def read_record(output_dir: Path) -> Run | None:
    """What ``run.json`` holds, or None where there is none. Raises ``KitError`` when it is not a run's record."""
    cure = f"to go on with that run, put a good copy of it back; else choose another --output_dir, or {OVERWRITE}"
    return records.read(output_dir / RUN, Run, cure)


class RunRecord:
    """Kept up to date from the start of training to its end; a kill leaves it as it was last.

    Begun anew; or, with ``from_step``, gone on with, after a comparison with what the folder holds. ``changed`` then
    tells what is other than before and may be. Raises ``KitError`` for what may not.
    """

    def __init__(
        self,
        output_dir: Path,
        settings: dict[str, Any],
        data: list[dict[str, Any]],
        world_size: int,
        from_step: int | None = None,
    ) -> None:
        self._path, self._began, self.changed = output_dir / RUN, time.time(), list[str]()
        # What is compared with a record must have gone the same way as it.
        settings, data = json.loads(json.dumps([settings, data], default=str))
        self.run = Run(
            status="running",
            started=_now(),
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            python=platform.python_version(),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
            world_size=world_size,
            data=data,
            settings=settings,
        )
        if from_step is not None and (before := read_record(output_dir)):
            self.changed = _compare(output_dir, before, self.run)
            kept = ("started", "seconds", "cpu_seconds", "base")
            self.run = replace(
                self.run,
                **{name: getattr(before, name) for name in kept},
                settings=before.settings | settings,
                resumed=[*before.resumed, {"at": _now(), "from_step": from_step, "changed": self.changed}],
            )
        self._seconds_before = self.run.seconds
        self._write()

    def update(self, **entries: Any) -> None:
        """Keep further entries: what the run found out about itself, or ``status="finished"``."""
        entries = {"seconds": round(self._seconds_before + time.time() - self._began, 1), **entries}
        self.run = replace(self.run, **entries)
        self._write()

    def stop(self, reason: str) -> None:
        """The run has ended before its end. A full disk must not hide the reason: a failure here is only a warning."""
        try:
            self.update(status="stopped", reason=reason)
        except OSError as error:
            logger.warning("%s could not be brought up to date (%s)", self._path, error.strerror)

    def _write(self) -> None:
        temporary = self._path.with_name(f".{RUN}.tmp")
        temporary.write_text(json.dumps(asdict(self.run), ensure_ascii=False, indent=2) + "\n", "utf-8")
        sync(temporary)
        os.replace(temporary, self._path)
        sync(self._path.parent)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _compare(output_dir: Path, record: Run, asked: Run) -> list[str]:
    """What is other now than in a record and may be, each in a few words. Raises ``KitError`` for what may not.

    A setting that is not known to be harmless is refused: going on would ignore it without a word (the learning rate
    comes back with the optimizer), or make a model that no single run would have made. One that only one side has is
    neither, for the other was another version of the kit.
    """
    changed, refused = [], []
    before, now = record.settings, asked.settings
    for name in sorted(before.keys() & now.keys()):
        if before[name] == now[name] or _matches(name, UNSAID):
            continue
        if _may_change(name, before, now):
            changed.append(f"{name} {_show(now[name])} instead of {_show(before[name])}")
        else:
            refused.append(f"{name} was {_show(before[name])} and is now {_show(now[name])}")
    had, has = _rows(record.data), _rows(asked.data)
    for name in sorted(had.keys() | has.keys()):
        if had[name] != has[name]:
            was, is_now = (" and ".join(rows[name]) or "no rows" for rows in (had, has))
            refused.append(f"data set {name} had {was} and has now {is_now}")
    if record.world_size != asked.world_size:
        refused.append(f"it ran in {record.world_size} process(es) and would now in {asked.world_size}")
    if refused:
        raise KitError(
            f"{output_dir} holds an unfinished run, and it is another than the one asked for: {'; '.join(refused)}. "
            f"Put {'this' if len(refused) == 1 else 'these'} back to go on with it, or give another --output_dir, or "
            "--overwrite_output_dir True to delete it and train anew"
        )
    then, current = ({"device": run.device, "python": run.python, **run.versions} for run in (record, asked))
    told = [f"{name} {new} instead of {then[name]}" for name, new in current.items() if then.get(name, new) != new]
    return changed + told


def _may_change(name: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    # With DeepSpeed a checkpoint has other files, which do not load without it, nor the other way round.
    if name == "deepspeed":
        return bool(before[name]) == bool(now[name])
    # In 16 bits DeepSpeed saves weights of 32 besides, without which it does not go on, and in fp16 the scale of the
    # losses, without which it would go on with none.
    if name in ("fp16", "bf16") and now.get("deepspeed"):
        return bool(before.get("fp16") and now.get("bf16"))
    # dataloader_drop_last decides which rows are trained on.
    return _matches(name, FREE) and name != "dataloader_drop_last"


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _show(value: Any) -> str:
    shown = str(value) if value != "" else "empty"
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


def _rows(data: list[dict[str, Any]]) -> defaultdict[str, list[str]]:
    """By the last two parts of a file's path what it holds: where it lies, or comes in the list, does not count."""
    rows = defaultdict[str, list[str]](list)
    for entry in data:
        name = "/".join(PurePath(entry["path"] or "all training data").parts[-2:])
        rows[name] = sorted([*rows[name], f"{entry['rows']:,} rows (digest {entry.get('digest')})"])
    return rows
