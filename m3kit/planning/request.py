"""What the user asks for: arguments, the environment, the script's variables and the defaults, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from m3kit.argument_names import WITHOUT_EFFECT, trainer_arguments, unknown
from m3kit.errors import KitError
from m3kit.kinds import SWITCH, Kind
from m3kit.settings import LIBRARY, SETTINGS, Setting

KIT = Path(__file__).resolve().parents[2]
STARTER = KIT / "cache" / "starter"
# What --smoke puts in the place of defaults that nobody has changed.
SMOKE = {
    "model_name_or_path": str(STARTER),
    "overwrite_output_dir": "True",
    "allow_cpu": "True",
    "per_device_train_batch_size": "8",
    "query_max_len": "128",
    "passage_max_len": "128",
    "gradient_checkpointing": "False",
}
SMOKE_OUTPUT = {"single": KIT / "outputs" / "smoke_single_gpu", "multi": KIT / "outputs" / "smoke"}
# At which a model without any knowledge learns; it would ruin a real one.
STARTER_RATE = "2e-4"
# Defaults that are paths in the kit's folder.
IN_KIT = ("train_data", "output_dir", "deepspeed")


class WrongInput(KitError):
    """Something typed wrong: exit code 2."""


@dataclass
class Request:
    """``values`` of all settings as they are typed, ``train_data`` apart; ``chosen_by_user``: those the user has set.

    ``extra``: further arguments of the trainer, as they came, and ``extra_names`` theirs.
    """

    script: str
    values: dict[str, str]
    train_data: list[str]
    chosen_by_user: set[str] = field(default_factory=set)
    extra: list[str] = field(default_factory=list)
    extra_names: list[str] = field(default_factory=list)
    smoke: bool = False

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def is_on(self, name: str) -> bool:
        return self.values[name] == "True"

    @property
    def untouched(self) -> bool:
        """The library's own trainer is to run."""
        return self.values["entrypoint"] == LIBRARY


def read_request(
    script: str, words: Sequence[str], environment: Mapping[str, str], block: Mapping[str, list[str]]
) -> Request:
    """Read and check all that a user can set. Raises ``WrongInput``.

    ``script`` is single or multi; ``block`` has the variables at the top of the script, which know the environment.
    """
    known = {setting.name: setting for setting in SETTINGS if script == "multi" or not setting.several}
    given, request = _read_words(words, known), Request(script, {}, [])
    request.extra, request.extra_names, request.smoke = given.extra, given.names, given.smoke
    for name, setting in known.items():
        shipped = _shipped(setting, script)
        values = [shipped]
        if name in given.settings:
            values = given.settings[name]
        elif environment.get(setting.variable):
            text = environment[setting.variable]
            values = text.split(":") if name == "train_data" else text.split() if setting.kind.many else [text]
        elif name in block and block[name]:
            values = block[name]
        else:
            request.values[name] = shipped
            continue
        is_default = name not in given.settings and not environment.get(setting.variable) and _same(values, shipped)
        if not is_default:
            request.chosen_by_user.add(name)
        request.values[name] = " ".join(values)
        if name == "train_data":
            request.train_data = values
    request.train_data = request.train_data or [_shipped(known["train_data"], script)]
    if request.smoke:
        _make_small(request)
    for name, setting in known.items():
        request.values[name] = _checked(setting, request.values[name])
    for setting in SETTINGS:  # the other script's are off here
        request.values.setdefault(setting.name, "")
    if request["deepspeed"].lower() in ("none", "off", "false"):
        request.values["deepspeed"] = ""
    request.values["output_dir"] = request["output_dir"].rstrip("/") or "/"
    _check_together(request)
    return request


@dataclass
class _Words:
    settings: dict[str, list[str]] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    smoke: bool = False


def _read_words(words: Sequence[str], known: Mapping[str, Setting]) -> _Words:
    found, place = _Words(), 0
    trainer = trainer_arguments()
    while place < len(words):
        word = words[place]
        place += 1
        if word == "--smoke":
            found.smoke = True
            continue
        if word in ("--dry-run", "--dry_run"):
            continue
        if not word.startswith("--"):
            raise WrongInput(_without_name(word))
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        kind = Kind("", str, "", many=True) if name == "train_data" else None
        kind = kind or (known[name].kind if name in known else trainer.get(name))
        if name in WITHOUT_EFFECT:
            raise WrongInput(f"--{name} would have no effect: {WITHOUT_EFFECT[name]}")
        if kind is None:
            raise WrongInput(str(unknown(name, {**known, **trainer})))
        values, start = [value] if equals else [], place
        while place < len(words) and not words[place].startswith("--") and (kind.many or not values):
            values.append(words[place])
            place += 1
        if not values and kind is SWITCH:
            values = ["True"]
        if not values:
            raise WrongInput(f"--{name} needs a value: {kind.words or 'one or more folders or files'}")
        if name in known:
            found.settings[name] = values
        else:
            for text in values:
                _check_value(name, kind, text)
            found.extra += [word, *words[start:place]]
            found.names.append(name)
    return found


def _without_name(word: str) -> str:
    told = f"'{word}' stands without a name before it"
    return f"{told}; write --train_data {word}" if Path(word).exists() else f"{told}; see --help"


def _check_value(name: str, kind: Kind, text: str) -> None:
    try:
        kind.parse(text)
    except ValueError as error:
        raise WrongInput(f"{name} is {kind.words}, not '{text}'") from error


def _shipped(setting: Setting, script: str) -> str:
    default = setting.default_of(script)
    return str(KIT / default) if default and setting.name in IN_KIT else default


def _same(values: list[str], shipped: str) -> bool:
    """Whether a script's variable has still the value that it is shipped with."""
    # The example data stand there as four folders.
    return values == [shipped] or (len(values) == 4 and all(Path(value).parent == Path(shipped) for value in values))


def _make_small(request: Request) -> None:
    small = {**SMOKE, "output_dir": str(SMOKE_OUTPUT[request.script])}
    for name, value in small.items():
        if name not in request.chosen_by_user:
            request.values[name] = value
    if request["model_name_or_path"] == str(STARTER) and "learning_rate" not in request.chosen_by_user:
        request.values["learning_rate"] = STARTER_RATE


def _checked(setting: Setting, text: str) -> str:
    """The value, a switch as True or False; an empty one is not set."""
    if not text:
        if setting.default:
            raise WrongInput(f"{setting.name} is {setting.kind.words}, not ''")
        return text
    for word in text.split() if setting.kind.many else [text]:
        _check_value(setting.name, setting.kind, word)
    return str(setting.kind.parse(text)) if setting.kind is SWITCH else text


def _check_together(request: Request) -> None:
    """What cannot be asked for at once."""
    best = request["recipe"] == "best"
    if best and request.untouched:
        raise WrongInput(
            "recipe is best, whose settings the untouched library (entrypoint) does not know; give --recipe classic"
        )
    if request.script == "single" and request["num_gpus"] not in ("auto", "1"):
        raise WrongInput(
            f"this script trains in one process, and num_gpus is {request['num_gpus']}; for several: "
            "./run_flagembedding_training.sh"
        )
    if request.untouched or not request.is_on("same_dataset_within_batch"):
        # Graded pairs need batches of their own, and a loss that only the kit has.
        request.values["sts_as"] = "contrastive"
    if request["deepspeed"] and not Path(request["deepspeed"]).is_file():
        raise WrongInput(f"no DeepSpeed configuration {request['deepspeed']}; give --deepspeed a file, or none")
