"""BM25 over passages that come in shards. Nothing grows with the passages but the table of known words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from m3kit.encoding.bm25 import SETTINGS, Terms
from m3kit.progress import bar


class ShardedBm25:
    """Counts the words of all passages once; then makes matrices whose products are BM25 scores.

    ``queries``: float32 (queries, words), how often each has each word. ``settings`` says in words how texts are read.
    """

    def __init__(self, queries: Sequence[str], passages: Sequence[str]):
        self._terms = Terms(passages)
        self.settings = {**SETTINGS, **self._terms.settings}
        # Learnt first, so that the queries' words have the lowest numbers; only these are compared.
        found = [self._learn(text) for text in queries]
        self._words = len(self._terms.vocabulary)
        self.queries, _ = self._counts(found)
        having, length = np.zeros(self._words, np.int64), 0
        with bar(len(passages), "counting words", "passages") as shown:
            for text in passages:
                numbers = self._learn(text)
                length += len(numbers)
                having[np.unique(numbers[numbers < self._words])] += 1
                shown.update()
        self._mean_length = max(length / len(passages), 1e-9)
        self._weights = np.log(1 + (len(passages) - having + 0.5) / (having + 0.5)).astype(np.float32)

    def passages(self, texts: Sequence[str]) -> csr_matrix:
        """BM25 weights, float32 (words, passages): to be multiplied with ``queries``."""
        matrix, lengths = self._counts([self._learn(text) for text in texts])
        k1, b = SETTINGS["k1"], SETTINGS["b"]
        penalty = (k1 * (1 - b + b * lengths / self._mean_length)).astype(np.float32)
        matrix.data *= self._weights[matrix.indices] / (matrix.data + np.repeat(penalty, np.diff(matrix.indptr)))
        return matrix.T.tocsr()

    def _learn(self, text: str) -> np.ndarray:
        return np.frombuffer(self._terms.learn(text), np.int32)

    def _counts(self, found: list[np.ndarray]) -> tuple[csr_matrix, np.ndarray]:
        """How often each text has each of the queries' words, float32 (texts, words); words in each."""
        known = [numbers[numbers < self._words] for numbers in found]
        ends = np.cumsum([0, *map(len, known)])
        columns = np.concatenate(known)
        matrix = csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(found), self._words))
        matrix.sum_duplicates()
        return matrix, np.array([len(numbers) for numbers in found])
