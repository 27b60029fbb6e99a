"""What ``evaluate`` means when it is not told: the newest finished run of the kit, and the model it started from."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from m3kit.encoding.trained_with import trained_encoding
from m3kit.errors import KitError
from m3kit.hub import CONFIG

RUN = "run.json"


@dataclass(frozen=True)
class Run:
    """A run's folder. ``lacks`` says why its model cannot be evaluated, and is empty where it can."""

    folder: Path
    settings: dict
    lacks: str

    def setting(self, name: str) -> str | None:
        """A name or path among the settings; None where it is not recorded."""
        value = self.settings.get(name)
        return value if isinstance(value, str) and value else None


def with_newest_run(args: argparse.Namespace, kit: Path) -> argparse.Namespace:
    """The arguments of ``evaluate`` with those that were not given taken from a run; what is chosen goes to stderr.

    The run is the one in ``output_dir``, else the newest finished one below outputs/. Without ``models`` its model is
    compared with the one it started from, and both are encoded as it was trained, as after training; the results go
    into its folder. Raises ``KitError`` where something is not to be found.
    """
    if args.models and not args.output_dir:
        raise KitError("these models may be of several runs; say with --output_dir where metrics.json is to be written")
    run, told = _choose(args, kit)
    chosen = {"output_dir": args.output_dir or run.folder}
    if not args.models:
        base = base_of(run, kit, _by_hand(run.folder))
        chosen["models"] = [f"base={base}", f"tuned={run.folder}"]
        encoding = asdict(trained_encoding(run.folder, {}))
        chosen |= {name: value for name, value in encoding.items() if getattr(args, name) is None}
        cache = folder_of(run.setting("cache_dir"), kit)
        chosen["cache_dir"] = args.cache_dir or (str(cache) if cache else None)
        told += f"; its base: {base}"
    chosen["eval_data"] = args.eval_data or eval_data_of(run, kit, "give --eval_data a folder")
    print(f"{told}; test data: {chosen['eval_data']}", file=sys.stderr, flush=True)
    return argparse.Namespace(**{**vars(args), **chosen})


def _choose(args: argparse.Namespace, kit: Path) -> tuple[Run, str]:
    """The run, and the words that name it."""
    folder = args.output_dir
    if folder and (folder / RUN).exists():
        run = read_run(folder)
        # Of a run that is not finished the test data can be taken, for example for its checkpoints.
        if run.lacks and not args.models:
            raise KitError(
                f"the run in {folder} {run.lacks}; train it to its end, or say which models to compare with --models"
            )
        return run, f"The run: {folder}"
    if folder and (folder / CONFIG).exists() and not args.models:
        # Figures of another model would be taken for this one's.
        raise KitError(f"{folder} holds a model but no {RUN} that says what it started from; {_by_hand(folder)}")
    files = [file for file in (kit / "outputs").glob(f"*/{RUN}") if file.is_file()]
    passed_over = ""
    for file in sorted(files, key=lambda file: (file.stat().st_mtime, file), reverse=True):
        run = read_run(_short(file.parent))
        if not run.lacks:
            return run, f"The newest finished run: {run.folder}{passed_over and f' (newer: {passed_over})'}"
        passed_over = passed_over or f"{run.folder}, which {run.lacks}"
    raise KitError(
        f"there is no finished run below {_short(kit / 'outputs')}{passed_over and f' (but {passed_over})'}; "
        "train one first, or give --models, --eval_data and --output_dir"
    )


def read_run(folder: Path) -> Run:
    try:
        record = json.loads((folder / RUN).read_bytes())
        status, settings = record["status"], dict(record["settings"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Run(folder, {}, f"has a damaged {RUN}")
    lacks = "is not finished" if status != "finished" else ""
    return Run(folder, settings, lacks or ("" if (folder / CONFIG).is_file() else f"holds no model (no {CONFIG})"))


def base_of(run: Run, kit: Path, cure: str) -> str:
    """The model that the run started from: a folder, or else its name on the Hub. Raises ``KitError`` with ``cure``."""
    given = run.setting("model_name_or_path")
    if not given:
        raise KitError(f"{run.folder / RUN} does not say what that run started from; {cure}")
    if folder := folder_of(given, kit):
        return str(folder)
    # "outputs/run" has the shape of a Hub name too, but a folder "outputs" in the kit says what was meant.
    if given[0] in "/.~" or ("/" in given and (kit / given).parent.is_dir()):
        raise KitError(
            f"the model that {run.folder} started from, {given}, is not there (was it trained in a container, or "
            f"elsewhere?); {cure}"
        )
    return given


def eval_data_of(run: Run, kit: Path, cure: str) -> Path:
    """The test data of the run, else what was held out of its rows, which a folder that was moved still holds."""
    given, held_out = run.setting("eval_data"), run.folder / "prepared" / "eval"
    if found := folder_of(given, kit):
        return found
    if held_out.is_dir():
        return held_out
    what = f"the test data of {run.folder}, {given}, is not there" if given else f"{run.folder} has no test data"
    raise KitError(f"{what}; {cure}")


def folder_of(given: str | None, kit: Path) -> Path | None:
    """A folder of the record, in which a relative path begins where the training script ran: mostly in the kit's."""
    for start in (kit, Path()):
        if given and (folder := start / Path(given).expanduser()).is_dir():
            return _short(folder)
    return None


def _by_hand(folder: Path) -> str:
    return f"give --models base=… tuned={folder} --output_dir {folder}"


def _short(path: Path) -> Path:
    """As a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
