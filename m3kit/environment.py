"""Find a Python that has the pinned packages, or make an environment that has them.

    python -m m3kit.environment

prints the path of that Python; what it does is told on stderr. It needs the standard library alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError

KIT = Path(__file__).resolve().parents[1]
PIN_FILES = (KIT / "requirements.txt", KIT / "constraints.txt")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
# The first of these that works makes the environment; a pyenv shim may be there and still not work.
NAMES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
CURE = "set PYTHON to an interpreter that has requirements.txt"


@dataclass(frozen=True)
class Environment:
    """``python`` is the path of its interpreter; ``ready``: it is there with all packages; ``told``: a sentence."""

    python: str
    ready: bool
    told: str


def own_folder() -> Path:
    """Return the folder of the kit's environment: .venv, or another one where .venv is the user's.

    A kit-stamp marks an environment that the kit has made. A .venv without it may be used, and is never changed.
    """
    venv, other = KIT / ".venv", KIT / ".venv-m3kit"
    return other if not _stamp(venv).exists() and (venv.exists() or other.exists()) else venv


def find() -> Environment:
    """Return the environment that is used, or the one that has to be made for it."""
    given, venv, users = os.environ.get("PYTHON") or "python3", own_folder(), KIT / ".venv"
    python, lacks = _check(given)
    own, kept = str(venv / "bin" / "python"), ""
    if not python and _is_ready(venv):
        return Environment(own, True, f"Python: {own}.")
    if not python and venv != users:
        python = _check(str(users / "bin" / "python"))[0]
        kept = "; .venv is not the kit's (no kit-stamp in it) and is left as it is"
    if python:
        return Environment(python, True, f"Python: {python}, which has the pinned packages.")
    told = f"Python: {given} is not enough ({lacks}); the kit uses an environment of its own in {venv}{kept}."
    return Environment(own, False, told)


def _check(python: str) -> tuple[str, str]:
    """(its path where it has all pins, else what it lacks first)."""
    code = Path(__file__).with_name("installed.py").read_text("utf-8")
    status, answer = _ask(python, code, str(PIN_FILES[0]))
    return (answer, "") if status == 0 else ("", answer or "it does not run")


def has_module(python: str, name: str) -> bool:
    """Return whether this interpreter finds a module of this name."""
    code = "import sys; from importlib.util import find_spec; sys.exit(find_spec(sys.argv[1]) is None)"
    return _ask(python, code, name)[0] == 0


def _ask(python: str, code: str, *words: str) -> tuple[int, str]:
    try:
        done = subprocess.run([python, "-c", code, *words], capture_output=True, text=True, check=False)
    except OSError:
        return 127, ""
    return done.returncode, done.stdout.strip()


def _stamp(venv: Path) -> Path:
    return venv / "kit-stamp"


def _pins() -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in PIN_FILES)).hexdigest()


def _is_ready(venv: Path) -> bool:
    stamp = _stamp(venv)
    return (venv / "bin" / "python").exists() and stamp.is_file() and stamp.read_text("utf-8").strip() == _pins()


def commands(venv: Path, base: str) -> tuple[list[str], list[str]]:
    """Return what makes the environment (nothing where ``base`` is empty: it is there) and what fills it.

    uv is much faster than pip; ``--seed``, for who wants to add a package with pip.
    """
    python, pins = str(venv / "bin" / "python"), ["-r", str(PIN_FILES[0]), "-c", str(PIN_FILES[1])]
    if shutil.which("uv"):
        make = ["uv", "venv", "--quiet", "--seed", "--allow-existing", "--python", base, str(venv)]
        install = ["uv", "pip", "install", "--python", python, *pins]
    else:
        make = [base, "-m", "venv", str(venv)]
        install = [python, "-m", "pip", "install", "--disable-pip-version-check", *pins]
    return make if base else [], install


def missing_commands() -> list[list[str]]:
    """Return the commands that ``make`` would run, for a dry run."""
    venv = own_folder()
    try:
        base = _base(venv)
    except KitError:
        base = "python3"
    return [command for command in commands(venv, base) if command]


def make() -> None:
    """Make the kit's environment, or bring it up to date; one process at a time."""
    venv = own_folder()
    if not os.access(KIT, os.W_OK):
        raise KitError(f"cannot write to {KIT} to set up Python there; make it writable, or {CURE}")
    with _alone():
        if _is_ready(venv):  # the one waited for has done it
            return
        if venv.exists() and not _stamp(venv).exists():
            raise KitError(f"{venv} was not made by the kit (no kit-stamp in it); move it away, or {CURE}")
        _fill(venv)


@contextmanager
def _alone() -> Iterator[None]:
    with open(KIT / ".venv.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Python: another script is setting it up; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(venv: Path) -> None:
    log = venv / "install.log"
    _say(
        f"Python: installing the pinned packages into {venv.name}. This is done once: about 3 GB to download, 8 GB on "
        f"disk, 5 to 20 minutes. How far it is: tail -f {shlex.quote(str(log))}"
    )
    base = _base(venv)
    make_command, install_command = commands(venv, base)
    venv.mkdir(exist_ok=True)
    _stamp(venv).write_text("begun\n", "utf-8")
    if base:
        # What is left of an earlier one would be in the way. The stamp stays, or the folder would be the user's.
        for name in ("bin", "include", "lib"):
            shutil.rmtree(venv / name, ignore_errors=True)
        for name in ("lib64", "pyvenv.cfg"):
            (venv / name).unlink(missing_ok=True)
        made = subprocess.run(make_command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise KitError(f"{base} could not make {venv}: {(made.stdout + made.stderr).strip()}")
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run(install_command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        _say("\n".join(log.read_text("utf-8", "replace").splitlines()[-15:]))
        raise KitError(
            "the packages could not be installed (the message is above). Check the network and the space on the disk, "
            "then run the same command again; what is already there is kept"
        )
    _stamp(venv).write_text(_pins() + "\n", "utf-8")


def _base(venv: Path) -> str:
    """Return which Python makes the environment, or nothing where it is there, whole, and of a version that fits.

    Raises ``KitError`` with what each candidate lacked.
    """
    version = 'import sys; print("%d.%d" % sys.version_info[:2])'
    if _ask(str(venv / "bin" / "python"), f"{version}; import pip") in [(0, name) for name in VERSIONS]:
        return ""
    found, without_venv = "", ""
    for name in filter(None, (os.environ.get("PYTHON"), *NAMES)):
        status, answer = _ask(name, f"{version}; import venv, ensurepip")
        # A shim without a version behind it says nothing.
        if answer in VERSIONS and (status == 0 or shutil.which("uv")):
            return name
        if answer in VERSIONS:
            without_venv = answer
        elif answer:
            found += f" {name} is {answer};"
    if shutil.which("uv"):  # which finds others, or fetches one
        return ">=3.11,<3.15"
    if without_venv:
        raise KitError(
            f"Python {without_venv} has no venv module; install it: sudo apt install python{without_venv}-venv"
        )
    raise KitError(
        f"no Python 3.11 to 3.14 found;{found} install one (sudo apt install python3 python3-venv), or set PYTHON to "
        "its path"
    )


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main() -> int:
    """Print the path of the Python to use, made first where there is none."""
    environment = find()
    _say(environment.told)
    try:
        if not environment.ready:
            make()
    except KitError as error:
        _say(f"{os.environ.get('PROGRAM', 'm3kit')}: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped while setting up Python. To go on, run the same command again; what is already there is kept.")
        return 130
    print(environment.python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
