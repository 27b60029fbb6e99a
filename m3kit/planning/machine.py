"""Choose device, processes, threads, precision and DeepSpeed for this machine; say each choice in a sentence."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.planning.request import Request, WrongInput

# Two names of one variable; the second is not heard by every PyTorch.
ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}
SINGLE, MULTI = "./run_flagembedding_training_single_gpu.sh", "./run_flagembedding_training.sh"


@dataclass(frozen=True)
class Machine:
    """``gpu_reason``: how their number came about; ``compiles``: there is a C++ compiler, and Python's headers."""

    gpus: int
    gpu_reason: str
    cores: int
    compiles: bool
    threads: str = ""  # OMP_NUM_THREADS, where it is set
    expandable: bool = False  # PyTorch may take a GPU's memory in segments that grow


@dataclass(frozen=True)
class Setup:
    """``environment`` of all steps; ``precision`` as arguments of the trainer; ``deepspeed``: its configuration."""

    device: str
    processes: int
    environment: dict[str, str]
    precision: tuple[str, ...]
    precision_name: str
    deepspeed: str
    told: tuple[str, ...]


def look(python: str) -> Machine:
    """Find out what this machine has. ``python`` is the interpreter for which DeepSpeed would compile."""
    gpus, reason = count_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    compiles = bool(shutil.which("g++")) and _has_headers(python if Path(python).exists() else "python3")
    # Not over what the user has set; and not in WSL, whose driver fails at it.
    expandable = not ALLOCATOR & os.environ.keys() and "microsoft" not in platform.release().lower()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return Machine(gpus, reason, len(os.sched_getaffinity(0)), compiles, threads, expandable)


def count_gpus(visible: str | None) -> tuple[int, str]:
    """Return the number of GPUs, and how it came about. ``visible`` is CUDA_VISIBLE_DEVICES, read as CUDA reads it."""
    if not shutil.which("nvidia-smi"):
        return 0, "nvidia-smi is not installed"
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        return 0, f"nvidia-smi failed: {said.splitlines()[0] if said else f'exit code {done.returncode}'}"
    listed = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    if visible is None or not listed:
        return listed, f"nvidia-smi lists {listed}"
    count = 0
    for entry in visible.replace(" ", "").split(","):
        # Numbers or ids; everything from the first impossible one on does not count.
        if not re.match("(GPU|MIG)-", entry) and not (re.fullmatch("[0-9]+", entry) and int(entry) < listed):
            break
        count += 1
    return count, f"CUDA_VISIBLE_DEVICES='{visible}' of the {listed} that nvidia-smi lists"


def _has_headers(python: str) -> bool:
    code = "import os, sys, sysconfig; sys.exit(not os.path.isfile(sysconfig.get_path('include') + '/Python.h'))"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def set_up(request: Request, machine: Machine, program: str, dry_run: bool) -> Setup:
    """Choose what the request leaves open. Raises ``KitError`` where this machine cannot do what is asked."""
    device, processes, told = _processes(request, machine, program, dry_run)
    said = [told]
    threads = machine.threads
    if not threads:
        threads = str(max(1, machine.cores // processes))
        said.append(f"Threads: {threads} a process, for {machine.cores} cores.")
    environment = {"OMP_NUM_THREADS": threads}
    if device == "cuda" and machine.expandable:
        # Nearly every batch has another shape: memory in pieces of fixed sizes would lie unused between them.
        environment["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    name, words, told = _precision(request, device)
    deepspeed, about_deepspeed = _deepspeed(request, machine, device)
    said += [sentence for sentence in (told, about_deepspeed) if sentence]
    return Setup(device, processes, environment, words, name, deepspeed, tuple(said))


def _processes(request: Request, machine: Machine, program: str, dry_run: bool) -> tuple[str, int, str]:
    """(device, processes, a sentence)."""
    asked, gpus, reason = request["num_gpus"], machine.gpus, machine.gpu_reason
    single = request.script == "single"
    if not gpus:
        processes = 1 if single else 2 if asked == "auto" else int(asked)
        if request.is_on("allow_cpu"):
            return "cpu", processes, f"Device: the CPU, for there is no GPU ({reason}); processes: {processes}."
        if dry_run:
            told = (
                f"Device: no GPU here ({reason}), so this is what would run on one with them (processes: {processes})"
            )
            return "cuda", processes, f"{told}; on this one it would stop."
        typed = shlex.quote(program)
        raise KitError(
            f"no GPU ({reason}), so {request['model_name_or_path']} would be trained on the CPU, which takes days "
            f"rather than hours.\nTo try the kit in a few minutes:  {typed} --smoke\n"
            f"To train on the CPU all the same: ALLOW_CPU=true {typed}"
        )
    if single:
        return "cuda", 1, f"Device: one GPU ({reason})."
    if gpus == 1 or asked == "1":
        what = f"only one GPU ({reason})" if gpus == 1 else "num_gpus is 1"
        raise KitError(f"{what}, and this script is for several; use {SINGLE}")
    if asked == "auto":
        return "cuda", gpus, f"Device: {gpus} GPUs ({reason})."
    if int(asked) > gpus:
        raise WrongInput(f"num_gpus is {asked}, but there are {gpus} ({reason}); give --num_gpus auto")
    return "cuda", int(asked), f"Device: {asked} GPUs, as num_gpus says ({reason})."


def _precision(request: Request, device: str) -> tuple[str, tuple[str, ...], str]:
    """(name, arguments of the trainer, a sentence)."""
    precision = request["precision"]
    if own := next((name for name in request.extra_names if name in ("fp16", "bf16")), None):
        # The two exclude each other: nothing of ours.
        return own, (), f"Precision: as your argument --{own} says."
    if device == "cpu" and precision == "fp16":
        return "fp32", (), "Precision: fp32, for fp16 does not train on a CPU."
    if precision == "auto":
        if request.untouched:
            raise WrongInput(
                "precision is auto, which the untouched library (entrypoint) does not know; give --precision bf16, "
                "fp16 or fp32"
            )
        return precision, ("--precision", "auto"), ""
    return precision, () if precision == "fp32" else (f"--{precision}", "True"), ""


def _deepspeed(request: Request, machine: Machine, device: str) -> tuple[str, str]:
    configuration = request["deepspeed"]
    if not configuration or device != "cpu":
        return configuration, ""
    if not machine.compiles:
        return "", (
            "DeepSpeed: off, for on a CPU it compiles a part, and g++ or python3-dev is not installed; plain DDP "
            "instead."
        )
    return configuration, "DeepSpeed: on; on a CPU it compiles a part the first time, which takes some minutes."
