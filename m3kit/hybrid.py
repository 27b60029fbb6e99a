"""Search by the score that an evaluation says to serve: hybrid.json in a model's folder.

    from m3kit.hybrid import HybridSearcher

    searcher = HybridSearcher("outputs/mine", passages)
    searcher.search(["a question"], k=10)

For trying it out, and for some ten thousand passages: their vectors are held in memory. Beyond that a search engine
does the same with the weights of hybrid.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from m3kit.errors import KitError
from m3kit.evaluation.bm25 import SETTINGS, Bm25
from m3kit.evaluation.encode import Encoder, EncodeSettings
from m3kit.evaluation.models import choose_device, choose_precision, find_model
from m3kit.evaluation.retrieval import chunks
from m3kit.evaluation.scores import (
    CANDIDATES,
    Candidates,
    QueryTokens,
    Vocabulary,
    dense_scores,
    first_places,
    sparse_scores,
)
from m3kit.evaluation.serving import HYBRID, PARTS, pool, served_ranking
from m3kit.evaluation.vectors import Vectors


class HybridSearcher:
    """Passages, encoded once, and the score by which they are ranked.

    ``folder`` holds hybrid.json; ``device`` and ``precision`` as in ``m3kit evaluate``. Raises ``KitError``.
    """

    def __init__(
        self, folder: str | Path, passages: Sequence[str], device: str = "auto", precision: str = "auto"
    ) -> None:
        settings = _read(Path(folder) / HYBRID)
        self.weights, self.passages = settings["weights"], list(passages)
        # As in the evaluation: found out from these passages, the language might be another.
        self.bm25 = Bm25(self.passages, settings["bm25"]["language"])
        model = find_model("model", str(folder) if settings["model"] == "." else settings["model"])
        heads = bool(self.weights["sparse"] or self.weights["colbert"])
        if heads and model.colbert_size is None:
            raise KitError(f"{Path(folder) / HYBRID} gives the model's heads a weight, but {model.no_heads_reason}")
        device = choose_device(device)[0]
        precision = choose_precision(precision, device)[0]
        self.encoder = Encoder(model, EncodeSettings(**settings["encoding"], device=device, precision=precision))
        # What has no weight is not computed.
        self.encoder.has_heads = heads
        self._encode()

    def _encode(self) -> None:
        """Dense (passages, size), lexical weights as a matrix (passages, tokens), ColBERT only where it is served."""
        encoded = [
            self._kept(self.encoder.passages(c)) for c in chunks(self.passages, self.encoder.settings.passage_max_len)
        ]
        self.dense = np.concatenate([part.dense for part in encoded])
        if self.encoder.has_heads:
            lexical = [row for part in encoded for row in _there(part.lexical)]
            self.vocabulary = Vocabulary(lexical)
            self.lexical = self.vocabulary.matrix(lexical)
            self.colbert = [tokens for part in encoded for tokens in part.colbert or ()]

    def _kept(self, vectors: Vectors) -> Vectors:
        return vectors if self.weights["colbert"] else replace(vectors, colbert=None)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[tuple[int, float]]]:
        """Of each query at most ``k`` pairs of a passage's number, from 0, and its score, best first."""
        if not queries:
            return []
        vectors = self.encoder.queries(list(queries))
        scores = {"dense": dense_scores(vectors.dense, self.dense)}
        if self.encoder.has_heads:
            scores["sparse"] = sparse_scores(self.vocabulary.matrix(_there(vectors.lexical)), self.lexical)
        best = self.bm25.rank(queries, CANDIDATES)
        found = []
        for row, query in enumerate(queries):
            mine = {name: values[row] for name, values in scores.items()}
            first = {name: first_places(name, values) for name, values in mine.items()}
            candidates = Candidates(np.arange(len(self.passages)), mine, first)
            candidates = candidates.with_bm25(best[row], self.bm25.scores(query))
            if self.weights["colbert"]:
                places = pool(candidates, self.weights)
                tokens = QueryTokens([_there(vectors.colbert)[row]], self.encoder.settings.device)
                colbert = np.zeros(len(self.passages), np.float32)
                colbert[places] = tokens.scores(self.colbert, np.zeros_like(places), places)
                candidates.scores["colbert"] = colbert
            numbers, values = served_ranking(candidates, self.weights)
            found.append(list(zip(numbers[:k].tolist(), values[:k].tolist(), strict=True)))
        return found


def _there(vectors: list | None) -> list:
    """What the heads made, which the constructor has seen to be there."""
    assert vectors is not None
    return vectors


def _read(file: Path) -> dict:
    try:
        settings = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise KitError(
            f"there is no {file}; python -m m3kit evaluate writes it where there is retrieval data"
        ) from None
    except ValueError as error:
        raise KitError(f"{file} is broken JSON ({error}); evaluate again") from error
    try:
        known = {name: settings["bm25"][name] for name in SETTINGS} == SETTINGS and set(settings["weights"]) == set(
            PARTS
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise KitError(
            f"{file} is not as this version of the kit writes it; evaluate again with python -m m3kit evaluate"
        )
    return settings
