"""From a matplotlib figure to files, and to an SVG that stands inside the page and follows its colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The page's colours, by their CSS variables, which take their place in the page. Those of the files are the light ones.
CSS = Path(__file__).with_name("templates") / "report.css"
COLOURS = dict(re.findall(r"--(\w+): light-dark\((#\w{6})", CSS.read_text("utf-8")))
# Points, which are the units of the SVG: a plot is as wide as half the page, and as a phone.
WIDTH = 390
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), COLOURS["soft"]),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    # The last: a name may hold a dollar sign.
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "axes.facecolor": "none",
    "figure.dpi": 72,
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "grid.color": COLOURS["grid"],
    "svg.fonttype": "none",
    "svg.hashsalt": "m3kit",
    "text.color": COLOURS["ink"],
}


@dataclass(frozen=True)
class Plot:
    """A finished plot: ``svg`` and ``png`` are the files, ``inline`` is what stands in the page."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes
    inline: str


@contextmanager
def drawing() -> Iterator[None]:
    """The kit's style, for as long as figures are made and written; nothing of the caller's is changed."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that DejaVu Sans lacks are boxes in the PNG; the page and the SVG have the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained", facecolor=COLOURS["paper"])
    return figure, figure.subplots()


def mark(axes: Axes, x: float, told: str, side: str) -> None:
    """A dashed line from top to bottom, with what it means above its end; ``side``: of the words that lies at it."""
    axes.axvline(x, color=COLOURS["reference"], linewidth=1.4, linestyle=(0, (4, 3)), zorder=1.5)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(told, (x, 1), xytext=(0, 4), ha=side, color=COLOURS["reference"], **place)


def write(axes: Axes, told: str, x: float, y: float, right: float, ha: str = "left") -> None:
    """Words beside the axes, ``right`` points from their edge ``x`` (0 or 1), a text a line: of several matplotlib
    aligns the lines by widths of its own font, not of the page's."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    for number, line in enumerate(lines := told.split("\n")):
        up, colour = 15 * ((len(lines) - 1) / 2 - number), COLOURS["soft" if number else "ink"]
        axes.annotate(line, (x, y), xytext=(right, up), ha=ha, color=colour, annotation_clip=False, **place)


def finish(figure: Figure, name: str, title: str, caption: str, alt: str) -> Plot:
    """Write a figure out; the same figure gives the same bytes. ``alt`` is for those who do not see it."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        rows = ceil(len(labels) / max(1, min(3, 54 // (max(map(len, labels)) + 4))))
        figure.legend(handles, labels, loc="outside upper left", ncols=ceil(len(labels) / rows))
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.set_layout_engine("none")  # laid out already
    figure.savefig(png, format="png", dpi=216, metadata={"Software": None})
    text = re.sub(r" +$", "", svg.getvalue(), flags=re.MULTILINE).replace("'DejaVu Sans'", "'DejaVu Sans', sans-serif")
    return Plot(name, title, caption, text.encode(), png.getvalue(), _inline(text, name, alt))


def _inline(svg: str, name: str, alt: str) -> str:
    """With the page's colours and font, and ids of its own."""
    body = svg[svg.index("<svg") :]
    size = re.findall(r'viewBox="[^"]*"', body)[0]
    body = body[body.index(">") + 1 :]
    # The background is the page's own, and so are the font and the rule for all elements that matplotlib writes.
    body = re.sub(r'<g id="patch_1">.*?</g>', "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for colour, value in COLOURS.items():
        body = body.replace(value, f"var(--{colour})")
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", re.sub(r"\s*\n\s*", "\n", body))
    return f'<svg {size} role="img" aria-label="{escape(alt)}">{body}'.rstrip()
