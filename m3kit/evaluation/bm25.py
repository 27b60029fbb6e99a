"""BM25, the line of reference: what plain word matching finds, without any model. Nothing here imports torch.

k1 0.9 and b 0.4 are what Anserini and Pyserini take for most collections. Words are stemmed and stop words left out as
the passages' language allows. Scripts that put no spaces between words (Chinese, Japanese, Thai, …) count as pairs of
neighbouring characters, as in Lucene's CJKAnalyzer; Korean too, whose words carry endings.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from m3kit.evaluation.languages import SAMPLE, SURE, identifier
from m3kit.progress import bar

SETTINGS: dict[str, Any] = {"k1": 0.9, "b": 0.4, "method": "lucene"}

# Below this share of one language, what is right for it would be wrong for too much of the rest.
MAIN_SHARE = 0.8
# Characters that the language is told from: short passages are put together, of long ones the start is read.
ENOUGH, AT_MOST = 100, 1000
SEED = 0

# py3langid's codes of the languages that have a Snowball stemmer, by the stemmer's name.
STEMMED = {
    "ar": "arabic", "ary": "arabic", "arz": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "cs": "czech",
    "da": "danish", "nl": "dutch", "en": "english", "eo": "esperanto", "et": "estonian", "fi": "finnish",
    "fr": "french", "de": "german", "el": "greek", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "no": "norwegian", "nn": "norwegian", "fa": "persian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho",
    "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
PAIRED = {
    "zh": "chinese", "yue": "chinese", "wuu": "chinese", "ja": "japanese", "ko": "korean", "th": "thai", "lo": "lao",
    "km": "khmer", "my": "burmese",
}  # fmt: skip
NAMES = STEMMED | PAIRED
# "There is no language in it", as of numbers.
NO_LANGUAGE = "zxx"


# What ``Bm25`` takes for a language: the passages' own.
DETECT = "detect"


class Bm25:
    """An index of passages. ``settings`` says in words how they were read.

    ``language``: one of ``STEMMED``'s values, any other name or None for no stemmer and no stop words.
    """

    def __init__(self, passages: Sequence[str], language: str | None = DETECT) -> None:
        self.language, says = main_language(passages) if language == DETECT else (language, language)
        self._terms, self._count = Terms(self.language), len(passages)
        self.settings = {**SETTINGS, "language": says, **self._terms.settings}
        numbers = [self._terms.learn(text) for text in _shown(passages, "BM25: reading passages", "passages")]
        if not self._terms.vocabulary:
            self.settings["reason"] = "no passage holds a word that counts, so nothing was ranked"
            return

        from bm25s import BM25

        self._index = BM25(**SETTINGS)
        self._index.index((numbers, self._terms.vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Of every passage, float32 (passages,); 0 where it shares no term with the query."""
        known = self._terms.known(query)
        return self._index.get_scores_from_ids(known) if known else np.zeros(self._count, np.float32)

    def rank(self, queries: Sequence[str], depth: int = 200) -> list[list[int]]:
        """For each query at most ``depth`` passage numbers, best first.

        Only passages that share a term with the query are ranked; of equal scores the earlier passage ranks first.
        """
        return [_best(self.scores(query), depth) for query in _shown(queries, "BM25: ranking", "queries")]


def _shown(items: Sequence[str], title: str, unit: str) -> Iterator[str]:
    with bar(len(items), title, unit) as shown:
        for item in items:
            yield item
            shown.update()


def _best(scores: np.ndarray, depth: int) -> list[int]:
    found = np.flatnonzero(scores > 0)
    if len(found) > depth:
        # All that are as good as the last one that fits: which of these are taken is for the sort below.
        found = found[scores[found] >= np.partition(scores[found], -depth)[-depth]]
    return found[np.argsort(-scores[found], kind="stable")][:depth].tolist()


# ---- which language ------------------------------------------------------------------------------------------------


def main_language(passages: Sequence[str]) -> tuple[str | None, str]:
    """The language of most passages, or None where there is no such language, and what was found in words."""
    counts = Counter(_languages(passages))
    if not counts:
        return None, "no known language"
    # Of equal counts by name: the sample's order means nothing.
    shares = sorted(((count / counts.total(), name) for name, count in counts.items()), key=lambda s: (-s[0], s[1]))
    share, language = shares[0]
    if share >= MAIN_SHARE:
        return language, language
    return None, "mixed: " + ", ".join(f"{name} {share:.0%}" for share, name in shares[:5])


def _languages(passages: Sequence[str]) -> Iterator[str]:
    """The languages of a sample that py3langid is sure of: Snowball's name, or else the code."""
    chosen = np.random.default_rng(SEED).permutation(len(passages))[:SAMPLE]
    pieces, piece = [], ""
    for number in chosen:
        piece = f"{piece} {passages[number][:AT_MOST]}".strip()
        if len(piece) >= ENOUGH:
            pieces.append(piece)
            piece = ""
    for text in pieces or [piece]:
        code, probability = identifier().classify(text)
        if probability >= SURE and code != NO_LANGUAGE:
            yield NAMES.get(code, code)


# ---- what counts as a term -----------------------------------------------------------------------------------------


def _ranges(characters: Iterable[int]) -> str:
    """What stands between the brackets of a regular expression for these characters, given in order."""
    ranges: list[list[int]] = []
    for character in characters:
        if ranges and ranges[-1][1] == character - 1:
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


# Vowel signs and accents of their own: not in \w, so that it alone would cut Hindi or Thai words to pieces.
MARKS = _ranges(code for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M")
# Thai, Lao, Burmese, Hangul (three blocks), Khmer, then Kana and Han.
PAIRS = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1100-\u11ff\u3130-\u318f\uac00-\ud7af\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(rf"\w[\w{MARKS}]*")
IN_PAIRS = re.compile(f"[{PAIRS}]")
# A run of such characters, or a run of others, within a word.
RUN = re.compile(f"[{PAIRS}][{PAIRS}{MARKS}]*|[^{PAIRS}]+")
CHARACTER = re.compile(f"[{PAIRS}][{MARKS}]*")


def split(text: str) -> list[str]:
    """Words, and pairs of neighbouring characters where the script has no spaces between words."""
    words = WORD.findall(text)
    if text.isascii() or not IN_PAIRS.search(text):
        return words
    return [term for word in words for run in RUN.findall(word) for term in _pairs(run)]


def _pairs(run: str) -> list[str]:
    if not IN_PAIRS.match(run):
        return [run]
    characters = CHARACTER.findall(run)
    return [one + two for one, two in itertools.pairwise(characters)] or characters


class Terms:
    """Texts to numbers of terms: normalised, lower-cased, without stop words, stemmed."""

    def __init__(self, language: str | None) -> None:
        stemmed = language if language in STEMMED.values() else None
        self.turkish = language == "turkish"
        self.stop_words: frozenset[str] = _stop_words(stemmed) if stemmed else frozenset()
        self.stem: Callable[[str], str] = lambda word: word
        self.vocabulary: dict[str, int] = {}
        # Number of each word seen, None for a stop word: stemming is done once a word.
        self._numbers: dict[str, int | None] = {}
        if stemmed:
            import Stemmer

            self.stem = Stemmer.Stemmer(stemmed).stemWord
        self.settings = {
            "stemmer": f"Snowball {stemmed}" if stemmed else None,
            "stop_words": f"bm25s {stemmed} ({len(self.stop_words)} words)" if self.stop_words else None,
            "tokens": "lower-cased words; pairs of characters in scripts without spaces and in Korean",
        }

    def learn(self, text: str) -> array:
        """The terms of a passage; new ones are added to the vocabulary."""
        # Four bytes a term: a million passages are held so.
        numbers = array("i")
        for word in self._words(text):
            if word not in self._numbers:
                stop = word in self.stop_words
                self._numbers[word] = (
                    None if stop else self.vocabulary.setdefault(self.stem(word), len(self.vocabulary))
                )
            number = self._numbers[word]
            if number is not None:
                numbers.append(number)
        return numbers

    def known(self, text: str) -> list[int]:
        """The terms of a query that the passages have."""
        stems = (self.stem(word) for word in self._words(text) if word not in self.stop_words)
        return [self.vocabulary[stem] for stem in stems if stem in self.vocabulary]

    def _words(self, text: str) -> list[str]:
        # Full-width and half-width forms become one, as do composed and decomposed letters.
        text = text if text.isascii() else unicodedata.normalize("NFKC", text)
        if self.turkish:
            text = text.replace("I", "ı").replace("İ", "i")
        return split(text.lower())


def _stop_words(language: str) -> frozenset[str]:
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
