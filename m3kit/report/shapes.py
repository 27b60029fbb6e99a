"""What the report needs the run's JSON to look like: pieces may be missing, those there must be of their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Returns the place of the first thing that is not as it should be, or None.
Shape = Callable[[Any], "str | None"]


def one_of(*kinds: type) -> Shape:
    """A value of one of these kinds; True is no number."""

    def check(value: Any) -> str | None:
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        return None if right else ""

    return check


NUMBER, TEXT, WHOLE = one_of(int, float), one_of(str), one_of(int)
MAYBE_NUMBER, MAYBE_TEXT = one_of(int, float, type(None)), one_of(str, type(None))


def anything(value: Any) -> None:
    """Is shown as it is."""


def listed(shape: Shape, length: int | None = None) -> Shape:
    """A list of such values."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            return ""
        return _first((place, shape(item)) for place, item in enumerate(value))

    return check


def mapped(shape: Shape, least: int = 0) -> Shape:
    """An object of such values under any names."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict) or len(value) < least:
            return ""
        return _first((name, shape(item)) for name, item in value.items())

    return check


def record(needed: tuple[str, ...] = (), **shapes: Shape) -> Shape:
    """An object with these names, of which some are ``needed``; others are not looked at."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return ""
        for name in needed:
            if name not in value:
                return name
        return _first((name, shapes[name](item)) for name, item in value.items() if name in shapes)

    return check


def _first(found) -> str | None:
    return next((f"{name}/{place}".rstrip("/") for name, place in found if place is not None), None)


# ---- metrics.json --------------------------------------------------------------------------------------------------

SCORE_NAMES = ("dense", "sparse", "colbert", "hybrid")


def _score(value: Any) -> str | None:
    """Figures, or that there are none and why."""
    if isinstance(value, dict) and value.get("scores", 0) is None:
        return record(reason=TEXT)(value)
    return record(("nDCG@10",), **dict.fromkeys(("nDCG@10", "MRR@10", "recall@10", "recall@100", "MAP"), NUMBER))(value)


def _by_score(shape: Shape) -> dict[str, Shape]:
    return dict.fromkeys(SCORE_NAMES, shape)


_MODELS = mapped(
    record(
        **_by_score(_score),
        path=TEXT,
        settings=record(
            pooling_method=MAYBE_TEXT,
            query_max_len=MAYBE_NUMBER,
            passage_max_len=MAYBE_NUMBER,
            query_instruction_for_retrieval=MAYBE_TEXT,
        ),
        hybrid_weights=mapped(NUMBER),
        tasks=mapped(mapped(NUMBER)),
        notes=listed(TEXT),
        seconds=NUMBER,
    ),
    least=1,
)
_CHANGE = record(change=NUMBER, interval=listed(NUMBER, 2), p=NUMBER, verdict=TEXT)
_COMPARISONS = mapped(record(**_by_score(mapped(_CHANGE)), tasks=mapped(mapped(_CHANGE))))
_COUNTS = dict.fromkeys(("queries", "queries_left_out", "passages", "relevant_pairs"), WHOLE)
_BM25 = record(
    settings=mapped(anything), **dict.fromkeys(("nDCG@10", "MRR@10", "recall@10", "recall@100", "MAP"), NUMBER)
)
_BINS = record(("relevant", "others"), relevant=listed(WHOLE), others=listed(WHOLE))


def _distribution(value: Any) -> str | None:
    """Edges, and for every model a count for each pair of them."""
    shape = record(("edges", "models"), edges=listed(NUMBER), models=mapped(_BINS, least=1))
    if (wrong := shape(value)) is not None:
        return wrong
    counts = [kind for model in value["models"].values() for kind in (model["relevant"], model["others"])]
    rising = sorted(set(value["edges"])) == value["edges"]
    return None if rising and all(len(kind) + 1 == len(value["edges"]) > 1 for kind in counts) else "edges"


_EXAMPLE = record(
    text=TEXT,
    passages=listed(
        record(
            text=TEXT,
            rank=mapped(MAYBE_NUMBER),
            scores=mapped(mapped(MAYBE_NUMBER)),
            tokens=mapped(listed(listed(anything, 2))),
        )
    ),
    why=mapped(TEXT),
)

METRICS = record(
    ("models",),
    models=_MODELS,
    comparisons=_COMPARISONS,
    bm25=_BM25,
    eval_data=TEXT,
    tasks=mapped(mapped(WHOLE)),
    settings=record(versions=mapped(anything), resamples=WHOLE),
    distributions=mapped(_distribution),
    examples=record(models=listed(TEXT), metric=TEXT, score=TEXT, gained=listed(_EXAMPLE), lost=listed(_EXAMPLE)),
    general=record(("models",), models=_MODELS, comparisons=_COMPARISONS, eval_data=TEXT, bm25=_BM25, **_COUNTS),
    **_COUNTS,
)


# ---- the others ----------------------------------------------------------------------------------------------------

RUN = record(
    ("status", "settings"),
    status=TEXT,
    started=TEXT,
    reason=TEXT,
    seconds=NUMBER,
    steps=WHOLE,
    settings=record(
        query_max_len=MAYBE_NUMBER,
        passage_max_len=MAYBE_NUMBER,
        colbert_dim=MAYBE_NUMBER,
        model_name_or_path=MAYBE_TEXT,
        sentence_pooling_method=MAYBE_TEXT,
        query_instruction_for_retrieval=MAYBE_TEXT,
    ),
    versions=mapped(anything),
    best=record(("step",), step=WHOLE),
    resumed=listed(record(("at", "from_step"), changed=listed(TEXT))),
)
_ROWS = ("rows_read", "rows_used", "rows_merged", "rows_written", "negatives_added")
MANIFEST = record(
    ("sets",),
    sets=listed(
        record(
            ("input", "task", "rows_read"),
            input=TEXT,
            task=TEXT,
            rows_set_aside=mapped(WHOLE),
            texts_removed=mapped(WHOLE),
            columns_not_used=listed(TEXT),
            notes=listed(TEXT),
            **dict.fromkeys(_ROWS, WHOLE),
        )
    ),
    settings=mapped(anything),
    held_out=mapped(WHOLE),
    problems=listed(record(("severity", "code", "count"), severity=TEXT, code=TEXT, count=WHOLE)),
)
PROBLEM = record(("severity", "code", "file", "line", "what", "fix"), severity=TEXT, code=TEXT, what=TEXT, fix=TEXT)
