"""Rank passages for queries by one model's scores and BM25: what ``m3kit search`` and ``HybridSearcher`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3kit.evaluation.bm25 import Bm25
from m3kit.evaluation.encode import Encoder
from m3kit.evaluation.scores import (
    HYBRID_WEIGHTS,
    Candidates,
    QueryTokens,
    Vocabulary,
    dense_scores,
    first_places,
    hybrid_scores,
    sparse_scores,
)
from m3kit.evaluation.serving import PARTS, pool, served_ranking
from m3kit.search.kept import PassageVectors


@dataclass(frozen=True)
class Ranking:
    """Of one query: passage numbers best first, what they were ranked by, and each score beside it."""

    numbers: np.ndarray
    values: np.ndarray
    scores: dict[str, np.ndarray]


class Engine:
    """A model, passages and their vectors."""

    def __init__(self, encoder: Encoder, passages: Sequence[str], bm25: Bm25, vectors: PassageVectors) -> None:
        self.encoder, self.passages, self.bm25, self.vectors = encoder, passages, bm25, vectors
        self.vocabulary = Vocabulary([dict.fromkeys(vectors.tokens, 0.0)])

    def usable(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weights of those scores that the model has; dense where none of them has a weight."""
        mine = {name: weights[name] * (self.encoder.has_heads or name in ("dense", "bm25")) for name in PARTS}
        return mine if any(mine.values()) else mine | {"dense": 1.0}

    def search(self, queries: Sequence[str], weights: Mapping[str, float], shown: int = 0) -> list[Ranking]:
        """Rank by the weighted sum. Of the first ``shown`` ColBERT is known too, where it has no weight."""
        if not queries:
            return []
        weights = self.usable(weights)
        vectors = self.encoder.queries(list(queries))
        scores = {"dense": dense_scores(vectors.dense, self.vectors.dense)}
        if self.encoder.has_heads:
            scores["sparse"] = sparse_scores(self.vocabulary.matrix(vectors.lexical or ()), self.vectors.lexical)
        rankings = []
        for row, query in enumerate(queries):
            mine = {name: values[row] for name, values in scores.items()}
            first = {name: first_places(name, values) for name, values in mine.items()}
            words = self.bm25.scores(query)
            found = Candidates(np.arange(len(self.passages)), mine, first)
            found = found.with_bm25(first_places("sparse", words).tolist(), words)
            if weights["colbert"]:
                found.scores["colbert"] = self._colbert(vectors.colbert, row, pool(found, weights))
            numbers, values = served_ranking(found, weights)
            if self.encoder.has_heads and shown and not weights["colbert"]:
                found.scores["colbert"] = self._colbert(vectors.colbert, row, numbers[:shown])
            if "colbert" in found.scores:
                found.scores["hybrid"] = hybrid_scores(found.scores, HYBRID_WEIGHTS)
            rankings.append(Ranking(numbers, values, {name: part[numbers] for name, part in found.scores.items()}))
        return rankings

    def _colbert(self, queries: list[np.ndarray] | None, row: int, places: np.ndarray) -> np.ndarray:
        """Of these passages, float32 (passages,); 0 elsewhere. Passages without vectors are encoded now."""
        known = self.vectors.colbert
        if known is None:
            texts = [self.passages[place] for place in places]
            tokens = dict(zip(places.tolist(), self.encoder.passages(texts).colbert or (), strict=True))
        else:
            tokens = {place: known[place] for place in places.tolist()}
        scores = np.zeros(len(self.passages), np.float32)
        query = QueryTokens([(queries or [])[row]], self.encoder.settings.device)
        scores[places] = query.scores(tokens, np.zeros_like(places), places)  # type: ignore[arg-type]
        return scores
