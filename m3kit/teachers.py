"""Teachers: what scores (query, passage) pairs for `m3kit score`, a cross-encoder or the base model itself.

A pair is (prompt, query, passage) as in a prepared row; the prompt is for embedding models alone. Scores are raw: no
sigmoid, no softmax.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from m3kit.encoding.bm25 import Bm25
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import choose_device, choose_precision, find_model, longest_input, model_digest
from m3kit.encoding.scores import HYBRID_WEIGHTS, QueryTokens, Vocabulary
from m3kit.encoding.trained_with import LONGEST_DEFAULT, trained_encoding
from m3kit.encoding.vectors import Vectors
from m3kit.errors import KitError
from m3kit.hub import CONFIG, find_model_folder, loading

Pair = tuple[str, str, str]
# Bytes of ColBERT vectors.
MOST_KEPT = 2 * 10**9


class Reranker:
    """A cross-encoder that sentence-transformers' CrossEncoder loads, FlagEmbedding's rerankers (bge-reranker-…) too.

    ``about`` says what decides the scores. Raises ``KitError`` for a model of another kind, which CrossEncoder would
    give a random classifier.
    """

    def __init__(
        self,
        given: str,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        max_length: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.folder = find_model_folder(given, cache_dir)
        if not _is_cross_encoder(self.folder):
            raise KitError(
                f"{given} is no reranker: its {CONFIG} names no …ForSequenceClassification; give a cross-encoder such "
                "as BAAI/bge-reranker-v2-m3"
            )
        self.batch_size = batch_size
        self.device, _ = choose_device(device)
        longest = longest_input(self.folder)
        wanted = max_length or LONGEST_DEFAULT
        self.about: dict[str, Any] = {
            "kind": "reranker",
            "model": given,
            "model_digest": model_digest(self.folder),
            "max_length": min(wanted, longest or wanted),
            "precision": choose_precision(precision, self.device)[0],
            "device": self.device,
        }

    @cached_property
    def _model(self):
        import torch
        from sentence_transformers import CrossEncoder

        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.about["precision"]]
        with loading(f"the reranker in {self.folder}"):
            model = CrossEncoder(
                str(self.folder),
                device=self.device,
                max_length=self.about["max_length"],
                activation_fn=torch.nn.Identity(),
                local_files_only=True,
                model_kwargs={"dtype": dtype},
            )
        if model.num_labels != 1:
            raise KitError(f"{self.folder} gives {model.num_labels} numbers a pair, not one score; give a reranker")
        return model

    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Logits, float32 (pairs,). A pair that is too long is cut where it is longer, query or passage."""
        texts = [(query, passage) for _, query, passage in pairs]
        return self._model.predict(texts, batch_size=self.batch_size, show_progress_bar=False)

    def close(self) -> None:
        self.__dict__.pop("_model", None)


class Hybrid:
    """The base's own scores, weighted as M3's hybrid, and BM25; dense and BM25 alone where it has no heads.

    BM25 is over ``passages``, and of each query divided by its best, so it is 0 … 1 as a cosine is.
    """

    def __init__(
        self,
        given: str,
        passages: Iterable[str],
        bm25_weight: float,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 32,
        max_length: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        model = find_model("teacher", given, cache_dir)
        device, _ = choose_device(device)
        # Prompts are those of the rows, which the model is trained with.
        encoding = {"query_max_len": max_length, "passage_max_len": max_length, "query_instruction_for_retrieval": ""}
        settings = EncodeSettings(
            **asdict(trained_encoding(model.folder, encoding)),
            device=device,
            precision=choose_precision(precision, device)[0],
            batch_size=batch_size,
        )
        self.batch_size = batch_size
        self._encoder = Encoder(model, settings)
        self._kept: dict[str, Any] = {}
        for note in self._encoder.notes:
            print(note, file=sys.stderr)
        names = ("dense", "sparse", "colbert") if self._encoder.has_heads else ("dense",)
        self.weights = {name: HYBRID_WEIGHTS[name] for name in names} | {"bm25": bm25_weight}
        self.about: dict[str, Any] = {
            "kind": "hybrid",
            "model": given,
            "model_digest": model_digest(model.folder),
            "weights": self.weights,
            "encoding": {name: value for name, value in asdict(settings).items() if name != "batch_size"},
        }
        self._numbers = {passage: number for number, passage in enumerate(dict.fromkeys(passages))}

    def scores(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The weighted sum, float32 (pairs,)."""
        queries = {text: number for number, text in enumerate(dict.fromkeys(p + q for p, q, _ in pairs))}
        passages = {text: number for number, text in enumerate(dict.fromkeys(passage for *_, passage in pairs))}
        rows = np.array([queries[prompt + query] for prompt, query, _ in pairs])
        columns = np.array([passages[passage] for *_, passage in pairs])
        q, p = self._encoder.queries(list(queries)), self._encode(list(passages))
        total = self.weights["dense"] * np.einsum(
            "ij,ij->i", q.dense[rows].astype(np.float32), p.dense[columns].astype(np.float32)
        )
        if q.heads and p.heads:
            vocabulary = Vocabulary(q.heads[0])
            lexical = vocabulary.matrix(q.heads[0])[rows].multiply(vocabulary.matrix(p.heads[0])[columns])
            total += self.weights["sparse"] * np.asarray(lexical.sum(axis=1)).ravel()
            tokens = QueryTokens(q.heads[1], self._encoder.settings.device)
            total += self.weights["colbert"] * tokens.scores(p.heads[1], rows, columns)
        if self.weights["bm25"]:
            total += self.weights["bm25"] * self._bm25(pairs)
        return total

    def _encode(self, passages: Sequence[str]) -> Vectors:
        """Of passages, which come again and again: as many as memory allows are kept."""
        missing = [passage for passage in passages if passage not in self._kept]
        if missing:
            new = self._encoder.passages(missing)
            columns = [new.dense, *(new.heads or ())]
            self._kept |= dict(zip(missing, zip(*columns, strict=True), strict=True))
        dense, *heads = zip(*(self._kept[passage] for passage in passages), strict=True)
        if sum(array.nbytes for _, *of in self._kept.values() for array in of[1:]) > MOST_KEPT:
            self._kept.clear()
        return Vectors(np.stack(dense), *map(list, heads))

    def _bm25(self, pairs: Sequence[Pair]) -> np.ndarray:
        scores = np.empty(len(pairs), np.float32)
        for query, group in groupby(range(len(pairs)), key=lambda place: pairs[place][1]):
            found = self._index.scores(query)
            places = list(group)
            scores[places] = found[[self._numbers[pairs[place][2]] for place in places]] / (found.max() or 1)
        return scores

    @cached_property
    def _index(self) -> Bm25:
        return Bm25(list(self._numbers))

    def close(self) -> None:
        self._encoder.close()


def _is_cross_encoder(folder: Path) -> bool:
    named = json.loads((folder / CONFIG).read_bytes()).get("architectures") or []
    if any(name.endswith("ForSequenceClassification") for name in named):
        return True
    # Of other architectures, what sentence-transformers saved as one.
    described = folder / "config_sentence_transformers.json"
    return described.is_file() and json.loads(described.read_bytes()).get("model_type") == "CrossEncoder"
