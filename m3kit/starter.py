"""Make the starter model: a tiny XLM-RoBERTa with both M3 heads, for trying the kit without a download.

It has the architecture, tokenizer class and file layout of BAAI/bge-m3, so everything that runs with it runs with the
real model; it knows no language, and is worth nothing but for trying.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3kit.errors import KitError
from m3kit.progress import bar

VOCABULARY = 6000
HIDDEN, LAYERS, HEADS, INTERMEDIATE = 128, 2, 4, 256
# Larger than usual: with 0.02 so small a model passes hardly anything from the words to the first token.
INITIALIZER_RANGE = 0.05
MAX_LENGTH = 512

EXAMPLE_DATA = Path(__file__).resolve().parent.parent / "example_data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", type=Path, required=True, help="where the model is written")
    parser.add_argument("--texts", type=Path, default=EXAMPLE_DATA, help="folder whose JSONL texts make the vocabulary")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", action="store_true", help="print path, files and sizes as one JSON object")


def run(args: argparse.Namespace) -> None:
    # What libraries say goes to stderr; of the one file that is written no bar is needed.
    with contextlib.redirect_stdout(sys.stderr), bar(None, "making the starter model", ""):
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        make_starter(args.output_dir, args.texts, args.seed)
    if args.json:
        print(json.dumps(about(args.output_dir), indent=2))
    else:
        print(f"starter model: {args.output_dir}", file=sys.stderr)


def make_starter(output_dir: Path, texts: Path = EXAMPLE_DATA, seed: int = 42) -> None:
    """Write the starter model to ``output_dir``, replacing what an earlier call wrote there.

    The same texts and seed give the same weights and vocabulary.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel, set_seed

    if output_dir.exists() and any(output_dir.iterdir()) and not (output_dir / "starter.json").is_file():
        raise KitError(f"{output_dir} holds files that are no starter model; choose an empty or new folder")
    tokenizer = _tokenizer(texts)
    set_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=MAX_LENGTH + 2,  # positions start after the padding id, as in RoBERTa
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        initializer_range=INITIALIZER_RANGE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    temporary = output_dir.with_name(f"{output_dir.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    XLMRobertaModel(config).save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    torch.save(torch.nn.Linear(HIDDEN, HIDDEN).state_dict(), temporary / "colbert_linear.pt")
    torch.save(_sparse_head().state_dict(), temporary / "sparse_linear.pt")
    (temporary / "starter.json").write_text(json.dumps({"seed": seed, "vocabulary": len(tokenizer)}) + "\n")
    shutil.rmtree(output_dir, ignore_errors=True)
    temporary.rename(output_dir)


def about(folder: Path) -> dict[str, Any]:
    """Where the starter model is, its files with their bytes, and what it was made from."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    made = json.loads((folder / "starter.json").read_text())
    return {"path": str(folder), "bytes": sum(files.values()), "files": files, **made}


def _sparse_head():
    """Every token begins with a weight of about 0.2: a plain random head has its ReLU dead after a few steps."""
    import torch

    head = torch.nn.Linear(HIDDEN, 1)
    with torch.no_grad():
        head.weight.mul_(0.1)
        head.bias.fill_(0.2)
    return head


def _tokenizer(texts: Path):
    """An XLM-RoBERTa tokenizer with a Unigram vocabulary of the given folder's texts."""
    import sentencepiece
    from transformers import XLMRobertaTokenizer

    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_strings(texts),
        model_writer=trained,
        model_type="unigram",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,  # a small folder may not hold that many pieces
        character_coverage=1.0,
        normalization_rule_name="identity",  # the tokenizer below does not normalise either
        num_threads=1,  # sums in another order would change the last digits
        minloglevel=2,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    vocabulary = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in range(len(pieces))]
    return XLMRobertaTokenizer(vocab=[*vocabulary, ("<mask>", 0.0)], model_max_length=MAX_LENGTH)


def _strings(folder: Path) -> Iterator[str]:
    """Every string in the folder's JSONL files, in the order of the sorted paths."""
    files = sorted(folder.rglob("*.jsonl"))
    if not files:
        raise KitError(f"no .jsonl file under {folder} to make a vocabulary of; give --texts a folder of texts")
    for file in files:
        for line in file.read_text("utf-8").split("\n"):
            if line.strip():
                for value in json.loads(line).values():
                    yield from ([value] if isinstance(value, str) else value if isinstance(value, list) else [])
