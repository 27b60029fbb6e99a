"""May a run go on with the settings and data of now? What is other than in its record, and whether that is harmless."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from m3kit.errors import KitError
from m3kit.training.run_record import plain

# Where a run is kept and what is told about it: no word of it when these differ.
UNSAID = (
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "run_name",
    "local_rank",
    "log_*",
    "token",
    "*_token",
    "hub_*",
    "push_to_hub*",
    "project",
    "trackio_*",
    # gradient_checkpointing says it.
    "activation_checkpointing*",
    "do_train",
    "do_eval",
    "do_predict",
    "debug",
    "skip_memory_metrics",
    # fp16 and bf16 say it.
    "precision",
)
# How, not what, the model learns: these may change from one part of a run to the next, and that is told.
FREE = (
    "logging_*",
    "save_*",
    "eval_*",
    "per_device_eval_batch_size",
    "batch_eval_metrics",
    "include_for_metrics",
    "prediction_loss_only",
    "report_to",
    "disable_tqdm",
    "dataloader_*",
    "cache_dir",
    "cache_path",
    "gradient_checkpointing*",
    "sub_batch_size",
    "sub_batch_tokens",
    "pad_to_multiple_of",
    "fp16*",
    "bf16*",
    "tf32",
    "attn_implementation",
    "use_cpu",
    "ddp_*",
    "torch_compile*",
    "torch_empty_cache_steps",
    # The rows themselves are compared, so the folder may have been moved.
    "train_data",
    # Another file; switched on or off is another matter (see _may_change).
    "deepspeed",
)
# Against the patterns above: it decides which rows are trained on.
NEVER_FREE = ("dataloader_drop_last",)
# Of the precision.
SWITCHES = ("fp16", "bf16")
LONGEST_VALUE = 80


def differences(
    record: dict[str, Any], settings: dict[str, Any], data: list[dict[str, Any]], world_size: int
) -> tuple[list[str], list[str]]:
    """What is other now than in a ``run.json``, each in a few words: (what may be, what may not).

    A setting that is not known to be harmless is refused: going on would ignore it without a word (the learning rate
    comes back with the optimizer), or make a model that no single run would have made. One that only one side has is
    neither, for the other was another version of the kit.
    """
    harmless, refused = [], []
    before, now = record["settings"], plain(settings)
    for name in sorted(before.keys() & now.keys()):
        if before[name] == now[name] or _matches(name, UNSAID):
            continue
        # Off is off, given as None or as nothing.
        if name == "deepspeed" and not before[name] and not now[name]:
            continue
        if _may_change(name, before[name], now[name]) and (name not in SWITCHES or _may_switch(before, now)):
            harmless.append(f"{name} {_show(now[name])} instead of {_show(before[name])}")
        else:
            refused.append(f"{name} was {_show(before[name])} and is now {_show(now[name])}")
    refused += _data_differences(record["data"], plain(data))
    if record["world_size"] != world_size:
        refused.append(f"it ran in {record['world_size']} process(es) and would now in {world_size}")
    return harmless, refused


def refusal(output_dir: Path, refused: Sequence[str]) -> KitError:
    """What to tell when a run cannot go on, for what ``differences`` refused."""
    return KitError(
        f"{output_dir} holds an unfinished run, and it is another than the one asked for: {'; '.join(refused)}. "
        f"Put {'this' if len(refused) == 1 else 'these'} back to go on with it, or give another --output_dir, or "
        "--overwrite_output_dir True to delete it and train anew"
    )


def _may_change(name: str, before: Any, now: Any) -> bool:
    # With DeepSpeed a checkpoint has other files, which do not load without it, nor the other way round.
    if name == "deepspeed" and bool(before) != bool(now):
        return False
    return _matches(name, FREE) and name not in NEVER_FREE


def _may_switch(before: dict[str, Any], now: dict[str, Any]) -> bool:
    # In 16 bits DeepSpeed saves weights of 32 besides, without which it does not go on, and in fp16 the scale of the
    # losses, without which it would go on with none.
    return not now.get("deepspeed") or bool(before.get("fp16") and now.get("bf16"))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _show(value: Any) -> str:
    shown = str(value) if value != "" else "empty"
    return shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 1]}…"


def _data_differences(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """By the last two parts of a file's path and what it holds; where it lies, or comes in the list, does not count."""
    then_by_name, now_by_name = _by_name(before), _by_name(now)
    found = []
    for name in sorted(then_by_name.keys() | now_by_name.keys()):
        then, current = then_by_name.get(name, []), now_by_name.get(name, [])
        if len(then) < len(current):
            found.append(f"{name} is new")
        elif len(then) > len(current):
            found.append(f"{name} is missing")
        elif [rows for rows, _ in then] != [rows for rows, _ in current]:
            counts = (" and ".join(f"{rows:,}" for rows, _ in side) for side in (then, current))
            found.append("{} had {} rows and has now {}".format(name, *counts))
        # A record may be from before digests were kept.
        elif all(digest for _, digest in [*then, *current]) and then != current:
            found.append(f"{name} has other rows")
    return found


def _by_name(data: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    named = defaultdict(list)
    for entry in data:
        path = entry.get("path")
        name = f"data set {'/'.join(PurePath(path).parts[-2:])}" if path else "the training data"
        named[name].append((entry.get("rows", 0), entry.get("digest") or ""))
    return {name: sorted(entries) for name, entries in named.items()}
