"""Choose the negatives of each row, write the rows with them, and count what was thrown away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from m3kit.mining.false_negatives import ABOVE_SHARE, BY_RERANKER, Positives, limit
from m3kit.mining.search import Found
from m3kit.mining.texts import Texts
from m3kit.prepared import PreparedRow, read_prepared
from m3kit.progress import bar
from m3kit.teachers import Reranker

EXAMPLES = 10
# How many times as many as are kept a reranker looks at.
SURVIVORS = 2


def write_rows(files: dict[str, Path], chooser: Chooser, folder: Path) -> dict[str, Any]:
    """Write each file's rows below ``folder``, those of retrieval with new negatives, all others unchanged.

    Returns counts, what was thrown away, the files and examples.
    """
    written: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    rows = chooser.rows
    shown_at = np.unique(np.linspace(0, rows - 1, EXAMPLES).astype(int)).tolist()
    with bar(rows, "choosing negatives", "rows") as shown:
        done = 0
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            entry: dict[str, Any] = {"source": str(file), "output": name, "rows": 0, "rows_mined": 0}
            with (folder / name).open("wb") as out:
                for row in read_prepared(file):
                    entry["rows"] += 1
                    if not row.is_retrieval:
                        out.write(row.raw + b"\n")
                        continue
                    positive, negatives = chooser.choose(done, row)
                    mined = _mined(row.data, negatives, chooser.counts)
                    out.write(orjson.dumps(mined, option=orjson.OPT_APPEND_NEWLINE))
                    if negatives and any(done >= number for number in shown_at[len(examples) :]):
                        examples.append(_example(row.data, positive, negatives[0]))
                    entry["rows_mined"] += 1
                    done += 1
                    shown.update()
            written.append(entry)
    return {
        "counts": {"rows_written": sum(entry["rows"] for entry in written), **chooser.counts},
        "thrown_away": dict(chooser.thrown_away[True].most_common()),
        "given_negatives_thrown_away": dict(chooser.thrown_away[False].most_common()),
        "files": written,
        "examples": examples,
    }


@dataclass
class Negative:
    text: str
    score: float  # dense
    mined: bool  # or given with the row


class Chooser:
    """Chooses the negatives of each row: candidates in turn from each list, then the given ones.

    Without a ``share`` nothing is thrown away. ``thrown_away``: reason → mined ones under True, given ones under False.
    """

    def __init__(self, texts: Texts, found: Found, share: float | None, wanted: int, reranker: Reranker | None):
        self._texts, self._positives, self._share = texts, Positives(texts), share
        self.rows = len(texts.row_query)
        self._lists = [best for name, best in found.best.items() if name != "positives"]
        self._pair_scores, self._wanted, self._reranker = found.pair_scores, wanted, reranker
        self.counts: Counter[str] = Counter()
        self.thrown_away: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}

    def choose(self, number: int, row: PreparedRow) -> tuple[float, list[Negative]]:
        """(mean dense score of the positives, negatives, hardest first) of a row; ``number`` is that of ``Texts``."""
        query, own, given = self._texts.row(number)
        scores = self._pair_scores[self._texts.first[number] : self._texts.first[number + 1]]
        positive = float(scores[: len(own)].mean())
        judge, seen = self._positives.judge(query), set(own.tolist())

        def passing(pairs: Iterable[tuple[int, float]], mined: bool) -> Iterator[Negative]:
            for passage, score in pairs:
                if passage in seen:
                    continue
                seen.add(passage)
                text, reason = self._texts.passages[passage], None
                if self._share is not None:
                    reason = judge(text) or (ABOVE_SHARE if score > limit(self._share, positive) else None)
                if reason:
                    self.thrown_away[mined][reason] += 1
                else:
                    yield Negative(text, score, mined)

        most = self._wanted * SURVIVORS if self._reranker else self._wanted
        kept = list(islice(passing(self._in_turn(query), True), most))
        if self._reranker or len(kept) < self._wanted:
            # Where a reranker throws all others away, the given ones must be there.
            kept += passing(zip(given.tolist(), scores[len(own) :].tolist(), strict=True), False)
        if self._reranker:
            kept = self._reranked(row, kept)
        return positive, kept[: self._wanted]

    def _in_turn(self, query: int) -> Iterator[tuple[int, float]]:
        """(passage, dense score): the best by dense, the best by sparse, the best by BM25, the second by dense, …"""
        lists = [best.of(query)[["passage", "dense"]].tolist() for best in self._lists]
        return (pair for pair in chain.from_iterable(zip_longest(*lists)) if pair)

    def _reranked(self, row: PreparedRow, negatives: list[Negative]) -> list[Negative]:
        """What the reranker scores no higher than the share of the positive's score, both between 0 and 1."""
        assert self._reranker and self._share is not None  # --no_filter and --reranker exclude each other
        texts = [row.data["pos"][0], *(negative.text for negative in negatives)]
        logits = self._reranker.scores([("", row.data["query"], text) for text in texts])
        positive, *scores = (1 / (1 + np.exp(-logits.astype(np.float64)))).tolist()
        kept = []
        for negative, score in zip(negatives, scores, strict=True):
            if score > limit(self._share, positive):
                self.thrown_away[negative.mined][BY_RERANKER] += 1
            else:
                kept.append(negative)
        return kept


def _mined(row: dict[str, Any], negatives: list[Negative], counts: Counter) -> dict[str, Any]:
    """The row with the chosen negatives; with those that it had, where none is left."""
    mined = sum(negative.mined for negative in negatives)
    counts["negatives_mined"] += mined
    counts["given_negatives_kept"] += len(negatives) - mined
    counts["rows_with_mined_negatives"] += mined > 0
    if row.get("type") == "only_1neg":
        # Else it would be trained on one negative only; and rows of two types are never in one batch.
        row = row | {"type": "retrieval"}
    if not negatives:
        counts["rows_left_as_given"] += 1
        return row
    row = row | {"neg": [negative.text for negative in negatives]}
    if "neg_scores" in row or "pos_scores" in row:
        # The teacher has not seen the new negatives.
        row = {name: value for name, value in row.items() if name not in ("neg_scores", "pos_scores")}
        counts["rows_without_their_teacher_scores"] += 1
    return row


def _example(row: dict[str, Any], positive: float, negative: Negative) -> dict[str, Any]:
    return {
        "query": row["query"],
        "positive": row["pos"][0],
        "positive_score": round(positive, 4),
        "negative": negative.text,
        "negative_score": round(negative.score, 4),
    }
