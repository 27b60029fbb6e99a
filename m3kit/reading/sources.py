"""From the paths that a user gives to the files that hold rows, by their names: those to train on, those to test with.

Only the standard library is used here: a plan is made before the packages are installed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from m3kit.errors import KitError

# A folder of this name holds evaluation data in BEIR form, never training rows.
EVAL_FOLDER = "eval"
# Rows of one label must not be each other's negatives: FlagEmbedding looks for this at the end of the folder's name.
NO_IN_BATCH_NEG = "no_in_batch_neg"
LABELLED_TASKS = ("classification", "clustering")
# Files that belong beside the data: what the labels mean, the rows that an earlier run rejected, and what the library
# datasets writes beside its Arrow files.
NEVER_DATA = ("labels.json", "rejected.jsonl", "state.json", "dataset_info.json", "dataset_dict.json")
# What prepare writes beside its folders. By one of the names alone a file may be training data.
PREPARED = {"manifest.json", "problems.jsonl"}
ENDINGS = ".jsonl .ndjson .json .csv .tsv .parquet .arrow .xlsx, each also with .gz or .zst"
_DATA_FILE = re.compile(r"(?is)(?P<stem>.+)\.(?P<kind>jsonl|ndjson|json|csv|tsv|parquet|arrow|xlsx)(\.(gz|zst))?")
# What a name says of a part of a data set: "test-00000-of-00001", "my_dev", "val_dataset". The best to test with first.
SPLITS = ("test", "validation", "valid", "val", "dev", "eval", "evaluation")
_SPLIT = re.compile(rf"(?i)(?:.*[-_. ])?({'|'.join(SPLITS)})(?:[-_. ]?(?:data|set|dataset|split))?(?:[-_.]\d.*)?")
BEIR_FILES = {"corpus.jsonl", "queries.jsonl", "qrels"}


@dataclass(frozen=True)
class Source:
    """A file of rows, or a BEIR folder with ``qrels/SPLIT.tsv``. ``split``: "train", or one of ``SPLITS``."""

    path: Path
    split: str = "train"


def find_files(train_data: Iterable[Path]) -> list[Path]:
    """The files (BEIR folders) to train on; see ``find_sources``."""
    return [source.path for source in find_sources(train_data) if source.split == "train"]


def find_sources(train_data: Iterable[Path]) -> list[Source]:
    """The data files behind the given paths: a file itself, or a folder's own files and those of its subfolders.

    A file that is named is trained on whatever its name. No file comes twice; one that is not read is told on stderr.
    """
    sources: dict[tuple[str, str], Source] = {}  # by the path without links and detours
    for source in (source for path in train_data for source in _sources_at(path)):
        real = os.path.realpath(source.path)
        try:
            f"{source.path}{Path(real).parent.name}".encode()  # these names stand in messages and in the manifest
        except UnicodeEncodeError as error:
            what = f"the name {os.fsencode(source.path)!r} is not UTF-8"
            raise KitError(f"{what}; rename the file or its folder") from error
        first = sources.setdefault((real, source.split if source.path.is_dir() else ""), source)
        if first.path != source.path:
            _tell_unread(source.path, f"the same file as {first.path}")
    if not sources:
        raise KitError("none of the given paths is training data; name a data file, or a folder that holds some")
    found = list(sources.values())
    if all(source.split != "train" for source in found):
        path, split = found[0].path, found[0].split
        fix = f"name the file itself to train on it: {path}"
        if path.is_dir():
            qrels = path / "qrels"
            fix = f"to train on it: cp {shlex.quote(f'{qrels}/{split}.tsv')} {shlex.quote(f'{qrels}/train.tsv')}"
        where = path if path.is_dir() else path.parent
        raise KitError(f"{where} has only data to test with, by its name ({split}); {fix}")
    return found


def data_kind(path: Path) -> str:
    """What the name says the file holds, packed or not: ``jsonl``, ``csv``, …, or ``""`` where it says nothing."""
    named = _DATA_FILE.fullmatch(path.name)
    return named["kind"].lower() if named else ""


def data_stem(path: Path) -> str:
    """The file's name without the endings that say what it holds: ``train`` of ``train.jsonl.gz``."""
    named = _DATA_FILE.fullmatch(path.name)
    return named["stem"] if named else path.name if path.is_dir() else path.stem


@cache  # as many rows may need it as the file has
def how_to_convert(path: Path) -> str:
    """The command that makes a file UTF-8, where no line of it is UTF-8 and all may be of an older encoding."""
    if not data_kind(path) or path.suffix.lower() in (".gz", ".zst"):
        return "save the file as UTF-8"
    for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if not line.isascii():
            if "\ufffd" in line.decode("cp1252", "replace") or "\ufffd" not in line.decode("utf-8", "replace"):
                return "save the file as UTF-8"
    name = shlex.quote(str(path))
    return f"convert it: iconv -f cp1252 -t utf-8 {name} > {name}.utf8 && mv {name}.utf8 {name}"


def _sources_at(path: Path) -> list[Source]:
    """What a path that the user gives stands for."""
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # a folder on the way is closed, or the name is too long to be one
        raise KitError(f"cannot look at {str(path)!r} ({error.strerror}); see its spelling and its rights") from error
    if not is_there:
        raise KitError(f"no such file or folder: {str(path)!r}; several are given one by one, see --help")
    if not is_folder and path.name in NEVER_DATA:
        _tell_unread(path, "never training data; rename it if it is")  # no error, for the shell's * names it too
    if not is_folder:
        return [Source(path)] if path.name not in NEVER_DATA else []
    found = _in_folder(path, "train", deeper=True)
    if not found:
        raise KitError(f"no data file in {path} or in a folder in it ({ENDINGS}); the README has the formats")
    return found


def _in_folder(folder: Path, split: str, deeper: bool) -> list[Source]:
    """The data in a folder. ``split``: what the folder's own name says; ``deeper``: subfolders are looked into."""
    children = _children(folder)
    if BEIR_FILES <= {child.name for child in children}:
        named = {file.stem for file in _children(folder / "qrels") if file.suffix == ".tsv"}
        return [Source(folder, split) for split in ("train", *SPLITS) if split in named]
    files, inner = [], []
    for child in (child for child in children if child.name not in (EVAL_FOLDER, *NEVER_DATA)):
        if child.is_dir() and deeper:
            inner += _in_folder(child, _split_of(child.name), deeper=False)
        elif child.is_dir():
            _tell_unread(child, f"a folder this deep is not looked into; name {folder} to have it read")
        elif child.match("cache-*.arrow"):
            _tell_unread(child, "what the library datasets keeps of a computation")
        elif data_kind(child):  # that a link is dead is for its reader to say
            files.append(Source(child, split if split != "train" else _split_of(data_stem(child))))
        else:
            _tell_unread(child, f"only {ENDINGS} are")
    return files + inner


def _children(folder: Path) -> list[Path]:
    """What is in a folder, in order. Hidden files and folders are an editor's or a tool's, never data."""
    try:
        children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
        for child in children:
            child.is_dir()  # fails where the folder may be listed but not entered
    except OSError as error:
        raise KitError(f"cannot look into {folder} ({error.strerror}); make it readable or leave it out") from error
    # The output of an earlier run may lie among the data.
    is_output = PREPARED <= {child.name for child in children}
    return [child for child in children if not (is_output and child.name in PREPARED)]


def _split_of(name: str) -> str:
    found = _SPLIT.fullmatch(name)
    return found[1].lower() if found else "train"


def _tell_unread(path: Path, why: str) -> None:
    print(f"not read: {path} ({why})", file=sys.stderr)
