"""Say how much memory training will take on each device, and what each option would change.

    python -m m3kit memory --model_name_or_path BAAI/bge-m3 --per_device_train_batch_size 8 --device cuda

Nothing is trained or downloaded; it takes some seconds. For a CPU the figures are what is measured, within a few per
cent; for a GPU they are an estimate by the same means.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from m3kit.arguments import add_settings, positive
from m3kit.errors import KitError
from m3kit.free_memory import free_on_gpus, free_on_machine
from m3kit.hub import find_local_config
from m3kit.progress import Bar, bar

GIB = 1 << 30
# Its configuration, for whoever has not downloaded it yet.
BGE_M3 = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
}
SWITCHES = ("gradient_checkpointing", "unified_finetuning", "fix_encoder", "unified_negatives_cross_device")
# A batch that a probe finds before training ("auto") cannot be planned.
BATCH_OF_AUTO = 2
# Beside the tensors: Python with its packages and what glibc keeps of freed memory; CUDA and its kernels.
BESIDE = {"cpu": 2 * GIB, "cuda": 3 * GIB // 4}
# As much more may be needed than was planned.
MARGIN = 0.1


@dataclass(frozen=True)
class Line:
    """What is changed, "as asked for" if nothing, and bytes by kind."""

    change: str
    held: dict[str, int]

    @property
    def sum(self) -> int:
        return sum(self.held.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # the batch
    add_settings(parser, "model_name_or_path", "cache_dir", "per_device_train_batch_size", "train_group_size")
    add_settings(parser, "query_max_len", "passage_max_len", "sub_batch_tokens")
    # the training
    add_settings(parser, "precision", *SWITCHES)
    # the machine
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--processes", type=positive, default=1, help="GPUs, or processes on the CPU")
    parser.add_argument("--deepspeed", action="store_true", help="with ZeRO-0, as ds_stage0.json has it")
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object, in bytes")


def run(args: argparse.Namespace) -> None:
    # What libraries say goes to stderr.
    with contextlib.redirect_stdout(sys.stderr), bar(0, "loading PyTorch", "plans") as shown:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        logging.getLogger("torch").setLevel(logging.ERROR)
        config = find_config(args.model_name_or_path, args.cache_dir)
        step = make_step(args)
        lines = plan(config, step, shown)
        free = free_memory(step.device, step.processes)
    is_auto = args.per_device_train_batch_size == "auto"
    if args.json:
        print(json.dumps(as_data(args.model_name_or_path, step, is_auto, lines, free), indent=2))
        return
    for sentence in describe(args.model_name_or_path, step, is_auto):
        print(sentence)
    print(render(lines))
    print(judge(lines, step.device, step.processes, free))


def find_config(name: str, cache_dir: str | None = None):
    """A model's configuration, from this machine alone. Raises ``KitError`` when it is not there or not understood."""
    from transformers import AutoConfig

    try:
        file = find_local_config(name, cache_dir)
    except KitError as error:
        if name == "BAAI/bge-m3":
            return AutoConfig.for_model("xlm-roberta", **BGE_M3)
        raise KitError(f"no plan: {error}") from error
    try:
        return AutoConfig.from_pretrained(file.parent)
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"no plan: {file} is not understood ({error})") from error


def make_step(args: argparse.Namespace):
    from m3kit.training.footprint import Step

    batch_size = args.per_device_train_batch_size
    return Step(
        batch_size=BATCH_OF_AUTO if batch_size == "auto" else batch_size,
        group_size=args.train_group_size,
        query_max_len=args.query_max_len,
        passage_max_len=args.passage_max_len,
        precision=_settle(args.precision, args.device),
        device=args.device,
        sub_batch_tokens=args.sub_batch_tokens,
        deepspeed=args.deepspeed,
        processes=args.processes,
        **{name: getattr(args, name) for name in SWITCHES},
    )


def _settle(precision: str, device: str) -> str:
    import torch

    from m3kit.training.device import settle_precision

    if precision != "auto":
        return precision
    # Without the GPU nobody knows which 16 bits it will be; they take the same memory.
    return (
        "fp16"
        if device == "cuda" and not torch.cuda.is_available()
        else settle_precision("auto", False, False, device)[0]
    )


# ---- The plan ----


def plan(config, step, shown: Bar | None = None) -> list[Line]:
    """What is asked for, then what each option would change. Raises ``KitError`` for what cannot be planned."""
    from m3kit.training.footprint import footprint

    sixteen = "fp16" if step.device == "cuda" else "bf16"
    changes: dict[str, dict[str, Any]] = {
        "as asked for": {},
        f"gradient_checkpointing {not step.gradient_checkpointing}": {
            "gradient_checkpointing": not step.gradient_checkpointing
        },
        f"precision {sixteen if step.precision == 'fp32' else 'fp32'}": {
            "precision": sixteen if step.precision == "fp32" else "fp32"
        },
        f"unified_finetuning {not step.unified_finetuning}": {"unified_finetuning": not step.unified_finetuning},
        f"sub_batch_tokens {step.sub_batch_tokens // 2}": {"sub_batch_tokens": max(1, step.sub_batch_tokens // 2)},
        f"sub_batch_tokens {step.sub_batch_tokens * 2}": {"sub_batch_tokens": step.sub_batch_tokens * 2},
        f"per_device_train_batch_size {step.batch_size * 2}": {"batch_size": step.batch_size * 2},
        "FlagEmbedding untouched": {"untouched": True},
    }
    tokens = step.batch_size * (step.query_max_len + step.group_size * step.passage_max_len)
    known: dict = {}
    lines = []
    if shown is not None:
        shown.total = len(changes)
        shown.say("planning")
    try:
        for change, options in changes.items():
            changed = replace(step, **options)
            # A batch of fewer tokens is not divided, however many more are allowed.
            changed = replace(changed, sub_batch_tokens=min(changed.sub_batch_tokens, 2 * tokens))
            if changed not in known:
                known[changed] = footprint(config, changed)
            lines.append(Line(change, known[changed]))
            if shown is not None:
                shown.update(1)
    except (ValueError, RuntimeError) as error:
        # Code of other models may look at contents, which there are none of, or know no checkpointing.
        raise KitError(f"no plan: a step of a {config.model_type} model cannot be followed ({error})") from error
    return lines


def free_memory(device: str, processes: int) -> int | None:
    """Bytes; None where the device is not there."""
    if device == "cpu":
        return free_on_machine()
    import torch

    return free_on_gpus(processes) if torch.cuda.is_available() else None


def needed(line: Line, device: str, processes: int) -> int:
    """Bytes with what is beside the tensors. GPUs have memory of their own, processes on the CPU share it."""
    return (line.sum + BESIDE[device]) * (processes if device == "cpu" else 1)


def verdict(size: int, free: int | None) -> str | None:
    """Whether so many bytes fit; None where what is free is not known."""
    if free is None:
        return None
    return "fits" if size * (1 + MARGIN) <= free else "just fits" if size <= free else "does not fit"


def as_data(name: str, step, is_auto: bool, lines: list[Line], free: int | None) -> dict[str, Any]:
    """The plan for programs: what was asked for, then each line's bytes and whether it fits."""
    named = {"batch_size": "per_device_train_batch_size", "group_size": "train_group_size"}
    rows = []
    for line in lines:
        size = needed(line, step.device, step.processes)
        row = {"change": line.change, "bytes": line.held, "sum": line.sum, "needed": size}
        rows.append({**row, "verdict": verdict(size, free)})
    return {
        "model_name_or_path": name,
        # As the arguments are called.
        "options": {named.get(key, key): value for key, value in asdict(step).items() if key != "untouched"},
        "batch_size_is_auto": is_auto,
        "is_estimate": step.device == "cuda",
        "free": free,
        "verdict": rows[0]["verdict"],
        "told": judge(lines, step.device, step.processes, free),
        "lines": rows,
    }


# ---- In words ----


def describe(name: str, step, is_auto: bool) -> list[str]:
    """What the table is about, in sentences."""
    where = {"cpu": "on the CPU", "cuda": "on a GPU"}[step.device]
    if step.processes > 1:
        where = f"in each of {step.processes} processes {where}" if step.device == "cpu" else "on each GPU"
    kept = "DeepSpeed ZeRO-0" if step.deepspeed else "AdamW"
    told = [
        f"Memory plan: {name} {where}, {step.batch_size} queries with {step.group_size} passages each, "
        f"{step.precision}, {kept}.",
        f"The worst case: all texts as long as query_max_len ({step.query_max_len} tokens) and passage_max_len "
        f"({step.passage_max_len}) let them be.",
        "GiB at the moment of a step when most is held" + (" (an estimate):" if step.device == "cuda" else ":"),
    ]
    if is_auto:
        told.insert(1, f"per_device_train_batch_size is auto: a probe will find it; planned for {step.batch_size}.")
    return told


def render(lines: list[Line]) -> str:
    """A table, a line each."""
    kinds = list(lines[0].held)
    rows = [["", *kinds, "sum", ""]]
    for line in lines:
        difference = line.sum - lines[0].sum
        told = "" if line is lines[0] else "the same" if abs(difference) < GIB / 200 else f"{difference / GIB:+.2f}"
        rows.append([line.change, *(f"{line.held[kind] / GIB:.2f}" for kind in kinds), f"{line.sum / GIB:.2f}", told])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in cells)


def judge(lines: list[Line], device: str, processes: int, free: int | None) -> str:
    """Whether it fits, in a sentence, and if not, what would."""
    if free is None:
        return "Whether it fits cannot be told here, where there is no GPU."

    size = needed(lines[0], device, processes)
    what = "Python and its packages" if device == "cpu" else "CUDA"
    place = "this machine" if device == "cpu" else "the GPU"
    told = f"about {size / GIB:.1f} GiB with {what}, and {place} has {free / GIB:.1f} GiB free"
    if (found := verdict(size, free)) != "does not fit":
        return f"It {found}: {told}."
    fitting = [line.change for line in lines[1:-1] if needed(line, device, processes) <= free]
    cure = f"what would: {' or '.join(fitting)}" if fitting else "no single line above would; change several"
    return f"It does NOT fit: {told}; {cure}."
