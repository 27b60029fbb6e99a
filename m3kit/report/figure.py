"""From a matplotlib figure to files, and to an SVG that stands inside the page and follows its colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Every colour that is drawn with, and the page's CSS variable that takes its place. As they stand here they are those
# of the files, on white. No two are alike, for a colour is told by its value.
COLOURS = {
    "ink": "#1c2127",
    "soft": "#565f6b",
    "grid": "#d8dde3",
    "paper": "#ffffff",
    "base": "#646e79",
    "tuned": "#0a5fb4",
    "third": "#8f3aa8",
    "fourth": "#a85400",
    "fifth": "#00756b",
    "sixth": "#b02a5b",
    "reference": "#7d5c00",
}
# Of the models, in their order: the first is the base. Told apart by their shape too.
MODEL_COLOURS = ("base", "tuned", "third", "fourth", "fifth", "sixth")
MARKERS = ("o", "D", "s", "^", "v", "P")
# Points, which are the units of the SVG: a plot is as wide as half the page, and as a phone.
WIDTH = 390
PNG_DPI = 216

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "m3kit",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    # A name may hold a dollar sign.
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["soft"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.labelsize": 11.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 1.7,
    "legend.columnspacing": 1.3,
    "legend.handletextpad": 0.6,
    "figure.dpi": 72,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Plot:
    """A finished plot: ``svg`` and ``png`` are the files, ``inline`` is what stands in the page."""

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    inline: str


@contextmanager
def drawing() -> Iterator[None]:
    """The kit's style, for as long as figures are made and written; nothing of the caller's is changed."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that DejaVu Sans lacks are boxes in the PNG; the page and the SVG have the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the one width, with axes below each other."""
    layout = ConstrainedLayoutEngine(w_pad=4 / 72, h_pad=4 / 72, hspace=0.04)
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout=layout, facecolor=COLOURS["paper"])
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    return figure, list(axes)


def mark(axes: Axes, x: float, told: str, side: str) -> None:
    """A dashed line from top to bottom, with what it means above its end; ``side``: of the words that lies at it."""
    axes.axvline(x, color=COLOURS["reference"], linewidth=1.4, linestyle=(0, (4, 3)), zorder=1.5)
    axes.annotate(
        told,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha=side,
        color=COLOURS["reference"],
    )


def finish(figure: Figure, name: str, title: str, caption: str, alt: str) -> Plot:
    """Write a figure out; the same figure gives the same bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=nothing)
    figure.set_layout_engine("none")  # laid out already
    figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    # Spaces at the ends of lines are matplotlib's; a reader without its font has another.
    text = re.sub(r" +$", "", svg.getvalue(), flags=re.MULTILINE).replace("'DejaVu Sans'", "'DejaVu Sans', sans-serif")
    return Plot(name, title, caption, text, png.getvalue(), inline(text, name, alt))


def inline(svg: str, name: str, alt: str) -> str:
    """An SVG of ours for the page: its colours, its font, ids of its own, and a name for those who do not see it."""
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
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    return f'<svg {size} role="img" aria-label="{escape(alt)}">{body}'.rstrip()
