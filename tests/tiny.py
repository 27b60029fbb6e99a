"""A tiny collection in BEIR form and a tiny model whose tokenizer knows its words."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ["river", "stone", "cloud", "apple", "train", "paper", "music", "light", "winter", "garden", "copper", "signal"]
PASSAGES = {f"d{i}": f"{WORDS[i % 12]} {WORDS[(i * 5 + 1) % 12]} {WORDS[(i * 7 + 3) % 12]}" for i in range(12)}
QUERIES = {"q1": "river stone", "q2": "copper light", "q3": "winter"}
QRELS = [("q1", "d0", 1), ("q1", "d1", 0), ("q2", "d10", 2), ("q3", "d8", 1)]


def write_beir(folder: Path, passages=None, queries=None, qrels=None) -> Path:
    """A BEIR folder; each argument replaces a whole file's lines."""
    rows = {
        "corpus.jsonl": passages or [json.dumps({"_id": i, "title": "", "text": t}) for i, t in PASSAGES.items()],
        "queries.jsonl": queries or [json.dumps({"_id": i, "text": t}) for i, t in QUERIES.items()],
        "qrels/test.tsv": qrels or ["query-id\tcorpus-id\tscore"] + ["\t".join(map(str, pair)) for pair in QRELS],
    }
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_word_tokenizer(folder: Path, known: list[str], normalizer=None) -> int:
    """A tokenizer for which each known word is one token; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate(special + known)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if normalizer:
        words.normalizer = normalizer
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, cls_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(vocabulary)


def write_tiny_model(folder: Path) -> None:
    """A tiny XLM-R with both heads and a word tokenizer."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    vocabulary = write_word_tokenizer(folder, WORDS)
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=vocabulary, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=66, type_vocab_size=1,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    torch.save(torch.nn.Linear(16, 8).state_dict(), folder / "colbert_linear.pt")
    torch.save(torch.nn.Linear(16, 1).state_dict(), folder / "sparse_linear.pt")
