"""Make the report of a run: one HTML page, a model card and plots, from the JSON that the run left.

    python -m m3kit report outputs/mine

Nothing is loaded but that JSON: no model, no data, no network. Whatever is missing of it the report names.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m3kit.errors import KitError
from m3kit.progress import bar, quiet, say
from m3kit.report.record import read_record

if TYPE_CHECKING:
    from m3kit.report.figure import Plot

REPORT, CARD, CARD_BESIDE, PLOTS = "report.html", "README.md", "README.kit.md", "plots"


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
        if Path(made["card"]).name != CARD:
            say(f"{CARD} there is your own and stays; the kit's model card is {made['card']}.")
        else:
            say(f"The model card is {made['card']}.")
        if made["plots"]:
            say(f"{len(made['plots'])} plots, as SVG and PNG, are in {Path(made['plots'][0]).parent}.")
    print(made["report"])


def make_report(folder: Path) -> dict:
    """Write the report of the run in ``folder``; returns its paths and the verdict. Raises ``KitError``."""
    record = read_record(folder)
    # Late, so that errors in the run's files do not wait for matplotlib.
    from m3kit.report.card import is_ours, make_card
    from m3kit.report.draw import draw, plots_to_draw
    from m3kit.report.page import render_page
    from m3kit.report.view import make_view

    card = folder / (CARD if is_ours(folder / CARD) else CARD_BESIDE)
    wanted = plots_to_draw(record)
    with bar(len(wanted) + 2, "drawing the report", "parts") as shown:
        plots = draw(wanted, shown.update)
        view = make_view(record)
        page = render_page(view, plots, card.name)
        shown.update(1)
        text = make_card(record)
        shown.update(1)
    try:
        _clear(folder / PLOTS, plots)
        files = [file for plot in plots.values() for file in _write_plot(folder / PLOTS, plot)]
        _write(card, text.encode())
        _write(folder / REPORT, page.encode())
    except OSError as error:
        raise KitError(
            f"cannot write the report in {folder} ({error.strerror}); make room, or make it writable"
        ) from error
    return {
        "report": str(folder / REPORT),
        "card": str(card),
        "plots": [str(file) for file in files],
        "verdict": "\n".join(view["verdict"]["lines"]),
    }


def _clear(folder: Path, plots: Mapping[str, Plot]) -> None:
    """Plots of an earlier report would be taken for this one's."""
    from m3kit.report.draw import NAMES

    for name in set(NAMES) - set(plots):
        for kind in ("svg", "png"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)


def _write_plot(folder: Path, plot: Plot) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{plot.name}.svg", folder / f"{plot.name}.png"]
    for path, content in zip(paths, (plot.svg.encode(), plot.png), strict=True):
        _write(path, content)
    return paths


def _write(path: Path, content: bytes) -> None:
    """Under a temporary name, then renamed: who opens it finds a whole file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
