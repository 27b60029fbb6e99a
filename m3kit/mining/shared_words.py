"""BM25 over passages that come in shards: the words that queries have, counted once, then scored shard by shard.

Nothing grows with the passages but the table of known words: the counts of each shard lie on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from m3kit.evaluation.bm25 import SETTINGS, Terms, main_language


class SharedWords:
    """Counts passages' words (``count``), and then makes matrices whose products are BM25 scores."""

    def __init__(self, queries: Sequence[str], passages: Sequence[str], folder: Path):
        language, says = main_language(passages)
        self._folder, self._terms = folder, Terms(language)
        # Learnt first, so that all processes give the queries' words the same numbers; other words' are never compared.
        found = [self._terms.learn(query) for query in queries]
        self._words = len(self._terms.vocabulary)
        self.queries = self._matrix(found)
        self.settings = {**SETTINGS, "language": says, **self._terms.settings}

    def _matrix(self, found: list) -> csr_matrix:
        """How often each text has each of the queries' words: float32 (texts, words)."""
        ends = np.cumsum([0] + [len(numbers) for numbers in found])
        columns = np.concatenate([np.frombuffer(numbers, np.int32) for numbers in found] or [np.empty(0, np.int32)])
        known = columns < self._words
        ends = np.concatenate([[0], np.cumsum(known)])[ends]
        columns = columns[known]
        matrix = csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(found), self._words))
        matrix.sum_duplicates()
        return matrix

    def _file(self, shard: int) -> Path:
        return self._folder / f"words-{shard:06d}.npz"

    def count(self, shard: int, texts: list[str]) -> None:
        """Count the words of a shard, unless that was done before."""
        if self._file(shard).is_file():
            return
        found = [self._terms.learn(text) for text in texts]
        matrix = self._matrix(found)
        temporary = self._file(shard).with_suffix(".tmp.npz")
        np.savez(
            temporary,
            lengths=np.array([len(numbers) for numbers in found], np.int32),
            passages_with=np.bincount(matrix.indices, minlength=self._words).astype(np.int32),
            data=matrix.data,
            indices=matrix.indices,
            indptr=matrix.indptr,
        )
        temporary.replace(self._file(shard))

    def total(self, shards: int) -> None:
        """Add up the counts of all shards, which are there now."""
        passages, length, having = 0, 0, np.zeros(self._words, np.int64)
        for shard in range(shards):
            with np.load(self._file(shard)) as counted:
                passages += len(counted["lengths"])
                length += int(counted["lengths"].sum())
                having += counted["passages_with"]
        self._mean_length = max(length / passages, 1e-9)
        self._weights = np.log(1 + (passages - having + 0.5) / (having + 0.5)).astype(np.float32)

    def passages(self, shard: int) -> csr_matrix:
        """BM25 weights of a shard's passages, float32 (words, passages): to be multiplied with ``queries``."""
        with np.load(self._file(shard)) as counted:
            lengths = counted["lengths"]
            parts = (counted["data"], counted["indices"], counted["indptr"])
            matrix = csr_matrix(parts, shape=(len(lengths), self._words))
        k1, b = SETTINGS["k1"], SETTINGS["b"]
        penalty = (k1 * (1 - b + b * lengths / self._mean_length)).astype(np.float32)
        matrix.data *= self._weights[matrix.indices] / (matrix.data + np.repeat(penalty, np.diff(matrix.indptr)))
        return matrix.T.tocsr()
