"""What a folder of test data holds: retrieval in BEIR form, other tasks, or both. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.test_data import beir, tasks

PARTS = {"retrieval": beir.FILES} | tasks.FILES
LAYOUT = "one or more of: " + "; ".join(f"{' and '.join(files)} ({part})" for part, files in PARTS.items())


@dataclass(frozen=True)
class EvalFolder:
    """``retrieval`` is None and ``tasks`` empty where the folder has none; never both."""

    folder: Path
    retrieval: beir.EvalData | None
    tasks: dict[str, tasks.Task]


def read_eval_folder(folder: Path) -> EvalFolder:
    """Read and check all parts that are there. Raises ``KitError`` that names each file and line with its fix."""
    beir.check_folder(folder, LAYOUT)
    if not any((folder / file).is_file() for files in PARTS.values() for file in files):
        raise KitError(f"the test data {folder} holds no file that evaluate reads; it needs {LAYOUT}")
    # One of the three files is enough to mean retrieval: that others are missing must be told.
    has_retrieval = any((folder / file).is_file() for file in beir.FILES)
    return EvalFolder(folder, beir.read_eval_data(folder) if has_retrieval else None, tasks.read_tasks(folder))
