"""Make the report of a run: one HTML page, a model card and plots, from the JSON that the run left.

    python -m m3kit report outputs/mine

Nothing is loaded but that JSON: no model, no data, no network. Whatever is missing of it the report names.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import product
from pathlib import Path

from m3kit.errors import KitError
from m3kit.progress import bar, quiet, say
from m3kit.report.record import NOT_EVALUATED, read_record

REPORT, CARD, CARD_BESIDE, PLOTS = "report.html", "README.md", "README.kit.md", "plots"
KINDS = ("svg", "png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, metavar="OUTPUT_DIR", help="the output_dir of a run")
    parser.add_argument("--output_dir", type=Path, help="the same")
    parser.add_argument("--json", action="store_true", help="print the paths and the verdict as JSON")
    parser.add_argument("--brief", action="store_true", help="print the report's path alone")


def run(args: argparse.Namespace) -> None:
    if (args.folder is None) == (args.output_dir is None):
        raise KitError("give the output_dir of one run: python -m m3kit report outputs/mine")
    made = make_report(args.folder or args.output_dir)
    if args.json:
        print(json.dumps(made, ensure_ascii=False))
        return
    with quiet(args.brief):
        say(made["verdict"])
        own = f"{CARD} there is your own and stays. " if Path(made["card"]).name != CARD else ""
        rows = "; it shows some rows of the training data" if made["card_shows_rows"] else ""
        say(f"{own}The model card is {made['card']}{rows}.")
        if made["plots"]:
            say(f"{len(made['plots']) // 2} plots, as SVG and PNG, are in {Path(made['plots'][0]).parent}.")
    print(made["report"])


def make_report(folder: Path) -> dict:
    """Write the report of the run in ``folder``; returns its paths and the verdict. Raises ``KitError``."""
    record = read_record(folder)
    # Late, so that errors in the run's files do not wait for matplotlib.
    from m3kit.report.card import MARK, make_card, sample_rows
    from m3kit.report.page import render_page
    from m3kit.report.plots import FILES, draw_plots

    card, report = folder / CARD, folder / REPORT
    if card.exists() and not (card.is_file() and MARK in card.read_text("utf-8", errors="replace")):
        card = folder / CARD_BESIDE
    with bar(None, "drawing the report", ""):
        plots = draw_plots(record)
    files = {folder / PLOTS / f"{name}.{kind}": getattr(plot, kind) for name, plot in plots.items() for kind in KINDS}
    rows, page = sample_rows(record), render_page(record, plots, card.name)
    texts = {card: make_card(record, plots, rows).encode(), report: page.encode()}
    try:
        for name, kind in product(FILES, KINDS):
            (folder / PLOTS / f"{name}.{kind}").unlink(missing_ok=True)
        if plots:
            (folder / PLOTS).mkdir(exist_ok=True)
        for path, content in (files | texts).items():
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(content)
            os.replace(temporary, path)  # who opens it finds a whole file
    except OSError as error:
        raise KitError(f"cannot write the report in {folder} ({error.strerror}); see its room and rights") from error
    made = {"report": str(report), "card": str(card), "plots": sorted(map(str, files)), "card_shows_rows": bool(rows)}
    return made | {"verdict": record.metrics.verdict if record.metrics else NOT_EVALUATED}
