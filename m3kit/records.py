"""``metrics.json`` and ``run.json`` as dataclasses: evaluation and training write them; table, page and card read them.

Names of metrics and scores are keys, so that the files read like a table: ``models`` → name → ``dense`` → ``nDCG@10``.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from m3kit.errors import KitError

METRICS, RUN = "metrics.json", "run.json"
SCORES = ("dense", "sparse", "colbert", "hybrid")
HEADLINE, FOUND = "nDCG@10", "success@10"

# Metric → value, the mean over queries.
Figures = dict[str, float]
Judgement = Literal["better", "worse", "no difference"]
Outcome = Literal["better", "worse", "same", "mixed", "keyword search", "single"]


@dataclass(frozen=True)
class Change:
    """A model beside the base: the difference, its 95 % interval, and how probable one so large is by chance."""

    change: float
    interval: tuple[float, float]
    p: float
    verdict: Judgement


# Score → metric → change.
Changes = dict[str, dict[str, Change]]


@dataclass(frozen=True)
class ModelFigures:
    """One model. A score is None where the model has no heads for it, or where no retrieval was measured."""

    dense: Figures | None = None
    sparse: Figures | None = None
    colbert: Figures | None = None
    hybrid: Figures | None = None
    tasks: dict[str, Figures] = field(default_factory=dict)
    path: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self, score: str) -> Figures:
        """Of a score; empty where there are none."""
        return getattr(self, score) or {}


@dataclass(frozen=True)
class Retrieval:
    """Models on the same queries; the first is the base, with which each other is compared."""

    models: dict[str, ModelFigures]
    eval_data: str = ""
    queries: int = 0
    queries_left_out: int = 0
    passages: int = 0
    relevant_pairs: int = 0
    comparisons: dict[str, Changes] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return next(iter(self.models))

    @property
    def last(self) -> str:
        """The model that it is about."""
        return list(self.models)[-1]

    def change(self, score: str, metric: str = HEADLINE) -> Change | None:
        """Of the last model, where there are two."""
        return self.comparisons.get(self.last, {}).get(score, {}).get(metric)


@dataclass(frozen=True)
class Served:
    """How one model is best served: weights of its scores and BM25's, and what they are worth.

    ``figures`` are of queries that did not choose the weights; ``alone`` is nDCG@10 of each single score; ``against``
    compares with other ways: ``dense`` of the same model, ``bm25``, ``base_dense``, ``base_served``.
    """

    weights: dict[str, float]
    says: str
    figures: Figures
    interval: tuple[float, float]
    alone: dict[str, float]
    against: dict[str, Change]
    weights_by_fold: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Serving:
    """``folds`` of the cross-validation that chose the weights; None, with the ``reason``, where nothing was chosen."""

    queries: int
    folds: int | None
    reason: str | None
    models: dict[str, Served]


@dataclass(frozen=True)
class First:
    """The passage that a model ranks first for a query."""

    passage: str
    text: str
    relevant: bool


@dataclass(frozen=True)
class Example:
    """A query, what each model ranks first, and where the first right passage stands (None: not ranked)."""

    query: str
    text: str
    right: str
    first: dict[str, First]
    rank: dict[str, int | None]


@dataclass(frozen=True)
class Metrics(Retrieval):
    """All of ``metrics.json``.

    ``verdict`` has a sentence a line, ``outcome`` is what the page is coloured by, ``lead`` the score that both are
    about (None without retrieval). ``judged_on`` says in words which queries chose the checkpoint, and which judge it.
    ``tasks``: task → what was counted → number.
    """

    verdict: str = ""
    outcome: Outcome = "single"
    lead: str | None = None
    judged_on: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, dict[str, int]] = field(default_factory=dict)
    task_comparisons: dict[str, Changes] = field(default_factory=dict)
    bm25: Figures = field(default_factory=dict)
    serving: Serving | None = None
    general: Retrieval | None = None
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """``run.json``, as far as other rooms read it. ``settings`` are those of the training, by their names."""

    status: Literal["running", "stopped", "finished"]
    settings: dict[str, Any]
    started: str = ""
    device: str = ""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    world_size: int = 1
    data: list[dict[str, Any]] = field(default_factory=list)
    resumed: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: int = 0
    base: dict[str, float] | None = None
    best: dict[str, int | float] | None = None
    # "half" or "all": of the test data's queries, or None where no checkpoint was chosen.
    chosen_on: Literal["half", "all"] | None = None
    merge: dict[str, Any] | None = None
    empty_steps: str | None = None


Kind = TypeVar("Kind")


def read(file: Path, kind: type[Kind], cure: str) -> Kind | None:
    """What the file holds; None where there is none. Raises ``KitError`` with ``cure`` where it is not as it should."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KitError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        why = f"{'/'.join(map(str, first['loc']))} {first['msg']}".strip()
        raise KitError(f"{file} is damaged, or of another version of the kit ({why}); {cure}") from error


def write(content: Metrics | dict[str, Any], file: Path) -> Path:
    """A dataclass or a dict as JSON, under a temporary name and renamed: no reader meets half a file."""
    temporary = file.with_name(f".{file.name}.tmp")
    found = content if isinstance(content, dict) else dataclasses.asdict(content)
    try:
        temporary.write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return file
