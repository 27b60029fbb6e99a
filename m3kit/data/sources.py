"""From the paths that a user gives to plain files on this disk: found by name, unpacked, and no other kind of file."""

from __future__ import annotations

import gzip
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from m3kit.data.problems import BadRow
from m3kit.errors import KitError

# A folder of this name holds evaluation data in BEIR form, never training rows.
EVAL_FOLDER = "eval"
# Rows of one label must not be each other's negatives: FlagEmbedding looks for this at the end of the folder's name.
NO_IN_BATCH_NEG = "no_in_batch_neg"
LABELLED_TASKS = ("classification", "clustering")
# Files that belong beside the data: what the labels mean, and the rows that an earlier run rejected.
NEVER_DATA = ("labels.json", "rejected.jsonl")
# What prepare writes beside its folders. By one of the names alone a file may be training data.
PREPARED = {"manifest.json", "problems.jsonl"}
ENDINGS = ".jsonl .ndjson .json .csv .tsv .parquet, each also with .gz or .zst"
_DATA_FILE = re.compile(r"(?is)(?P<stem>.+)\.(?P<kind>jsonl|ndjson|json|csv|tsv|parquet)(\.(gz|zst))?")

# How many bytes of a file are held in memory: as a rule, and at most. A longer row is a forgotten quote or bracket.
BLOCK = 1 << 16
ROW_LIMIT = 1 << 26
BOM = b"\xef\xbb\xbf"
PARQUET = b"PAR1"
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
AS_UTF8 = "save the file as UTF-8"
# What else a file may turn out to be, by its first bytes once it is unpacked, and what to do then.
FOREIGN = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", AS_UTF8),
    b"\x00\x00\xfe\xff": ("UTF-32 text", AS_UTF8),
    b"\xff\xfe": ("UTF-16 text", AS_UTF8),
    b"\xfe\xff": ("UTF-16 text", AS_UTF8),
    b"PK\x03\x04": ("a ZIP archive or an Excel file", "unpack it; save an Excel sheet as CSV in UTF-8"),
    b"BZh": ("packed with bzip2", "unpack it, or pack it with gzip"),
    b"\xfd7zXZ\x00": ("packed with xz", "unpack it, or pack it with gzip"),
    b"ARROW1": ("an Arrow file", "save it as Parquet or as JSON lines"),
    b"version https://git-lfs": ("only Git LFS's pointer to the data", "fetch the data: git lfs pull"),
    **{magic: (f"packed twice, {name} within", "pack it once only") for magic, name in PACKINGS.items()},
}


def find_files(train_data: Iterable[Path]) -> list[Path]:
    """The data files behind the given paths: a file itself, or a folder's own files and those of its subfolders.

    No file comes twice, and a file that is not read is told on stderr.
    """
    files: dict[str, Path] = {}  # by the path without links and detours
    for path in train_data:
        is_folder, is_there = _look_at(path)
        if is_folder:
            found = _folder_files(path)
            if not found:
                raise KitError(f"no data file in {path} or in a folder in it ({ENDINGS}); the README has the formats")
        elif not is_there:
            raise KitError(f"no such file or folder: {str(path)!r}; several are given one by one, see --help")
        elif path.name in NEVER_DATA:
            # No error, for the shell's folder/* names it too.
            _tell_unread(path, "never training data; rename it if it is")
            continue
        else:
            found = [path]
        for file in found:
            real = os.path.realpath(file)
            _check_name(file, Path(real).parent.name)
            first = files.setdefault(real, file)
            if first != file:
                _tell_unread(file, f"the same file as {first}")
    if not files:
        raise KitError("none of the given paths is training data; name a data file, or a folder that holds some")
    return list(files.values())


def data_kind(path: Path) -> str:
    """What the name says the file holds, packed or not: ``jsonl``, ``csv``, …, or ``""`` where it says nothing."""
    named = _DATA_FILE.fullmatch(path.name)
    return named["kind"].lower() if named else ""


def data_stem(path: Path) -> str:
    """The file's name without the endings that say what it holds: ``train`` of ``train.jsonl.gz``."""
    named = _DATA_FILE.fullmatch(path.name)
    return named["stem"] if named else path.stem


def plain_file(file: Path, scratch: Path, notes: list[str]) -> tuple[Path, BadRow | None]:
    """The file as Parquet or as text with LF at the ends of its lines: the file itself, or a copy in ``scratch``.

    Where packed text is damaged that comes too, and the copy ends with the last whole line before the damage. Raises
    ``BadRow`` for what is neither.
    """
    if not file.is_file():  # a pipe would keep its reader waiting
        what = "not a regular file" if file.exists() else "no such file"
        raise BadRow(what, "name a file on this disk or leave it out", code="unreadable")
    source, damage, head = file, None, _first_block(file)
    if packing := next((name for magic, name in PACKINGS.items() if head.startswith(magic)), None):
        source = scratch_file(scratch)
        damage = _unpack(file, packing, source)
        head = _first_block(source)
        if damage and (not head or head.startswith(PARQUET)):  # Parquet has its table of contents at its end
            damage.line = 1  # what was counted are no lines
            raise damage
    elif file.suffix.lower() in (".gz", ".zst"):
        notes.append("is not packed, whatever its name says; read as it is")
    if head in (b"", BOM):
        raise BadRow("the file is empty", "fill it or leave it out", code="empty")
    for magic, (what, fix) in FOREIGN.items():
        if head.startswith(magic):
            raise BadRow(f"the file is {what}", fix, code="container")
    if b"\n" not in head and b"\r" in head.rstrip(b"\r") and not head.startswith(PARQUET):
        notes.append("its lines end with CR alone, as on old Macs; every CR is read as the end of a line")
        text, source = source, scratch_file(scratch)
        with text.open("rb") as stream, source.open("wb") as out:
            while block := stream.read(BLOCK):
                out.write(block.replace(b"\r", b"\n"))
    return source, damage


def open_text(source: Path) -> BinaryIO:
    """The file from its first byte after a byte order mark."""
    stream = source.open("rb")
    if stream.read(len(BOM)) != BOM:
        stream.seek(0)
    return stream


def scratch_file(scratch: Path) -> Path:
    """A new empty file in the folder for temporary files."""
    descriptor, name = tempfile.mkstemp(dir=scratch)
    os.close(descriptor)
    return Path(name)


def _first_block(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(BLOCK)


def _unpack(file: Path, packing: str, target: Path) -> BadRow | None:
    """Write what the file holds; where it is damaged, the whole lines before that, and say so."""
    size = whole_lines = lines = 0
    with target.open("wb") as out:
        try:
            for block in _unpacked_blocks(file, packing):
                out.write(block)
                if b"\n" in block:
                    whole_lines = size + block.rindex(b"\n") + 1
                    lines += block.count(b"\n")
                size += len(block)
        except _Damaged as damaged:
            out.truncate(whole_lines)
            what = f"the {packing} data are cut off or damaged here ({damaged}); reading stopped there"
            return BadRow(what, "copy the file again, or pack it again", lines + 1, "damaged")
    return None


class _Damaged(Exception):
    """Why packed data cannot be unpacked any further."""


def _unpacked_blocks(file: Path, packing: str) -> Iterator[bytes]:
    with file.open("rb") as raw:
        if packing == "gzip":
            stream = gzip.GzipFile(fileobj=raw)
            read = stream.read1  # read() would lose what it has when it meets the damage
        else:
            import pyarrow

            stream = pyarrow.input_stream(raw, compression="zstd")
            read = stream.read
        with stream:
            while True:
                try:
                    block = read(BLOCK)
                except (EOFError, OSError, zlib.error) as error:
                    raise _Damaged(str(error)) from error
                if not block:
                    return
                yield block


def _look_at(path: Path) -> tuple[bool, bool]:
    """(is a folder, is there)."""
    try:
        return path.is_dir(), path.exists()
    except OSError as error:  # a folder on the way is closed, or the name is too long to be one
        raise KitError(f"cannot look at {str(path)!r} ({error.strerror}); see its spelling and its rights") from error


def _check_name(file: Path, folder: str) -> None:
    """Messages, manifests and prepared folders are UTF-8 and have these names in them."""
    try:
        f"{file}{folder}".encode()
    except UnicodeEncodeError as error:
        raise KitError(f"the name {os.fsencode(file)!r} is not UTF-8; rename the file or its folder") from error


def _folder_files(folder: Path) -> list[Path]:
    children = _children(folder)
    files = _data_files(children)
    for child in _folders(children):
        inner = _children(child)
        files += _data_files(inner)
        for deeper in _folders(inner):
            _tell_unread(deeper, f"a folder this deep is not looked into; name {child} to have it read")
    return files


def _children(folder: Path) -> list[Path]:
    """What is in a folder, in order. Hidden files and folders are an editor's or a tool's, never data."""
    try:
        children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
        # The output of an earlier run may lie among the data.
        if PREPARED <= {child.name for child in children}:
            children = [child for child in children if child.name not in PREPARED]
        for child in children:
            child.is_dir()  # fails where the folder may be listed but not entered
        return children
    except OSError as error:
        raise KitError(f"cannot look into {folder} ({error.strerror}); make it readable or leave it out") from error


def _folders(children: list[Path]) -> list[Path]:
    return [child for child in children if child.is_dir() and child.name != EVAL_FOLDER]


def _data_files(children: list[Path]) -> list[Path]:
    """Whatever is named like a data file: that a link is dead is for its reader to say."""
    files = []
    for child in children:
        if child.is_dir() or child.name in NEVER_DATA:
            continue
        if data_kind(child):
            files.append(child)
        else:
            _tell_unread(child, f"only {ENDINGS} are")
    return files


def _tell_unread(path: Path, why: str) -> None:
    print(f"not read: {path} ({why})", file=sys.stderr)
