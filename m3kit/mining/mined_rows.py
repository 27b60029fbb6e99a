"""Write the rows with their mined negatives, and count what was thrown away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from m3kit.data.jsonline import parse_line
from m3kit.mining.false_negatives import ABOVE_SHARE, Positives, limit
from m3kit.mining.mining_settings import MiningSettings
from m3kit.mining.prepared import Texts, is_mined, output_name, read_lines
from m3kit.mining.reranking import Reranker
from m3kit.mining.search import Found
from m3kit.progress import bar

EXAMPLES = 10
# Rows whose candidates a reranker scores together, and how many times as many as are kept.
ROWS_AT_ONCE, SURVIVORS = 256, 2


@dataclass
class Choice:
    """The negatives of one row: (text, dense score, whether it was mined), hardest first."""

    query: str
    positive: str
    positive_score: float
    negatives: list[tuple[str, float, bool]]


@dataclass
class Tally:
    """``thrown_away``: reason → candidates, the given negatives counted apart."""

    thrown_away: Counter = field(default_factory=Counter)
    given_thrown_away: Counter = field(default_factory=Counter)
    counts: Counter = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)


class Chooser:
    """Chooses the negatives of each row: candidates in turn from each list, then the given ones."""

    def __init__(self, texts: Texts, found: Found, positives: Positives, share: float | None, settings: MiningSettings):
        self._texts, self._found, self._positives, self._share = texts, found, positives, share
        self._wanted = settings.negatives
        self._reranker = Reranker(settings.reranker) if settings.reranker and settings.filter else None
        self.tally = Tally()

    def choices(self) -> Iterator[Choice]:
        """One of each row, in order."""
        numbers = iter(range(self._texts.rows))
        while some := list(islice(numbers, ROWS_AT_ONCE)):
            choices = [self._choose(number) for number in some]
            if self._reranker:
                self._reranker.drop(choices, self._share, self.tally)
            for choice in choices:
                del choice.negatives[self._wanted :]
                yield choice

    def _choose(self, number: int) -> Choice:
        texts = self._texts
        query, own, given = texts.row(number)
        start = int(texts.first[number])
        scores = self._found.row_scores[start : start + len(own) + len(given)]
        positive = float(scores[: len(own)].mean())
        choice = Choice(texts.queries[query], texts.passages[int(own[0])], positive, [])
        judge = self._positives.judge(query)
        wanted = self._wanted * (SURVIVORS if self._reranker else 1)
        # Where a reranker throws all others away, the given ones must be there.
        of_given = wanted + (len(given) if self._reranker else 0)
        seen = set(own.tolist())
        given_scores = zip(given.tolist(), scores[len(own) :].tolist(), strict=True)
        for source, pairs, most in ((True, self._in_turn(query), wanted), (False, given_scores, of_given)):
            thrown = self.tally.thrown_away if source else self.tally.given_thrown_away
            for passage, score in pairs:
                if len(choice.negatives) == most:
                    break
                if passage in seen:
                    continue
                seen.add(passage)
                text = texts.passages[passage]
                if self._share is not None:
                    reason = judge(text) or (ABOVE_SHARE if score > limit(self._share, positive) else None)
                    if reason:
                        thrown[reason] += 1
                        continue
                choice.negatives.append((text, score, source))
        return choice

    def _in_turn(self, query: int) -> Iterator[tuple[int, float]]:
        """(passage, dense score): the best by dense, the best by sparse, the best by BM25, the second by dense, …"""
        lists = list(self._found.lists.values())
        for place in range(lists[0].depth):
            for best in lists:
                if best.numbers[query, place] >= 0:
                    yield int(best.numbers[query, place]), float(best.dense[query, place])


def write_rows(files: list[Path], folder: Path, chooser: Chooser) -> Tally:
    """Write each file's rows below ``folder``: those of retrieval with new negatives, all others unchanged."""
    tally, choices, rows = chooser.tally, chooser.choices(), chooser._texts.rows
    shown_at = iter(np.unique(np.linspace(0, rows - 1, EXAMPLES).astype(int)).tolist())
    next_shown, done = next(shown_at), 0
    with bar(rows, "choosing negatives", "rows") as shown:
        for file in files:
            target = folder / output_name(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            entry = {"source": str(file), "output": output_name(file), "rows": 0, "rows_mined": 0}
            with target.open("wb") as out:
                for _, raw in read_lines(file):
                    entry["rows"] += 1
                    row = parse_line(raw)
                    if not is_mined(row):
                        out.write(raw if raw.endswith(b"\n") else raw + b"\n")
                        continue
                    choice = next(choices)
                    out.write(orjson.dumps(_mined(row, choice, tally.counts), option=orjson.OPT_APPEND_NEWLINE))
                    if done >= next_shown and choice.negatives:
                        tally.examples.append(_example(choice))
                        next_shown = next(shown_at, rows)
                    entry["rows_mined"] += 1
                    done += 1
                    shown.update()
            tally.files.append(entry)
    return tally


def _mined(row: dict[str, Any], choice: Choice, counts: Counter) -> dict[str, Any]:
    """The row with the chosen negatives; with those that it had, where nothing else is left."""
    mined = sum(is_mined for _, _, is_mined in choice.negatives)
    counts["negatives_mined"] += mined
    counts["given_negatives_kept"] += len(choice.negatives) - mined
    counts["rows_with_mined_negatives"] += mined > 0
    if not choice.negatives:
        counts["rows_left_as_given"] += 1
        return row
    row = row | {"neg": [text for text, _, _ in choice.negatives]}
    if "neg_scores" in row or "pos_scores" in row:
        # The teacher has not seen the new negatives.
        row.pop("neg_scores", None), row.pop("pos_scores", None)
        counts["rows_without_their_teacher_scores"] += 1
    if row.get("type") == "only_1neg" and len(row["neg"]) > 1:
        row["type"] = "retrieval"  # it would be trained on one negative only
    return row


def _example(choice: Choice) -> dict[str, Any]:
    text, score, _ = choice.negatives[0]
    return {
        "query": choice.query,
        "positive": choice.positive,
        "positive_score": round(choice.positive_score, 4),
        "negative": text,
        "negative_score": round(score, 4),
    }
