"""What decides how data is read, checked and converted; kept in the manifest."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from m3kit.arguments import add_settings, positive
from m3kit.errors import KitError
from m3kit.reading.layouts import FIELDS
from m3kit.settings import BY_NAME


@dataclass(frozen=True)
class Settings:
    """The kit's settings of these names, and what `check` and `prepare` alone are told."""

    train_group_size: int = 8
    seed: int = 42
    query_instruction_for_retrieval: str = ""
    classification_positives: str = "labels"
    task: str | None = None
    columns: tuple[tuple[str, str], ...] = ()  # (field, the column in which it stands)
    sts_max_score: float = 1.0
    sts_as: str = "graded"
    strict: bool = False
    skip_bad_rows: bool = False
    eval_data: str | None = None  # what the training data is compared with
    holdout: float = 0.0
    tokenizer: str | None = None  # of the model that is to be trained
    cache_dir: str | None = None
    query_max_len: int = 512
    passage_max_len: int = 512
    batch_size: int = 1  # of all processes together

    def check(self) -> None:
        """Raise ``KitError`` where a setting makes no sense."""
        for name in ("train_group_size", "seed", "sts_max_score", "holdout", "query_max_len", "passage_max_len"):
            BY_NAME[name].parse(str(getattr(self, name)))
        if self.eval_data and not Path(self.eval_data).is_dir():
            raise KitError(
                f"the evaluation data {self.eval_data} is no folder; give --eval_data another, or leave it out"
            )


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `check` and `prepare` share."""
    parser.add_argument("--columns", type=_columns, default=(), metavar="FIELD=COLUMN,…", help=BY_NAME["columns"].help)
    add_settings(parser, "task", "sts_max_score", "sts_as", "strict", "skip_bad_rows")
    parser.add_argument("--eval_data", metavar="FOLDER", help="evaluation data in which no training row should stand")
    parser.add_argument("--tokenizer", metavar="MODEL", help="model by whose tokens lengths are measured")
    add_settings(parser, "cache_dir", "query_max_len", "passage_max_len")
    parser.add_argument("--batch_size", type=positive, default=1, help="queries in a batch of all processes together")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings among the arguments, checked. Raises ``KitError``."""
    names = {field.name for field in fields(Settings)}
    settings = Settings(**{name: value for name, value in vars(args).items() if name in names})
    settings.check()
    return settings


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in text.split(","):
        name, equals, column = pair.partition("=")
        if not equals or not column or name not in FIELDS:
            raise argparse.ArgumentTypeError(f"{pair!r} is not FIELD=COLUMN; the fields: {', '.join(FIELDS)}")
        pairs.append((name, column))
    if len(dict(pairs)) < len(pairs):
        raise argparse.ArgumentTypeError("a field is given two columns")
    return tuple(pairs)
