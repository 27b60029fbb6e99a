"""What several verbs take on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from m3kit.errors import KitError
from m3kit.kinds import SWITCH
from m3kit.settings import BY_NAME, Setting


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def add_encoding_arguments(parser: argparse.ArgumentParser, trained: str) -> None:
    """How and where texts are encoded: the fields of ``encode.EncodeSettings``. ``trained`` is the default in words."""
    add_settings(parser, "query_max_len", "passage_max_len", query_max_len=None, passage_max_len=None)
    parser.add_argument("--pooling_method", choices=["cls", "mean", "last_token"], help=trained)
    add_settings(parser, "normalize_embeddings", "query_instruction_for_retrieval", normalize_embeddings=None)
    parser.add_argument("--batch_size", type=positive, default=32, help="texts; smaller needs less memory")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def add_settings(parser: argparse.ArgumentParser, *names: str, **defaults: Any) -> None:
    """Give a verb's parser the kit's settings of these names; ``defaults``: those that differ for this verb."""
    for name in names:
        setting = BY_NAME[name]
        default = defaults.get(name, setting.kind.parse(setting.default) if setting.default else None)
        more: dict[str, Any] = {"metavar": setting.kind.metavar, "type": _argument(setting)}
        if setting.kind is SWITCH:
            more |= {"nargs": "?", "const": True, "metavar": "True|False"}
        spellings = [f"--{name}", f"--{name.replace('_', '-')}"] if "_" in name else [f"--{name}"]
        parser.add_argument(*spellings, dest=name, default=default, help=setting.help, **more)


def _argument(setting: Setting) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return setting.parse(text)
        except KitError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse
