"""Merge models of one shape: each weight is the weighted mean of theirs, encoder and M3 heads alike.

    python -m m3kit merge --models BAAI/bge-m3 outputs/run --weights 0.3 0.7 --output_dir outputs/merged
    python -m m3kit merge --models outputs/run/checkpoint-90 outputs/run/checkpoint-120 --output_dir outputs/average

Base and tuned: LM-Cocktail (arXiv 2311.13534), against forgetting. Several runs, or the last checkpoints of one: model
soups (arXiv 2203.05482). Whether it helps shows only `python -m m3kit evaluate`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from m3kit.encoding.trained_with import MERGED, trained_encoding
from m3kit.errors import KitError
from m3kit.hub import CONFIG, HEADS, find_model_folder, missing_heads
from m3kit.progress import bar
from m3kit.workspace import replace_folder, workspace

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What else belongs to a model; a run's folder holds much besides. Folders are those that modules.json names.
MODEL_FILES = (
    *("config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "*.model", "vocab.*", "merges.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
)
# Of the configuration: what changes the encoder though all shapes stay the same.
SAME = ("model_type", "num_attention_heads", "hidden_act", "position_embedding_type")
RELATED = "only a model and what was trained from it can be merged"
# No score uses it, and not every base has it.
POOLER = "pooler."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="PATH",
        help="two or more model folders, checkpoints or hub names, the base first; tokenizer and other files are those "
        "of the last that has modules.json",
    )
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="SHARE", help="one a model, summing to 1 (default: equal)"
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the merged model is written")
    parser.add_argument("--cache_dir", help="where hub models are kept (default: the hub library's own place)")
    parser.add_argument("--json", action="store_true", help="print what merge.json holds")


def run(args: argparse.Namespace) -> None:
    check_weights(len(args.models), args.weights)
    models = [find_model_folder(given, args.cache_dir) for given in args.models]
    merge(models, args.weights or [1 / len(models)] * len(models), args.output_dir)
    print((args.output_dir / MERGED).read_text("utf-8").rstrip() if args.json else args.output_dir)


def check_weights(models: int, weights: Sequence[float] | None) -> None:
    """Raise ``KitError`` for fewer than two models, or weights that are no shares of them."""
    if models < 2:
        raise KitError("one model is not merged with anything; give --models two or more")
    if weights is None:
        return
    given = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != models:
        raise KitError(f"{models} models and {len(weights)} weights ({given}); give one weight a model, in their order")
    if not all(weight >= 0 for weight in weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise KitError(f"the weights {given} are no shares; give numbers of 0 or more that sum to 1, or no --weights")


def merge(models: Sequence[Path], weights: Sequence[float], output_dir: Path) -> None:
    """Write the weighted mean of some models, in float32, with ``merge.json`` that says of what.

    One model's tensors are read at a time, so about one model of memory is needed. Raises ``KitError`` where the models
    differ in more than their numbers, and where ``output_dir`` holds anything but an earlier merge.
    """
    check_weights(len(models), weights)
    _check_alike(models)
    _check_output(models, output_dir)
    files_of = next((folder for folder in reversed(models) if (folder / "modules.json").is_file()), models[-1])
    output_dir.absolute().parent.mkdir(parents=True, exist_ok=True)
    with workspace(output_dir) as scratch, bar(None, "merging", ""):
        new = scratch / "merged"
        new.mkdir()
        _copy_files(files_of, new)
        encoders = [next((folder / name for name in WEIGHTS if (folder / name).is_file()), None) for folder in models]
        write_tensors(_mean(models, encoders, weights, files_of), new / WEIGHTS[0])
        shutil.copymode(new / CONFIG, new / WEIGHTS[0])  # else for its owner alone
        for head in HEADS if not missing_heads(models[0]) else ():
            write_tensors(_mean(models, [folder / head for folder in models], weights, files_of), new / head)
        encoding = asdict(trained_encoding(files_of, {}))
        encoding["sentence_pooling_method"] = encoding.pop("pooling_method")  # as a run.json has it
        record = {
            "models": [{"path": str(folder), "weight": w} for folder, w in zip(models, weights, strict=True)],
            "files_of": str(files_of),
            "settings": encoding,
        }
        (new / MERGED).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", "utf-8")
        replace_folder(new, output_dir)


def _check_alike(models: Sequence[Path]) -> None:
    """Refuse other architectures, and heads that only some have; shapes are looked at when tensors are read."""
    first, *others = models
    config, heads = _config(first), missing_heads(first)
    for folder in others:
        other = _config(folder)
        for name in SAME:
            if config.get(name) != other.get(name):
                values = f"{name} is {config.get(name)} and {other.get(name)}"
                raise KitError(f"{first} and {folder} are not of one architecture: {values}; {RELATED}")
    for folder in models:
        missing = missing_heads(folder)
        if len(missing) == 1:
            raise KitError(f"{folder} has no {missing[0]}, so the other head is lost too (S4); put the file back")
        if missing != heads:
            without, with_heads = (folder, first) if missing else (first, folder)
            raise KitError(
                f"{with_heads} has M3 heads ({', '.join(HEADS)}) and {without} has none; give models that all have "
                "them, or none"
            )


def _config(folder: Path) -> dict:
    try:
        return json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise KitError(f"{folder / CONFIG} cannot be read ({error}); give the folder of a model") from error


def _check_output(models: Sequence[Path], output_dir: Path) -> None:
    if output_dir.resolve() in [folder.resolve() for folder in models]:
        raise KitError(f"{output_dir} is one of the models, which stay as they are; choose another --output_dir")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not (output_dir / MERGED).is_file():
        raise KitError(f"{output_dir} holds files that merge did not write; choose an empty or new folder")


def _copy_files(source: Path, target: Path) -> None:
    """All that a model needs besides its weights."""
    for path in sorted({path for pattern in MODEL_FILES for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, target / path.name)
    modules = target / "modules.json"
    for module in json.loads(modules.read_bytes()) if modules.is_file() else ():
        if module["path"] and (source / module["path"]).is_dir():
            shutil.copytree(source / module["path"], target / module["path"], copy_function=shutil.copyfile)
    config = _config(source)
    # transformers loads a model as its configuration says, and the mean may need all of its 32 bits.
    config.pop("torch_dtype", None)
    (target / CONFIG).write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", "utf-8")


def _mean(
    models: Sequence[Path], files: Sequence[Path | None], weights: Sequence[float], rest_of: Path
) -> dict[str, Tensor]:
    """The weighted mean, float32, of each tensor of the models' files; what is no mean is that of ``rest_of``."""
    total: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    names: list[set[str]] = []
    for folder, file, weight in zip(models, files, weights, strict=True):
        names.append(set())
        for name, tensor in read_tensors(folder, file):
            if not tensor.is_floating_point() or name.startswith(POOLER):
                if folder == rest_of:
                    rest[name] = tensor.float() if tensor.is_floating_point() else tensor
                continue
            names[-1].add(name)
            if name in total and total[name].shape != tensor.shape:
                one, other = (" × ".join(map(str, shaped.shape)) for shaped in (total[name], tensor))
                raise KitError(f"{name} is {one} in {models[0]} and {other} in {folder}; {RELATED}")
            part = tensor.float() * weight
            total[name] = total[name].add_(part) if name in total else part
        if odd := names[0] ^ names[-1]:
            name = min(odd)
            has, lacks = (models[0], folder) if name in names[0] else (folder, models[0])
            raise KitError(f"{has} has the tensor {name} and {lacks} has not ({len(odd)} such tensors); {RELATED}")
    return total | rest


def read_tensors(folder: Path, file: Path | None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file by name, one in memory at a time."""
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError, safe_open

    if file is None:
        raise KitError(f"{folder} has neither {' nor '.join(WEIGHTS)}; give the folder of a model in one file")
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (no dict)
                    yield name, opened.get_tensor(name)
        else:
            yield from torch.load(file, map_location="cpu", weights_only=True).items()
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        raise KitError(f"{file} cannot be read ({error}); copy or train the model again") from error


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    if "safetensors" in path.name:
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(tensors, path)
