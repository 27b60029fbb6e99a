"""Say what this machine can do for training, and what would stop it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from m3kit.installed import unmet
from m3kit.progress import bar

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
GIB = 1 << 30
NEWEST_PYTHON = (3, 14)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``level``: "ok", "note" (slower or less, but works) or "stop" (training cannot work)."""

    level: str
    what: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what is to be trained on")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    with bar(None, "looking at this machine", ""):
        findings = examine(args.device)
    stops = any(finding.level == "stop" for finding in findings)
    if args.json:
        print(json.dumps({"can_train": not stops, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        well = [finding.what for finding in findings if finding.level == "ok"]
        print(f"  ok  {'; '.join(well)}", file=sys.stderr)
        for finding in findings:
            if finding.level != "ok":
                cure = f"; {finding.fix}" if finding.fix else ""
                print(f"{finding.level:>4}  {finding.what}{cure}", file=sys.stderr)
    return int(stops)


def examine(device: str) -> list[Finding]:
    """Look at Python, packages, GPU, compiler and memory; takes seconds and changes nothing."""
    return [_python(), _packages(), *_gpu(device), _compiler(), _memory()]


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] > NEWEST_PYTHON:
        return Finding("note", f"Python {version} is newer than those the packages were chosen for, 3.11 to 3.14")
    return Finding("ok", f"Python {version}")


def _packages() -> Finding:
    """Compare what is installed with the versions that the kit was tested with."""
    wrong = [
        f"{name} {installed or 'missing'} (tested: {wanted})" for name, wanted, installed in unmet(_requirements())
    ]
    if not wrong:
        return Finding("ok", "all packages have the tested versions")
    here = REQUIREMENTS.is_file()
    fix = "pip install -r requirements.txt -c constraints.txt" if here else "pip install them, as pip check says"
    return Finding("note", "packages other than those tested: " + ", ".join(wrong), fix)


def _requirements() -> list[str]:
    """The pins: of the kit's folder, or, where the kit is installed as a package, of its metadata."""
    if REQUIREMENTS.is_file():
        return REQUIREMENTS.read_text("utf-8").split("\n")
    return importlib.metadata.requires("m3kit") or []


def _gpu(device: str) -> list[Finding]:
    """What torch sees, against what the driver sees: a driver too old for torch's CUDA is the usual difference."""
    import torch

    if device == "cpu":
        return [Finding("ok", f"training on the CPU, {os.cpu_count()} cores")]
    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found.append(Finding("ok", f"GPU {number}: {properties.name}, {properties.total_memory / GIB:.0f} GiB"))
        return found
    level = "stop" if device == "cuda" else "note"
    listed = _nvidia_smi()
    if not listed:
        return [Finding(level, "no GPU found", "training on a CPU works, and is slow")]
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return [Finding(level, "CUDA_VISIBLE_DEVICES hides every GPU", "unset it")]
    if torch.version.cuda is None:
        return [Finding(level, "this torch is built without CUDA", "install torch from PyPI, without a +cpu suffix")]
    return [
        Finding(
            level,
            f"nvidia-smi lists a GPU (driver {listed}), but torch {torch.__version__} cannot use it",
            f"its CUDA {torch.version.cuda} needs a newer driver, or the container was started without the GPU",
        )
    ]


def _nvidia_smi() -> str:
    """The driver's version, or "" where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def _compiler() -> Finding:
    if shutil.which("g++"):
        return Finding("ok", "g++ is there for what DeepSpeed compiles")
    return Finding("note", "no g++: DeepSpeed cannot compile its CPU parts", "apt-get install g++")


def _memory() -> Finding:
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    return Finding("ok", f"memory: {total:.0f} GiB, {available:.0f} GiB of it free")
