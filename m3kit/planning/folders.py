"""What lies in the folders of a run: data, evaluation data, what an earlier run left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.planning.request import STARTER, Request, WrongInput
from m3kit.reading.sources import EVAL_FOLDER, LABELLED_TASKS, NO_IN_BATCH_NEG, find_files, find_sources

# One of these makes a folder one of evaluation data.
EVAL_FILES = ("corpus.jsonl", "sts/test.jsonl", "classification/test.jsonl", "clustering/test.jsonl")
TASKS = ("retrieval", "sts", *LABELLED_TASKS)


@dataclass(frozen=True)
class Evaluation:
    """``data``: the folder, empty for none; ``held_out``: prepare is to keep rows back and make it."""

    data: str
    held_out: bool
    told: str


def find_evaluation(request: Request) -> Evaluation:
    asked = request["eval_data"]
    if asked == "none":
        return Evaluation("", False, "Evaluation: none, as eval_data says.")
    if asked != "auto":
        if not is_eval_folder(asked):
            # Otherwise `evaluate` would say so, after all the training.
            raise WrongInput(
                f"the folder {asked} of eval_data has nothing to evaluate with: none of {' '.join(EVAL_FILES)}; give "
                "--eval_data another, auto or none"
            )
        return Evaluation(asked, False, "")
    for path in request.train_data:
        folder = path.rstrip("/") or "/"
        if Path(path).is_file():
            folder = str(Path(path).parent)
        # In a folder of task folders, or beside a task folder.
        parent = folder.rpartition("/")[0] if "/" in folder else "."
        for found in (f"{folder}/{EVAL_FOLDER}", f"{parent}/{EVAL_FOLDER}"):
            if is_eval_folder(found):
                return Evaluation(found, False, f"Evaluation: with {found}, which lies beside the training data.")
    if float(request["holdout"]):
        held_out = f"{request['output_dir']}/prepared/{EVAL_FOLDER}"
        tests = [source for source in find_sources(map(Path, request.train_data)) if source.split != "train"]
        if tests:
            names = ", ".join(str(source.path) for source in tests)
            told = f"Evaluation: with a file named for it (test before the others), all left out of training: {names}."
            return Evaluation(held_out, True, told)
        return Evaluation(
            held_out,
            True,
            f"Evaluation: with a share of {request['holdout']} of the queries (holdout), kept back from training where "
            "there are enough, for no folder eval/ lies beside the training data.",
        )
    return Evaluation(
        "",
        False,
        "Evaluation: none, for no folder eval/ lies beside the training data, and holdout is 0; whether the model got "
        "better stays unknown.",
    )


def is_eval_folder(folder: str) -> bool:
    return any((Path(folder) / name).is_file() for name in EVAL_FILES)


def expected_folders(request: Request) -> list[str]:
    """What prepare will name the folders of prepared rows, without reading a row."""
    names = dict.fromkeys(
        "retrieval" if file.is_dir() else _expected_name(file.resolve().parent.name, request["task"])
        for file in find_files(map(Path, request.train_data))
    )
    return [f"{request['output_dir']}/prepared/{name}" for name in names]


def _expected_name(folder: str, task: str) -> str:
    # Who says the task has labelled rows in folders of other names.
    name = task if task and not folder.startswith(TASKS) else folder
    for labelled in LABELLED_TASKS:
        if name.startswith(labelled) and not name.endswith(NO_IN_BATCH_NEG):
            return f"{labelled}-{NO_IN_BATCH_NEG}"
    return name


def check_paths(request: Request) -> None:
    """Raise ``WrongInput`` for data, or a model's folder, that is not there."""
    model = request["model_name_or_path"]
    # A name on the Hub is OWNER/NAME, or NAME.
    if (
        (model.startswith((".", "/", "~")) or model.count("/") > 1)
        and not Path(model).exists()
        and model != str(STARTER)
    ):
        raise WrongInput(f"no such folder: {model!r}; give --model_name_or_path a model's folder, or a name on the Hub")
    for path in request.train_data:
        if not Path(path).exists():
            raise WrongInput(
                f"no such file or folder: {path!r}; give --train_data folders or files, several one by one"
            )


def what_is_left(request: Request, evaluation: Evaluation) -> tuple[str, str]:
    """Return what is still to be done ("all", "evaluation" or "report"), and a sentence about an earlier run.

    Raises ``KitError`` where the output folder holds a run that would be lost.
    """
    output = Path(request["output_dir"])
    if request.is_on("overwrite_output_dir"):
        return "all", ""
    held = ""
    if (output / "run.json").is_file() and not request.untouched:
        if not _is_finished(output / "run.json"):
            return "all", f"Output: {output} holds a run that was not finished; it goes on."
        if evaluation.data and not (output / "metrics.json").exists() and is_eval_folder(evaluation.data):
            return "evaluation", f"Output: {output} holds a finished run; only its evaluation is missing."
        if not (output / "report.html").exists():
            return "report", f"Output: {output} holds a finished run; only its report is missing."
        held = "a finished training run"
    else:
        marks = [output / "run.json", output / "model.safetensors", *sorted(output.glob("checkpoint-*"))]
        if there := next((mark for mark in marks if mark.exists()), None):
            held = f"a training run ({there.name})"
    if held:
        raise KitError(
            f"{output} already holds {held}; give another --output_dir, or --overwrite_output_dir True to delete that "
            "run"
        )
    return "all", ""


def _is_finished(record: Path) -> bool:
    try:
        return json.loads(record.read_bytes())["status"] == "finished"
    except (OSError, ValueError, KeyError, TypeError):
        return False  # the trainer says what is wrong with it
