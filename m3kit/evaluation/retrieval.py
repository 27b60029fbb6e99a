"""One model on retrieval data: what each query found, and how good that is by each score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3kit.encoding.bm25 import Bm25
from m3kit.encoding.encode import Encoder
from m3kit.encoding.scores import CANDIDATES, Candidates, Ranker
from m3kit.evaluation.metrics import MEASURES, measure
from m3kit.records import SCORES
from m3kit.test_data.beir import EvalData

TIES = "of equal scores the passage whose id sorts last ranks first, as in trec_eval"

# A chunk of passages ends with its so many texts or (about) so many tokens: enough for FlagEmbedding's sorting by
# length, and a bound on memory. ColBERT vectors of 2**18 tokens take 1 GB for bge-m3.
CHUNK_TEXTS = 2048
CHUNK_TOKENS = 2**18
# In most languages a token has more characters; what is counted too high makes a smaller chunk.
CHARACTERS_A_TOKEN = 2


@dataclass(frozen=True)
class Found:
    """What a model found. ``passage_ids`` by passage number; ``candidates`` by query id."""

    data: EvalData
    passage_ids: list[str]
    candidates: dict[str, Candidates]
    scores: tuple[str, ...]

    def rankings(self, score: str) -> dict[str, list[str]]:
        """Query id → passage ids, best first."""
        return {
            query: [self.passage_ids[number] for number in found.ranking(score)]
            for query, found in self.candidates.items()
        }

    def outcomes(self, metrics: Sequence[str] = tuple(MEASURES)) -> dict[str, dict[str, np.ndarray]]:
        """Score → metric → its value for each query, in the order of ``data.queries``."""
        return {score: measure(self.rankings(score), self.data.qrels, metrics) for score in self.scores}


def in_order(data: EvalData) -> list[str]:
    """The ids of the passages as they are numbered: of equal scores the earlier ranks first, which makes TIES."""
    return sorted(data.passages, reverse=True)


def retrieve(encoder: Encoder, data: EvalData, bm25: Bm25 | None = None) -> Found:
    """Rank all passages for all queries.

    With ``bm25``, an index of the passages in their order, all scores of its first CANDIDATES are known too, and its
    own are among the candidates' scores.
    """
    passage_ids = in_order(data)
    numbers = {passage: number for number, passage in enumerate(passage_ids)}
    texts = list(data.queries.values())
    with encoder.progress(len(texts), "queries") as watch:
        queries = encoder.queries(texts, watch)
    judged = [[numbers[passage] for passage in relevant_passages(data.qrels[query])] for query in data.queries]
    first = bm25.rank(texts, CANDIDATES) if bm25 else [[] for _ in texts]
    ranker = Ranker(queries, encoder.settings.device, [[*a, *b] for a, b in zip(judged, first, strict=True)])
    with encoder.progress(len(passage_ids), "passages") as watch:
        for chunk in chunks([data.passages[key] for key in passage_ids], encoder.settings.passage_max_len):
            ranker.add(encoder.passages(chunk, watch))
    candidates = ranker.candidates()
    if bm25:
        candidates = [
            found.with_bm25(best, bm25.scores(text)) for found, best, text in zip(candidates, first, texts, strict=True)
        ]
    return Found(
        data=data,
        passage_ids=passage_ids,
        candidates=dict(zip(data.queries, candidates, strict=True)),
        scores=SCORES if encoder.has_heads else ("dense",),
    )


def relevant_passages(grades: Mapping[str, int]) -> list[str]:
    """The passages that answer a query, from its line of the qrels."""
    return [passage for passage, grade in grades.items() if grade >= 1]


def chunks(texts: Sequence[str], max_len: int) -> Iterator[list[str]]:
    """Texts to encode at once; ``max_len`` in tokens."""
    chunk: list[str] = []
    tokens = 0
    for text in texts:
        more = min(max_len, len(text) // CHARACTERS_A_TOKEN + 2)
        if chunk and (len(chunk) == CHUNK_TEXTS or tokens + more > CHUNK_TOKENS):
            yield chunk
            chunk, tokens = [], 0
        chunk.append(text)
        tokens += more
    yield chunk
