"""A model that compares texts by their words, and rows of made-up words for it."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from conftest import write_jsonl
from tiny import write_word_tokenizer

WORDS = [f"{one}{two}{three}" for one in "bdfgklmnprst" for two in ("a", "e", "i", "o", "u") for three in "lmnrst"]


def write_word_model(folder: Path) -> Path:
    """Mean pooling over fixed random word vectors, no layer above them: scores are shared words, and repeatable."""
    from tokenizers import normalizers
    from transformers import XLMRobertaConfig, XLMRobertaModel

    vocabulary = write_word_tokenizer(folder, WORDS, normalizers.Lowercase())
    torch.manual_seed(7)
    model = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=vocabulary, hidden_size=64, num_hidden_layers=0, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=130, type_vocab_size=1,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
    model.save_pretrained(folder)
    head = torch.nn.Linear(64, 1)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(1.0)  # each token weighs 1
    torch.save(torch.nn.Linear(64, 8).state_dict(), folder / "colbert_linear.pt")
    torch.save(head.state_dict(), folder / "sparse_linear.pt")
    return folder


def made_up_rows(count: int, shared: int = 4, seed: int = 0) -> list[dict]:
    """Prepared rows: a positive of 12 words and a query of 6 of them. Groups of 10 positives share ``shared`` words, of
    which the query has half, so that the others of the group are hard negatives."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        if number % 10 == 0:
            common = draw.sample(WORDS, shared)
        own = draw.sample(WORDS, 12 - shared)
        half = shared // 2
        query, positive = common[:half] + own[: 6 - half], common + own
        negative = draw.sample(WORDS, 12)
        draw.shuffle(positive)
        rows.append(
            {
                "query": " ".join(query),
                "pos": [" ".join(positive)],
                "neg": [" ".join(negative)],
                "prompt": "",
                "type": "retrieval",
            }
        )
    return rows


def write_rows(folder: Path, rows: list[dict], name: str = "train") -> Path:
    """A folder of prepared rows, as prepare writes it."""
    return write_jsonl(folder / "retrieval" / f"{name}.jsonl", rows)
