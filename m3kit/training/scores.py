"""Scores of queries and passages, of each kind the same numbers as FlagEmbedding's, without its costly detours.

B queries have a group of G passages each, in the queries' order. Scores are of all passages, (B, B·G), or of each
query's own group alone, (B, G). They are not divided by the temperature yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Scores of tokens by tokens that are computed at a time; in 32 bits, 64 MiB.
CHUNK = 2**24
# Of the queries' tokens, so many at a time.
QUERY_TOKENS = 4096


class Part(NamedTuple):
    """Vectors of n texts that were encoded together, padded to L tokens.

    ``places`` (n,): the texts' numbers in the batch. ``ids`` and ``mask`` (n, L). ``tokens`` (T,): which of the
    n·(L - 1) ColBERT vectors are no padding's. ``dense`` (n, D); ``weights`` (n, L); ``colbert`` (n, L - 1, D'): of all
    tokens but the first, 0 where there is none. Without heads there are dense vectors alone.
    """

    places: Tensor
    ids: Tensor
    mask: Tensor
    tokens: Tensor
    dense: Tensor
    weights: Tensor | Any = None
    colbert: Tensor | Any = None


class Texts(NamedTuple):
    """Vectors of N texts: dense ones, (N, D), in order, and the tokens' in parts.

    ``words`` (U,) are the ids that have a weight, in ascending order; the last is no id.
    """

    dense: Tensor
    parts: list[Part]
    words: Tensor

    @property
    def longest(self) -> int:
        """Tokens that all of them would be padded to if they were one part."""
        return max(part.ids.shape[1] for part in self.parts)


def make_texts(parts: list[Part], words: Tensor) -> Texts:
    return Texts(_at_least_32_bits(_in_order((part.dense for part in parts), parts)), parts, words)


def joined(texts: Texts, name: str, length: int) -> Tensor:
    """(N, length, …) of all texts, in order: one of the tensors of their parts, and zeros, which score nothing."""
    values = [getattr(part, name) for part in texts.parts]
    ends = [(*(0, 0) * (one.dim() - 2), 0, length - one.shape[1]) for one in values]
    return _in_order(map(F.pad, values, ends), texts.parts)


def _at_least_32_bits(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _in_order(values: Iterable[Tensor], parts: Iterable[Part], dim: int = 0) -> Tensor:
    """The values of some parts put together along ``dim``, each where its text's place is."""
    places = torch.cat([part.places for part in parts])
    return torch.cat(list(values), dim).index_select(dim, places.argsort())


def products(q: Tensor, p: Tensor, own_group: bool) -> Tensor:
    """Scores of vectors (B, D) and (B·G, D)."""
    q, p = _at_least_32_bits(q), _at_least_32_bits(p)
    return torch.einsum("bd,bgd->bg", q, p.unflatten(0, (len(q), -1))) if own_group else q @ p.T


def sparse_scores(q: Texts, p: Texts, own_group: bool) -> Tensor:
    """Of words in both texts the products of their weights, which are the largest that a word has in a text.

    FlagEmbedding makes three tensors (N, L, vocabulary) for that (T1). What counts are the words of the queries.
    """
    return products(_by_word(q, q.words), _by_word(p, q.words), own_group)


def _by_word(texts: Texts, words: Tensor) -> Tensor:
    """(N, U): the largest weight of each of U words."""
    found = []
    for part in texts.parts:
        column = torch.searchsorted(words, part.ids)
        weights = _at_least_32_bits(part.weights).where(words[column] == part.ids, 0)
        found.append(weights.new_zeros(len(weights), len(words)).scatter_reduce(1, column, weights, "amax"))
    return _in_order(found, texts.parts)


def colbert_scores(q: Texts, p: Texts, own_group: bool) -> Tensor:
    """The mean over a query's tokens of the best product with a token of the passage.

    FlagEmbedding keeps all products, (B, Lq, B·G, Lp), and those of padding too (T4). Of the latter only this is left:
    in a passage shorter than the longest, a token of padding scores 0, which is better than a negative product. The
    products are made in chunks, and once more for their gradients; in 32 bits, for in 16 several tokens are the best.
    """
    count, group_size, found = len(q.dense), len(p.dense) // len(q.dense), []
    if own_group:
        queries = joined(q, "colbert", q.longest - 1)
    else:
        tokens = torch.cat([part.colbert.flatten(0, 1).index_select(0, part.tokens) for part in q.parts])
        owners = torch.cat([part.places[part.tokens // part.colbert.shape[1]] for part in q.parts])
        some = list(zip(tokens.split(QUERY_TOKENS), owners.split(QUERY_TOKENS), strict=True))
    for part in p.parts:
        if own_group:
            size = queries.shape[1] * max(part.colbert.shape[1:])  # of what one passage takes
        else:
            size = min(len(tokens), QUERY_TOKENS) * part.colbert.shape[1]
        shorter = part.mask.sum(1) < p.longest
        chunks = (values.split(max(1, CHUNK // max(size, 1))) for values in (part.colbert, shorter, part.places))
        for passages, padded, places in zip(*chunks, strict=True):
            if own_group:
                scores = _again(_best, queries, passages, padded, places // group_size).sum(0)
            else:
                scores = q.dense.new_zeros(count, len(passages))
                for theirs, rows in some:
                    scores = scores.index_add(0, rows, _again(_best, theirs, passages, padded))
            found.append(scores)
    real = _in_order((part.mask[:, 1:].sum(1) for part in q.parts), q.parts)
    return _in_order(found, p.parts, dim=-1).view(count, -1) / real[:, None]


def _best(queries: Tensor, passages: Tensor, padded: Tensor, rows: Tensor | None = None) -> Tensor:
    """(T, n): the best product of each of T tokens with those of n passages, (n, L, D'); at least 0 where ``padded``.

    The tokens are (T, D'), or, with the passages' ``rows``, each passage's own: those of its query, of (B, T, D').
    """
    with _exact_tf32(queries, passages):
        queries, passages = _at_least_32_bits(queries), _at_least_32_bits(passages)
        if rows is None:
            found = (queries @ passages.flatten(0, 1).T).unflatten(1, passages.shape[:2])
        else:
            found = (queries.index_select(0, rows) @ passages.transpose(1, 2)).transpose(0, 1)
    best = found.max(-1).values
    return best.clamp(min=0).where(padded, best)


@contextlib.contextmanager
def _exact_tf32(*factors: Tensor) -> Iterator[None]:
    """Let a GPU multiply numbers of 16 bits as TF32: it holds each exactly, so the products are those of 32 bits."""
    if not all(values.is_cuda and values.dtype in (torch.float16, torch.bfloat16) for values in factors):
        yield
        return
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _again(function, *arguments: Tensor) -> Tensor:
    """The result, of which nothing is kept for the gradients: it is computed once more when they are asked for."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
