"""What an edit costs: of the code, nothing; of a requirement, a new installation. All on a real engine."""

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


def test_an_edit_of_the_code_needs_no_new_image_by_the_wrapper_or_by_hand(edited):
    before = layers(edited)
    (edited.folder / "m3kit" / "new.py").write_text("ANSWER = 42\n")
    with (edited.folder / "run_flagembedding_training.sh").open("a") as script:
        script.write("# edited\n")
    ask = ["bash", "-c", "python -c 'from m3kit.new import ANSWER; print(ANSWER)' && tail -n 1 run_flag*training.sh"]
    assert edited.inside(*ask) == "42\n# edited\n"
    by_hand = edited.run("docker-compose", "run", "--rm", "-T", "bge-m3-training", *ask)
    assert by_hand.stdout == "42\n# edited\n", by_hand.stderr
    assert layers(edited) == before
    # Nothing in the container can change the code of the checkout, not even root.
    inside = edited.run("./run_docker_training.sh", "--", "touch", "m3kit/x", "scripts/x", "ds_stage0.json")
    assert inside.returncode == 1 and inside.stderr.count("Read-only file system") == 3


def test_the_code_is_stored_once_and_readable_whatever_the_umask_was(edited):
    for path in (edited.folder / "m3kit").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = layers(edited)
    built = edited.run("docker-compose", "build", "bge-m3-training")
    assert built.returncode == 0, built.stderr
    # The kit in the image, without anything mounted over it.
    plain = edited.engine.docker("run", "--rm", "--user", "54321", IMAGE, "python", "-m", "m3kit", "--help")
    assert "usage:" in plain
    # Copied with the rights it is to have, so it is the old layer again.
    assert layers(edited) == before
    sizes = edited.engine.docker("history", "--format", "{{.Size}} {{.CreatedBy}}", IMAGE).splitlines()
    assert [line for line in sizes if "B " in line and "chmod" in line] == []


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
