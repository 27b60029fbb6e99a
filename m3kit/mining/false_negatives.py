"""Which candidates are likely to be right answers, and so must not be taught as wrong ones."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
from xxhash import xxh3_64_intdigest

from m3kit.encoding.bm25 import split
from m3kit.mining.texts import Texts
from m3kit.reading.near import NEAR, similarity
from m3kit.reading.text import same_text

KNOWN = "a positive of the same query in any row"
QUERY = "the query itself"
NEAR_POSITIVE = "nearly a positive: other case or punctuation, or a few words"
ABOVE_SHARE = "scores above the share of the positive's dense score"
BY_RERANKER = "the reranker scores it above the share of the positive's score"

# In texts of fewer words one word makes another statement.
LEAST_WORDS = 4


def limit(share: float, positive: float) -> float:
    """The score that a negative may have at most; below 0 a share would be above the positive itself."""
    return share * positive if positive > 0 else positive


class Positives:
    """The positives of each query, over all rows with that query."""

    def __init__(self, texts: Texts):
        self._texts = texts
        keys = array("Q", (xxh3_64_intdigest(same_text(query).encode("utf-8")) for query in texts.queries))
        _, self._group = np.unique(np.array(keys), return_inverse=True)
        of_rows = self._group[texts.row_query]
        self._rows = np.argsort(of_rows, kind="stable")
        self._sorted = of_rows[self._rows]

    def judge(self, query: int) -> Callable[[str], str | None]:
        """What says of a passage why it is no negative of the query, or None."""
        group, asked = self._group[query], same_text(self._texts.queries[query])
        rows = self._rows[slice(*np.searchsorted(self._sorted, [group, group + 1]))]
        numbers = np.unique(np.concatenate([self._texts.row(row)[1] for row in rows]))
        known = [same_text(self._texts.passages[number]) for number in numbers]
        words_of_known = [split(text) for text in known]

        def why_not(passage: str) -> str | None:
            same = same_text(passage)
            if same in known:
                return KNOWN
            if same == asked:
                return QUERY
            words = split(same)
            both = zip(known, words_of_known, strict=True)
            if any(one_word_apart(words, others) or similarity(same, other) >= NEAR for other, others in both):
                return NEAR_POSITIVE
            return None

        return why_not


def one_word_apart(one: list[str], other: list[str]) -> bool:
    """Whether two texts have the same words, or all but one that is changed, put in or left out.

    Trigrams do not tell that of short texts: "a red fox ran home" and "a red dog ran home" share half of theirs.
    """
    if one == other:
        return bool(one)
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > 1 or len(longer) < LEAST_WORDS:
        return False
    start = 0
    while start < len(shorter) and shorter[start] == longer[start]:
        start += 1
    end = 0
    while end < len(shorter) - start and shorter[-1 - end] == longer[-1 - end]:
        end += 1
    return len(longer) - start - end <= 1


# ---- the share -----------------------------------------------------------------------------------------------------

# NV-Retriever (arXiv 2407.15831) mines best with 0.95; of fewer rows no other share can be told.
USUAL_SHARE, LEAST_ROWS = 0.95, 50
LOWEST, HIGHEST = 0.80, 0.98
# Rows that are looked at, spread over all, and known negatives of each: the hardest one alone may be a right answer.
ROWS, HARDEST = 2000, 5


def calibrate(hardest: np.ndarray) -> tuple[float, str]:
    """(share, reason) from the relative scores of known negatives: of each row the mean dense score of the hardest ones
    divided by the positive's, shape (rows,).

    How high wrong passages score depends on the model and on how alike the passages are. Halfway between the median of
    the hardest known ones and the positive itself (1) a passage is more like a positive than like those. The median is
    not moved by the few of these that are right answers.
    """
    if len(hardest) < LEAST_ROWS:
        return USUAL_SHARE, f"only {len(hardest)} rows have known negatives to compare with; {LEAST_ROWS} are needed"
    middle = float(np.median(hardest))
    found = (1 + middle) / 2
    share = round(min(max(found, LOWEST), HIGHEST), 4)
    reason = (
        f"the hardest passages known to be wrong score {middle:.3f} of the positive (median of {len(hardest)} rows), "
        f"and {found:.3f} is halfway to the positive"
    )
    return share, reason if share == round(found, 4) else f"{reason}; bounded to {LOWEST:.2f} … {HIGHEST:.2f}"


def hardest_known(texts: Texts, best: Callable[[int], np.ndarray], scores: np.ndarray) -> np.ndarray:
    """The relative scores for ``calibrate``, float32 (rows,).

    Known to be wrong are the row's given negatives and the positives of rows with other queries, of which ``best``
    gives a query's best (``search.ENTRY``); ``scores`` are the dense scores of ``texts.pairs``.
    """
    positives, relative = Positives(texts), []
    for number in np.unique(np.linspace(0, len(texts.row_query) - 1, ROWS).astype(int)).tolist():
        query, own, given = texts.row(number)
        start = texts.first[number]
        positive = float(scores[start : start + len(own)].mean())
        if positive <= 0:
            continue
        judge, entries = positives.judge(query), best(query)
        known = dict(zip(entries["passage"].tolist(), entries["dense"].tolist(), strict=True))
        known |= dict(zip(given.tolist(), scores[start + len(own) : texts.first[number + 1]].tolist(), strict=True))
        hardest = sorted(known, key=lambda passage: (-known[passage], passage))
        wrong = [known[passage] for passage in hardest if judge(texts.passages[passage]) is None][:HARDEST]
        if wrong:
            relative.append(np.mean(wrong) / positive)
    return np.array(relative, np.float32)
