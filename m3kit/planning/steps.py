"""The steps of a training, as titles and commands: a function of what is asked, of the machine and of what is found."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from m3kit.planning.folders import Evaluation, is_eval_folder
from m3kit.planning.machine import Setup
from m3kit.planning.request import KIT, STARTER, Request
from m3kit.settings import BY_NAME, SETTINGS

# The title of the last step; nothing is shown of it but what it prints.
END = "End"


@dataclass(frozen=True)
class Step:
    """``output``: where its stdout goes: stdout, stderr, nowhere, or a name under which later steps find it.

    ``screen``: all that it says goes through ``m3kit.screen``, which shows a part of it.
    """

    title: str
    command: list[str]
    output: str = "stderr"


@dataclass(frozen=True)
class Found:
    """What earlier steps printed: prepared folders, the recipe's arguments."""

    prepared: list[str] | None = None
    chosen: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """All that a step is made of. ``left``: all, or what a finished run lacks; ``python``, ``torchrun``: commands."""

    request: Request
    setup: Setup
    evaluation: Evaluation
    left: str
    python: str
    torchrun: list[str]
    program: str
    wrapper: str = ""

    def kit(self, verb: str, *words: str) -> list[str]:
        return [self.python, "-m", "m3kit", verb, *words]

    def given(self, *names: str) -> list[str]:
        """Those of these settings that are not empty, as arguments."""
        return [word for name in names if self.request[name] for word in (f"--{name}", self.request[name])]


def next_steps(run: Run, found: Found) -> list[Step]:
    """Return the steps that can run now: up to the first whose output later steps need. The very last is END."""
    request = run.request
    looks = ["--device", run.setup.device]
    looks += ["--processes", str(run.setup.processes)] if run.setup.device == "cuda" else []
    first = [Step("Checking this machine", run.kit("doctor", *looks))]
    if request["model_name_or_path"] == str(STARTER) and not _starter_is_ready():
        first.insert(0, Step("Making the starter model", run.kit("starter", "--output_dir", str(STARTER))))
    if run.left != "all":
        return [*first, *_last(run)]
    if found.prepared is None:
        return [*first, Step("Preparing the data", prepare(run), "prepared")]
    if request["recipe"] == "best" and not found.chosen:
        return [Step("Choosing the settings (recipe=best)", recipe(run, found.prepared), "chosen")]
    output = request["output_dir"]
    # The untouched library leaves them from an earlier training, and they would be taken for this one's.
    old = [f"{output}/{name}" for name in ("metrics.json", "hybrid.json")]
    return [Step("Training", train(run, found), "screen"), Step("", ["rm", "-f", "--", *old]), *_last(run)]


def _last(run: Run) -> list[Step]:
    output, steps, brief = run.request["output_dir"], [], []
    if run.evaluation.data and run.left != "report":
        # The verdict alone: the tables are in metrics.json and in the report.
        brief = ["--brief"]
        steps.append(Step("Evaluating", [*evaluate(run, run.evaluation.data), *brief], "stdout"))
    steps.append(Step("Writing the report", run.kit("report", output, *brief), "nowhere"))
    return [*steps, Step(END, ["printf", "\n%s\n%s\n", *_ending(run)], "stdout")]


def without_evaluation(run: Run, found: Found) -> Run:
    """Return the run without its evaluation where nothing could be held out; otherwise the run itself."""
    if run.evaluation.held_out and found.prepared is not None and not is_eval_folder(run.evaluation.data):
        return replace(run, evaluation=Evaluation("", False, ""))
    return run


def _starter_is_ready() -> bool:
    """Return whether the starter model is there and newer than the files that it is made from."""
    made = STARTER / "starter.json"
    origins = [KIT / "m3kit" / "starter.py", *KIT.glob("example_data/*/*.jsonl")]
    return made.is_file() and all(
        made.stat().st_mtime > origin.stat().st_mtime for origin in origins if origin.exists()
    )


def prepare(run: Run) -> list[str]:
    request = run.request
    words = ["--train_data", *request.train_data, "--output_dir", f"{request['output_dir']}/prepared"]
    words += run.given("train_group_size", "seed", "query_instruction_for_retrieval", "columns", "task")
    # Only what is not the verb's own default.
    for name in ("classification_positives", "sts_max_score", "sts_as"):
        words += run.given(name) if request[name] != BY_NAME[name].default else []
    words += [f"--{name.replace('_', '-')}" for name in ("skip_bad_rows", "strict") if request.is_on(name)]
    if run.evaluation.held_out:
        words += run.given("holdout")
    elif run.evaluation.data:
        words += ["--eval_data", run.evaluation.data]
    # For what only shows in training: texts that are cut, batches that a set is too small for.
    words += ["--tokenizer", request["model_name_or_path"], *run.given("query_max_len", "passage_max_len")]
    words += ["--batch_size", str(int(request["per_device_train_batch_size"]) * run.setup.processes)]
    return run.kit("prepare", *words, *run.given("cache_dir"))


def trainer_words(run: Run, prepared: list[str]) -> list[str]:
    """The trainer's arguments."""
    request, words = run.request, ["--train_data", *prepared]
    for setting in SETTINGS:
        value = request[setting.name]
        if value and (setting.to.startswith("trainer") or (setting.to.startswith("kit") and not request.untouched)):
            words += [f"--{setting.name}", *(value.split() if setting.kind.many else [value])]
    if run.evaluation.data and not request.untouched:
        words += ["--eval_data", run.evaluation.data]
    words += run.setup.precision
    words += ["--use_cpu", "True"] if run.setup.device == "cpu" else []
    words += ["--deepspeed", run.setup.deepspeed] if run.setup.deepspeed else []
    return words + request.extra


def recipe(run: Run, prepared: list[str]) -> list[str]:
    request, setup = run.request, run.setup
    words = ["--output_dir", f"{request['output_dir']}/recipe", "--processes", str(setup.processes)]
    words += ["--device", setup.device]
    words += ["--mine_negatives"] if request.is_on("mine_negatives") else []
    if kept := sorted(request.chosen_by_user | set(request.extra_names)):
        words += ["--kept", *kept]
    return run.kit("recipe", *words, "--", *trainer_words(run, prepared))


def train(run: Run, found: Found) -> list[str]:
    # After a signal a step is finished and a checkpoint written before the processes go: torchrun would kill them.
    # The processes meet on this machine; by its name, as torchrun has it, they wait for ever where that is unknown.
    words = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", str(run.setup.processes)]
    words += ["--shutdown-timeout", "600", "-m", run.request["entrypoint"]]
    # Behind the defaults, so that these count; the recipe chooses nothing that the user has set.
    return [*run.torchrun, *words, *trainer_words(run, found.prepared or []), *found.chosen]


def evaluate(run: Run, folder: str) -> list[str]:
    request = run.request
    words = ["--models", f"base={request['model_name_or_path']}", f"tuned={request['output_dir']}"]
    words += [
        "--eval_data",
        folder,
        "--output_dir",
        request["output_dir"],
        *run.given("query_max_len", "passage_max_len"),
    ]
    words += ["--pooling_method", request["sentence_pooling_method"], *run.given("normalize_embeddings")]
    words += ["--device", run.setup.device]
    return run.kit("evaluate", *words, *run.given("query_instruction_for_retrieval", "cache_dir"))


def _ending(run: Run) -> tuple[str, str]:
    """Where the model is, and what to type next."""
    shown = run.request["output_dir"]
    if Path.cwd() == KIT:
        # In a container the kit's folder has another name than outside, and outputs/ is the same on both sides.
        shown = shown.removeprefix(f"{KIT}/")
    where = f"The model is in {shown}, the report in {shown}/report.html"
    if run.request.smoke:
        command = [run.program, "--recipe", "best", "--train_data", "YOUR_FOLDER"]
        return where, f"Next, with data of yours: {_typed(run, command)}"
    if run.evaluation.data:
        pooling = run.request["sentence_pooling_method"]
        how = "" if pooling == "cls" else f", pooling_method={json.dumps(pooling)}"
        code = (
            f"import sys; from FlagEmbedding import BGEM3FlagModel; print(BGEM3FlagModel(sys.argv[1]{how})"
            '.encode(["a text"])["dense_vecs"])'
        )
        return where, f"Next, to use it: {_typed(run, [run.python, '-c', code, shown])}"
    command = ["env", f"PYTHONPATH={KIT}", *evaluate(run, "YOUR_EVAL_FOLDER")]
    return where, f"Next, to see whether it got better: {_typed(run, command)}"


def _typed(run: Run, command: list[str]) -> str:
    """As it is typed: in a container of the wrapper, from outside."""
    if not run.wrapper:
        return quote(command)
    if command[0] == run.program:
        return quote([run.wrapper, run.request.script, *command[1:]])
    return quote([run.wrapper, "--", *command])


def quote(words: list[str]) -> str:
    """One line that can be pasted into a shell."""
    return " ".join(map(shlex.quote, words))
