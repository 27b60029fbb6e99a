"""What can fail is made to fail on a real engine, and its cure is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from docker_fixtures import Checkout
from engine import SYSTEM_PATH, http_server

pytestmark = pytest.mark.slow
WRAPPER, QUICK = "./run_docker_training.sh", "./docker_quick_start.sh"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def says(checkout: Checkout, *words: str, command: tuple[str, ...] = (WRAPPER, "smoke")) -> None:
    """The command ends with 1 and says all of these words."""
    done = checkout.run(*command)
    assert done.returncode == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


# ---- what must be there --------------------------------------------------------------------------------------------


def test_no_daemon(kit):
    nobody = kit.with_(DOCKER_HOST=f"unix://{kit.engine.folder}/nobody.sock")
    says(nobody, "its daemon does not answer at unix:", "sudo systemctl start docker")


def test_no_right_to_the_socket(kit):
    kit.engine.socket.chmod(0o660)
    somebody = Checkout(kit.folder, kit.engine, user=1234)
    says(somebody, "you may not use Docker's socket", "sudo usermod -aG docker")


def test_no_compose(kit, tmp_path):
    for folder in SYSTEM_PATH.split(":"):
        for path in Path(folder).iterdir():
            if path.name != "docker-compose" and not (tmp_path / path.name).exists():
                (tmp_path / path.name).symlink_to(path)
    says(kit.with_(PATH=str(tmp_path)), "Docker Compose is not installed", "apt install docker-compose-plugin")


# ---- the build -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_base(kit):
    """A base from which nothing is built yet."""
    kit.engine.import_base("fresh-base", FRESH="1")
    yield kit.with_(BASE_IMAGE="fresh-base")
    kit.engine.docker("rmi", "fresh-base")


def test_a_dead_proxy(fresh_base):
    proxy = "http://127.0.0.1:9"
    says(fresh_base.with_(http_proxy=proxy), f"the proxy {proxy}, does not answer", "http_proxy and https_proxy")


class Refusal(BaseHTTPRequestHandler):
    """A registry that lets nobody have anything."""

    def do_GET(self):
        allowed = self.path == "/v2/"
        content = json.dumps({} if allowed else {"errors": [{"code": "DENIED", "message": "access denied"}]}).encode()
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_base_that_the_registry_refuses(any_compose):
    with http_server(Refusal) as url:
        base = url.removeprefix("http://") + "/mine:1"
        says(any_compose.with_(BASE_IMAGE=base), f"does not hand out the base image {base}", "docker login")


@pytest.mark.parametrize("base", ["127.0.0.1:9/mine:1", "nowhere.invalid/mine:1"])
def test_a_registry_that_does_not_answer(any_compose, base):
    says(any_compose.with_(BASE_IMAGE=base), "the network does not answer", "http_proxy")


@pytest.fixture
def small_disk(kit):
    """The engine on another, small disk."""
    disk = kit.engine.folder / "small"
    disk.mkdir()
    kit.engine.stop()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=450m", "tmpfs", disk], check=True)
    kit.engine.start(data=disk)
    kit.engine.import_base()
    # The kit's files do not fit. Were it filled by apt-get in the image, that one might wait for ever.
    with (disk / "filled").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - 2**19)
    yield kit
    kit.engine.stop()  # unmounts it
    disk.rmdir()
    kit.engine.start()


def test_a_full_disk(small_disk):
    says(small_disk, "the disk is full", f"{small_disk.engine.folder}/small: 0 GB free", "docker system df")
    says(small_disk, "the disk is full", command=(QUICK,))


# ---- the GPU -------------------------------------------------------------------------------------------------------

NVIDIA_SMI = "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n"
# What the engine calls before a container with a GPU begins, in the place of NVIDIA's. It puts nvidia-smi there, or
# says what NVIDIA's says.
HOOK = """#!/usr/bin/python3
import json, pathlib, sys
mode = pathlib.Path({mode!r}).read_text()
if mode != "works":
    sys.exit("nvidia-container-cli: " + mode)
bundle = pathlib.Path(json.load(sys.stdin)["bundle"])
root = pathlib.Path(json.loads((bundle / "config.json").read_text())["root"]["path"])
(root / "usr/bin/nvidia-smi").write_text({smi!r})
(root / "usr/bin/nvidia-smi").chmod(0o755)
"""


@pytest.fixture
def gpu(kit, tmp_path):
    """A machine with a GPU, as far as nvidia-smi goes."""
    program(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI)
    yield kit.with_(PATH=f"{tmp_path}/bin:{SYSTEM_PATH}")
    kit.run(WRAPPER, "--", "true")  # .env is that of a machine without one again


def test_no_nvidia_runtime(gpu, tmp_path):
    says(gpu, "Docker has no nvidia runtime", "nvidia-ctk runtime configure", command=(WRAPPER, "single"))
    # The toolkit is installed, and the engine does not know it yet.
    program(tmp_path / "bin", "nvidia-container-runtime-hook", "#!/bin/sh\n")
    for command in ((WRAPPER, "single"), (QUICK,)):
        says(gpu, "Docker has no nvidia runtime", "could not select device driver", "nvidia-ctk", command=command)


@pytest.fixture
def toolkit(gpu, tmp_path):
    """The engine with a hook in the place of NVIDIA's; returns a function that sets what it does."""
    (tmp_path / "mode").touch()
    program(tmp_path / "bin", "nvidia-container-runtime-hook", HOOK.format(mode=str(tmp_path / "mode"), smi=NVIDIA_SMI))
    gpu.engine.stop()
    gpu.engine.start(programs=tmp_path / "bin")
    yield (tmp_path / "mode").write_text
    gpu.engine.stop()
    gpu.engine.start()


def test_the_gpu_is_tried_from_inside(gpu, toolkit):
    toolkit("requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version")
    without = "CUDA_VISIBLE_DEVICES= ./run_docker_training.sh single"
    says(gpu, "the driver is too old", "Update it (580 or newer)", without, command=(WRAPPER, "single"))
    toolkit("initialization error: nvml error: driver not loaded")
    says(gpu, "Restart this machine", command=(QUICK,))
    toolkit("works")
    done = gpu.run(WRAPPER, "--", "nvidia-smi", "-L")
    assert done.returncode == 0, done.stderr
    assert "In the container: GPU 0: NVIDIA H200" in done.stderr and done.stdout.startswith("GPU 0")
    assert "COMPOSE_FILE=docker-compose.yml:docker-compose.gpu.yml" in (gpu.folder / ".env").read_text()
    # By hand too; and training is stopped by what torch sees in the container, whatever nvidia-smi says.
    by_hand = gpu.run("docker-compose", "run", "--rm", "-T", "bge-m3-training", "nvidia-smi", "-L")
    assert by_hand.stdout.startswith("GPU 0")
    says(gpu, "stop  ", "this step failed (exit code 1): Checking this machine", command=(WRAPPER, "single"))
