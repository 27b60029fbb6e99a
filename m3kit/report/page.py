"""report.html: the view and the plots, put into the template. One file that loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from m3kit.report.curves import PART_NAMES
from m3kit.report.figure import Plot
from m3kit.report.words import SCORE_NAMES, shorten

TEMPLATES = Path(__file__).with_name("templates")
COLUMNS = {
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s",
    "memory_gb": "memory, GB",
}


def environment(**options: Any) -> Environment:
    """Templates beside this module; what they lack is an error, not an empty place."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    made.filters |= {"cut": cut, "plain": plain}
    return made


def render_page(view: Mapping[str, Any], plots: Mapping[str, Plot], card: str) -> str:
    """The page; ``card`` is the name of the model card's file."""
    return environment(autoescape=True).get_template("report.html.j2").render(**view, plots=plots, card=card)


def cut(text: Any, longest: int) -> str:
    """A user's text, at most so long; how long it was is said."""
    text = str(text)
    if len(text) <= longest:
        return text
    return f"{shorten(text, longest)} ({len(text):,} characters)"


def plain(name: str) -> str:
    """A column of train_log.jsonl, for a reader."""
    if name.startswith("loss_"):
        return f"loss, {PART_NAMES.get(name.removeprefix('loss_'), name)}"
    score, _, metric = name.removeprefix("eval_").partition("_")
    if name.startswith("eval_"):
        return f"{SCORE_NAMES.get(score, score)} {metric}".replace("_", " ")
    return COLUMNS.get(name, name)
