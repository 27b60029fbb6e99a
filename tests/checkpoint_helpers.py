"""What the tests of checkpoints share."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

from m3kit.run_folder import checkpoints
from m3kit.run_folder.checkpoints import SCRATCH, put_in_place, seal

FILES = ("model.safetensors", "optimizer.pt", "trainer_state.json", "1_Pooling/config.json", "global_step8/rank_0.pt")


def save(output: Path, step: int, contents: dict[str, bytes] | None = None) -> Path:
    written = output / SCRATCH / f"checkpoint-{step}"
    for name, content in (contents or {name: f"{name} of {step}".encode() for name in FILES}).items():
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_bytes(content)
    seal(written)
    return put_in_place(written, output)


def steps(output: Path) -> list[int]:
    return sorted(step for step, _ in checkpoints.list_checkpoints(output))


def damage(path: Path) -> None:
    path.write_bytes(b"")


@contextmanager
def a_folder():
    # pytest's own folder would be one for all of hypothesis's examples.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
