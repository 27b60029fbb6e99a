"""What is searched, and with what: the model of a run, the one it started from, and the passages. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m3kit import records
from m3kit.encoding.bm25 import SETTINGS
from m3kit.encoding.trained_with import Encoding, trained_encoding
from m3kit.errors import KitError
from m3kit.evaluation.serving import HYBRID, PARTS
from m3kit.hub import CONFIG
from m3kit.reading.problems import BadRow, Problem, refuse
from m3kit.records import RUN
from m3kit.runs import folder_of, known_runs, read_run
from m3kit.test_data.beir import passage_text
from m3kit.test_data.rows import read_objects, string

BEFORE, AFTER = "base", "tuned"
SERVED = "served"
NAMES = (*PARTS[:3], "hybrid", "bm25", SERVED)


@dataclass(frozen=True)
class Hybrid:
    """``hybrid.json``, as far as it is searched by."""

    model: str
    weights: dict[str, float]
    encoding: Encoding
    bm25: dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """``models``: name → folder or Hub name; ``passages``: id → text; ``served``: weights of hybrid.json."""

    run: Path
    models: dict[str, str]
    corpus: Path
    passages: dict[str, str]
    served: dict[str, float] | None
    encoding: Mapping[str, Any]
    cache_dir: str | None

    @property
    def examples(self) -> list[str]:
        """Five queries to try: those of the test data."""
        file = self.corpus.with_name("queries.jsonl")
        found = read_objects(file, lambda _, row: string(row, "text"), []) if file.is_file() else []
        return [query for query in found if query][:5]


def find_subject(run: Path, base: str | None, corpus: Path | None, encoding: Mapping[str, Any]) -> Subject:
    """From RUN's own record, but for what is given. Raises ``KitError``."""
    cache_dir = None
    if (run / RUN).is_file():
        record = read_run(run)
        if record.lacks:
            raise KitError(f"the run in {run} {record.lacks}; train it to its end, then search with it")
        base = base or record.base("give it with --base")
        corpus = corpus or record.eval_data("give --corpus a file of passages")
        cache_dir = folder_of(record.setting("cache_dir"))
    elif not (run / CONFIG).is_file():
        there = ", ".join(map(str, known_runs()))
        raise KitError(f"there is no run in {run} (no {RUN}); give the folder of a finished one: {there or 'none yet'}")
    elif not base or not corpus:
        raise KitError(
            f"{run} holds a model but no {RUN} that says what it started from; give --base a model, and --corpus a "
            "file of passages"
        )
    corpus = corpus / "corpus.jsonl" if corpus.is_dir() else corpus
    hybrid = read_hybrid(run)
    return Subject(
        run,
        {BEFORE: base, AFTER: str(run)},
        corpus,
        read_passages(corpus),
        hybrid.weights if hybrid else None,
        asdict(trained_encoding(run, encoding)),
        str(cache_dir) if cache_dir else None,
    )


def read_passages(file: Path) -> dict[str, str]:
    """Id → text (with the title) of each row; the row's line where it has no id. Raises ``KitError``."""
    if not file.is_file():
        raise KitError(f'there is no file of passages {file}; give --corpus a file of rows with "text"')
    problems: list[Problem] = []
    seen: set[str] = set()

    def read(line: int, row: dict) -> tuple[str, str]:
        given = next((row[name] for name in ("_id", "id") if row.get(name) not in (None, "")), line)
        key = " ".join(str(given).split())
        if key in seen:
            raise BadRow(f"the id {key!r} was already used", "give each passage its own _id")
        seen.add(key)
        return key, passage_text(row)

    found = read_objects(file, read, problems)
    refuse(problems, "the passages, nothing was searched")
    return dict(found)


def read_hybrid(folder: Path) -> Hybrid | None:
    """None where there is none. Raises ``KitError`` for one that another version of the kit wrote."""
    file, again = folder / HYBRID, f"evaluate again: python -m m3kit evaluate --output_dir {shlex.quote(str(folder))}"
    found = records.read(file, Hybrid, again)
    bm25 = {name: found.bm25.get(name) for name in SETTINGS} if found else SETTINGS
    if found and (found.weights.keys() != set(PARTS) or bm25 != SETTINGS or "language" not in found.bm25):
        raise KitError(f"{file} is of another version of the kit; {again}")
    return found
