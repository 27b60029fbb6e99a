"""FlagEmbedding's scores without its vocabulary-wide tensors (T1), nor all products of tokens at once (T4)."""

from __future__ import annotations

import pytest
import torch
from equivalence import Plain, collate, collate_sorted, load, make_rows
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from m3kit.batches.collator import NO_ID
from m3kit.training import scores
from m3kit.training.model import M3Model
from m3kit.training.scores import Part, Texts, colbert_scores, joined, make_texts, sparse_scores

VOCABULARY = 30


def some_texts(count: int, most_tokens: int, seed: int, part_sizes: list[int], offset: float) -> Texts:
    """Random vectors, many of whose products are negative, and words of which many come twice; in mixed order."""
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=chance)
    parts = []
    for places in order.split(part_sizes):
        lengths = torch.randint(2, most_tokens + 1, (len(places),), generator=chance)
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        ids = torch.randint(0, VOCABULARY, mask.shape, generator=chance) * mask
        weights = torch.randn(mask.shape, generator=chance, dtype=torch.float64).relu() * mask * (ids > 0)
        colbert = torch.randn(*mask[:, 1:].shape, 4, generator=chance, dtype=torch.float64) + offset
        colbert = colbert * mask[:, 1:, None]
        tokens = mask[:, 1:].flatten().nonzero().squeeze(1)
        dense = torch.zeros(len(places), 2, dtype=torch.float64)
        parts.append(Part(places, ids, mask, tokens, dense, weights.requires_grad_(), colbert.requires_grad_()))
    words = torch.cat([part.ids[part.ids > 0] for part in parts] + [torch.tensor([NO_ID])]).unique()
    return make_texts(parts, words)


def of_all(q: Texts, p: Texts) -> dict[str, torch.Tensor]:
    """(B, N) of each kind, as FlagEmbedding computes them, from texts that are padded to the longest."""
    ids, mask, weights = ([joined(one, name, one.longest) for one in (q, p)] for name in ("ids", "mask", "weights"))
    sparse = [
        torch.zeros(*ids.shape, VOCABULARY, dtype=torch.float64).scatter(-1, ids[..., None], weights[..., None]).amax(1)
        for ids, weights in zip(ids, weights, strict=True)
    ]
    vectors = [joined(one, "colbert", one.longest - 1) for one in (q, p)]
    products = torch.einsum("qin,pjn->qipj", *vectors)
    colbert = products.amax(-1).sum(1) / mask[0][:, 1:].sum(-1, keepdim=True)
    return {"sparse": sparse[0] @ sparse[1].T, "colbert": colbert}


@pytest.mark.parametrize("chunk", [1, 200, 2**24])
@pytest.mark.parametrize("query_tokens", [3, 4096])
@pytest.mark.parametrize("own_group", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_and_gradients_in_chunks_are_those_of_all_at_once(monkeypatch, seed, own_group, query_tokens, chunk):
    monkeypatch.setattr(scores, "CHUNK", chunk)
    monkeypatch.setattr(scores, "QUERY_TOKENS", query_tokens)
    q, p = some_texts(4, 7, seed, [1, 3], 0.9), some_texts(12, 9, seed + 10, [5, 1, 6], -0.9)
    leaves = [values for part in (*q.parts, *p.parts) for values in (part.weights, part.colbert)]
    for kind, function in (("sparse", sparse_scores), ("colbert", colbert_scores)):
        expected = of_all(q, p)[kind]
        if own_group:
            expected = expected.view(4, 4, 3)[torch.arange(4), torch.arange(4)]
        found = function(q, p, own_group)
        assert kind == "sparse" or (found < 0).any() or own_group
        torch.testing.assert_close(found, expected)
        upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for one, other in zip(*(gradients(values, upstream, leaves) for values in (found, expected)), strict=True):
            torch.testing.assert_close(one, other)


def gradients(values, upstream, leaves):
    """Of leaves that count: a weight of 0 is none, and comes out of a ReLU that lets no gradient through."""
    found = torch.autograd.grad(values, leaves, upstream, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [gradient * (leaf != 0) for gradient, leaf in zip(found, leaves, strict=True)]


class Tensors(TorchDispatchMode):
    """The shapes of all tensors made in this context, forward and backward."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.shapes += [leaf.shape for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result


def shapes_of_a_step(model, batch) -> list[torch.Size]:
    with Tensors() as made:
        model(**batch).loss.backward()
    return made.shapes


def as_wide_as_the_vocabulary(model, shapes):
    return [tuple(shape) for shape in shapes if model.vocab_size in shape]


def test_t1_flagembedding_makes_tensors_of_all_words_for_every_token(starter):
    plain = load(Plain, starter)
    batch = collate(plain, make_rows(4, 3))
    wide = (*batch["passages"]["input_ids"].shape, plain.vocab_size)
    assert as_wide_as_the_vocabulary(plain, shapes_of_a_step(plain, batch)).count(wide) >= 3


@pytest.mark.parametrize("alone", [False, True])
def test_t1_t3_the_only_tensor_of_all_words_is_one_gradient_of_the_embeddings(starter, alone):
    model = load(M3Model, starter)
    batch = collate_sorted(model, make_rows(4, 3), 30, alone)
    assert len(batch["passages"]) > 3
    wide = as_wide_as_the_vocabulary(model, shapes_of_a_step(model, batch))
    # It is made once; detaching it, as autograd does, makes no other.
    assert set(wide) == {(model.vocab_size, model.config.hidden_size)}
    with Tensors() as made:
        model.model.get_input_embeddings()(torch.tensor([5])).sum().backward()
    assert len(wide) == len(as_wide_as_the_vocabulary(model, made.shapes))


def test_t4_products_of_tokens_are_made_a_chunk_at_a_time(monkeypatch, starter):
    monkeypatch.setattr(scores, "CHUNK", 8000)
    rows = make_rows(12, 4)
    model = load(M3Model, starter)
    batch = collate_sorted(model, rows, 10_000)
    q, p = model.encode(batch["queries"], batch["passages"])
    with Tensors() as made:
        colbert_scores(q, p, own_group=False).sum().backward()
    tokens = [sum(int(part.mask[:, 1:].sum()) for part in side.parts) for side in (q, p)]
    products = [shape for shape in made.shapes if len(shape) == 3 and shape[0] == tokens[0]]
    assert products
    assert max(shape.numel() for shape in products) <= 8000 < tokens[0] * tokens[1] / 5
