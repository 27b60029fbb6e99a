"""What the report needs the run's JSON to look like: pieces may be missing, those there must be of their kind."""

from __future__ import annotations

from typing import Annotated, Any, Required

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError
from typing_extensions import TypedDict

# Pydantic names in an error's place which of two kinds it took.
FIGURES, NONE = "(figures)", "(no figures)"
TWO = Field(min_length=2, max_length=2)


class Shape:
    """A shape that JSON may have. Names that it does not know are not looked at."""

    def __init__(self, kind: Any) -> None:
        self._adapter = TypeAdapter(kind)

    def wrong(self, value: Any) -> str | None:
        """The place of the first thing that is not as it should be ("" is the whole); None where all is."""
        try:
            self._adapter.validate_python(value, strict=True)
        except ValidationError as error:
            place = error.errors(include_url=False, include_input=False)[0]["loc"]
            return "/".join(str(part) for part in place if part not in (FIGURES, NONE))
        return None


# ---- metrics.json --------------------------------------------------------------------------------------------------

Figures = TypedDict(
    "Figures",
    {"nDCG@10": Required[float], "MRR@10": float, "recall@10": float, "recall@100": float, "MAP": float},
    total=False,
)


class NoFigures(TypedDict):
    scores: None
    reason: str


def _kind(value: Any) -> str:
    return NONE if isinstance(value, dict) and value.get("scores", 0) is None else FIGURES


Score = Annotated[Annotated[Figures, Tag(FIGURES)] | Annotated[NoFigures, Tag(NONE)], Discriminator(_kind)]


class Encoding(TypedDict, total=False):
    pooling_method: str | None
    query_max_len: float | None
    passage_max_len: float | None
    query_instruction_for_retrieval: str | None


class Model(TypedDict, total=False):
    dense: Score
    sparse: Score
    colbert: Score
    hybrid: Score
    path: str
    settings: Encoding
    hybrid_weights: dict[str, float]
    tasks: dict[str, dict[str, float]]
    notes: list[str]
    seconds: float


class Change(TypedDict, total=False):
    change: float
    interval: Annotated[list[float], TWO]
    p: float
    verdict: str


class Comparison(TypedDict, total=False):
    dense: dict[str, Change]
    sparse: dict[str, Change]
    colbert: dict[str, Change]
    hybrid: dict[str, Change]
    tasks: dict[str, dict[str, Change]]


class Bm25(Figures, total=False):
    settings: dict[str, Any]


class Compared(TypedDict, total=False):
    """Models on the same retrieval data."""

    models: Required[Annotated[dict[str, Model], AfterValidator(lambda models: models or _refuse("no model"))]]
    comparisons: dict[str, Comparison]
    bm25: Bm25
    eval_data: str
    queries: int
    queries_left_out: int
    passages: int
    relevant_pairs: int


class Counts(TypedDict):
    relevant: list[int]
    others: list[int]


class Distribution(TypedDict):
    edges: list[float]
    models: dict[str, Counts]


def _fits(value: Distribution) -> Distribution:
    """Edges rise, and every model has a count for each pair of them."""
    edges = value["edges"]
    counts = [kind for model in value["models"].values() for kind in (model["relevant"], model["others"])]
    if not counts or sorted(set(edges)) != edges or any(len(kind) + 1 != len(edges) for kind in counts):
        _refuse("edges and counts do not fit")
    return value


def _refuse(reason: str) -> None:
    raise ValueError(reason)


class Passage(TypedDict, total=False):
    text: str
    rank: dict[str, float | None]
    scores: dict[str, dict[str, float | None]]
    tokens: dict[str, list[Annotated[list[Any], TWO]]]


class Example(TypedDict, total=False):
    text: str
    passages: list[Passage]
    why: dict[str, str]


class Examples(TypedDict, total=False):
    models: list[str]
    metric: str
    score: str
    gained: list[Example]
    lost: list[Example]


class EvaluationSettings(TypedDict, total=False):
    versions: dict[str, Any]
    resamples: int


class Metrics(Compared, total=False):
    tasks: dict[str, dict[str, int]]
    settings: EvaluationSettings
    distributions: dict[str, Annotated[Distribution, AfterValidator(_fits)]]
    examples: Examples
    general: Compared


# ---- the others ----------------------------------------------------------------------------------------------------


class TrainingSettings(TypedDict, total=False):
    query_max_len: float | None
    passage_max_len: float | None
    colbert_dim: float | None
    model_name_or_path: str | None
    sentence_pooling_method: str | None
    query_instruction_for_retrieval: str | None


class Best(TypedDict):
    step: int


class Resumed(TypedDict, total=False):
    at: Required[str]
    from_step: Required[Any]
    changed: list[str]


class Run(TypedDict, total=False):
    status: Required[str]
    settings: Required[TrainingSettings]
    started: str
    reason: str
    seconds: float
    steps: int
    versions: dict[str, Any]
    best: Best
    resumed: list[Resumed]


class Set(TypedDict, total=False):
    input: Required[str]
    task: Required[str]
    rows_read: Required[int]
    rows_used: int
    rows_merged: int
    rows_written: int
    negatives_added: int
    rows_set_aside: dict[str, int]
    texts_removed: dict[str, int]
    columns_not_used: list[str]
    notes: list[str]


class Count(TypedDict):
    severity: str
    code: str
    count: int


class Manifest(TypedDict, total=False):
    sets: Required[list[Set]]
    settings: dict[str, Any]
    held_out: dict[str, int]
    problems: list[Count]


class Problem(TypedDict):
    severity: str
    code: str
    what: str
    fix: str
    file: Any
    line: Any


METRICS, RUN, MANIFEST, PROBLEM = (Shape(kind) for kind in (Metrics, Run, Manifest, Problem))
