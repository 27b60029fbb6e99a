"""run.json, and the claim to a folder: new, to go on with, held by another process, or not ours."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from m3kit.errors import KitError
from m3kit.run_folder import run_record
from m3kit.run_folder.run_record import RunRecord, claim_output_dir, read_record

SETTINGS = {"learning_rate": 1e-05, "bf16": False}
DATA = [{"path": "/data/retrieval/train.jsonl", "rows": 3, "digest": "aa"}]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".run.lock")


# S3: a finished run is overwritten without a word


def test_s3_a_folder_with_a_finished_run_is_kept_unless_overwriting_is_asked_for(tmp_path):
    claim_output_dir(tmp_path / "new", overwrite=False)
    (tmp_path / "prepared").mkdir()
    claim_output_dir(tmp_path, overwrite=False)
    RunRecord(tmp_path, SETTINGS, DATA, 1).update(status="finished")
    for folder in ("checkpoint-10", "checkpoint-mine", "runs"):
        (tmp_path / folder).mkdir()
    for name in ("notes.txt", "model.safetensors", "train_log.jsonl", "checkpoint-12"):
        (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(
        KitError, match="already holds a finished training run; choose another --output_dir, or give --ov"
    ):
        claim_output_dir(tmp_path, overwrite=False)
    assert names(tmp_path) == before
    claim_output_dir(tmp_path, overwrite=True)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-mine", "new", "notes.txt", "prepared"]


@pytest.mark.parametrize("end", [None, "stopped by SIGTERM"])
def test_a_run_that_is_not_finished_is_gone_on_with(tmp_path, end):
    record = RunRecord(tmp_path, SETTINGS, DATA, 1)
    if end:
        record.stop(end)
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / ".saving").mkdir()
    claim_output_dir(tmp_path, overwrite=False)
    assert names(tmp_path) == ["checkpoint-10", "run.json"]
    claim_output_dir(tmp_path, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("mark", ["model.safetensors", "checkpoint-500"])
def test_a_run_without_a_record_is_not_touched(tmp_path, mark):
    (tmp_path / mark).mkdir()
    with pytest.raises(
        KitError, match=f"holds {mark} but no run.json: it is not from this kit, or .* or give --overwrite"
    ):
        claim_output_dir(tmp_path, overwrite=False)
    assert names(tmp_path) == [mark]
    claim_output_dir(tmp_path, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"{",
        b"\0\0",
        b"\xff",
        b"[" * 100_000,
        b'{"status": "done", "settings": {}, "data": [], "world_size": 1}',
        b'{"status": ["running"], "settings": {}, "data": [], "world_size": 1}',
        b'{"status": "running", "settings": [], "data": [], "world_size": 1}',
    ],
)
def test_a_damaged_record_is_refused_with_what_to_do(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    (tmp_path / "checkpoint-10").mkdir()
    with pytest.raises(
        KitError, match="is damaged, or of another version of the kit .*put a good copy of it back; else choose"
    ):
        claim_output_dir(tmp_path, overwrite=False)
    assert names(tmp_path) == ["checkpoint-10", "run.json"]
    claim_output_dir(tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_written_in_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        KitError, match=r"cannot write in .*file/output \(Not a directory\); choose another --output_dir"
    ):
        claim_output_dir(tmp_path / "file" / "output", overwrite=True)


# Two at once


def in_another_process(act):
    """Runs it in a process, which then waits to be killed."""

    def run(said):
        said.send(act())
        signal.pause()

    context = multiprocessing.get_context("fork")
    said, heard = context.Pipe()
    process = context.Process(target=run, args=(heard,))
    process.start()
    return process, said.recv()


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_killed(tmp_path):
    def claim():
        claim_output_dir(tmp_path, overwrite=True)
        # A worker that loads data lives on for a while when its parent is killed.
        if not (worker := os.fork()):
            signal.pause()
        return worker

    process, worker = in_another_process(claim)
    try:
        (tmp_path / "checkpoint-10").mkdir()
        for overwrite in (True, False):
            with pytest.raises(
                KitError, match=f"another training run is using {tmp_path} .process {process.pid} on .* wait"
            ):
                claim_output_dir(tmp_path, overwrite)
        assert (tmp_path / "checkpoint-10").exists()
        process.kill()
        process.join()
        claim_output_dir(tmp_path, overwrite=True)
        # The same process may claim it again: it is the one run.
        claim_output_dir(tmp_path, overwrite=True)
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_record.fcntl, "lockf", no_locks)
    claim_output_dir(tmp_path, overwrite=False)
    assert "cannot be locked (No locks available): do not start a second run there" in caplog.text


# The record


def test_a_record_is_kept_from_start_to_end(tmp_path):
    record = RunRecord(tmp_path, SETTINGS, DATA, 2)
    started = read_record(tmp_path)
    assert started.status == "running"
    assert (started.world_size, started.data, started.settings) == (2, DATA, SETTINGS)
    assert started.started and started.device and started.python and started.versions
    record.update(base={"nDCG@10": 0.5})
    assert read_record(tmp_path).base == {"nDCG@10": 0.5}
    record.stop("SIGTERM")
    stopped = read_record(tmp_path)
    assert (stopped.status, stopped.reason) == ("stopped", "SIGTERM")

    record = RunRecord(tmp_path, SETTINGS | {"bf16": True}, DATA, 2, from_step=40)
    assert record.changed == ["bf16 True instead of False"]
    resumed = read_record(tmp_path)
    assert resumed.status == "running"
    assert resumed.reason == ""
    assert resumed.base == {"nDCG@10": 0.5}
    assert resumed.settings == SETTINGS | {"bf16": True}
    assert resumed.started == started.started
    (entry,) = resumed.resumed
    assert (entry["from_step"], entry["changed"]) == (40, ["bf16 True instead of False"])
    record.update(status="finished", steps=80)
    finished = read_record(tmp_path)
    assert (finished.status, finished.steps, finished.resumed) == ("finished", 80, [entry])
    assert names(tmp_path) == ["run.json"]


def test_the_seconds_of_all_parts_are_added_up(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(run_record.time, "time", lambda: now)
    record = RunRecord(tmp_path, SETTINGS, DATA, 1)
    now += 60
    record.update()
    now += 5  # lost, for nothing is written when a run is killed
    for _ in range(2):
        record = RunRecord(tmp_path, SETTINGS, DATA, 1, from_step=40)
        now += 10
        record.stop("SIGTERM")
    assert read_record(tmp_path).seconds == 80.0
    assert len(read_record(tmp_path).resumed) == 2


def test_other_versions_and_another_device_are_told(tmp_path):
    RunRecord(tmp_path, SETTINGS, DATA, 1)
    record = json.loads((tmp_path / "run.json").read_text())
    device, torch_version = record["device"], record["versions"]["torch"]
    record["device"], record["versions"]["torch"] = "an abacus", "0.1"
    (tmp_path / "run.json").write_text(json.dumps(record))
    record = RunRecord(tmp_path, SETTINGS | {"bf16": True}, DATA, 1, from_step=40)
    assert (
        read_record(tmp_path).resumed[0]["changed"]
        == record.changed
        == [
            "bf16 True instead of False",
            f"device {device} instead of an abacus",
            f"torch {torch_version} instead of 0.1",
        ]
    )
    assert read_record(tmp_path).device == device


def test_a_kill_while_the_record_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    record = RunRecord(tmp_path, SETTINGS, DATA, 1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_record.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record.update(status="finished")
    monkeypatch.undo()
    assert read_record(tmp_path).status == "running"
    record.stop(time.ctime())
    assert names(tmp_path) == ["run.json"]


def test_files_of_several_folders_that_are_trained_as_one_are_compared_too(tmp_path):
    data = [{"path": None, "rows": 3, "digest": "aa"}]
    RunRecord(tmp_path, SETTINGS, data, 1)
    assert RunRecord(tmp_path, SETTINGS, data, 1, from_step=1).changed == []
    with pytest.raises(KitError, match="all training data had 3 rows"):
        RunRecord(tmp_path, SETTINGS, [{**data[0], "rows": 4}], 1, from_step=1)
