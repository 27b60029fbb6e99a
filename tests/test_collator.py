"""Sub-batches: every text once, as it is, with hardly any padding, and never more tokens than there is room for."""

from __future__ import annotations

import pytest
import torch
from conftest import examples
from equivalence import make_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from m3kit.batches.collator import MOST_PADDING, Collator

MAX_LENGTH = 64


@pytest.fixture(scope="module")
def tokenizer(starter):
    return AutoTokenizer.from_pretrained(starter)


def collator(tokenizer, **settings):
    return Collator(tokenizer, **{"query_max_len": MAX_LENGTH, "passage_max_len": MAX_LENGTH} | settings)


def texts_of(parts):
    """The ids of every text, by its number in the batch."""
    found = {}
    for part in parts:
        for place, ids, mask in zip(part["places"].tolist(), part["input_ids"], part["attention_mask"], strict=True):
            assert place not in found
            found[place] = ids[mask.bool()].tolist()
    return [found[place] for place in sorted(found)]


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("tokens", [1, 50, 10_000])
def test_all_texts_are_there_as_the_tokenizer_gives_them(tokenizer, tokens, multiple):
    rows = make_rows(6, 4, teacher=True)
    batch = collator(tokenizer, sub_batch_tokens=tokens, pad_to_multiple_of=multiple)([(*rows, True)])
    for side, texts in (("queries", rows.queries), ("passages", rows.passages)):
        assert texts_of(batch[side]) == tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        for part in batch[side]:
            assert part["input_ids"].shape[1] % (multiple or 1) == 0
    assert batch["teacher_scores"] == rows.teacher_scores
    assert batch["no_in_batch_neg_flag"] is True


def test_long_texts_are_cut(tokenizer):
    batch = collator(tokenizer, query_max_len=5, passage_max_len=9)([(["moon " * 50], ["moon " * 50], None, False)])
    assert [batch[side][0]["input_ids"].shape for side in ("queries", "passages")] == [(1, 5), (1, 9)]
    assert batch["teacher_scores"] is None


@settings(max_examples=examples(300), deadline=None)
@given(
    lengths=st.lists(st.integers(2, 600), min_size=1, max_size=60),
    tokens=st.integers(1, 4000),
    most_texts=st.sampled_from([-1, 0, 1, 3, None]),
    multiple=st.sampled_from([None, 1, 8]),
    worthwhile=st.sampled_from([0, 500]),
)
def test_how_texts_are_parted(lengths, tokens, most_texts, multiple, worthwhile):
    parts = Collator(
        None,
        sub_batch_tokens=tokens,
        sub_batch_size=most_texts,
        pad_to_multiple_of=multiple,
        worthwhile_tokens=worthwhile,
    )._part(lengths)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    step = multiple or 1
    for part in parts:
        padded = [-(-lengths[place] // step) * step for place in part]
        assert max(padded) * len(part) <= tokens or len(part) == 1
        assert not (most_texts or -1) > 0 or len(part) <= most_texts
        size = max(padded) * len(part)
        assert size - sum(padded) <= MOST_PADDING * size or size <= worthwhile


def test_hardly_any_padding_and_few_sub_batches_of_natural_lengths(tokenizer):
    chance = torch.Generator().manual_seed(0)
    # Of texts most are short and some are long.
    lengths = (torch.randn(2048, generator=chance) * 0.7 + 4.5).exp().clamp(4, 512).long().tolist()
    parts = collator(tokenizer)._part(lengths)
    padded = sum(max(lengths[place] for place in part) * len(part) for part in parts)
    assert 1 - sum(lengths) / padded < MOST_PADDING
    assert len(parts) < 60
