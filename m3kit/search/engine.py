"""Rank passages for queries by one model's scores and BM25: what ``m3kit search`` and ``HybridSearcher`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3kit.encoding.bm25 import Bm25
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import choose_device, choose_precision, find_model
from m3kit.encoding.scores import (
    HYBRID_WEIGHTS,
    Candidates,
    QueryTokens,
    Vocabulary,
    dense_scores,
    first_places,
    hybrid_scores,
    sparse_scores,
)
from m3kit.evaluation.serving import PARTS, pool, say_weights, served_ranking
from m3kit.search.kept import FOLDER, PassageVectors, kept
from m3kit.search.subject import NAMES, SERVED, Subject
from m3kit.search.words import terms


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
                found.scores["hybrid"] = hybrid_scores(found.scores)
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


class Search:
    """Both models, side by side."""

    def __init__(self, subject: Subject, device: str = "auto", precision: str = "auto", batch_size: int = 32) -> None:
        self.subject, self.keys, self.engines = subject, list(subject.passages), {}
        self.weights = {name: {part: float(part == name) for part in PARTS} for name in PARTS}
        self.weights["hybrid"] = HYBRID_WEIGHTS | {"bm25": 0.0}
        if subject.served:
            self.weights[SERVED] = subject.served
        device = choose_device(device)[0]
        settings = EncodeSettings(**subject.encoding, batch_size=batch_size, device=device)
        settings = replace(settings, precision=choose_precision(precision, device)[0])
        models = [find_model(name, given, subject.cache_dir) for name, given in subject.models.items()]
        texts = list(subject.passages.values())
        self.bm25 = Bm25(texts)
        for model in models:
            encoder = Encoder(model, settings)
            vectors = kept(encoder, texts, subject.corpus, subject.run / FOLDER)
            self.engines[model.name] = Engine(encoder, texts, self.bm25, vectors)
        # What a reader should know of the models, in sentences.
        self.notes = [note for engine in self.engines.values() for note in engine.encoder.notes]

    def ask(self, query: str, score: str, k: int) -> dict[str, Any]:
        """What ``--json`` prints of a query: of each model the first ``k`` passages, with their place in the other's
        ranking (None: not ranked there)."""
        query = query.encode("utf-8", "replace").decode()  # a terminal may send bytes that are no text
        weights = self.weights[score]
        found = {name: engine.search([query], weights, k)[0] for name, engine in self.engines.items()}
        places = {name: {n: rank for rank, n in enumerate(one.numbers.tolist(), 1)} for name, one in found.items()}
        other = dict(zip(found, reversed(found), strict=True))
        sides = {
            name: [
                {
                    "rank": rank + 1,
                    "other_rank": places[other[name]].get(number),
                    "_id": self.keys[number],
                    "number": number,
                    "text": self.subject.passages[self.keys[number]],
                    "score": float(one.values[rank]),
                    "scores": {part: float(one.scores[part][rank]) for part in NAMES if part in one.scores},
                }
                for rank, number in enumerate(one.numbers[:k].tolist())
            ]
            for name, one in found.items()
        }
        says = {name: say_weights(engine.usable(weights)) for name, engine in self.engines.items()}
        return {"query": query, "score": score, "ranked_by": says, "models": sides, "words": self._words(query)}

    def _words(self, query: str) -> list[str]:
        """The query's words that tell passages apart: those in most passages would be marked everywhere."""
        # Of every passage 0 where it lacks the word.
        counts = {word: np.count_nonzero(self.bm25.scores(word)) for word in terms(query)}
        rare = [word for word, count in counts.items() if 0 < count <= max(10, len(self.keys) // 4)]
        return rare or list(counts)
