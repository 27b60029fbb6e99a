"""A group of processes is left whole: no thread of it is there when the interpreter ends."""

from __future__ import annotations

import os
import time

import pytest
from forks import CONTEXT
from runs import threads

from m3kit.processes import before_group, leave_group


def _group(ready: bool, file, answer) -> None:
    from torch import distributed

    os.environ["WORLD_SIZE"] = "2"  # for as many it is made ready; one is enough here
    if ready:
        before_group()
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    until = time.monotonic() + 10  # they take their names once they run
    while not (begun := threads("gloo", patience=0)) and time.monotonic() < until:
        time.sleep(0.05)
    import deepspeed  # noqa: F401  # as other libraries do in the midst of things

    leave_group()
    answer.put((begun, threads("gloo", patience=2)))


@pytest.mark.parametrize("ready", [True, False])
def test_deepspeed_keeps_a_group_that_was_there_before_it(ready, tmp_path):
    answer = CONTEXT.Queue()
    process = CONTEXT.Process(target=_group, args=(ready, tmp_path / "group", answer))
    process.start()
    begun, left = answer.get(timeout=120)
    process.kill()
    assert begun
    assert bool(left) != ready
