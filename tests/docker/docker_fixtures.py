"""The engine, a checkout of the kit beside it, and the image that the quick start builds there: made once for all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest
from engine import BASE, CERTIFICATES, CannotStart, Engine, check_machine, compose_plugin, network_rules_kept, served

KIT = Path(__file__).resolve().parents[2]
IMAGE = "bge-m3-training"
TOKEN = "hf_theSecretOfTheTests"


@dataclass
class Checkout:
    """A copy of the kit, and how a user of the engine types its commands there."""

    folder: Path
    engine: Engine
    user: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def with_(self, **environment: str) -> Checkout:
        return Checkout(self.folder, self.engine, self.user, {**self.environment, **environment})

    def command(self, *words: object) -> list[str]:
        become = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups"] if self.user else []
        return [str(word) for word in (*become, *words)]

    @property
    def variables(self) -> dict[str, str]:
        # One thread: other tests have the other core, and threads that wait for one another take it from them.
        return {**self.engine.environment, "BASE_IMAGE": BASE, "OMP_NUM_THREADS": "1", **self.environment}

    def run(self, *words: object, timeout: float = 900) -> subprocess.CompletedProcess:
        """Without a terminal; stdout and stderr are text."""
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def inside(self, *words: object) -> str:
        """What a command prints in the container of the wrapper."""
        done = self.run("./run_docker_training.sh", "--", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: object) -> subprocess.Popen:
        """Without waiting for it, in a session of its own; stderr goes into its stdout."""
        return subprocess.Popen(
            # Where the tests run in the background INT is ignored, and what is ignored cannot be trapped.
            self.command("env", "--default-signal=INT", *words),
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def terminal(self, *words: object) -> pexpect.spawn:
        """In a real terminal."""
        first, *rest = self.command(*words)
        return pexpect.spawn(
            first, rest, cwd=str(self.folder), env=self.variables, timeout=240, encoding="utf-8", dimensions=(50, 160)
        )


def _not_in_a_checkout(folder: str, names: list[str]) -> list[str]:
    made = {".git", ".env", "cache", "outputs", "data", "custom_data"} if Path(folder) == KIT else set()
    return [
        name for name in names if name in made or name.startswith(".venv") or name.endswith(("_cache", "__pycache__"))
    ]


def copy_kit(folder: Path) -> Path:
    """The kit as it is checked out, and besides it what lies about in a folder that is worked in."""
    shutil.copytree(KIT, folder, ignore=_not_in_a_checkout)
    for name, content in {
        ".git/config": "[core]",
        ".env": f"HF_TOKEN={TOKEN}\n",
        "custom_data/mine/retrieval/train.jsonl": "{}",
        "m3kit/__pycache__/old.pyc": "old",
        "tests/.pytest_cache/x": "x",
        "notes.txt": TOKEN,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine with a base image; skips where there can be none."""
    with contextlib.ExitStack() as stack:
        # Short, for the path of a socket has a limit; open, for others than root come in too.
        folder = Path(tempfile.mkdtemp(prefix="kit-docker-"))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            check_machine()
            stack.enter_context(network_rules_kept())
            engine = Engine(folder)
            engine.start()
            stack.callback(engine.stop)
            engine.import_base(**_ways_to_packages(engine, stack))
        except CannotStart as reason:
            pytest.skip(f"NO DOCKER ENGINE, nothing of Docker is tested: {reason}")
        yield engine


def _ways_to_packages(engine: Engine, stack: contextlib.ExitStack) -> dict[str, str]:
    """What pip in the container needs to find what pip finds here: the trusted certificates, and folders of wheels."""
    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if CERTIFICATES.exists() else ()
    variables = dict.fromkeys(names, str(CERTIFICATES))
    settings = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    words = {word for value in re.findall(r"^\S*find-links='(.*)'$", settings, re.MULTILINE) for word in value.split()}
    folders = [Path(word) for word in sorted(words) if Path(word).is_dir()]
    if folders:
        address = engine.gateway()
        urls = [stack.enter_context(served(folder, address)) for folder in folders]
        variables |= {"PIP_FIND_LINKS": f'"{" ".join(urls)}"', "PIP_TRUSTED_HOST": address}
    return variables


@dataclass
class FirstStart:
    """What the quick start did on a fresh engine, and what ``--check`` did before it."""

    kit: Checkout
    check: subprocess.CompletedProcess
    left_by_check: list[str]
    done: subprocess.CompletedProcess


@pytest.fixture(scope="session")
def first_start(engine) -> FirstStart:
    folder = copy_kit(engine.folder / "my kit d'été")
    kit = Checkout(folder, engine)
    before = sorted(os.listdir(folder))
    check = kit.run("./docker_quick_start.sh", "--check")
    left = [name for name in os.listdir(folder) if name not in before] + engine.containers()
    return FirstStart(kit, check, left, kit.run("./docker_quick_start.sh"))


@pytest.fixture
def kit(first_start) -> Checkout:
    """The checkout with the built image, and docker-compose 1.29."""
    assert first_start.done.returncode == 0, first_start.done.stderr
    return first_start.kit


@pytest.fixture(scope="session")
def plugin(engine) -> Path:
    """A configuration of docker that has Compose 2 as a plugin."""
    folder = engine.folder / "config2"
    folder.mkdir()
    reason = compose_plugin(folder)
    if reason:
        pytest.skip(f"NO COMPOSE 2, nothing is tested with it: {reason}")
    return folder


@pytest.fixture(params=["docker-compose 1", "docker compose 2"])
def any_compose(request, kit) -> Checkout:
    """The checkout, with each generation of Compose."""
    return kit if request.param.endswith("1") else kit.with_(DOCKER_CONFIG=str(request.getfixturevalue("plugin")))
