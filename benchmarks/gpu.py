"""What only a GPU can tell: a run of half an hour on one card, each check with what was expected of it.

    python benchmarks/gpu.py --output results.json
    python benchmarks/gpu.py attention host

Trains by the kit's own command on random weights of bge-m3's shape, a few steps each; nothing is downloaded or saved.
Exit code 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from side_by_side.short_runs import KIT, WARM_UP, ShortRuns, logged

# By name: what was expected, and what measures it. The first line of its docstring says what it is.
CHECKS: dict[str, tuple[str, Callable[[ShortRuns], dict]]] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(CHECKS)}; without, all")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    # To try the script where there is no GPU.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--shape", default="bge-m3", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.checks) - CHECKS.keys():
        parser.error(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "no GPU: PyTorch sees none here, so nothing was measured; python -m m3kit doctor says why", file=sys.stderr
        )
        return 2
    report = {"machine": machine(args.device), "shape": args.shape, "checks": {}}
    print(json.dumps(report["machine"]))
    with tempfile.TemporaryDirectory(prefix="m3kit-gpu-") as folder:
        bench = ShortRuns(Path(folder), args.device, args.shape)
        for name in args.checks or CHECKS:
            expected, check = CHECKS[name]
            about = (check.__doc__ or "").split("\n")[0]
            print(f"\n== {name}: {about}", flush=True)
            started = time.monotonic()
            try:
                measured = check(bench)
            except Exception as error:  # the others are worth having
                measured = {"error": f"{type(error).__name__}: {error}"}
            seconds = round(time.monotonic() - started)
            for what, value in measured.items():
                print(f"MEASURED {what}: {json.dumps(value)}")
            print(f"EXPECTED {expected}\n({seconds} s)", flush=True)
            report["checks"][name] = {"about": about, "measured": measured, "expected": expected, "seconds": seconds}
            if args.output:
                args.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def machine(device: str) -> dict:
    import torch

    found = {"device": device} | {name: version(name) for name in ("torch", "transformers", "deepspeed")}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"device": card.name, "gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
        found |= {"capability": torch.cuda.get_device_capability(), "architectures": torch.cuda.get_arch_list()}
        found |= {"cudnn": torch.backends.cudnn.version()}
    return found


def check(expected: str) -> Callable[[Callable[[ShortRuns], dict]], Callable[[ShortRuns], dict]]:
    def add(function: Callable[[ShortRuns], dict]) -> Callable[[ShortRuns], dict]:
        CHECKS[function.__name__] = (expected, function)
        return function

    return add


@check("finite losses, those of the first step equal to 2 % in all; norms alike, with DeepSpeed too")
def precision(bench: ShortRuns) -> dict:
    """fp32, bf16, fp16 and fp16 under DeepSpeed, each encoded once and in parts: the same losses."""
    names = ("fp32", "bf16", "fp16") if bench.device == "cuda" else ("fp32", "bf16")
    measured = {}
    for name in names:
        for tokens in (16384, 1024):
            measured[f"{name}, {tokens} tokens"] = bench.train(steps=1, precision=name, sub_batch_tokens=tokens)
    if bench.device == "cuda":
        measured["fp16, DeepSpeed"] = bench.train(steps=1, precision="fp16", deepspeed=KIT / "ds_stage0.json")
    return measured


@check("on H100 and B200 a new shape takes 20 to 40 ms more with cuDNN, and none more without; elsewhere no difference")
def attention(bench: ShortRuns) -> dict:
    """PyTorch's attention with a mask, forward and backward: the same shape again, and a new one each time; ms."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    dtype = torch.float16 if bench.device == "cuda" else torch.float32

    def once(length: int) -> None:
        query = torch.randn(16, 16, length, 64, device=bench.device, dtype=dtype, requires_grad=True)
        mask = torch.ones(16, 1, 1, length, device=bench.device, dtype=torch.bool)
        mask[-1, ..., -2:] = False
        scaled_dot_product_attention(query, query, query, attn_mask=mask).sum().backward()

    def milliseconds(lengths: Iterable[int]) -> float:
        taken = []
        for length in lengths:
            started = time.perf_counter()
            once(length)
            if bench.device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        return round(statistics.median(taken[WARM_UP:]) * 1e3, 2)

    measured = {}
    for name, on in (("with cuDNN", True), ("without", False)):
        torch.backends.cuda.enable_cudnn_sdp(on)
        first = 150 if on else 151
        measured[name] = {"same": milliseconds([149] * 20), "new": milliseconds(range(first, first + 40, 2))}
    return measured


@check(
    "tokens/s grows with the batch up to the one at which the card and no more the host is the limit; without gradient "
    "checkpointing a third more, where memory allows"
)
def host(bench: ShortRuns) -> dict:
    """Where the host is the limit: tokens a second by batch size, with and without gradient checkpointing."""
    sizes = (1, 2, 4, 16, 64) if bench.device == "cuda" else (1, 4)
    return {
        f"batch {size}, checkpointing {checkpointing}": bench.train(
            per_device_train_batch_size=size, gradient_checkpointing=checkpointing
        )
        for checkpointing in (True, False)
        for size in sizes
    }


@check(
    "TF32 for all some per cent faster with the same losses; no difference where the kit's products are in it already"
)
def tf32(bench: ShortRuns) -> dict:
    """What ColBERT's products in 32 bits cost at batch 64: TF32 for none, and for all."""
    size = 64 if bench.device == "cuda" else 4
    return {
        name: bench.train(per_device_train_batch_size=size, variables={"NVIDIA_TF32_OVERRIDE": value})
        for name, value in (("none", "0"), ("all", "1"))
    }


@check("the card holds less with segments that grow, at the same speed")
def allocator(bench: ShortRuns) -> dict:
    """PyTorch's memory in segments that grow, and in pieces of fixed sizes, at batch 16."""
    size = 16 if bench.device == "cuda" else 4
    return {
        name: bench.train(
            steps=16,
            per_device_train_batch_size=size,
            variables={"PYTORCH_CUDA_ALLOC_CONF": f"expandable_segments:{name}"},
        )
        for name in ("True", "False")
    }


@check("no error; the choice is said; the card holds less than it has, and the peak is most of what was free")
def auto(bench: ShortRuns) -> dict:
    """sub_batch_tokens=auto on full passages: what it chooses, and the peak."""
    sizes = (2, 32, 256) if bench.device == "cuda" else (2,)
    return {
        f"batch {size}": bench.train(
            steps=1, rows="512 tokens", per_device_train_batch_size=size, sub_batch_tokens="auto"
        )
        for size in sizes
    }


@check("fused as fast as plain DDP, which takes 2 GiB less; not fused slower; the same losses and norms in all")
def deepspeed(bench: ShortRuns) -> dict:
    """Plain DDP, ds_stage0.json with its fused AdamW, and without."""
    config = json.loads((KIT / "ds_stage0.json").read_text("utf-8"))
    del config["optimizer"]["params"]["fused"]
    unfused = bench.folder / "unfused.json"
    unfused.write_text(json.dumps(config))
    chosen = {"plain DDP": {}, "fused": {"deepspeed": KIT / "ds_stage0.json"}, "not fused": {"deepspeed": unfused}}
    return {name: bench.train(**settings) for name, settings in chosen.items()}


@check("exit code 0; the loss of step 1 as on a CPU to 1 %; at most a few skipped steps, at the start")
def smoke(bench: ShortRuns) -> dict:
    """The kit's own script on the starter model, from rows to the report."""
    output = bench.folder / "smoke"
    command = [KIT / "run_flagembedding_training_single_gpu.sh", "--smoke", "--output_dir", output]
    variables = {"PYTHON": sys.executable, "ALLOW_CPU": "true"}
    done = subprocess.run(command, env=bench.environment(**variables), capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).split("\n")
    losses = [line["loss"] for line in logged(output)]
    return {"exit code": done.returncode, "losses": losses[:3] + losses[-1:], "last lines": lines[-8:]}


if __name__ == "__main__":
    sys.exit(main())
