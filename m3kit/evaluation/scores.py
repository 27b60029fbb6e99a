"""The four ways M3 scores a passage for a query, and the ranked lists that follow from them.

Passages come in chunks: each chunk is scored against all queries, the best are kept and the chunk's vectors dropped, so
memory does not grow with the corpus. (ColBERT vectors of 10,000 passages of 100 tokens would take 4 GB.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix

from m3kit.evaluation.vectors import Vectors

# FlagEmbedding/finetune/embedder/encoder_only/m3/modeling.py, `ensemble_score`: what M3 is trained to rank by.
HYBRID_WEIGHTS = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}

# ColBERT and hybrid rank the union of the first 200 of dense and the first 200 of sparse, as the M3 paper re-ranks.
CANDIDATES = 200

# Token similarities held at once: 32 million float32 are 128 MB.
TOKEN_PAIRS = 32 * 1024 * 1024


def lexical_matrix(weights: Sequence[dict[str, float]], vocabulary: int) -> csr_matrix:
    """FlagEmbedding's lexical weights ({token id as text: weight} of each text) as a matrix (texts, vocabulary)."""
    ends = np.cumsum([0] + [len(row) for row in weights])
    columns = np.fromiter((int(token) for row in weights for token in row), dtype=np.int64, count=ends[-1])
    values = np.fromiter((weight for row in weights for weight in row.values()), dtype=np.float32, count=ends[-1])
    return csr_matrix((values, columns, ends), shape=(len(weights), vocabulary))


def dense_scores(queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Inner products, float32 (queries, passages)."""
    return queries.astype(np.float32) @ passages.astype(np.float32).T


def sparse_scores(queries: csr_matrix, passages: csr_matrix) -> np.ndarray:
    """Sums of weight × weight over shared tokens, float32 (queries, passages); 0 where no token is shared."""
    return (queries @ passages.T).toarray()


def colbert_scores(queries: Sequence[np.ndarray], passages: Sequence[np.ndarray], device: str = "cpu") -> np.ndarray:
    """For each query token the best passage token, averaged over the query's tokens: float32 (queries, passages).

    ``queries`` and ``passages`` hold one (tokens, size) array a text. Equal to FlagEmbedding's ``colbert_score``.
    """
    tokens = torch.from_numpy(np.concatenate(queries)).to(device, torch.float32)
    lengths = torch.tensor([len(query) for query in queries], device=device)
    owner = torch.repeat_interleave(torch.arange(len(queries), device=device), lengths)
    scores = torch.empty(len(queries), len(passages), device=device)
    for columns, batch, padding in _padded_batches(passages, device):
        count, longest, size = batch.shape
        sums = torch.zeros(len(queries), count, device=device)
        step = max(1, TOKEN_PAIRS // (count * longest))
        for start in range(0, len(tokens), step):
            similarity = (tokens[start : start + step] @ batch.reshape(-1, size).T).view(-1, count, longest)
            # Padding must lose even where every real similarity is negative.
            best = similarity.masked_fill_(padding, -torch.inf).amax(dim=2)
            sums.index_add_(0, owner[start : start + step], best)
        scores[:, columns] = sums / lengths[:, None]
    return scores.cpu().numpy()


def _padded_batches(passages: Sequence[np.ndarray], device: str, batch_size: int = 64):
    """Yield passage numbers, vectors (passages, longest, size) and the padding's mask (passages, longest)."""
    by_length = sorted(range(len(passages)), key=lambda number: len(passages[number]))
    for start in range(0, len(by_length), batch_size):
        columns = by_length[start : start + batch_size]
        arrays = [torch.from_numpy(passages[number]) for number in columns]
        batch = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True).to(device, torch.float32)
        lengths = torch.tensor([len(array) for array in arrays], device=device)
        yield columns, batch, torch.arange(batch.shape[1], device=device)[None, :] >= lengths[:, None]


def hybrid_scores(scores: dict[str, np.ndarray]) -> np.ndarray:
    return sum(weight * scores[name] for name, weight in HYBRID_WEIGHTS.items())


class Ranker:
    """Takes passages chunk by chunk and gives the ranked lists of every score.

    Passages are numbered in the order in which they come, and of two equal scores the earlier passage ranks first: who
    calls decides ties by the order of the corpus. Sparse ranks only passages that share a token with the query, as an
    inverted index does.
    """

    def __init__(self, queries: Vectors, vocabulary: int, device: str) -> None:
        self.queries, self.vocabulary, self.device = queries, vocabulary, device
        self.seen = 0
        self.kept: dict[str, dict[str, np.ndarray]] = {}
        self.lexical = None if queries.dense_only else lexical_matrix(queries.lexical, vocabulary)

    def add(self, passages: Vectors) -> None:
        """Score a chunk of passages against all queries and keep the best."""
        scores = {"dense": dense_scores(self.queries.dense, passages.dense)}
        if not self.queries.dense_only:
            scores["sparse"] = sparse_scores(self.lexical, lexical_matrix(passages.lexical, self.vocabulary))
            scores["colbert"] = colbert_scores(self.queries.colbert, passages.colbert, self.device)
        numbers = np.arange(self.seen, self.seen + len(passages.dense))
        chunk = scores | {"number": np.broadcast_to(numbers, scores["dense"].shape)}
        self.seen += len(passages.dense)
        for name in ("dense", "sparse"):
            if name in scores:
                self.kept[name] = _best(self.kept.get(name), chunk, by=name)

    def rankings(self) -> dict[str, list[list[int]]]:
        """For each score, for each query, passage numbers from best to worst. Without heads only "dense"."""
        dense = self.kept["dense"]
        lists = {"dense": [row.tolist() for row in dense["number"]]}
        if self.queries.dense_only:
            return lists
        sparse = self.kept["sparse"]
        lists |= {name: [] for name in ("sparse", "colbert", "hybrid")}
        for query in range(len(dense["number"])):
            shared = sparse["sparse"][query] > 0
            lists["sparse"].append(sparse["number"][query][shared].tolist())
            both = {
                name: np.concatenate([dense[name][query], sparse[name][query][shared]])
                for name in ("number", *HYBRID_WEIGHTS)
            }
            # np.unique also sorts the numbers, which the stable sort below needs for its ties.
            numbers, places = np.unique(both.pop("number"), return_index=True)
            union = {name: values[places] for name, values in both.items()}
            for name, values in (("colbert", union["colbert"]), ("hybrid", hybrid_scores(union))):
                lists[name].append(numbers[np.argsort(-values, kind="stable")].tolist())
        return lists


def _best(kept: dict | None, chunk: dict, by: str) -> dict[str, np.ndarray]:
    """The CANDIDATES best columns of each query by one score, with their number and all their scores."""
    if kept is not None:
        # What was kept stands first, so that a stable sort leaves earlier passages before later ones of equal score.
        chunk = {name: np.concatenate([kept[name], values], axis=1) for name, values in chunk.items()}
    order = np.argsort(-chunk[by], axis=1, kind="stable")[:, :CANDIDATES]
    return {name: np.take_along_axis(values, order, axis=1) for name, values in chunk.items()}
