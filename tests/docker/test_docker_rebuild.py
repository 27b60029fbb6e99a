"""What an edit costs: code, the code's layers; a requirement, a new installation. All on a real engine."""

from __future__ import annotations

import json
import shutil

import pytest
from docker_fixtures import IMAGE, Checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def edited(kit):
    """A copy of the checkout, to be edited; the image is the old one again afterwards."""
    folder = kit.engine.folder / "edited"
    shutil.copytree(kit.folder, folder, ignore=shutil.ignore_patterns("outputs", "cache"))
    kit.engine.docker("tag", IMAGE, "kept")
    yield Checkout(folder, kit.engine)
    kit.engine.docker("tag", "kept", IMAGE)
    kit.engine.docker("rmi", "kept")
    shutil.rmtree(folder)


def layers(kit) -> list[str]:
    return json.loads(kit.engine.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", IMAGE))


def shared(before: list[str], after: list[str]) -> int:
    return next((i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(before))


def test_an_edit_of_the_code_makes_only_the_codes_layers_anew(edited):
    before = layers(edited)
    (edited.folder / "m3kit" / "new.py").write_text("ANSWER = 42\n")
    assert edited.inside("python", "-c", "from m3kit.new import ANSWER; print(ANSWER)") == "42\n"
    after = layers(edited)
    # The code, its rights and folders, and its check.
    assert shared(before, after) == len(before) - 3 == len(after) - 3


def test_another_requirement_is_installed(edited):
    before = layers(edited)
    requirements = edited.folder / "requirements.txt"
    requirements.write_text(requirements.read_text() + "iniconfig==2.0.0\n")
    assert edited.inside("python", "-c", "import iniconfig; print(iniconfig.__name__)") == "iniconfig\n"
    # What apt installed stays.
    assert shared(before, layers(edited)) == 2


@pytest.fixture
def registry(engine, tmp_path):
    """An image registry of this machine. Yields its address."""
    import socket
    import subprocess
    import time

    if not shutil.which("docker-registry"):
        pytest.skip("NO IMAGE REGISTRY, a base by its digest is not tested: apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "images")}},
        "http": {"addr": address},
    }
    (tmp_path / "config.yml").write_text(json.dumps(settings))
    with subprocess.Popen(
        ["docker-registry", "serve", tmp_path / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(1)
        yield address
        process.kill()


def test_the_base_may_be_named_by_its_digest(edited, registry):
    name = f"{registry}/base"
    edited.engine.docker("tag", "kit-base", name)
    edited.engine.docker("push", name)
    digest = edited.engine.docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", name)
    assert digest.startswith(f"{name}@sha256:")
    edited.engine.docker("rmi", name)
    pinned = edited.with_(BASE_IMAGE=digest)
    assert pinned.inside("echo", "built") == "built\n"
    label = '{{index .Config.Labels "org.opencontainers.image.base.name"}}'
    assert edited.engine.docker("image", "inspect", "--format", label, IMAGE) == digest
    assert f"BASE_IMAGE={digest}" in (edited.folder / ".env").read_text().splitlines()
