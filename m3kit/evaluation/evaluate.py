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
import math
import os
import re
import shlex
from dataclasses import fields
from pathlib import Path

from m3kit.arguments import add_encoding_arguments
from m3kit.errors import KitError
from m3kit.evaluation.beir import EvalData, read_eval_data
from m3kit.evaluation.folder import LAYOUT, EvalFolder, read_eval_folder
from m3kit.evaluation.newest import with_newest_run
from m3kit.evaluation.serving import HYBRID, hybrid_settings
from m3kit.evaluation.table import render_table
from m3kit.evaluation.trained_with import Encoding
from m3kit.progress import quiet, say

KIT = Path(__file__).parents[2]
if not (KIT / "requirements.txt").is_file():
    # Installed as a package: runs and caches are in the folder where it is called.
    KIT = Path()
GENERAL = Path(__file__).parent / "general"
VECTORS = KIT / "cache" / "vectors"
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
    parser.add_argument(
        "--hybrid_weights",
        default="1,0.3,1",
        metavar="DENSE,SPARSE,COLBERT",
        help="three numbers: how the hybrid score of the table adds up the three (default: %(default)s)",
    )
    add_encoding_arguments(parser, "(default: as each model was trained)")
    parser.add_argument(
        "--cache_dir", help="where hub models are kept (default: as in that run, else the hub library's own place)"
    )
    parser.add_argument(
        "--vector_cache",
        default=str(VECTORS),
        metavar="FOLDER",
        help="where vectors of the base are kept for the next time, or none (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    if args.output_dir and not args.models:
        _require_run_folder(args.output_dir)
    if not (args.models and args.eval_data and args.output_dir):
        args = with_newest_run(args, KIT)
    paths = parse_models(args.models)
    weights = parse_weights(args.hybrid_weights)
    data = read_eval_folder(args.eval_data)
    general = _general(args.general_data, data)
    make_folder(args.output_dir)
    # Late, so that errors in arguments and data do not wait for torch.
    from m3kit.evaluation.comparison import evaluate

    with quiet(args.brief):
        metrics = evaluate(
            paths,
            data,
            general=general,
            weights=weights,
            vector_cache=None if args.vector_cache == NONE else Path(args.vector_cache),
            cache_dir=args.cache_dir,
            device=args.device,
            precision=args.precision,
            batch_size=args.batch_size,
            encoding={field.name: getattr(args, field.name) for field in fields(Encoding)},
        )
    # First, for metrics.json says that the evaluation is done.
    if "serving" in metrics:
        write_json(hybrid_settings(metrics, args.output_dir), args.output_dir / HYBRID)
    written = write_json(metrics, args.output_dir / "metrics.json")
    if args.json:
        print(json.dumps(metrics, ensure_ascii=False, allow_nan=False))
    elif args.brief:
        print(metrics["verdict"])
    else:
        print(render_table(metrics), metrics["verdict"], sep="\n\n")
    with quiet(args.brief):
        say(f"All numbers and settings are in {written}.")


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


def parse_weights(given: str) -> dict[str, float]:
    """ "DENSE,SPARSE,COLBERT", such as 1,0.3,1. Raises ``KitError``."""
    try:
        weights = [float(part) for part in given.split(",")]
    except ValueError:
        weights = []
    names = ("dense", "sparse", "colbert")
    if len(weights) != len(names) or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise KitError(
            f"--hybrid_weights {given!r} is not three numbers of 0 or more, not all 0; "
            "write dense,sparse,colbert, for example 1,0.3,1"
        )
    return dict(zip(names, weights, strict=True))


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


def write_json(content: dict, target: Path) -> Path:
    """Write under a temporary name and rename it, so that no reader meets half a file."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return target
