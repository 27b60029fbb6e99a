"""What m3kit/trainer_arguments.json has to hold: all arguments of the trainer, read from its parser.

python tests/trainer_arguments.py > m3kit/trainer_arguments.json
"""

from __future__ import annotations

import json
from enum import Enum

from transformers import HfArgumentParser

from m3kit.batches.arguments import DataArguments
from m3kit.training.arguments import ModelArguments, TrainingArguments


def describe() -> dict[str, tuple[str, list[str] | None, bool]]:
    """Name → (int, float, bool, str or flag; the values where there are few; whether it takes several words)."""
    found = {}
    for action in HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))._actions:
        name = action.option_strings[0].removeprefix("--")
        if name == "h" or name == "-h":
            continue
        if action.nargs == 0:
            kind = "flag"
        else:
            kind = {int: "int", float: "float"}.get(action.type, "str")
            kind = "bool" if getattr(action.type, "__name__", "") == "string_to_bool" else kind
        choices = action.choices and [str(one.value if isinstance(one, Enum) else one) for one in action.choices]
        found[name] = (kind, choices, action.nargs == "+")
    return dict(sorted(found.items()))


if __name__ == "__main__":
    entries = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in describe().items()]
    print("{\n" + ",\n".join(entries) + "\n}")
