"""A Docker engine of the tests' own: its data, socket and settings lie in one folder, and all of it goes in the end.

Docker Hub is not needed: the base image is a minimal Debian, and what follows its ``FROM`` is the project's Dockerfile.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NEEDED = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "setpriv": "util-linux",
}
BASE = "kit-base"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
KEPT_BASE = Path.home() / ".cache" / "m3kit-tests" / "debian-bookworm.tar"
SYSTEM_PATH = "/usr/bin:/usr/sbin:/bin:/sbin"


class CannotStart(Exception):
    """Why no engine can be started here."""


def check_machine() -> None:
    """Raise ``CannotStart`` where an engine cannot, or should not, be started."""
    if os.geteuid() != 0:
        raise CannotStart("only root can start a Docker engine")
    missing = {package for program, package in NEEDED.items() if not shutil.which(program, path=SYSTEM_PATH)}
    if missing:
        raise CannotStart(f"not installed: apt-get install {' '.join(sorted(missing))}")
    if Path("/sys/class/net/docker0").exists():
        raise CannotStart("another Docker engine runs on this machine (docker0 is there)")


class Engine:
    """dockerd with its data in ``folder``; ``environment`` is that of a user who reaches it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.process: subprocess.Popen | None = None
        (folder / "config").mkdir()
        self.environment = {
            "PATH": SYSTEM_PATH,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(folder / "config"),
        }

    def start(self, *, programs: Path | None = None, data: Path | None = None) -> None:
        """``programs``: a folder that the engine looks into first, for NVIDIA's hook; ``data``: another data root."""
        command = ["dockerd", "--data-root", data or self.folder / "data", "--exec-root", self.folder / "exec"]
        command += ["--host", self.environment["DOCKER_HOST"], "--pidfile", self.folder / "pid"]
        path = f"{programs}:{SYSTEM_PATH}" if programs else SYSTEM_PATH
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                env={**self.environment, "PATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(300):
            if subprocess.run(["docker", "version"], env=self.environment, capture_output=True).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        last = (self.folder / "dockerd.log").read_text("utf-8", "replace").strip().split("\n")[-1]
        self.stop()
        raise CannotStart(f"dockerd does not start: {last}")

    def stop(self) -> None:
        """Also unmounts what is mounted in its folder."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.process = None
        # The engine leaves mounts behind, its data over itself among them.
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounted if place.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", place], env={"PATH": SYSTEM_PATH}, check=False)

    def docker(self, *arguments: object) -> str:
        """What docker prints; raises with what it says when it fails."""
        command = ["docker", *(str(argument) for argument in arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def containers(self) -> list[str]:
        """The names of the kit's, also of ended ones; a failed build leaves one without its name behind."""
        return self.docker("ps", "--all", "--filter", "name=bge-m3", "--format", "{{.Names}}").split()

    def gateway(self) -> str:
        """This machine's address as containers see it."""
        shown = subprocess.run(["ip", "-4", "-oneline", "address", "show", "docker0"], capture_output=True, text=True)
        return shown.stdout.split()[3].partition("/")[0]

    def import_base(self, name: str = BASE, **variables: str) -> None:
        """A base image of that name, with further environment variables."""
        changes = [word for item in variables.items() for word in ("--change", "ENV {}={}".format(*item))]
        self.docker("import", *changes, base_archive(), name)


@contextlib.contextmanager
def network_rules_kept() -> Iterator[None]:
    """The engine's bridge and its rules are gone afterwards."""
    before = subprocess.run(["iptables-save"], capture_output=True, env={"PATH": SYSTEM_PATH}).stdout
    try:
        yield
    finally:
        subprocess.run(["iptables-restore"], input=before, env={"PATH": SYSTEM_PATH}, check=False)
        for link in ["docker0", *(path.name for path in Path("/sys/class/net").glob("br-*"))]:
            subprocess.run(["ip", "link", "delete", link], env={"PATH": SYSTEM_PATH}, capture_output=True, check=False)


def base_archive() -> Path:
    """A minimal Debian as a tar file, made once and kept. It trusts whom this machine trusts."""
    if KEPT_BASE.exists():
        return KEPT_BASE
    KEPT_BASE.parent.mkdir(parents=True, exist_ok=True)
    root = KEPT_BASE.with_suffix(f".{os.getpid()}")
    make = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)]
    done = subprocess.run(make, capture_output=True, text=True, env={"PATH": SYSTEM_PATH})
    try:
        if done.returncode:
            raise CannotStart(f"debootstrap failed: {done.stdout.strip().split(chr(10))[-1]}")
        for name in ("var/lib/apt/lists", "var/cache/apt/archives"):
            shutil.rmtree(root / name)
            (root / name / "partial").mkdir(parents=True)
        if CERTIFICATES.exists():
            shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        part = KEPT_BASE.with_suffix(".part")
        subprocess.run(["tar", "-C", str(root), "-cf", str(part), "."], check=True)
        part.rename(KEPT_BASE)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return KEPT_BASE


def compose_plugin(folder: Path) -> str:
    """Put Compose 2 of the next Debian into ``folder`` as a plugin of docker, by an apt that knows nothing else.

    Returns why that cannot be done, or "".
    """
    listed = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    targets = subprocess.run(listed, capture_output=True, text=True, env={"PATH": SYSTEM_PATH}).stdout
    mirror = re.search(r"^Debian \w+ (\S+)$", targets, re.MULTILINE)
    if not mirror:
        return "apt has no mirror of Debian among its sources"
    state = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (state / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror[1]} trixie main\n")
    settings = {
        **{"Dir::Etc::SourceList": state / "sources.list", "Dir::Etc::SourceParts": "/dev/null"},
        **{"Dir::State": state, "Dir::State::status": "/dev/null", "Dir::Cache": state},
        **{"Acquire::Languages": "none", "APT::Sandbox::User": "root"},
    }
    apt = ["apt-get", "-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    for command in ([*apt, "update"], [*apt, "download", "docker-compose"]):
        done = subprocess.run(command, cwd=state, capture_output=True, text=True, env={"PATH": SYSTEM_PATH})
        if done.returncode:
            return f"apt-get: {done.stderr.strip()}"
    (package,) = state.glob("docker-compose_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, state / "files"], check=True, env={"PATH": SYSTEM_PATH})
    (folder / "cli-plugins").mkdir()
    shutil.copy(state / "files/usr/libexec/docker/cli-plugins/docker-compose", folder / "cli-plugins")
    return ""


@contextlib.contextmanager
def served(folder: Path, address: str) -> Iterator[str]:
    """The files of a folder by HTTP. Yields the URL."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http_server(partial(Handler, directory=str(folder)), address) as url:
        yield url


@contextlib.contextmanager
def http_server(handler, address: str = "127.0.0.1") -> Iterator[str]:
    with ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()
