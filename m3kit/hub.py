"""Find a model's folder: on this disk, or on the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3kit.errors import KitError
from m3kit.progress import Bar

HEADS = ("colbert_linear.pt", "sparse_linear.pt")
TOKENIZER, CONFIG = "tokenizer.json", "config.json"
# What torch never reads: other frameworks' weights, and an ONNX copy of bge-m3 of more than 2 GB.
NOT_NEEDED = ["flax_model.msgpack", "rust_model.ot", "tf_model.h5", "onnx/*"]


def find_model_folder(given: str, cache_dir: str | None = None, token: str | None = None) -> Path:
    """The local folder of a model given by its path or its name on the Hub, which is downloaded once.

    Raises ``KitError`` when there is no such model, with what to do.
    """
    folder = Path(given).expanduser()
    if not folder.exists():
        folder = _download(given, cache_dir, token)
    if not (folder / CONFIG).is_file():
        raise KitError(f"{folder} holds no model (no {CONFIG}); give the folder of a trained model")
    return folder


def find_local_config(given: str, cache_dir: str | None = None) -> Path:
    """The ``config.json`` of a model given by its path or its name on the Hub, of which nothing is downloaded.

    Raises ``KitError`` when it is not on this machine.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    file = Path(given).expanduser() / CONFIG
    if not file.parent.exists():
        try:
            cached = try_to_load_from_cache(given, CONFIG, cache_dir=cache_dir)
        except HFValidationError:
            cached = None
        if not isinstance(cached, str):
            raise KitError(f"{given} is not on this machine yet")
        file = Path(cached)
    if not file.is_file():
        raise KitError(f"{given} holds no model (no {CONFIG}); give the folder of a model")
    return file


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Raises ``KitError`` that names ``what``, where a library cannot load it: each has errors of its own."""
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        from m3kit.device import is_out_of_memory

        reason = textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's own message advises to run what the file holds
            reason = "a file .pt or .bin does not hold weights"
        cure = "" if is_out_of_memory(error) else "; if a file is damaged or missing, copy or download the model again"
        raise KitError(f"{what} cannot be loaded: {reason}{cure}") from error


def check_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Raise ``KitError`` for a tokenizer without words: transformers makes one where a folder has no file of it."""
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise KitError(f"{folder} has no tokenizer ({TOKENIZER} is missing or empty); copy the one of its base there")


def missing_heads(folder: Path) -> list[str]:
    """The files of M3 heads that a model lacks; FlagEmbedding makes BOTH anew when either is missing (S4)."""
    return [name for name in HEADS if not (folder / name).is_file()]


def _download(given: str, cache_dir: str | None, token: str | None, only: list[str] | None = None) -> Path:
    from huggingface_hub import snapshot_download

    hub_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", given, re.ASCII)
    # "outputs/run" has the shape of a Hub name too; a folder "outputs" here says what was meant.
    if not hub_name or given.startswith(".") or ("/" in given and Path(given).parent.is_dir()):
        raise KitError(f"there is no model at {given}; check the path, or train first to make it")
    try:
        patterns: dict[str, Any] = {"allow_patterns": only} if only else {"ignore_patterns": NOT_NEEDED}
        with _bar():
            return Path(snapshot_download(repo_id=given, cache_dir=cache_dir, token=token, **patterns))
    except Exception as error:  # the Hub's library raises its own errors, those of HTTP and those of the disk
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise KitError(
            f"{given} is no folder here, and the Hugging Face Hub did not give it ({reason}); "
            "check the name and the network, or give the path of a model folder"
        ) from error


@contextlib.contextmanager
def _bar() -> Iterator[None]:
    """The Hub's own bar, on a terminal, for the first of several processes."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, tqdm

    tqdm.set_lock(Bar.get_lock())  # it may stand below one of the kit's
    # Who turns off transformers' bars turns off this one too.
    was_off = are_progress_bars_disabled()
    if not was_off or os.environ.get("LOCAL_RANK", "0") != "0" or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        yield
        return
    enable_progress_bars()
    try:
        yield
    finally:
        disable_progress_bars()


def find_tokenizer(given: str, cache_dir: str | None = None) -> Path:
    """The ``tokenizer.json`` of a model given by its path or its name on the Hub; of a Hub model no more is downloaded.

    Raises ``KitError`` when there is none.
    """
    folder = Path(given).expanduser()
    if not folder.exists():
        folder = _download(given, cache_dir, None, only=[TOKENIZER])
    file = folder / TOKENIZER
    if not file.is_file():
        raise KitError(f"{given} has no {TOKENIZER}; give the folder of a model with a fast tokenizer")
    return file
