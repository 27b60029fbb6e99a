"""Names and numbers as a reader sees them."""

from __future__ import annotations

import re
from typing import Any

SCORE_NAMES = {"dense": "Dense", "sparse": "Sparse", "colbert": "ColBERT", "hybrid": "Hybrid", "bm25": "BM25"}
NOT_EVALUATED = "The model was not evaluated: nobody knows whether it is better than the base."
TASK_NAMES = {"sts": "Similarity (STS)", "classification": "Classification", "clustering": "Clustering"}


def cut(text: Any, longest: int) -> str:
    """A user's text, at most so long, and without the marks that would turn around what stands beside it."""
    text = re.sub(r"[\u202a-\u202e\u2066-\u2069]", "", str(text))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def fixed(value: float | None, of: int | None = None) -> str:
    """A figure as it stands in tables, where a zero has no sign; a share ``of`` so many as "71 of 83"."""
    if value is None:
        return "–"
    return f"{value * of:.0f} of {of:,}" if of else f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def plus(change: float, of: int | None = None) -> str:
    shown = f"{change * of:+.0f}" if of else f"{change:+.3f}"
    return shown.replace("-", "−") if float(shown) else "±0"


def signed(before: float, after: float, of: int | None = None) -> str:
    """The difference of the figures as shown, so that what a reader sees adds up."""
    if of:
        return plus((round(after * of) - round(before * of)) / of, of)
    return plus(round(after, 3) - round(before, 3))


def chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def said(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(said, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {said(item)}" for key, item in value.items()) or "none"
    return "none" if value is None or value == "" else str(value)
