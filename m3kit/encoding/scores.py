"""The four ways M3 scores a passage for a query, and the passages that are worth ranking.

Passages come in chunks: each is scored against all queries, what may still be among the best is kept and the chunk's
vectors dropped, so that memory does not grow with the corpus. ColBERT, which costs the most, is computed for those
passages alone. (ColBERT vectors of 10,000 passages of 100 tokens would take 4 GB.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from m3kit.encoding.vectors import Vectors

# FlagEmbedding/finetune/embedder/encoder_only/m3/modeling.py, `ensemble_score`: what M3 is trained to rank by.
HYBRID_WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}

# ColBERT and hybrid rank the union of the first 200 of dense and the first 200 of sparse, as the M3 paper re-ranks.
CANDIDATES = 200

# No passage shares a term with the query: all its BM25 scores are 0, and stay it.
TINY = np.float32(1e-12)

# Queries scored at once against a chunk: a bound on the two matrices (queries, chunk).
QUERY_BLOCK = 4096


class Vocabulary:
    """The queries' tokens, which alone can match: lexical weights over them as a matrix (texts, tokens)."""

    def __init__(self, queries: Sequence[Mapping[str, float]]) -> None:
        tokens = sorted({token for row in queries for token in row})
        self.columns = {token: column for column, token in enumerate(tokens)}

    def matrix(self, weights: Sequence[Mapping[str, float]]) -> csr_matrix:
        """FlagEmbedding's lexical weights ({token id as text: weight} of each text), float32."""
        rows = [[(self.columns[token], row[token]) for token in row.keys() & self.columns.keys()] for row in weights]
        ends = np.cumsum([0] + [len(row) for row in rows])
        columns = np.fromiter((column for row in rows for column, _ in row), dtype=np.int64, count=ends[-1])
        values = np.fromiter((weight for row in rows for _, weight in row), dtype=np.float32, count=ends[-1])
        return csr_matrix((values, columns, ends), shape=(len(weights), len(self.columns)))


def dense_scores(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Inner products, float32 (queries, passages)."""
    return queries.astype(np.float32) @ passages.astype(np.float32).T


def sparse_scores(queries: csr_matrix, passages: csr_matrix) -> np.ndarray:
    """Sums of weight × weight over shared tokens, float32 (queries, passages); 0 where no token is shared."""
    return (queries @ passages.T).toarray()


class QueryTokens:
    """The ColBERT vectors of all queries, one (tokens, size) array a query, in one piece on a device."""

    def __init__(self, queries: Sequence[np.ndarray], device: str) -> None:
        self.lengths = np.array([len(query) for query in queries])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.tokens = torch.from_numpy(np.concatenate(queries)).to(device, torch.float32)

    def scores(self, passages: Sequence[np.ndarray], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """For each query token the best passage token, averaged over the query's tokens.

        ``rows`` and ``columns`` are the numbers of the queries and passages of each pair, float32 (pairs,) comes back.
        Equal to FlagEmbedding's ``colbert_score``. Passage by passage: a query's tokens are the fewer to gather.
        """
        order = np.argsort(columns, kind="stable")
        rows, columns = rows[order], columns[order]
        # The places of the tokens of each pair's query, one pair after another.
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        places = torch.from_numpy(np.repeat(self.starts[rows], lengths) + within).to(self.tokens.device)
        best = torch.empty(len(places), device=self.tokens.device)
        numbers, firsts = np.unique(columns, return_index=True)
        borders = [*(ends - lengths)[firsts].tolist(), len(places)]
        for number, start, end in zip(numbers, borders[:-1], borders[1:], strict=True):
            passage = torch.from_numpy(passages[number]).to(self.tokens.device, torch.float32)
            best[start:end] = (self.tokens[places[start:end]] @ passage.T).amax(dim=1)
        scores = np.empty(len(rows), dtype=np.float32)
        if len(rows):
            scores[order] = np.add.reduceat(best.cpu().numpy(), ends - lengths) / lengths
        return scores


def hybrid_scores(scores: Mapping[str, Any]) -> Any:
    """Return the weighted sum of the scores: an array if they are arrays, a number if they are numbers."""
    return sum(weight * scores[name] for name, weight in HYBRID_WEIGHTS.items())


@dataclass(frozen=True)
class Candidates:
    """What one query found, by ascending passage number.

    ``scores`` has an array beside ``numbers`` for dense, sparse and colbert (dense alone without heads); ``first`` the
    places in these arrays of the CANDIDATES best of dense and of sparse, best first. Judged passages are in the arrays
    wherever they rank. Both have BM25 where ``with_bm25`` added it.
    """

    numbers: np.ndarray
    scores: dict[str, np.ndarray]
    first: dict[str, np.ndarray]

    def ranking(self, score: str) -> np.ndarray:
        """Passage numbers from best to worst; of equal scores the lower number first."""
        if score in self.first:
            return self.numbers[self.first[score]]
        pool = np.union1d(self.first["dense"], self.first["sparse"])
        values = hybrid_scores(self.scores) if score == "hybrid" else self.scores[score]
        return self.numbers[pool[np.argsort(-values[pool], kind="stable")]]

    def with_bm25(self, first: Sequence[int], scores: np.ndarray) -> Candidates:
        """With BM25 beside the model's scores.

        ``first``: the numbers of BM25's CANDIDATES best, best first, all of them judged; ``scores``: BM25's of every
        passage, float32 (passages,). They are divided by the query's best, for BM25 has no scale of its own: 0 to 1.
        """
        # Scaled before they are picked, so that who has all passages at hand gets the same bits.
        scaled = scores / max(scores.max(initial=0.0), TINY)
        return Candidates(
            self.numbers,
            self.scores | {"bm25": scaled[self.numbers]},
            self.first | {"bm25": np.searchsorted(self.numbers, np.array(first, dtype=np.int64))},
        )


class Ranker:
    """Takes passages chunk by chunk and keeps what each query may rank.

    Passages are numbered in the order in which they come, and of two equal scores the earlier passage ranks first: who
    calls decides ties by the order of the corpus. Sparse ranks only passages that share a token with the query, as an
    inverted index does. ``judged`` are passage numbers of each query whose scores are wanted in any case.
    """

    def __init__(self, queries: Vectors, device: str, judged: Sequence[Sequence[int]] | None = None) -> None:
        self.queries = queries
        self.names = ["dense", "sparse", "colbert"] if queries.heads else ["dense"]
        count = len(queries.dense)
        self.judged = [np.array(sorted(numbers), dtype=np.int64) for numbers in judged or [[]] * count]
        self.seen = 0
        nothing = {name: np.empty(0, dtype=np.float32) for name in self.names}
        self.kept = [self._candidates(query, np.empty(0, dtype=np.int64), nothing) for query in range(count)]
        if queries.heads:
            lexical, colbert = queries.heads
            self.vocabulary = Vocabulary(lexical)
            self.lexical = self.vocabulary.matrix(lexical)
            self.tokens = QueryTokens(colbert, device)

    def add(self, passages: Vectors) -> None:
        """Score a chunk of passages against all queries and keep the best."""
        count = len(passages.dense)
        heads = passages.heads if self.queries.heads else None
        if heads:
            lexical = self.vocabulary.matrix(heads[0])
        for start in range(0, len(self.kept), QUERY_BLOCK):
            block = slice(start, start + QUERY_BLOCK)
            scores = {"dense": dense_scores(self.queries.dense[block], passages.dense)}
            if heads:
                scores["sparse"] = sparse_scores(self.lexical[block], lexical)
            rows, columns = np.nonzero(self._entering(block, scores))
            new = {name: values[rows, columns] for name, values in scores.items()}
            if heads:
                new["colbert"] = self.tokens.scores(heads[1], start + rows, columns)
            ends = np.searchsorted(rows, np.arange(len(scores["dense"])), side="right")
            for row in np.unique(rows).tolist():
                mine = slice(ends[row - 1] if row else 0, ends[row])
                old = self.kept[start + row]
                numbers = np.concatenate([old.numbers, self.seen + columns[mine]])
                together = {name: np.concatenate([old.scores[name], new[name][mine]]) for name in self.names}
                self.kept[start + row] = self._candidates(start + row, numbers, together)
        self.seen += count

    def _entering(self, block: slice, scores: dict[str, np.ndarray]) -> np.ndarray:
        """Which passages of a chunk may be among the best of a query: bool (queries, passages)."""
        entering: np.ndarray = np.zeros(scores["dense"].shape, dtype=bool)
        for row, (judged, kept) in enumerate(zip(self.judged[block], self.kept[block], strict=True)):
            here = judged[(judged >= self.seen) & (judged < self.seen + entering.shape[1])]
            entering[row, here - self.seen] = True
            for name, values in scores.items():
                least = 0.0 if name == "sparse" else -np.inf
                if len(kept.first[name]) == CANDIDATES:
                    least = kept.scores[name][kept.first[name][-1]]
                # Of equal scores the earlier ranks first: what only equals the last one kept is too late.
                better = values[row] > least
                if np.count_nonzero(better) > CANDIDATES:
                    better &= values[row] >= np.partition(values[row], -CANDIDATES)[-CANDIDATES]
                entering[row] |= better
        return entering

    def _candidates(self, query: int, numbers: np.ndarray, scores: dict[str, np.ndarray]) -> Candidates:
        """The best of these by dense and by sparse, and the judged; all others are dropped."""
        keep = np.isin(numbers, self.judged[query])
        for name in self.names[:2]:
            keep[first_places(name, scores[name])] = True
        scores = {name: values[keep] for name, values in scores.items()}
        return Candidates(numbers[keep], scores, {name: first_places(name, scores[name]) for name in self.names[:2]})

    def candidates(self) -> list[Candidates]:
        """What each query found, when all passages have come."""
        return self.kept


def first_places(name: str, values: np.ndarray) -> np.ndarray:
    """The places of the CANDIDATES best by this score, best first, of sparse without those that share no token."""
    order = np.argsort(-values, kind="stable")
    if name == "sparse":
        order = order[values[order] > 0]
    return order[:CANDIDATES]
