"""Names and numbers as a reader sees them."""

from __future__ import annotations

from m3kit.evaluation.table import shown_change

SCORE_NAMES = {"dense": "Dense", "sparse": "Sparse", "colbert": "ColBERT", "hybrid": "Hybrid"}
TASK_NAMES = {"sts": "Similarity (STS)", "classification": "Classification", "clustering": "Clustering"}


def shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def decimals(value: float) -> str:
    """A figure as it stands in tables; a zero has no sign."""
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def signed(before: float, after: float) -> str:
    """The difference of the figures as shown, so that what a reader sees adds up."""
    return plus(shown_change(before, after))


def plus(change: float) -> str:
    return f"{change:+.3f}".replace("-", "−") if round(change, 3) else "±0.000"


def chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def outcome(verdict: str, counted: str) -> str:
    """better, worse, or that nothing can be said: in words that stand alone."""
    return verdict if verdict in ("better", "worse") else f"no difference that {counted} can show"
