"""Show the steps of a training, or hand the next of them to the training script.

    python -m m3kit plan -- --recipe best --train_data my_data

What stands behind ``--`` is what the user typed. Wrong input ends with exit code 2, whatever is asked of the plan.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from m3kit.environment import Environment, find, has_module, missing_commands
from m3kit.errors import KitError
from m3kit.planning.folders import check_paths, expected_folders, find_evaluation, what_is_left
from m3kit.planning.machine import look, set_up
from m3kit.planning.memory import tell_memory
from m3kit.planning.request import KIT, Request, WrongInput, read_request
from m3kit.planning.steps import END, Found, Run, next_steps, quote, without_evaluation
from m3kit.settings_text import help_text

# What stands in a dry run for what the recipe prints.
CHOSEN = "${chosen[@]}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--script", choices=["single", "multi"], default="single")
    parser.add_argument("--settings", action="store_true", help="only list the settings with their defaults")
    parser.add_argument("--program", default="./run_flagembedding_training_single_gpu.sh", help="as it was typed")
    parser.add_argument("--python", help="the Python that runs the steps; without it, the one that a script would find")
    parser.add_argument("--block", action="append", default=[], metavar="NAME=VALUE", help="variables of the script")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say what is wrong, or how it will be run")
    what.add_argument("--found", type=Path, metavar="FOLDER", help="what earlier steps printed; print the next steps")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and what the user typed")


def run(args: argparse.Namespace) -> int:
    if args.settings:
        print(help_text(args.script))
        return 0
    try:
        _plan(args)
    except WrongInput as error:
        print(f"{Path(args.program).name}: {error}", file=sys.stderr)
        return 2
    except KitError as error:
        print(f"{Path(args.program).name}: {error}", file=sys.stderr)
        return 1
    return 0


def _plan(args: argparse.Namespace) -> None:
    block: dict[str, list[str]] = {}
    for entry in args.block:
        name, _, value = entry.partition("=")
        block.setdefault(name, []).append(value)
    request = read_request(args.script, args.arguments[1:], os.environ, block)
    dry_run = args.found is None and not args.check
    check_paths(request)
    environment = Environment(args.python, True, "") if args.python else find()
    _check_tracker(request["report_to"], environment.python)
    machine = look(environment.python)
    setup = set_up(request, machine, args.program, dry_run)
    evaluation = find_evaluation(request)
    try:
        left, told = what_is_left(request, evaluation)
    except KitError as error:
        if not dry_run:
            raise
        left, told = "all", f"{Path(args.program).name}: warning: {error}"
    python = environment.python
    # A torchrun beside another Python would start that one.
    beside = shutil.which("torchrun", path=str(Path(python).parent))
    torchrun = ["torchrun"] if beside or not environment.ready else [python, "-m", "torch.distributed.run"]
    wrapper = os.environ.get("M3KIT_WRAPPER", "")
    planned = Run(request, setup, evaluation, left, python, torchrun, args.program, wrapper)
    if args.found is None:
        for sentence in (" ".join(setup.told), evaluation.told, told):
            if sentence:
                print(sentence, file=sys.stderr)
    if dry_run:
        _show(planned, environment)
    elif args.found is not None:
        _hand_over(planned, args.found)


def _check_tracker(name: str, python: str) -> None:
    """Refuse ``report_to`` where the Python that trains lacks its package: another one may have it."""
    if name not in ("tensorboard", "none") and not has_module(python, name):
        when = "" if Path(python).exists() else " once a first run has made it"
        raise WrongInput(
            f"report_to is {name}, and there is no such package; install it where the kit runs{when} "
            f"({quote([python, '-m', 'pip', 'install', name])}), or give tensorboard or none"
        )


def _hand_over(run: Run, folder: Path) -> None:
    """The next steps for Bash, each word ended by a NUL.

    The number of variables and these; then of each step title, output, number of words, and words.
    """
    _make_output_dir(run.request)
    found = Found(_read(folder / "prepared"), _read(folder / "chosen") or [])
    known = without_evaluation(run, found)
    if known is not run and not found.chosen:
        print(
            "Evaluation: none, for nothing was held out (the reason is above); whether the model got better stays "
            "unknown.",
            file=sys.stderr,
        )
    words = [str(len(run.setup.environment)), *_variables(run)]
    for step in next_steps(known, found):
        places = {"stdout": "/dev/stdout", "stderr": "/dev/stderr", "nowhere": "/dev/null"}
        places["screen"] = f"screen:{run.request['output_dir']}/train.log"
        words += [step.title, places.get(step.output, str(folder / step.output)), str(len(step.command)), *step.command]
    sys.stdout.write("".join(f"{word}\0" for word in words))


def _variables(run: Run) -> list[str]:
    return [f"{name}={value}" for name, value in run.setup.environment.items()]


def _read(file: Path) -> list[str] | None:
    return file.read_text("utf-8").splitlines() if file.exists() else None


def _make_output_dir(request: Request) -> None:
    try:
        Path(request["output_dir"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(
            f"cannot make the folder {request['output_dir']} ({error.strerror}); give another --output_dir"
        ) from error


def _show(run: Run, environment: Environment) -> None:
    """All steps as a script, of which every line can be pasted; what a step will print has a stand-in."""
    print(f"{environment.told}\nNothing is run. The commands:", file=sys.stderr)
    # The rest of PATH is that of the shell into which it is pasted.
    modules = quote([os.environ.get("PYTHONPATH", str(KIT))])
    print(f'export PATH={quote([str(Path(run.python).parent)])}:"$PATH" PYTHONPATH={modules} PYTHONSAFEPATH=1')
    for command in [] if environment.ready else missing_commands():
        print(quote(command))
    print(f"export {quote(_variables(run))}")
    found, title = Found(), ""
    while title != END:
        for step in next_steps(run, found):
            title, line = step.title, _pasteable(step.command)
            if step.output == "prepared":
                found = replace(found, prepared=expected_folders(run.request))
            elif step.output == "chosen":
                line = f"mapfile -t chosen < <({line})"
                found = replace(found, chosen=[CHOSEN])
            if title != END:
                print(line)
    if told := tell_memory(run.request, run.setup):
        print(told, file=sys.stderr)


def _pasteable(command: list[str]) -> str:
    """One line, in which the variable of a dry run stands in double quotes."""
    return " ".join(f'"{word}"' if word == CHOSEN else quote([word]) for word in command)
