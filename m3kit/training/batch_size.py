"""``python -m m3kit.training.batch_size TRAINER ARGUMENTS``: the batch size for ``per_device_train_batch_size=auto``.

On stdout two numbers, per_device_train_batch_size and sub_batch_tokens; on stderr what decided. With ``--json`` all of
it is one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.progress import bar

# Seconds. What libraries say goes to stderr.
with contextlib.redirect_stdout(sys.stderr), bar(None, "loading PyTorch", ""):
    import datasets
    from transformers import HfArgumentParser
    from transformers.utils import logging as transformers_logging

    from m3kit.training.arguments import DataArguments, ModelArguments, TrainingArguments
    from m3kit.training.collator import MOST_PADDING
    from m3kit.training.probe import SCORES, Measured, Probe, RowTokens, does_not_fit, gib
    from m3kit.training.run_record import read_record

# More leave few steps in an epoch, and at the same learning rate less is learnt. Fewer than two have no negatives.
MOST, LEAST = 128, 2
FEWEST_STEPS = 32
# The rest is for what the probe does not see: kernels' own memory, pieces between tensors, other programs.
USABLE = 0.9
STEP_OF_TOKENS = 1024


@dataclass(frozen=True)
class Weights:
    """Numbers, not bytes: of the model, of those that are trained, and of these the word embeddings'."""

    all: int
    trained: int
    words: int


@dataclass(frozen=True)
class Run:
    """What of its settings counts here. ``most_tokens``: the user's own sub_batch_tokens, or None."""

    processes: int = 1
    accumulation: int = 1
    most_tokens: int | None = None


def held(weights: Weights, processes: int, accumulation: int, deepspeed: bool, half: bool) -> tuple[int, int]:
    """Bytes beside the texts': while these are held, and in the optimizer's step, when they are gone.

    AdamW has two moments in 32 bits. The gradient of the word embeddings is made last, when no text is held any more.
    """
    trained = weights.trained
    if deepspeed:
        # In 16 bits it trains a copy in 32, and gives the optimizer all gradients in 32; this makes one more of each.
        size, copies = (2, 12) if half else (4, 8)
        standing = size * weights.all + copies * trained + size * trained
        return standing, standing + (8 if half else 4) * trained
    # Between processes a second copy of the gradients is sent.
    standing = 4 * weights.all + 8 * trained + (4 * trained if processes > 1 else 0)
    if accumulation > 1:
        return standing + 4 * trained, standing + 4 * (trained + weights.words)
    return standing + 4 * (trained - weights.words), standing + 4 * trained


@dataclass(frozen=True)
class Choice:
    batch_size: int
    sub_batch_tokens: int
    why: str


def choose(fit: int, longest: int, sets: Sequence[RowTokens], run: Run) -> Choice:
    """The most rows that are encoded at once, of which an epoch still has steps enough. ``fit``: tokens at once."""
    at_once = max(fit // STEP_OF_TOKENS * STEP_OF_TOKENS or fit, longest)
    at_once_is = "more tokens than fit at once"
    if run.most_tokens and run.most_tokens < at_once:
        at_once, at_once_is = run.most_tokens, f"more tokens than sub_batch_tokens {run.most_tokens:,}, as asked"
    batch_size, why = LEAST, ""
    while not (why := _against(2 * batch_size, at_once, at_once_is, sets, run)):
        batch_size *= 2
    if batch_size == LEAST and (least := _against(LEAST, at_once, at_once_is, sets, run)):
        why = f"the least there is, though {least}"
    return Choice(batch_size, at_once, why)


def _against(batch_size: int, at_once: int, at_once_is: str, sets: Sequence[RowTokens], run: Run) -> str:
    """What speaks against so many rows, or nothing."""
    if batch_size > MOST:
        return f"with more than {MOST} few steps remain, and at the same learning rate less is learnt"
    tokens = max(tokens_of(batch_size, rows, run.processes) for rows in sets)
    if tokens > at_once:
        return f"the texts of {batch_size} rows are up to {tokens:,} tokens, {at_once_is}"
    rows = max(one.rows for one in sets)
    if rows // (batch_size * run.processes * run.accumulation) < FEWEST_STEPS:
        return f"{batch_size} would leave fewer than {FEWEST_STEPS} steps an epoch of {rows:,} rows"
    return ""


def tokens_of(batch_size: int, rows: RowTokens, processes: int = 1) -> int:
    """Tokens, padding included, that 49 of 50 batches of these rows have at most."""
    batch_size = min(batch_size, max(1, rows.rows // processes))
    spread = 2 * statistics.pstdev(rows.sample) * math.sqrt(batch_size)
    tokens = min(batch_size * statistics.fmean(rows.sample) + spread, batch_size * max(rows.sample))
    return math.ceil(tokens / (1 - MOST_PADDING))


def find(probe: Probe, run: Run, deepspeed: bool) -> tuple[Choice, str]:
    """The choice, and the sentences about it."""
    args = probe.training_args
    weights = Weights(probe.numbers, probe.trained, probe.trained_words)
    standing, in_step = held(weights, run.processes, run.accumulation, deepspeed, probe.dtype is not None)
    if args.unified_finetuning:
        standing += SCORES
    measured = probe.measure()
    usable = int(USABLE * probe.free)
    # Two rows that do not fit at once leave their vectors until the end all the same.
    least_tokens = max(tokens_of(LEAST, rows, run.processes) for rows in probe.sets)
    fit = measured.fit_into(usable - standing)
    if fit < least_tokens:
        fit = measured.fit_into(usable - standing - least_tokens * probe.kept_per_token)
    if fit < probe.longest or in_step > usable:
        raise does_not_fit(
            f"training does not fit: the model, its gradients and the optimizer take {gib(max(standing, in_step))} and "
            f"{measured.tokens:,} tokens {gib(measured.taken)} more, and of {gib(probe.free)} that are free "
            f"{USABLE:.0%} are counted on"
        )
    choice = choose(fit, probe.longest, probe.sets, run)
    return choice, _tell(choice, probe, measured, standing, fit)


def _tell(choice: Choice, probe: Probe, measured: Measured, standing: int, fit: int) -> str:
    mean = max(statistics.fmean(rows.sample) for rows in probe.sets)
    return (
        f"Batch size {choice.batch_size} (auto): {choice.why}. Of {gib(probe.free)} that are free the model, its "
        f"gradients and the optimizer take {gib(standing)}, and {USABLE:.0%} of the whole have room for {fit:,} tokens "
        f"at once (probe: {measured.tokens:,} took {gib(measured.taken)}), about {fit / mean:,.0f} rows; "
        f"sub_batch_tokens {choice.sub_batch_tokens}."
    )


def recorded(output_dir: Path) -> tuple[int, int] | None:
    """The two numbers of the unfinished run that ``output_dir`` holds, and that goes on; None where there is none."""
    record = read_record(output_dir)
    if record is None or record["status"] == "finished":
        return None
    settings = record["settings"]
    default = TrainingArguments.__dataclass_fields__["sub_batch_tokens"].default
    return settings["per_device_train_batch_size"], settings.get("sub_batch_tokens", default)


def main() -> int:
    # All of it is said again when training begins.
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    as_json = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    as_json.add_argument("--json", action="store_true")
    asked, words = as_json.parse_known_args()
    try:
        # stdout is for the two numbers.
        with contextlib.redirect_stdout(sys.stderr):
            batch_size, sub_batch_tokens, told = settle(words)
    except (KitError, FileNotFoundError) as error:
        print(f"m3kit.training.batch_size: {error}", file=sys.stderr)
        if path := os.environ.get("M3KIT_ERROR_FILE"):
            Path(path).write_text(f"{error}\n", encoding="utf-8")
        return 1
    if asked.json:
        numbers = {"per_device_train_batch_size": batch_size, "sub_batch_tokens": sub_batch_tokens}
        print(json.dumps({**numbers, "why": told}, indent=2))
        return 0
    print(told, file=sys.stderr)
    print(batch_size, sub_batch_tokens)
    return 0


def settle(words: Sequence[str]) -> tuple[int, int, str]:
    """per_device_train_batch_size, sub_batch_tokens, and what decided, from the trainer's arguments."""
    own = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    own.add_argument("--processes", type=int, default=1)
    # Not begun here: it would look for other processes. What it holds is reckoned.
    own.add_argument("--deepspeed")
    asked, words = own.parse_known_args(words)
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, TrainingArguments),
        prog="python -m m3kit.training.batch_size",
        description="Beside the trainer's arguments: --processes N, --deepspeed FILE, and --json for one JSON object.",
    )
    model_args, data_args, args, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        raise KitError(f"the trainer has no argument {' '.join(unknown)}; see python -m m3kit.training --help")
    if not args.overwrite_output_dir and (numbers := recorded(Path(args.output_dir))):
        return *numbers, f"Batch size {numbers[0]}: that of the unfinished run in {args.output_dir}, which goes on."
    default = TrainingArguments.__dataclass_fields__["sub_batch_tokens"].default
    run = Run(
        processes=asked.processes,
        accumulation=args.gradient_accumulation_steps,
        most_tokens=args.sub_batch_tokens if args.sub_batch_tokens != default else None,
    )
    deepspeed = bool(asked.deepspeed)
    with bar(None, "loading model and rows", "") as shown:
        probe = Probe(model_args, data_args, args, run.processes, deepspeed)
        shown.say("measuring what fits")
        choice, told = find(probe, run, deepspeed)
    return choice.batch_size, choice.sub_batch_tokens, told


if __name__ == "__main__":
    sys.exit(main())
