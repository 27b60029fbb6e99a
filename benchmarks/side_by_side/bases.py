"""The models to begin with, one folder a shape: the starter, or random weights of a real model's shape.

    python -m side_by_side.bases SHAPE ROWS FOLDER [WEIGHTS]

A process of its own, for it takes as much memory as the weights.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

# Random weights learn nothing, but cost what trained ones do.
SHAPES = {
    "starter": None,
    "minilm": {"vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "xlmr-small": {"vocab_size": 250002, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "bge-m3": {"vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# Pieces of at most six letters are about 1.3 a word in English, as with XLM-RoBERTa's vocabulary.
PIECE = r"\w{1,6}|[^\w\s]"


def make_base(shape: str, rows: Path, folder: Path, weights: Path | None) -> None:
    from transformers import AutoModel, AutoTokenizer, set_seed

    if shape == "starter":
        from m3kit.starter import make_starter

        return make_starter(folder)
    set_seed(0)
    if weights:
        model = AutoModel.from_pretrained(weights)
        tokenizer = AutoTokenizer.from_pretrained(weights)
        if tokenizer.eos_token is None:  # FlagEmbedding's sparse head asks for one, which BERT has not
            tokenizer.add_special_tokens({"bos_token": tokenizer.cls_token, "eos_token": tokenizer.sep_token})
    else:
        model = _random_model(shape)
        tokenizer = _tokenizer(rows, model.config.vocab_size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _save_heads(model.config.hidden_size, folder)


def _random_model(shape: str):
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    sizes = SHAPES[shape]
    sizes = {**sizes, "intermediate_size": 4 * sizes["hidden_size"], "pad_token_id": 1}
    if shape == "minilm":
        return BertModel(BertConfig(**sizes))
    length = 8194 if shape == "bge-m3" else 514
    return XLMRobertaModel(XLMRobertaConfig(**sizes, max_position_embeddings=length, type_vocab_size=1))


def _tokenizer(rows: Path, size: int):
    """One that knows the pieces of the rows, by numbers spread over the whole vocabulary."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    counts = Counter(re.findall(PIECE, rows.read_text("utf-8")))
    room = size - len(SPECIAL)
    pieces = [piece for piece, _ in counts.most_common(room)]
    names = SPECIAL + [f"<unused{number}>" for number in range(room)]
    for number, piece in enumerate(pieces):
        names[len(SPECIAL) + number * room // len(pieces)] = piece
    vocabulary = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="removed", invert=True)
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=8192,
    )


def _save_heads(hidden: int, folder: Path) -> None:
    import torch

    sparse = torch.nn.Linear(hidden, 1)
    with torch.no_grad():
        # Every token begins with a weight: at 0 there would be nothing to compute.
        sparse.weight.mul_(0.1)
        sparse.bias.fill_(0.2)
    torch.save(torch.nn.Linear(hidden, hidden).state_dict(), folder / "colbert_linear.pt")
    torch.save(sparse.state_dict(), folder / "sparse_linear.pt")


if __name__ == "__main__":
    shape, rows, folder, *weights = sys.argv[1:]
    make_base(shape, Path(rows), Path(folder), Path(weights[0]) if weights else None)
