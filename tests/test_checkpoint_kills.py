"""A checkpoint is whole under its own name, whenever the process is killed; so is a published model."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from checkpoint_helpers import a_folder, damage, save, steps
from conftest import KIT

from m3kit.run_folder import checkpoints
from m3kit.run_folder.checkpoints import flaw, newest_intact, publish, rotate

pytestmark = pytest.mark.slow


class Killed(BaseException):
    pass


@contextmanager
def killed_at(call: int):
    """Lets so many calls that change the disk pass, and none after; ``Killed`` is raised where there are more."""
    calls = 0

    def wrap(function):
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > call:
                raise Killed
            return function(*args, **kwargs)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
            patch.setattr(os, name, wrap(getattr(os, name)))
        yield


def killed_everywhere(start, act, check) -> None:
    """``act`` killed before its first change of the disk, its second, and so on until it comes to its end."""
    for call in range(1000):
        with a_folder() as output:
            start(output)
            try:
                with killed_at(call):
                    act(output)
                finished = True
            except Killed:
                finished = False
            check(output)
            if finished:
                assert call > 1
                return


@pytest.mark.parametrize("intact_before", [True, False])
def test_a_kill_while_a_checkpoint_replaces_another(intact_before):
    def start(output):
        save(output, 4)
        save(output, 8)
        if not intact_before:
            damage(output / "checkpoint-8" / "optimizer.pt")

    def check(output):
        checkpoints.clear_scratch(output)
        found, _passed_over = newest_intact(output)
        content = (found / "optimizer.pt").read_bytes()
        assert content in ((b"optimizer.pt of 8" if intact_before else b"optimizer.pt of 4"), b"new")
        # The broken one may be gone, and the new one not be there yet.
        assert steps(output) in ([4, 8], [4, 8] if intact_before else [4])
        assert {path.name for path in output.iterdir()} == {f"checkpoint-{step}" for step in steps(output)}

    killed_everywhere(start, lambda output: save(output, 8, {"optimizer.pt": b"new"}), check)


def test_a_kill_while_checkpoints_are_rotated():
    def start(output):
        for step in (2, 4, 6, 8):
            save(output, step)

    def check(output):
        assert newest_intact(output) == (output / "checkpoint-8", [])
        assert all(flaw(folder) is None for _, folder in checkpoints.list_checkpoints(output))
        checkpoints.clear_scratch(output)
        rotate(output, 2, {2})
        assert {path.name for path in output.iterdir()} == {"checkpoint-2", "checkpoint-6", "checkpoint-8"}

    killed_everywhere(start, lambda output: rotate(output, 2, {2}), check)


def test_a_kill_while_a_model_is_published():
    def start(output):
        save(output, 4)
        save(output, 8)
        publish(output / "checkpoint-4", output)

    def check(output):
        old, new = (b"model.safetensors of 4", b"model.safetensors of 8")
        weights = (output / "model.safetensors").read_bytes()
        assert weights in (old, new)
        if weights == new:
            assert (output / "1_Pooling/config.json").read_bytes().endswith(b" of 8")
        checkpoints.clear_scratch(output)
        names = {"checkpoint-4", "checkpoint-8", "model.safetensors", "1_Pooling"}
        assert {path.name for path in output.iterdir()} == names

    killed_everywhere(start, lambda output: publish(output / "checkpoint-8", output), check)


# Saves without end, each step twice, and says each step once it is there.
SAVES = """
import sys
from pathlib import Path
from m3kit.run_folder.checkpoints import *
output = Path(sys.argv[1])
clear_scratch(output)
newest, _ = newest_intact(output)
number = 2 * int(newest.name.split("-")[1]) if newest else 2
while True:
    folder = output / SCRATCH / f"checkpoint-{number // 2}"
    for name in ("a/model.safetensors", "model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{number // 2:9}".encode() * 20_000)
    seal(folder)
    publish(put_in_place(folder, output), output)
    print(number // 2, flush=True)
    rotate(output, 2)
    number += 1
"""


def test_killed_at_any_time_the_last_checkpoint_or_a_newer_one_is_there(tmp_path):
    dice = random.Random(0)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(tmp_path)], cwd=KIT, stdout=subprocess.PIPE, text=True
        )
        said = [process.stdout.readline() for _ in range(dice.randint(1, 3))]
        time.sleep(dice.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines()
        process.wait()
        checkpoints.clear_scratch(tmp_path)
        found, passed_over = newest_intact(tmp_path)
        assert passed_over == []
        assert int(found.name.split("-")[1]) >= int(said[-1])
        assert (
            len({(tmp_path / "model.safetensors").read_bytes()[start : start + 9] for start in range(0, 180_000, 9)})
            == 1
        )
        assert all(flaw(folder) is None for _, folder in checkpoints.list_checkpoints(tmp_path))
