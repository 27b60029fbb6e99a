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
import warnings
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
    parser.add_argument("--processes", type=int, default=0, help="of a training on GPUs, a card each; 0: any number")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    with bar(None, "looking at this machine", ""):
        findings = examine(args.device, args.processes)
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


def examine(device: str, processes: int = 0) -> list[Finding]:
    """Look at Python, packages, GPU, compiler and memory; takes seconds and changes nothing."""
    return [_python(), _packages(), *_gpu(device, processes), _compiler(), _memory()]


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


def _gpu(device: str, processes: int) -> list[Finding]:
    """What torch sees, against what the driver sees: a driver too old for torch's CUDA is the usual difference."""
    import torch

    if device == "cpu":
        return [Finding("ok", f"training on the CPU, {os.cpu_count()} cores")]
    if torch.cuda.is_available():
        return _cards(processes)
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


def _cards(processes: int) -> list[Finding]:
    """Each card that CUDA shows, or those of so many processes: whether this torch has kernels that run on it."""
    import torch

    from m3kit.device import too_few_devices

    found = [Finding("stop", told)] if (told := too_few_devices(processes)) else []
    count = torch.cuda.device_count()
    # torch says the same on a page of its own.
    warnings.filterwarnings("ignore", message="Found GPU")
    for number in range(min(processes or count, count)):
        card = torch.cuda.get_device_properties(number)
        named = f"GPU {number}: {card.name}, {card.total_memory / GIB:.0f} GiB"
        has = torch.cuda.get_device_capability(number)
        if serves(torch.cuda.get_arch_list(), has):
            found.append(_tried(number, named))
        else:
            lacking = f"torch {torch.__version__} has no kernels for its compute capability, {has[0]}.{has[1]}"
            found.append(
                Finding(
                    "stop",
                    f"{named}: {lacking}",
                    f"{_other_build(has)}, or choose other cards with CUDA_VISIBLE_DEVICES",
                )
            )
    return found


def _tried(number: int, named: str) -> Finding:
    """Whether the card computes: memory is taken, a kernel run, and its result fetched."""
    import torch

    try:
        torch.ones(1, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        fix = "another program may hold all of it (nvidia-smi shows who)"
        if "expandable_segments:True" in os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""):
            fix += "; where it is a virtual GPU, set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False"
        return Finding("stop", f"{named}: a first sum on it failed: {str(error).partition(chr(10))[0]}", fix)
    return Finding("ok", named)


def serves(architectures: list[str], capability: tuple[int, int]) -> bool:
    """Whether code for one of them (torch's names, such as sm_86) runs on a card of this compute capability.

    Machine code (sm) runs on cards of the same major version and no lower minor one, PTX (compute) on all later ones.
    """
    for name in architectures:
        kind, _, version = name.partition("_")
        # A letter at the end: for that card and none later.
        made_for = divmod(int(version.rstrip("af")), 10)
        same = capability == made_for if version[-1].isalpha() else capability >= made_for
        if same and (kind == "compute" or capability[0] == made_for[0]):
            return True
    return not architectures  # torch does not say, as where it is not built for CUDA


def _other_build(capability: tuple[int, int]) -> str:
    """Which build of the same torch serves the card, by torch's own table of what is published."""
    import torch

    builds = getattr(torch.cuda, "PYTORCH_RELEASES_CODE_CC", {})
    machine = "aarch64" if platform.machine() == "aarch64" else "x86_64"
    found = [
        cuda for cuda, made in builds.items() if serves([f"sm_{code}" for code in made.get(machine, [0])], capability)
    ]
    if not found:
        return "install a build of PyTorch that has them, likely an older one"
    return (
        f"install torch {torch.__version__.partition('+')[0]} from PyTorch's package index for CUDA {found[0]} "
        "(docs/docker.md: TORCH_INDEX_URL)"
    )


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
