"""A full disk while a checkpoint is saved: on a real one of 2 MB where a test may mount it, and on /dev/full."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from m3kit.errors import KitError
from m3kit.run_folder import checkpoints
from m3kit.run_folder.checkpoints import SCRATCH, flaw, full_disk_explained, newest_intact, publish, put_in_place, seal
from m3kit.run_folder.run_record import RunRecord, read_record

MORE = 3_500_000
TENSOR = torch.zeros(1_000_000)


def torch_save_many(path):
    torch.save({number: torch.zeros(50_000) for number in range(50)}, path)


def torch_save_to_file(path):
    with open(path, "wb") as file:
        torch.save(TENSOR, file)


def torch_save_small_on_what_is_full(path):
    with pytest.raises(OSError, match="No space"):
        Path(path).with_name("other").write_bytes(b"x" * MORE)
    torch.save({"step": 1}, path)


WRITERS = {
    "torch.save": lambda path: torch.save(TENSOR, path),
    "torch.save of many": torch_save_many,
    "torch.save to a file": torch_save_to_file,
    "torch.save of little": torch_save_small_on_what_is_full,
    # DeepSpeed's form.
    "torch.save as before": lambda path: torch.save(TENSOR, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda path: save_file({"weight": TENSOR}, path),
    "json": lambda path: Path(path).write_text(json.dumps("x" * MORE)),
}


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        pytest.skip(f"a disk that fills up needs the right to mount one (root): {str(why).strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def save(output: Path, step: int, size: int = 100) -> Path:
    written = output / SCRATCH / f"checkpoint-{step}"
    written.mkdir(parents=True)
    torch.save(torch.zeros(size), written / "optimizer.pt")
    (written / "config.json").write_text("{}")
    (written / "model.safetensors").write_bytes(b"w" * size)
    seal(written)
    return put_in_place(written, output)


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_explained_and_the_last_checkpoint_stays(small_disk, writer):
    save(small_disk, 200)
    kept = save(small_disk, 300)
    written = small_disk / SCRATCH / "checkpoint-400"
    written.mkdir(parents=True)
    with pytest.raises(KitError) as raised, full_disk_explained(small_disk, "a checkpoint", 1_000_000):
        writer(written / "file")
    told = str(raised.value)
    assert told.startswith(f"the disk of {small_disk} has 2.1 MB free, and a checkpoint needs 1.0 MB; writing failed (")
    assert told.endswith(
        "; nothing of the run is lost up to its last checkpoint: checkpoint-300 stays. "
        "Free space (or give --save_total_limit 1), then run the same command again"
    )
    assert not (small_disk / SCRATCH).exists()
    assert newest_intact(small_disk) == (kept, [])
    # The room is there again, though the error is still held.
    (small_disk / "rest").write_bytes(b"x" * 1_900_000)


@pytest.mark.parametrize("name", ["torch.save", "torch.save of many", "torch.save to a file", "json"])
def test_what_is_said_on_dev_full_is_known_too(tmp_path, name):
    with (
        pytest.raises(KitError, match="no checkpoint has been saved yet. Free space, then run the same command again"),
        full_disk_explained(tmp_path, "a checkpoint", 1),
    ):
        WRITERS[name]("/dev/full")


def test_a_model_that_does_not_fit_leaves_the_old_one_whole(small_disk):
    publish(save(small_disk, 2), small_disk)
    checkpoint = save(small_disk, 4, 300_000)  # 1.2 and 0.3 MB
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(b"x" * MORE)
    with pytest.raises(KitError, match="and the model needs 0.3 MB; .*checkpoint-4 stays"):
        publish(checkpoint, small_disk)
    assert (small_disk / "model.safetensors").read_bytes() == b"w" * 100
    assert flaw(checkpoint) is None


def test_the_reason_of_a_stop_is_not_hidden_by_a_full_disk(small_disk, caplog):
    record = RunRecord(small_disk, {"seed": 1}, [], 1)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(b"x" * MORE)
    record.stop("the disk is full")
    assert "could not be brought up to date (No space left on device)" in caplog.text
    assert read_record(small_disk).status == "running"
    (small_disk / "rest").unlink()
    record.stop("the disk is full")
    assert read_record(small_disk).reason == "the disk is full"


def test_space_is_checked_before_saving(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_200_000_000))
    with full_disk_explained(tmp_path, "a checkpoint", 1_200_000_000):
        save(tmp_path, 300)
    with pytest.raises(KitError) as raised, full_disk_explained(tmp_path, "a checkpoint", 6_800_000_000):
        raise AssertionError
    assert str(raised.value) == (
        f"the disk of {tmp_path} has 1.2 GB free, and a checkpoint needs 6.8 GB; nothing of the run is lost up to its "
        "last checkpoint: checkpoint-300 stays. Free space, then run the same command again"
    )


def test_a_quota_is_told(tmp_path):
    told = pytest.raises(KitError, match="0.0 MB; writing failed .OSError: .Errno 122. Disk quota exceeded.; no check")
    with told, full_disk_explained(tmp_path, "a checkpoint", 1):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), OSError(errno.EACCES, "Permission denied"), KitError("a message")]
)
def test_other_errors_are_not_explained(tmp_path, error):
    (tmp_path / SCRATCH).mkdir()
    with pytest.raises(type(error)) as raised, full_disk_explained(tmp_path, "a checkpoint", 1):
        raise error
    assert raised.value is error
    assert (tmp_path / SCRATCH).exists()
