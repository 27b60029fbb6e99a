"""What is searched, and with what: the model of a run, the one it started from, and the passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from m3kit.data.problems import BadRow, Problem, refuse
from m3kit.errors import KitError
from m3kit.evaluation.beir import passage_text
from m3kit.evaluation.evaluate import KIT
from m3kit.evaluation.newest import base_of, eval_data_of, folder_of, read_run
from m3kit.evaluation.rows import read_objects, string
from m3kit.evaluation.scores import HYBRID_WEIGHTS
from m3kit.evaluation.serving import HYBRID, PARTS, say_weights
from m3kit.evaluation.trained_with import trained_encoding
from m3kit.hub import CONFIG
from m3kit.hybrid import read_hybrid
from m3kit.records import RUN

BEFORE, AFTER = "base", "tuned"
SERVED = "served"
NAMES = (*PARTS[:3], "hybrid", "bm25", SERVED)


@dataclass(frozen=True)
class Subject:
    """``models``: name → folder or Hub name; ``passages``: id → text; ``weights``: score → what it adds up."""

    run: Path
    models: dict[str, str]
    corpus: Path
    passages: dict[str, str]
    weights: dict[str, dict[str, float]]
    encoding: Mapping[str, Any]
    cache_dir: str | None

    @property
    def examples(self) -> list[str]:
        """Five queries to try: those of the test data."""
        file = self.corpus.with_name("queries.jsonl")
        found = read_objects(file, lambda _, row: string(row, "text"), []) if file.is_file() else []
        return [query for query in found if query][:5]

    @property
    def best_score(self) -> str:
        """What the evaluation says to serve; dense where there was none."""
        return SERVED if SERVED in self.weights else "dense"

    def engines(self, **machine: Any) -> dict[str, Any]:
        """The two models with the vectors of all passages. ``machine``: device, precision and batch_size."""
        # Late, so that errors in arguments and passages do not wait for torch.
        from m3kit.evaluation.bm25 import Bm25
        from m3kit.evaluation.encode import Encoder, EncodeSettings
        from m3kit.evaluation.models import choose_device, choose_precision, find_model
        from m3kit.search.engine import Engine
        from m3kit.search.kept import FOLDER, kept

        device = choose_device(machine["device"])[0]
        machine |= {"device": device, "precision": choose_precision(machine["precision"], device)[0]}
        found = [find_model(name, given, self.cache_dir) for name, given in self.models.items()]
        texts = list(self.passages.values())
        bm25, engines = Bm25(texts), {}
        for model in found:
            encoder = Encoder(model, EncodeSettings(**self.encoding, **machine))
            engines[model.name] = Engine(encoder, texts, bm25, kept(encoder, texts, self.corpus, self.run / FOLDER))
        return engines


def find_subject(run: Path, base: str | None, corpus: Path | None, encoding: Mapping[str, Any]) -> Subject:
    """From RUN's own record, but for what is given. Raises ``KitError``."""
    cache_dir, weights = None, {name: {part: float(part == name) for part in PARTS} for name in PARTS}
    weights["hybrid"] = HYBRID_WEIGHTS | {"bm25": 0.0}
    if (run / RUN).is_file():
        record = read_run(run)
        if record.lacks:
            raise KitError(f"the run in {run} {record.lacks}; train it to its end, then search with it")
        base = base or base_of(record, KIT, "give it with --base")
        corpus = corpus or eval_data_of(record, KIT, "give --corpus a file of passages")
        cache_dir = folder_of(record.setting("cache_dir"), KIT)
    elif not (run / CONFIG).is_file():
        there = ", ".join(str(file.parent) for file in sorted((KIT / "outputs").glob(f"*/{RUN}")))
        raise KitError(f"there is no run in {run} (no {RUN}); give the folder of a finished one: {there or 'none yet'}")
    elif not base or not corpus:
        raise KitError(
            f"{run} holds a model but no {RUN} that says what it started from; give --base a model, and --corpus a "
            "file of passages"
        )
    if (run / HYBRID).is_file():
        weights[SERVED] = read_hybrid(run / HYBRID)["weights"]
    corpus = corpus / "corpus.jsonl" if corpus.is_dir() else corpus
    return Subject(
        run,
        {BEFORE: base, AFTER: str(run)},
        corpus,
        read_passages(corpus),
        weights,
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


class Search:
    """Both models, side by side."""

    def __init__(self, subject: Subject, **machine: Any) -> None:
        self.subject, self.keys = subject, list(subject.passages)
        self.engines = subject.engines(**machine)

    @cached_property
    def notes(self) -> list[str]:
        """What a reader should know of the models, in sentences."""
        return [note for engine in self.engines.values() for note in engine.encoder.notes]

    def ask(self, query: str, score: str, k: int) -> dict[str, Any]:
        """What ``--json`` prints of a query: of each model the first ``k`` passages, with their place in the other's
        ranking (None: not ranked there)."""
        query = query.encode("utf-8", "replace").decode()  # a terminal may send bytes that are no text
        weights = self.subject.weights[score]
        found = {name: engine.search([query], weights, k)[0] for name, engine in self.engines.items()}
        places = {name: {n: rank for rank, n in enumerate(one.numbers.tolist(), 1)} for name, one in found.items()}
        other = dict(zip(found, reversed(found), strict=True))
        sides = {
            name: [
                {
                    "rank": rank + 1,
                    "other_rank": places[other[name]].get(number),
                    "_id": self.keys[number],
                    "number": number,
                    "text": self.subject.passages[self.keys[number]],
                    "score": float(one.values[rank]),
                    "scores": {part: float(one.scores[part][rank]) for part in NAMES if part in one.scores},
                }
                for rank, number in enumerate(one.numbers[:k].tolist())
            ]
            for name, one in found.items()
        }
        says = {name: say_weights(engine.usable(weights)) for name, engine in self.engines.items()}
        return {"query": query, "score": score, "ranked_by": says, "models": sides, "words": self._words(query)}

    def _words(self, query: str) -> list[str]:
        """The query's words that tell passages apart: those in most passages would be marked everywhere."""
        from m3kit.search.words import terms

        bm25 = next(iter(self.engines.values())).bm25
        # Of every passage 0 where it lacks the word.
        counts = {word: np.count_nonzero(bm25.scores(word)) for word in terms(query)}
        rare = [word for word, count in counts.items() if count <= max(10, len(self.keys) // 8)]
        return rare or list(counts)
