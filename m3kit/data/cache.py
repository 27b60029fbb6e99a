"""Know again data that was prepared before: the same files, the same settings, the same kit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from m3kit.data.settings import Settings
from m3kit.data.workspace import state_file


def stamp(files: Iterable[Path], settings: Settings) -> dict:
    """What the prepared rows depend on: names, sizes and times of the files, the settings, and the kit's own code."""
    inputs = []
    for file in files:
        for path in (file, file.with_name("labels.json")):
            if path.is_file():
                inputs.append(_state(path, path))
    if settings.eval_data:
        folder = Path(settings.eval_data)
        inputs += [_state(path, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {"inputs": inputs, "settings": json.loads(json.dumps(asdict(settings))), "kit": _code()}


def is_unchanged(output_dir: Path, now: dict) -> bool:
    """Whether the folder was made from just that, and is still as it was made."""
    try:
        kept = json.loads(state_file(output_dir).read_text("utf-8"))
        outputs = [_state(output_dir / name, name) for name, *_ in kept["outputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return kept == now | {"outputs": outputs}


def remember(output_dir: Path, now: dict) -> None:
    """Keep what the folder was made from. Called when all its files are there."""
    names = sorted(path.relative_to(output_dir) for path in output_dir.rglob("*") if path.is_file())
    outputs = [_state(output_dir / name, name) for name in names]
    state_file(output_dir).write_text(json.dumps(now | {"outputs": outputs}) + "\n", "utf-8")


def _state(path: Path, name: Path | str) -> list:
    status = path.stat()
    return [str(name), status.st_size, status.st_mtime_ns]


def _code() -> str:
    """A digest of the modules that prepare data: rows that an older kit prepared are prepared anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
