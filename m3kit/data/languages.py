"""Which languages a file is in, told from a sample of its longer texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.problems import NOTE, Problem
from m3kit.data.settings import Settings

SAMPLE = 500
# Shorter texts, and guesses that the model is less sure of, are often wrong.
CHARACTERS, SURE = 40, 0.95
# Below this many texts that it is sure of, nothing is said.
ENOUGH = 20
# A share that is worth a word.
SHARE = 0.02


def languages(data: DataSet, settings: Settings) -> Iterator[Problem]:
    """A note where the texts are in several languages."""
    rows = np.unique(np.linspace(0, len(data.index) - 1, SAMPLE).astype(int))
    texts = Texts(data.reading, data.index)
    sample = [max(texts.row(int(row))[0], key=len) for row in rows]
    sample = [text for text in sample if len(text) >= CHARACTERS]
    if len(sample) < ENOUGH:
        return
    guesses = [identifier().classify(text) for text in sample]
    counts = Counter(language for language, probability in guesses if probability >= SURE)
    total = counts.total()
    several = [(language, count) for language, count in counts.most_common() if count >= SHARE * total]
    if total >= ENOUGH and len(several) > 1:
        shares = ", ".join(f"{language} {count / total:.0%}" for language, count in several)
        what = f"the texts are in several languages ({shares}; by {total} texts)"
        fix = "have all of them in the evaluation data too; what is rare here may get worse"
        yield Problem(data.source, 1, what, fix, "languages", NOTE)


@lru_cache(maxsize=1)
def identifier():
    # Half a second and 60 MB: only where there is something to identify.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
