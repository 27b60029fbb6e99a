"""From nothing to a finished smoke run on a real engine, and what belongs to whom afterwards."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from docker_fixtures import IMAGE, Checkout, copy_kit

pytestmark = pytest.mark.slow
RUN = "outputs/smoke_single_gpu"


def owners(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_uid for path in folder.rglob("*")}


def test_check_only_looks(first_start):
    assert first_start.check.returncode == 0
    assert "Nothing stands in the way" in first_start.check.stderr
    assert first_start.left_by_check == []


def test_a_fresh_engine_comes_to_a_finished_smoke_run(first_start):
    done, folder = first_start.done, first_start.kit.folder
    assert done.returncode == 0, done.stderr
    assert "All works. What can be typed now:" in done.stdout
    assert (
        "Next, with data of yours: ./run_docker_training.sh single --recipe best --train_data YOUR_FOLDER"
        in done.stdout
    )
    metrics = json.loads((folder / RUN / "metrics.json").read_text())
    assert metrics["verdict"] in done.stdout
    assert {"model.safetensors", "report.html", "run.json", "README.md"} <= set(os.listdir(folder / RUN))
    assert set(owners(folder).values()) == {0}
    assert first_start.kit.engine.containers() == []


def test_another_user_builds_nothing_anew_and_owns_what_comes_out(kit, tmp_path_factory):
    folder = copy_kit(kit.engine.folder / "of 1234")
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 1234, 1234)
    kit.engine.socket.chmod(0o666)
    before = kit.engine.docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    done = Checkout(folder, kit.engine, user=1234).run("./docker_quick_start.sh")
    assert done.returncode == 0, done.stderr
    assert f"Image: {IMAGE} is up to date." in done.stderr
    assert "Step 1/" not in done.stderr
    assert kit.engine.docker("image", "inspect", "--format", "{{.Id}}", IMAGE) == before
    assert (folder / RUN / "report.html").is_file()
    assert set(owners(folder).values()) == {1234}
    shutil.rmtree(folder)
