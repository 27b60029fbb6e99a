"""Scores of queries and passages, of each kind the same numbers as FlagEmbedding's, without its costly detours.

B queries have a group of G passages each, in the queries' order. Scores are of all passages, (B, B·G), or of each
query's own group alone, (B, G). They are not divided by the temperature yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Scores of tokens by tokens that are computed at a time; in 32 bits, 64 MiB.
CHUNK = 2**24
# Of the queries' tokens, so many at a time.
QUERY_TOKENS = 4096


class Part(NamedTuple):
    """Of n texts that were encoded together, padded to L tokens: what their tokens are scored by.

    ``places`` (n,): the texts' numbers in the batch. ``ids`` and ``mask`` (n, L); ``weights`` (n, L), 0 where a token
    has none; ``colbert`` (n, L - 1, D'): of all tokens but the first, 0 where there is none.
    """

    places: Tensor
    ids: Tensor
    mask: Tensor
    weights: Tensor
    colbert: Tensor


class Texts(NamedTuple):
    """Vectors of N texts: (N, D), in order, and the tokens' in parts; of these there are none without heads."""

    dense: Tensor
    parts: list[Part]

    @property
    def longest(self) -> int:
        """Tokens that all of them would be padded to if they were one part."""
        return max(part.ids.shape[1] for part in self.parts)


def at_least_32_bits(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def in_order(values: Iterable[Tensor], places: Iterable[Tensor], dim: int = 0) -> Tensor:
    """Put together along ``dim``, each where its place is."""
    return torch.cat(list(values), dim).index_select(dim, torch.cat(list(places)).argsort())


def dense_scores(q: Texts, p: Texts, own_group: bool) -> Tensor:
    return _products(q.dense, p.dense, own_group)


def sparse_scores(q: Texts, p: Texts, own_group: bool) -> Tensor:
    """Of words in both texts the products of their weights, which are the largest that a word has in a text.

    FlagEmbedding makes three tensors (N, L, vocabulary) for that (T1). What counts are the words of the queries.
    """
    words = torch.cat([part.ids.flatten() for part in q.parts]).unique()
    return _products(_by_word(q, words), _by_word(p, words), own_group)


def _by_word(texts: Texts, words: Tensor) -> Tensor:
    """(N, U): the largest weight of each of U words, (U,) in ascending order."""
    found = []
    for part in texts.parts:
        column = torch.searchsorted(words, part.ids).clamp(max=len(words) - 1)
        weights = at_least_32_bits(part.weights).where(words[column] == part.ids, 0)
        found.append(weights.new_zeros(len(weights), len(words)).scatter_reduce(1, column, weights, "amax"))
    return in_order(found, (part.places for part in texts.parts))


def _products(q: Tensor, p: Tensor, own_group: bool) -> Tensor:
    q, p = at_least_32_bits(q), at_least_32_bits(p)
    return torch.einsum("bd,bgd->bg", q, p.unflatten(0, (len(q), -1))) if own_group else q @ p.T


def colbert_scores(q: Texts, p: Texts, own_group: bool) -> Tensor:
    """The mean over a query's tokens of the best product with a token of the passage.

    FlagEmbedding keeps all products, (B, Lq, B·G, Lp), and those of padding too (T4). Of the latter only this is left:
    in a passage shorter than the longest, a token of padding scores 0, which is better than a negative product. The
    products are made in chunks, and once more for their gradients; in 32 bits, for in 16 several tokens are the best.
    """
    count = len(q.dense)
    size = in_order((part.mask[:, 1:].sum(1) for part in q.parts), (part.places for part in q.parts))
    found = _own_colbert(q, p, len(p.dense) // count) if own_group else _all_colbert(q, p)
    scores = in_order(found, (part.places for part in p.parts), dim=-1)
    return scores.view(count, -1) / size[:, None]


def _all_colbert(q: Texts, p: Texts) -> Iterator[Tensor]:
    """Of each part of passages: (B, n)."""
    real = [part.mask[:, 1:].bool() for part in q.parts]
    tokens = torch.cat([part.colbert[mask] for part, mask in zip(q.parts, real, strict=True)])
    owners = torch.cat([part.places[:, None].expand_as(mask)[mask] for part, mask in zip(q.parts, real, strict=True)])
    pieces = list(zip(tokens.split(QUERY_TOKENS), owners.split(QUERY_TOKENS), strict=True))
    for part in p.parts:
        found = []
        for passages, padded in _chunks(part, p.longest, min(len(tokens), QUERY_TOKENS) * part.colbert.shape[1]):
            scores = q.dense.new_zeros(len(q.dense), len(passages))
            for some, theirs in pieces:
                scores = scores.index_add(0, theirs, _again(_best_of_all, some, passages, padded))
            found.append(scores)
        yield torch.cat(found, dim=1)


def _best_of_all(tokens: Tensor, passages: Tensor, padded: Tensor) -> Tensor:
    """(T, n): of T tokens, (T, D'), and n passages, (n, L, D')."""
    tokens, passages = at_least_32_bits(tokens), at_least_32_bits(passages)
    products = (tokens @ passages.flatten(0, 1).T).unflatten(1, passages.shape[:2])
    return _best(products, padded)


def _own_colbert(q: Texts, p: Texts, group_size: int) -> Iterator[Tensor]:
    """Of each part of passages: (n,)."""
    queries = in_order((_pad(part.colbert, q.longest - 1) for part in q.parts), (part.places for part in q.parts))
    for part in p.parts:
        size = queries.shape[1] * max(part.colbert.shape[1:])
        rows = (part.places // group_size).split(_chunk_length(size))
        chunks = zip(rows, _chunks(part, p.longest, size), strict=True)
        yield torch.cat([_again(_sum_of_own, queries, row, *chunk) for row, chunk in chunks])


def _sum_of_own(queries: Tensor, rows: Tensor, passages: Tensor, padded: Tensor) -> Tensor:
    """(n,): of n passages with the queries in those rows."""
    queries, passages = at_least_32_bits(queries[rows]), at_least_32_bits(passages)
    return _best((queries @ passages.transpose(1, 2)).transpose(0, 1), padded).sum(0)


def _best(products: Tensor, padded: Tensor) -> Tensor:
    """(T, n) of (T, n, L)."""
    best = products.max(-1).values
    return best.clamp(min=0).where(padded, best)


def _chunks(part: Part, longest: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some passages at a time, and whether they are shorter than ``longest``; ``size``: of one passage's products."""
    padded, length = part.mask.sum(1) < longest, _chunk_length(size)
    return zip(part.colbert.split(length), padded.split(length), strict=True)


def _chunk_length(size: int) -> int:
    return max(1, CHUNK // max(size, 1))


def _again(function, *arguments: Tensor) -> Tensor:
    """The result, of which nothing is kept for the gradients: it is computed once more when they are asked for."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def as_one_part(texts: Texts, length: int) -> Part:
    """All texts in order, padded to ``length`` tokens."""
    places = [part.places for part in texts.parts]
    ids, mask, weights, colbert = (
        in_order((_pad(getattr(part, name), length - less) for part in texts.parts), places)
        for name, less in (("ids", 0), ("mask", 0), ("weights", 0), ("colbert", 1))
    )
    return Part(torch.arange(len(ids), device=ids.device), ids, mask, weights, colbert)


def _pad(values: Tensor, length: int) -> Tensor:
    """(n, length, …) of (n, L, …), with zeros, which have no effect on a score; on which side has none either."""
    return F.pad(values, (*(0, 0) * (values.dim() - 2), 0, length - values.shape[1]))
