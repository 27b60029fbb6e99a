"""The wheel: built from a copy of the kit, installed elsewhere, and used outside of any checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from conftest import KIT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(KIT / name, source)
    shutil.copytree(KIT / "m3kit", source / "m3kit", ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    words = [
        "wheel",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(target),
        str(source),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return next(target.glob("m3kit-*.whl"))


@pytest.fixture(scope="module")
def m3kit(wheel, tmp_path_factory):
    """Call the command of a fresh environment that has the wheel, and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    words = ["--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    Path(packages, "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "bin" / "m3kit"), *map(str, words)]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)

    return call


def test_all_files_of_the_package_are_in_it(wheel):
    names = {name for name in ZipFile(wheel).namelist() if name.startswith("m3kit/")}
    there = {str(file.relative_to(KIT)) for file in (KIT / "m3kit").rglob("*") if file.is_file()}
    assert names == {name for name in there if "__pycache__" not in name}


def test_help_names_the_command(m3kit):
    done = m3kit("--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: m3kit VERB")


def test_a_report_is_made(m3kit, whole_run, tmp_path):
    run = shutil.copytree(whole_run, tmp_path / "run")
    (run / "report.html").unlink(missing_ok=True)
    done = m3kit("report", run)
    assert done.returncode == 0, done.stderr
    assert "<html" in (run / "report.html").read_text("utf-8")


def test_doctor_knows_the_pins(m3kit):
    done = m3kit("doctor", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "all packages have the tested versions" in done.stderr


def test_runs_are_looked_for_where_it_is_called(m3kit):
    done = m3kit("evaluate")
    assert done.returncode == 1
    assert "there is no finished run below outputs;" in done.stderr
