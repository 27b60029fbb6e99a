"""Encode each text once and find the best passages of each query, shard by shard, going on where a run was killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from m3kit.encoding.encode import Encoder, Watch
from m3kit.mining.sharded_bm25 import ShardedBm25
from m3kit.mining.texts import Texts
from m3kit.processes import before_group
from m3kit.progress import bar

# Queries scored at once against a shard: a bound on the matrices (queries, shard), 40 MB each with 20,000 passages.
QUERY_BLOCK, PAIR_BLOCK = 512, 16_384
# How many of the best positives of all rows are kept for the calibration: the query's own must be passed over.
POSITIVES = 8
# A passage that a query found: by which score, and its dense score.
ENTRY = np.dtype([("query", "i4"), ("passage", "i4"), ("score", "f4"), ("dense", "f4")])


class Processes:
    """Those that torchrun starts: this one is ``rank`` among ``count``; without torchrun it is alone."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            before_group()
            # The first process alone reads the rows, however long that takes.
            distributed.init_process_group("gloo", timeout=timedelta(days=7))
        distributed.barrier()


class Best:
    """At most ``depth`` passages of each query, best first; of equal scores the lower number first.

    Only what scores above ``least`` is kept.
    """

    def __init__(self, queries: int, depth: int, least: float = -np.inf):
        self._depth = depth
        self._entries = np.empty(0, ENTRY)
        self._worst = np.full(queries, least, np.float32)

    def entering(self, first: int, scores: np.ndarray, dense: np.ndarray, start: int) -> np.ndarray:
        """What may be among the best, of the scores of queries from ``first`` on and passages from ``start`` on."""
        mask = scores > self._worst[first : first + len(scores), None]
        crowded = np.flatnonzero(np.count_nonzero(mask, axis=1) > self._depth)
        if len(crowded):
            some = scores[crowded]
            mask[crowded] &= some >= np.partition(some, -self._depth, axis=1)[:, -self._depth, None]
        rows, columns = np.nonzero(mask)
        found = np.empty(len(rows), ENTRY)
        found["query"], found["passage"] = first + rows, start + columns
        found["score"], found["dense"] = scores[rows, columns], dense[rows, columns]
        return found

    def take(self, found: np.ndarray) -> None:
        entries = np.concatenate([self._entries, found])
        entries = entries[np.lexsort((entries["passage"], -entries["score"], entries["query"]))]
        place = np.arange(len(entries)) - np.searchsorted(entries["query"], entries["query"])
        # Of a later shard what only equals the last one comes too late: its number is higher.
        last = entries[place == self._depth - 1]
        self._worst[last["query"]] = last["score"]
        self._entries = entries[place < self._depth]
        self._starts = np.searchsorted(self._entries["query"], np.arange(len(self._worst) + 1))

    def of(self, query: int) -> np.ndarray:
        """Its entries, best first."""
        return self._entries[self._starts[query] : self._starts[query + 1]]


class Found:
    """``best``: of each query by dense, sparse (with M3's heads) and bm25, and by dense the best ``positives`` of all
    rows. ``pair_scores``: the dense score of each of ``Texts.pairs`` for its row's query."""

    def __init__(self, texts: Texts, has_heads: bool, depth: int):
        count = len(texts.queries)
        # By words nothing is found that shares none.
        sparse = {"sparse": Best(count, depth, 0.0)} if has_heads else {}
        self.best = {"dense": Best(count, depth), **sparse, "bm25": Best(count, depth, 0.0)}
        self.best["positives"] = Best(count, POSITIVES)
        self.pair_scores = np.full(len(texts.pairs), np.nan, np.float32)

    def take(self, shard: Mapping[str, np.ndarray]) -> None:
        for name, best in self.best.items():
            best.take(shard[name])
        self.pair_scores[shard["pairs"]] = shard["pair_scores"]


class Search:
    """Searches shard by shard; what each has found is kept in a file of ``folder``."""

    def __init__(self, texts: Texts, encoder: Encoder, depth: int, shard_size: int, folder: Path, processes: Processes):
        self._texts, self._encoder, self._folder, self._processes = texts, encoder, folder, processes
        self._depth, self._shard_size = depth, shard_size
        self.bm25 = ShardedBm25(texts.queries, texts.passages)
        self._pair_query, self._is_positive = texts.pair_query(), texts.is_positive()
        self._by_passage = np.argsort(texts.pairs, kind="stable")

    def run(self) -> Found:
        """What all processes have found, in the first one."""
        self._encode_queries()
        texts, heads = self._texts, self._encoder.has_heads
        self._so_far = Found(texts, heads, self._depth)
        count = len(texts.passages)
        shards = [range(start, min(count, start + self._shard_size)) for start in range(0, count, self._shard_size)]
        files = [self._folder / f"shard-{number:06d}.npz" for number in range(len(shards))]
        with bar(count, f"searching with {self._encoder.model.name}", "passages") as shown:
            for number in range(self._processes.rank, len(shards), self._processes.count):
                if files[number].is_file():
                    shown.update(len(shards[number]) * self._processes.count)
                    continue
                shard = self._search(shards[number], lambda done: shown.update(done * self._processes.count))
                temporary = files[number].with_suffix(".tmp.npz")
                np.savez(temporary, **shard)
                temporary.replace(files[number])
        self._processes.wait()
        found = Found(texts, heads, self._depth)
        for file in files if self._processes.rank == 0 else ():
            with np.load(file) as shard:
                found.take(shard)
        return found

    def _encode_queries(self) -> None:
        queries = list(self._texts.queries)
        with bar(len(queries), "encoding queries", "queries") as shown:
            vectors = self._encoder.queries(queries, shown.update)
        self._dense = torch.from_numpy(vectors.dense.astype(np.float32)).to(self._encoder.settings.device)
        self._by_words = {"bm25": self.bm25.queries, "sparse": self._lexical(vectors.lexical or [])}

    def _lexical(self, weights: list[dict[str, float]]) -> csr_matrix:
        """M3's lexical weights, float32 (texts, tokens of the tokenizer)."""
        ends = np.cumsum([0, *map(len, weights)])
        tokens = np.fromiter((int(token) for row in weights for token in row), np.int32, ends[-1])
        values = np.fromiter((weight for row in weights for weight in row.values()), np.float32, ends[-1])
        return csr_matrix((values, tokens, ends), shape=(len(weights), len(self._encoder.tokenizer)))

    def _search(self, numbers: range, watch: Watch) -> dict[str, Any]:
        texts = [self._texts.passages[number] for number in numbers]
        vectors = self._encoder.passages(texts, watch)
        passages = torch.from_numpy(vectors.dense.astype(np.float32)).to(self._dense.device)
        by_words = {"bm25": self.bm25.passages(texts)}
        if self._encoder.has_heads:
            assert vectors.lexical is not None  # the heads have made them
            by_words["sparse"] = self._lexical(vectors.lexical).T.tocsr()
        is_positive = self._is_positive[numbers.start : numbers.stop]
        found: dict[str, list] = {name: [] for name in self._so_far.best}
        for first in range(0, len(self._dense), QUERY_BLOCK):
            block = slice(first, first + QUERY_BLOCK)
            dense = (self._dense[block] @ passages.T).cpu().numpy()
            scores = {name: (self._by_words[name][block] @ own).toarray() for name, own in by_words.items()}
            scores |= {"dense": dense, "positives": np.where(is_positive, dense, np.float32(-np.inf))}
            for name, best in self._so_far.best.items():
                found[name].append(best.entering(first, scores[name], dense, numbers.start))
        ends = np.searchsorted(self._texts.pairs, [numbers.start, numbers.stop], sorter=self._by_passage)
        pairs = self._by_passage[slice(*ends)]
        left = torch.from_numpy(self._pair_query[pairs]).split(PAIR_BLOCK)
        right = torch.from_numpy(self._texts.pairs[pairs] - numbers.start).split(PAIR_BLOCK)
        own = [(self._dense[one] * passages[other]).sum(dim=1) for one, other in zip(left, right, strict=True)]
        shard = {name: np.concatenate(blocks) for name, blocks in found.items()}
        shard |= {"pairs": pairs, "pair_scores": torch.cat(own).cpu().numpy()}
        self._so_far.take(shard)
        return shard
