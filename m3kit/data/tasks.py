"""Which task a file is for, and what its folder and its labels are called."""

from __future__ import annotations

import json
from pathlib import Path

from m3kit.data.problems import BadRow
from m3kit.errors import KitError

NO_IN_BATCH_NEG = "no_in_batch_neg"
LABELLED_TASKS = ("classification", "clustering")


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
    if task in LABELLED_TASKS and not (folder.startswith(task) and folder.endswith(NO_IN_BATCH_NEG)):
        return f"{task}-{NO_IN_BATCH_NEG}"  # rows of one label in a batch would be each other's false negatives (D4)
    return folder


def label_texts(labels: list[str], source: Path) -> list[str]:
    """The text of each label: its description in ``labels.json`` beside the file, or its name without underscores."""
    path = source.with_name("labels.json")
    described: dict[str, str] = {}
    if path.is_file():
        try:
            described = json.loads(path.read_text("utf-8-sig"))
        except ValueError as error:
            raise KitError(f"{path} is not valid JSON ({error}); write one object of label and description") from error
        if not isinstance(described, dict) or not all(
            isinstance(text, str) and text.strip() for text in described.values()
        ):
            raise KitError(f"{path} must be one object of label and description; every description a text")
    return [described.get(label, label.replace("_", " ")) for label in labels]
