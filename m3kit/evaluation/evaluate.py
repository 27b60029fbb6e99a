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
from dataclasses import asdict, fields, replace
from pathlib import Path

from m3kit import records
from m3kit.arguments import add_encoding_arguments
from m3kit.encoding.trained_with import Encoding, training_told
from m3kit.errors import KitError
from m3kit.evaluation.beir import EvalData, read_eval_data
from m3kit.evaluation.folder import LAYOUT, EvalFolder, read_eval_folder
from m3kit.evaluation.newest import with_newest_run
from m3kit.evaluation.sample import choosing_half
from m3kit.evaluation.serving import HYBRID, hybrid_settings
from m3kit.evaluation.table import render_table
from m3kit.progress import quiet, say

KIT = Path(__file__).parents[2]
if not (KIT / "requirements.txt").is_file():
    # Installed as a package: runs are in the folder where it is called.
    KIT = Path()
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
        args = with_newest_run(args, KIT)
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
    try:
        run = records.read(model / records.RUN, records.Run, "")
    except KitError:  # of another tool
        run = None
    if not run or not run.chosen_on or Path(run.settings.get("eval_data") or "").resolve() != data.folder.resolve():
        return data, ""
    if run.chosen_on == "half":
        return choosing_half(data)[1], "Judged by the half of the test data that did not choose the checkpoint."
    return data, (
        "The same test data chose the checkpoint, for it is too little to be parted: the figures are a little too good."
    )


def _require_run_folder(folder: Path) -> None:
    """Raise ``KitError`` where a folder that should hold a run is not there, which names the runs that are."""
    if folder.is_dir():
        return
    here = Path.cwd()
    places = {folder.absolute().parent, KIT.absolute() / "outputs"}
    runs = sorted({file.parent for place in places for file in place.glob("*/run.json")})
    there = ", ".join(str(run.relative_to(here) if run.is_relative_to(here) else run) for run in runs)
    raise KitError(
        f"there is no folder {folder}; the runs that are there: {there or 'none'}. "
        f"For figures in a new folder, make it first: mkdir -p {shlex.quote(str(folder))}"
    )


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
    return None if folder.resolve() == data.folder.resolve() else read_eval_data(folder)


def make_folder(folder: Path) -> None:
    """Make the output folder, before hours are spent on what would be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KitError(f"--output_dir {folder} cannot be made ({error}); choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise KitError(f"--output_dir {folder} may not be written to; choose another folder or change its rights")
