"""Compare models on test data: retrieval (BEIR), semantic similarity, classification and clustering.

    python -m m3kit evaluate
    python -m m3kit evaluate --models base=BAAI/bge-m3 tuned=outputs/run --eval_data eval --output_dir outputs/run

Without arguments: the newest finished run below outputs/ beside the model it started from, on the run's test data, both
encoded as it was trained, into its folder. --output_dir outputs/run alone evaluates that run again.

Retrieval is measured by dense, sparse, ColBERT and hybrid scores, the other three tasks by dense vectors; what was
forgotten, on general text that comes with the kit. The table goes to stdout, everything to metrics.json; which score
to serve, with the weight of BM25 beside the model's, is found by cross-validation and kept in hybrid.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from m3kit import records
from m3kit.arguments import add_encoding_arguments
from m3kit.encoding.trained_with import Encoding, trained_encoding, training_told
from m3kit.errors import KitError
from m3kit.evaluation.serving import HYBRID, hybrid_settings
from m3kit.evaluation.table import render_table
from m3kit.hub import CONFIG
from m3kit.progress import quiet, say
from m3kit.records import RUN
from m3kit.runs import FoundRun, folder_of, known_runs, newest_run, read_run
from m3kit.test_data.beir import EvalData, read_eval_data
from m3kit.test_data.folder import LAYOUT, EvalFolder, read_eval_folder
from m3kit.test_data.sample import choosing_half

GENERAL = Path(__file__).parent / "general"
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="NAME=PATH",
        help="model folders or hub names; the first is the base, with which the others are compared (default: the run "
        "in --output_dir, else the newest finished one below outputs/, and the model it started from)",
    )
    parser.add_argument("--eval_data", type=Path, help=f"folder with {LAYOUT} (default: that run's)")
    parser.add_argument(
        "--output_dir", type=Path, help="where metrics.json is written (default: that run's folder; needed by --models)"
    )
    parser.add_argument("--json", action="store_true", help="print what metrics.json holds instead of the table")
    parser.add_argument("--brief", action="store_true", help="print the verdict alone")
    parser.add_argument(
        "--general_data",
        default="auto",
        help="folder in BEIR form with text of other kinds, for what was forgotten; auto: the kit's; none",
    )
    add_encoding_arguments(parser, "(default: as each model was trained)")
    parser.add_argument(
        "--cache_dir", help="where hub models are kept (default: as in that run, else the hub library's own place)"
    )


def run(args: argparse.Namespace) -> None:
    if args.output_dir and not args.models:
        _require_run_folder(args.output_dir)
    if not (args.models and args.eval_data and args.output_dir):
        args = _with_run(args)
    paths = parse_models(args.models)
    data, judged_on = _judging(read_eval_folder(args.eval_data), Path(list(paths.values())[-1]))
    general = _general(args.general_data, data)
    make_folder(args.output_dir)
    # Late, so that errors in arguments and data do not wait for torch.
    from m3kit.evaluation.comparison import evaluate

    with quiet(args.brief):
        metrics = evaluate(
            paths,
            data,
            general=general,
            cache_dir=args.cache_dir,
            device=args.device,
            precision=args.precision,
            batch_size=args.batch_size,
            encoding={field.name: getattr(args, field.name) for field in fields(Encoding)},
            judged_on=judged_on,
        )
    if told := training_told(Path(list(paths.values())[-1])):
        metrics = replace(metrics, verdict=f"{metrics.verdict}\n{told}")
    # First, for metrics.json says that the evaluation is done.
    if metrics.serving:
        records.write(hybrid_settings(metrics, args.output_dir), args.output_dir / HYBRID)
    written = records.write(metrics, args.output_dir / records.METRICS)
    if args.json:
        print(json.dumps(asdict(metrics), ensure_ascii=False, allow_nan=False))
    elif args.brief:
        print(metrics.verdict)
    else:
        print(render_table(metrics), metrics.verdict, sep="\n\n")
    with quiet(args.brief):
        say(f"All numbers and settings are in {written}.")


def _judging(data: EvalFolder, model: Path) -> tuple[EvalFolder, str]:
    """What of the test data judges a run's model, and how that is come by, in words.

    Queries by which its checkpoint was chosen would be too kind to it: where half of them chose, the others judge.
    """
    run = read_run(model)
    try:
        chose = run.eval_data("").resolve() if run.chosen_on else None
    except KitError:  # they are gone, so these are others
        chose = None
    if chose != data.folder.resolve():
        return data, ""
    if run.chosen_on == "half":
        return choosing_half(data)[1], "Judged by the half of the test data that did not choose the checkpoint."
    return data, (
        "The same test data chose the checkpoint, for it is too little to be parted: the figures are a little too good."
    )


def _require_run_folder(folder: Path) -> None:
    """Raise ``KitError`` where a folder that should hold a run is not there, which names the runs that are."""
    if not folder.is_dir():
        there = ", ".join(map(str, known_runs(folder.absolute().parent)))
        raise KitError(
            f"there is no folder {folder}; the runs that are there: {there or 'none'}. "
            f"For figures in a new folder, make it first: mkdir -p {shlex.quote(str(folder))}"
        )


def _with_run(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with those that were not given taken from a run; what is chosen goes to stderr.

    The run is the one in ``output_dir``, else the newest finished one below outputs/. Without ``models`` its model is
    compared with the one it started from, and both are encoded as it was trained, as after training; the results go
    into its folder. Raises ``KitError`` where something is not to be found.
    """
    if args.models and not args.output_dir:
        raise KitError("these models may be of several runs; say with --output_dir where metrics.json is to be written")
    run, told = _run_of(args)
    chosen: dict[str, Any] = {"output_dir": args.output_dir or run.folder}
    if not args.models:
        base = run.base(_by_hand(run.folder))
        chosen["models"] = [f"base={base}", f"tuned={run.folder}"]
        encoding = asdict(trained_encoding(run.folder, {}))
        chosen |= {name: value for name, value in encoding.items() if getattr(args, name) is None}
        cache = folder_of(run.setting("cache_dir"))
        chosen["cache_dir"] = args.cache_dir or (str(cache) if cache else None)
        told += f"; its base: {base}"
    chosen["eval_data"] = args.eval_data or run.eval_data("give --eval_data a folder")
    print(f"{told}; test data: {chosen['eval_data']}", file=sys.stderr, flush=True)
    return argparse.Namespace(**{**vars(args), **chosen})


def _run_of(args: argparse.Namespace) -> tuple[FoundRun, str]:
    """The run, and the words that name it."""
    folder = args.output_dir
    if not folder or not (folder / RUN).exists():
        if folder and (folder / CONFIG).exists() and not args.models:
            # Figures of another model would be taken for this one's.
            raise KitError(f"{folder} holds a model but no {RUN} that says what it started from; {_by_hand(folder)}")
        return newest_run()
    run = read_run(folder)
    # Of a run that is not finished the test data can be taken, for example for its checkpoints.
    if run.lacks and not args.models:
        what = "train it to its end, or say which models to compare with --models"
        raise KitError(f"the run in {folder} {run.lacks}; {what}")
    return run, f"The run: {folder}"


def _by_hand(folder: Path) -> str:
    tuned, output_dir = shlex.quote(f"tuned={folder}"), shlex.quote(str(folder))
    return f"give --models base=… {tuned} --output_dir {output_dir}"


def parse_models(given: list[str]) -> dict[str, str]:
    """NAME=PATH arguments in their order. Raises ``KitError``."""
    models: dict[str, str] = {}
    for argument in given:
        name, equals, path = argument.partition("=")
        if not equals or not path or not re.fullmatch(r"[\w.-]+", name):
            raise KitError(
                f"--models {argument!r} is not NAME=PATH; write for example base=BAAI/bge-m3 tuned=outputs/run"
            )
        if name in models:
            raise KitError(f"--models names {name!r} twice; give each model its own name")
        models[name] = path
    return models


def _general(given: str, data: EvalFolder) -> EvalData | None:
    if given == NONE:
        return None
    folder = GENERAL if given == "auto" else Path(given)
    # Once is enough.
    return None if folder.resolve() == data.folder.resolve() else read_eval_data(folder, "--general_data")


def make_folder(folder: Path) -> None:
    """Make the output folder, before hours are spent on what would be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"--output_dir {folder} cannot be made ({error}); choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise KitError(f"--output_dir {folder} may not be written to; choose another folder or change its rights")
