"""Of several processes the first to meet an error speaks, and none waits for it for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from conftest import KIT

from m3kit.training import __main__ as trainer

STUCK = """
import ctypes
from m3kit.training import __main__ as trainer
trainer.GRACE = 0.5
class Runner:
    def __init__(self, *arguments):
        print("waiting", flush=True)
        ctypes.CDLL(None).sleep(60)  # as in NCCL: no signal handler of Python runs meanwhile
trainer.Runner = Runner
# The arguments would look for the other process, which is not there.
trainer.HfArgumentParser.parse_args_into_dataclasses = lambda *_, **__: (None, None, None, [])
trainer.main()
"""


@pytest.mark.slow
def test_a_process_that_waits_for_one_that_failed_is_ended(tmp_path):
    error = tmp_path / "error"
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "0", "M3KIT_ERROR_FILE": str(error), "PYTHONPATH": str(KIT)}
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        assert process.poll() is None
        started = time.monotonic()
        error.write_text("out of memory\n")
        assert process.wait(20) == 1
        assert time.monotonic() - started < 10


def test_the_first_error_stands(tmp_path, monkeypatch, capsys):
    error = tmp_path / "error"
    monkeypatch.setenv("M3KIT_ERROR_FILE", str(error))
    monkeypatch.setenv("RANK", "1")
    trainer._tell("out of memory in process 1")
    monkeypatch.setenv("RANK", "0")
    trainer._tell("connection closed by peer")
    assert error.read_text() == "out of memory in process 1\n"
    assert capsys.readouterr().err == "m3kit.training: out of memory in process 1\n"
