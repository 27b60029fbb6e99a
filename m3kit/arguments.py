"""What several verbs take on the command line."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def add_encoding_arguments(parser: argparse.ArgumentParser, trained: str) -> None:
    """How and where texts are encoded: the fields of ``encode.EncodeSettings``. ``trained`` is the default in words."""
    parser.add_argument("--query_max_len", type=positive, help=f"tokens {trained}")
    parser.add_argument("--passage_max_len", type=positive, help=f"tokens {trained}")
    parser.add_argument("--pooling_method", choices=["cls", "mean", "last_token"], help=trained)
    parser.add_argument("--normalize_embeddings", type=true_or_false, metavar="True|False", help=trained)
    parser.add_argument("--query_instruction_for_retrieval", help=f"text put before each query {trained}")
    parser.add_argument("--batch_size", type=positive, default=32, help="texts; smaller needs less memory")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
