"""Choose the settings of a training from its rows, its base and this machine: what ``recipe=best`` runs.

    python -m m3kit recipe --output_dir outputs/run/recipe -- --train_data outputs/run/prepared/retrieval …

What stands behind ``--`` is what the trainer would be called with. The chosen settings go to stdout, a word a line, to
be put behind these; each with its reason to stderr and to recipe.json. A value that is not the scripts' own default is
kept, and so is every setting named by --kept. Asked again with the same rows and arguments it gives the same answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from m3kit.errors import KitError
from m3kit.progress import cpu_seconds
from m3kit.recipe.decide import Decision, decide
from m3kit.recipe.facts import Arguments, digest, encoding_of, facts_of, read_arguments
from m3kit.settings import BY_NAME

RECORD = "recipe.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", type=Path, required=True, help="where recipe.json and mined rows are written")
    parser.add_argument("--processes", type=int, default=1, help="of the training")
    parser.add_argument("--device", default="cpu", help="of the training: cpu or cuda")
    parser.add_argument("--kept", nargs="*", default=[], metavar="SETTING", help="settings that stay as they are given")
    parser.add_argument(
        "--mine_negatives", action="store_true", help="train with hard negatives from the rows' own passages"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and the trainer's arguments")


def run(args: argparse.Namespace) -> None:
    given = read_arguments(args.arguments)
    now = digest(given, args)
    record = _read(args.output_dir / RECORD)
    if record is None or record.get("digest") != now:
        record = {"digest": now, **choose(given, args)}
        args.output_dir.mkdir(parents=True, exist_ok=True)
        temporary = args.output_dir / f".{RECORD}.tmp"
        temporary.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", "utf-8")
        temporary.replace(args.output_dir / RECORD)
    for decision in record["decisions"]:
        print(f"recipe: {decision['name']} {_shown(decision['value'])}: {decision['reason']}", file=sys.stderr)
    for decision in record["decisions"]:
        print(*Decision(**decision).words(), sep="\n")


def choose(given: Arguments, args: argparse.Namespace) -> dict:
    """The record: decisions, the facts behind them, and the CPU seconds that finding them took."""
    began = cpu_seconds()
    kept = {*args.kept, *(name for name in given if name in BY_NAME and given.differs(name))}
    if "temperature" in kept:
        kept.add("dense_temperature")  # who sets the one means both
    facts = facts_of(given, kept, args.processes, args.device)
    decided = decide(facts)
    decisions = [decision for decision in decided if decision.name not in kept]
    if args.mine_negatives:
        rows = mined_rows(given, args.output_dir, args.device)
        decisions.append(Decision("train_data", rows, "the rows with hard negatives, as mine_negatives says"))
    return {
        "facts": vars(facts),
        "kept": sorted({decision.name for decision in decided} & kept),
        "decisions": [vars(decision) for decision in decisions],
        "cpu_seconds": round(cpu_seconds() - began, 1),
    }


def mined_rows(given: Arguments, output_dir: Path, device: str) -> list[str]:
    """Folders of the same rows with hard negatives, found by the base among their passages."""
    from m3kit.mining.mine import MiningSettings, mine

    folder = output_dir / "mined"
    settings = MiningSettings(encoding=encoding_of(given), device=device, cache_dir=given.one("cache_dir", None))
    manifest = mine([Path(path) for path in given["train_data"]], given["model_name_or_path"][0], folder, settings)
    return [*dict.fromkeys(str((folder / file["output"]).parent) for file in manifest["files"])]


def _read(file: Path) -> dict | None:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise KitError(f"{file} cannot be read ({error}); delete it, and the settings are chosen anew") from error


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
