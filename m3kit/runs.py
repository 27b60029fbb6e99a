"""Finished runs: which there are, the model that each started from, and its test data. Nothing here imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.hub import CONFIG
from m3kit.records import RUN

KIT = Path(__file__).parents[1]
if not (KIT / "requirements.txt").is_file():
    # Installed as a package: runs are in the folder where it is called.
    KIT = Path()


@dataclass(frozen=True)
class FoundRun:
    """A run's folder. ``lacks`` says why its model cannot be used, and is empty where it can.

    ``chosen_on``: "half" or "all" of the test data chose the checkpoint; None where nothing was chosen.
    """

    folder: Path
    settings: dict
    lacks: str
    chosen_on: str | None = None

    def setting(self, name: str) -> str | None:
        """A name or path among the settings; None where it is not recorded."""
        value = self.settings.get(name)
        return value if isinstance(value, str) and value else None

    def base(self, cure: str) -> str:
        """The model that it started from: a folder, or else its name on the Hub. Raises ``KitError`` with ``cure``."""
        given = self.setting("model_name_or_path")
        if not given:
            raise KitError(f"{self.folder / RUN} does not say what that run started from; {cure}")
        if folder := folder_of(given):
            return str(folder)
        # "outputs/run" has the shape of a Hub name too, but a folder "outputs" in the kit says what was meant.
        if given[0] in "/.~" or ("/" in given and (KIT / given).parent.is_dir()):
            raise KitError(
                f"the model that {self.folder} started from, {given}, is not there (was it trained in a container, or "
                f"elsewhere?); {cure}"
            )
        return given

    def eval_data(self, cure: str) -> Path:
        """Its test data, else what was held out of its rows, which a folder that was moved still holds."""
        given, held_out = self.setting("eval_data"), self.folder / "prepared" / "eval"
        if found := folder_of(given):
            return found
        if held_out.is_dir():
            return held_out
        of = self.folder
        what = f"the test data of {of}, {given}, is not there" if given else f"{of} has no test data"
        raise KitError(f"{what}; {cure}")


def read_run(folder: Path) -> FoundRun:
    """The run in a folder with a run.json; also of one that is damaged or not finished."""
    try:
        record = json.loads((folder / RUN).read_bytes())
        status, settings = record["status"], dict(record["settings"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return FoundRun(folder, {}, f"has a damaged {RUN}")
    lacks = "is not finished" if status != "finished" else ""
    lacks = lacks or ("" if (folder / CONFIG).is_file() else f"holds no model (no {CONFIG})")
    return FoundRun(folder, settings, lacks, record.get("chosen_on"))


def newest_run() -> tuple[FoundRun, str]:
    """The newest finished run below outputs/, and the words that name it. Raises ``KitError`` where there is none."""
    passed_over = ""
    files = [folder / RUN for folder in known_runs()]
    for file in sorted(files, key=lambda file: (file.stat().st_mtime, file), reverse=True):
        run = read_run(_short(file.parent))
        if not run.lacks:
            return run, f"The newest finished run: {run.folder}{passed_over and f' (newer: {passed_over})'}"
        passed_over = passed_over or f"{run.folder}, which {run.lacks}"
    raise KitError(
        f"there is no finished run below {_short(KIT / 'outputs')}{passed_over and f' (but {passed_over})'}; "
        "train one first, or give --models, --eval_data and --output_dir"
    )


def known_runs(beside: Path | None = None) -> list[Path]:
    """All runs below outputs/ and in the folder ``beside``, finished or not; with short paths, to be typed here."""
    folders = {KIT.absolute() / "outputs", (beside or KIT / "outputs").absolute()}
    found = {file.parent for folder in folders for file in folder.glob(f"*/{RUN}") if file.is_file()}
    return [_short(folder) for folder in sorted(found)]


def folder_of(given: str | None) -> Path | None:
    """A folder of the record, in which a relative path begins where the training script ran: mostly in the kit's."""
    for start in (KIT, Path()):
        if given and (folder := start / Path(given).expanduser()).is_dir():
            return _short(folder)
    return None


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
