"""Which task a file is for, and what its folder and its labels are called."""

from __future__ import annotations

import os
from pathlib import Path

from m3kit.data.jsonline import parse_line
from m3kit.data.problems import BadRow
from m3kit.data.sources import EVAL_FOLDER, LABELLED_TASKS, NO_IN_BATCH_NEG
from m3kit.data.text import is_blank, shown

# What prepare writes beside the folders of prepared rows.
RESERVED = (EVAL_FOLDER, "manifest.json", "problems.jsonl", "rejected.jsonl")
DESCRIBE = "write one object of label and description, every description a text"


def tell_task(kind: str, folder: str, asked: str | None) -> tuple[str, str]:
    """(task, reason) of a file: labelled rows are told apart by their folder's name, all others by their columns."""
    if kind != "labelled":
        return kind, "by its columns"
    for task in LABELLED_TASKS:
        if folder.startswith(task):
            return task, f"by its columns, and its folder {folder}"
    if asked:
        return asked, "by its columns, and --task"
    raise BadRow(
        f"rows of text and label in a folder named {folder!r} may be meant for classification or clustering",
        f"say --task classification or --task clustering, or put the file in a folder named "
        f"classification-{NO_IN_BATCH_NEG} or clustering-{NO_IN_BATCH_NEG}",
        code="task",
    )


def output_folder(task: str, folder: str) -> str:
    """The name of the folder of prepared rows: that of the file's own folder, where it can be."""
    if task in LABELLED_TASKS and not (folder.startswith(task) and folder.endswith(NO_IN_BATCH_NEG)):
        return f"{task}-{NO_IN_BATCH_NEG}"  # rows of one label in a batch would be each other's false negatives (D4)
    # A file in / has no folder.
    return task if not folder or folder in RESERVED else folder


def label_texts(labels: list[str], source: Path, notes: list[str]) -> list[str]:
    """The text of each label: its description in ``labels.json`` beside the file, or its name without underscores."""
    described = _descriptions(source.with_name("labels.json"))
    if unused := sorted(described.keys() - set(labels)):
        names = ", ".join(repr(shown(name)) for name in unused[:5])
        notes.append(f"labels.json describes {len(unused)} labels that no row has, such as {names}")
    return [described.get(label) or _without_underscores(label) for label in labels]


def _without_underscores(label: str) -> str:
    text = label.replace("_", " ")
    return label if is_blank(text) else text


def _descriptions(path: Path) -> dict[str, str]:
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():
            raise BadRow("not a regular file", DESCRIBE)
        described = parse_line(path.read_bytes())
        for label, text in described.items():
            if not isinstance(text, str) or is_blank(text):
                raise BadRow(f"the description of {shown(label)!r} is no text, or an empty one", DESCRIBE)
    except OSError as error:
        what = f"the file cannot be read ({error.strerror or error})"
        raise BadRow(what, "make it readable or delete it", code="labels", path=path) from error
    except BadRow as bad:
        raise BadRow(bad.what, DESCRIBE, bad.line, "labels", path=path) from bad
    return described
