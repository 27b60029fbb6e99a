"""Encode each text once and find the best passages of each query, shard by shard, going on where a run was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack

from m3kit.evaluation.encode import Encoder
from m3kit.mining.best import Best
from m3kit.mining.prepared import Texts
from m3kit.mining.processes import Processes
from m3kit.mining.shared_words import SharedWords
from m3kit.progress import bar

# Queries scored at once against a shard: a bound on the matrices (queries, shard), 40 MB each with 20,000 passages.
QUERY_BLOCK = 512
PAIR_BLOCK = 16_384
# How many of the best positives of all rows are kept for the calibration: the query's own must be passed over.
POSITIVES = 8


@dataclass(frozen=True)
class Found:
    """``lists``: the best by dense, sparse (with M3's heads) and bm25; ``positives``: the best by dense among the
    positives of all rows; ``row_scores``: the dense score of each of ``Texts.row_passages`` for its row's query."""

    lists: dict[str, Best]
    positives: Best
    row_scores: np.ndarray
    bm25: dict[str, object]


class Search:
    """The shards of one process; its state is written after each of them."""

    def __init__(self, texts: Texts, encoder: Encoder, depth: int, shard_size: int, folder: Path, processes: Processes):
        self._texts, self._encoder, self._folder, self._processes = texts, encoder, folder, processes
        self._shard_size = shard_size
        self._shards = -(-len(texts.passages) // shard_size)
        count = len(texts.queries)
        # No passage without a shared token or word.
        least = {"dense": -np.inf, "bm25": 0.0} | ({"sparse": 0.0} if encoder.has_heads else {})
        self.lists = {name: Best(count, depth, least[name]) for name in ("dense", "sparse", "bm25") if name in least}
        self.positives = Best(count, POSITIVES)
        self.row_scores = np.full(len(texts.row_passages), np.nan, np.float32)
        self._pair_query, self._is_positive = texts.pair_query(), texts.is_positive()
        self._order = np.argsort(texts.row_passages, kind="stable")
        self._sorted = texts.row_passages[self._order]

    def run(self) -> Found | None:
        """Search all shards; the first process gets what all have found."""
        processes, texts = self._processes, self._texts
        words = SharedWords(texts.queries, texts.passages, self._folder)
        with bar(len(texts.passages), "counting words", "passages") as shown:
            for shard in processes.mine(self._shards):
                words.count(shard, self._part(shard))
                shown.update(self._shard_size * processes.count)
        self._encode_queries()
        processes.wait()
        words.total(self._shards)
        dense, lexical = self._load_queries()
        done = self._restore()
        with bar(len(texts.passages), f"searching with {self._encoder.model.name}", "passages") as shown:
            for shard in processes.mine(self._shards):
                if shard > done:
                    self._search(shard, dense, lexical, words)
                    self._save(shard)
                shown.update(self._shard_size * processes.count)
        processes.wait()
        if processes.rank:
            return None
        for rank in range(1, processes.count):
            with np.load(self._state(rank)) as arrays:
                for name, best in (self.lists | {"positives": self.positives}).items():
                    other = Best(0, best.depth)
                    other.restore(name, arrays)
                    best.merge(other)
                self.row_scores = np.where(np.isnan(self.row_scores), arrays["row_scores"], self.row_scores)
        return Found(self.lists, self.positives, self.row_scores, words.settings)

    def _part(self, shard: int) -> list[str]:
        start = shard * self._shard_size
        return self._texts.passages.part(start, min(len(self._texts.passages), start + self._shard_size))

    # ---- queries ----

    def _query_file(self, shard: int) -> Path:
        return self._folder / f"queries-{shard:06d}.npz"

    def _query_shards(self) -> int:
        return -(-len(self._texts.queries) // self._shard_size)

    def _encode_queries(self) -> None:
        queries = self._texts.queries
        with bar(len(queries), "encoding queries", "queries") as shown:
            for shard in self._processes.mine(self._query_shards()):
                file = self._query_file(shard)
                if file.is_file():
                    continue
                start = shard * self._shard_size
                vectors = self._encoder.queries(
                    queries.part(start, min(len(queries), start + self._shard_size)), shown.update
                )
                lexical = self._lexical(vectors.lexical or [])
                temporary = file.with_suffix(".tmp.npz")
                np.savez(
                    temporary, dense=vectors.dense, data=lexical.data, indices=lexical.indices, indptr=lexical.indptr
                )
                temporary.replace(file)

    def _load_queries(self) -> tuple[torch.Tensor, csr_matrix]:
        dense, lexical = [], []
        for shard in range(self._query_shards()):
            with np.load(self._query_file(shard)) as arrays:
                dense.append(arrays["dense"].astype(np.float32))
                parts = (arrays["data"], arrays["indices"], arrays["indptr"])
                lexical.append(csr_matrix(parts, shape=(len(parts[2]) - 1, len(self._encoder.tokenizer))))
        device = self._encoder.settings.device
        return torch.from_numpy(np.concatenate(dense)).to(device), vstack(lexical, format="csr")

    def _lexical(self, weights: list[dict[str, float]]) -> csr_matrix:
        """M3's lexical weights, float32 (texts, tokens of the tokenizer)."""
        ends = np.cumsum([0] + [len(row) for row in weights])
        tokens = np.fromiter((int(token) for row in weights for token in row), np.int32, ends[-1])
        values = np.fromiter((weight for row in weights for weight in row.values()), np.float32, ends[-1])
        return csr_matrix((values, tokens, ends), shape=(len(weights), len(self._encoder.tokenizer)))

    # ---- one shard ----

    def _search(self, shard: int, queries: torch.Tensor, lexical: csr_matrix, words: SharedWords) -> None:
        vectors = self._encoder.passages(self._part(shard))
        passages = torch.from_numpy(vectors.dense.astype(np.float32)).to(queries.device)
        start = shard * self._shard_size
        numbers = np.arange(start, start + len(passages), dtype=np.int32)
        self._score_pairs(start, queries, passages)
        sparse = {"bm25": (words.queries, words.passages(shard))}
        if self._encoder.has_heads:
            sparse["sparse"] = (lexical, self._lexical(vectors.lexical).T.tocsr())
        positive = np.flatnonzero(self._is_positive[start : start + len(passages)])
        for first in range(0, len(queries), QUERY_BLOCK):
            block = slice(first, first + QUERY_BLOCK)
            dense = (queries[block] @ passages.T).cpu().numpy()
            self.lists["dense"].add(first, dense, dense, numbers)
            self.positives.add(first, dense[:, positive], dense[:, positive], numbers[positive])
            for name, (left, right) in sparse.items():
                self.lists[name].add(first, (left[block] @ right).toarray(), dense, numbers)

    def _score_pairs(self, start: int, queries: torch.Tensor, passages: torch.Tensor) -> None:
        """The dense scores of the rows' own passages in this shard."""
        here = self._order[slice(*np.searchsorted(self._sorted, [start, start + len(passages)]))]
        for first in range(0, len(here), PAIR_BLOCK):
            some = here[first : first + PAIR_BLOCK]
            left = queries[torch.from_numpy(self._pair_query[some]).long()]
            right = passages[torch.from_numpy(self._texts.row_passages[some] - start).long()]
            self.row_scores[some] = (left * right).sum(dim=1).cpu().numpy()

    # ---- state ----

    def _state(self, rank: int) -> Path:
        return self._folder / f"best-{rank:04d}.npz"

    def _save(self, shard: int) -> None:
        """Write what was found up to this shard, in one step."""
        arrays = {"shard": np.int64(shard), "row_scores": self.row_scores} | self.positives.arrays("positives")
        for name, best in self.lists.items():
            arrays |= best.arrays(name)
        temporary = self._state(self._processes.rank).with_suffix(".tmp.npz")
        np.savez(temporary, **arrays)
        temporary.replace(self._state(self._processes.rank))

    def _restore(self) -> int:
        """Take what an earlier run found; the last shard that it finished, -1 where it finished none."""
        if not self._state(self._processes.rank).is_file():
            return -1
        with np.load(self._state(self._processes.rank)) as arrays:
            for name, best in (self.lists | {"positives": self.positives}).items():
                best.restore(name, arrays)
            self.row_scores = arrays["row_scores"]
            return int(arrays["shard"])
