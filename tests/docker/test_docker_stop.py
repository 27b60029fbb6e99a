"""A stopped container has saved its step, and the next run goes on from there to the same weights."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WRAPPER = "./run_docker_training.sh"
TINY = {
    **{"MODEL_NAME_OR_PATH": "cache/starter", "EVAL_DATA": "none", "HOLDOUT": "0", "ALLOW_CPU": "true"},
    "SAVE_STEPS": "1000",
}
WEIGHTS = ("model.safetensors", "colbert_linear.pt", "sparse_linear.pt")


def start_training(kit, folder: str, steps: int):
    return kit.with_(**TINY, OUTPUT_DIR=f"outputs/{folder}").start(WRAPPER, "single", "--max_steps", steps)


def wait_for_step(process, step: int) -> None:
    """Wait for that step or a later one: of a run about ten are told."""
    for line in process.stdout:
        told = re.match(r"step (\d+)/", line)
        if told and int(told[1]) >= step:
            return
    pytest.fail(f"it ended with {process.wait()} before step {step}")


def last_step(folder: Path) -> int:
    return max(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*"))


def test_docker_stop_leaves_a_checkpoint_from_which_it_goes_on_to_the_same_weights(kit):
    whole = start_training(kit, "whole", 60)
    said, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, said

    stopped = start_training(kit, "stopped", 60)
    wait_for_step(stopped, 10)
    (name,) = kit.engine.containers()
    # The engine waits longer for it than torchrun for its workers.
    assert int(kit.engine.docker("inspect", "--format", "{{.Config.StopTimeout}}", name)) > 600
    kit.engine.docker("stop", name)
    said, _ = stopped.communicate(timeout=60)
    outputs = kit.folder / "outputs"
    step = last_step(outputs / "stopped")
    assert f"stopped by SIGTERM after step {step}, which is saved; run the same command again to go on." in said
    assert stopped.returncode != 0 and 10 <= step < 60
    assert not (outputs / "stopped" / WEIGHTS[0]).exists()

    rest = start_training(kit, "stopped", 60)
    said, _ = rest.communicate(timeout=300)
    assert rest.returncode == 0, said
    assert re.search(rf"step {step + 1}/60", said) and f"step {step}/60" not in said
    for name in WEIGHTS:
        assert (outputs / "stopped" / name).read_bytes() == (outputs / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("how", ["TERM to the wrapper", "INT to all, as Ctrl-C behind a pipe"])
def test_a_signal_outside_saves_a_step_inside(any_compose, how):
    folder = f"signal-{how[:3]}-{len(any_compose.environment)}"
    process = start_training(any_compose, folder, 1000)
    try:
        wait_for_step(process, 1)
        if how.startswith("TERM"):
            process.send_signal(signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (143 if how.startswith("TERM") else 130), said
    assert "stopping; training finishes its step and saves a checkpoint first" in said
    assert 1 <= last_step(any_compose.folder / "outputs" / folder) < 1000
    assert any_compose.engine.containers() == []
