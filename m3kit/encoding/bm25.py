"""BM25, the line of reference: what plain word matching finds, without any model. Nothing here imports torch.

k1 0.9 and b 0.4 are what Anserini and Pyserini take for most collections. Where nearly all passages are of one language
that has a Snowball stemmer, words are stemmed and stop words left out: on English text that is worth 0.02 to 0.06 of
nDCG@10. Scripts that put no spaces between words (Chinese, Japanese, Thai, …) count as single characters; Korean too,
whose words carry endings.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from m3kit.progress import bar

SETTINGS: dict[str, Any] = {"k1": 0.9, "b": 0.4, "method": "lucene"}

# Below this share of one language, what is right for it would be wrong for too much of the rest.
MAIN_SHARE = 0.8
# Passages that the language is told from; of each at most so many characters; guesses less sure are often wrong.
SAMPLE, AT_MOST, SURE = 500, 1000, 0.95
# Characters that a language can be told from: shorter passages are put together.
ENOUGH = 100
SEED = 0
# What ``Bm25`` takes for a language: the passages' own.
DETECT = "detect"

# py3langid's codes of the languages that have a Snowball stemmer, by the stemmer's name.
STEMMED = {
    "ar": "arabic", "ary": "arabic", "arz": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "cs": "czech",
    "da": "danish", "nl": "dutch", "en": "english", "eo": "esperanto", "et": "estonian", "fi": "finnish",
    "fr": "french", "de": "german", "el": "greek", "hi": "hindi", "hu": "hungarian", "id": "indonesian", "ga": "irish",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "no": "norwegian", "nn": "norwegian", "fa": "persian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho",
    "es": "spanish", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip

# Vowel signs and accents of their own are not in \w, which alone would cut Hindi words to pieces.
MARKS = "".join(re.escape(chr(code)) for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M")
# Thai, Lao, Burmese, Hangul (three blocks), Khmer, then Kana and Han.
SINGLE = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1100-\u11ff\u3130-\u318f\uac00-\ud7af\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(r"\w+")
TERM = re.compile(rf"(?=\w)[{SINGLE}][{MARKS}]*|(?=\w)(?:(?![{SINGLE}])[\w{MARKS}])+")


def split(text: str) -> list[str]:
    """Words, and single characters where the script has no spaces between words."""
    return (WORD if text.isascii() else TERM).findall(text)


class Bm25:
    """An index of passages. ``settings`` says in words how they were read.

    ``language``: one of ``STEMMED``'s values, any other name or None for no stemmer and no stop words.
    """

    def __init__(self, passages: Sequence[str], language: str | None = DETECT) -> None:
        self._terms, self._count = Terms(passages, language), len(passages)
        self.settings = {**SETTINGS, **self._terms.settings}
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


class Terms:
    """Texts to numbers of terms: normalised, lower-cased, without stop words, stemmed, as the passages' language is."""

    def __init__(self, passages: Sequence[str], language: str | None = DETECT) -> None:
        language, says = main_language(passages) if language == DETECT else (language, language)
        stemmed = language if language in STEMMED.values() else None
        self._turkish = language == "turkish"
        self._stop_words: frozenset[str] = _stop_words(stemmed) if stemmed else frozenset()
        self._stem: Callable[[str], str] = str
        if stemmed:
            import Stemmer

            self._stem = Stemmer.Stemmer(stemmed).stemWord
        self.vocabulary: dict[str, int] = {}
        # Number of each word seen, None for a stop word: stemming is done once a word.
        self._numbers: dict[str, int | None] = {}
        self.settings = {
            "language": says,
            "stemmer": f"Snowball {stemmed}" if stemmed else None,
            "stop_words": f"bm25s {stemmed} ({len(self._stop_words)} words)" if self._stop_words else None,
            "tokens": "lower-cased words; single characters in scripts without spaces and in Korean",
        }

    def learn(self, text: str) -> array:
        """The terms of a passage; new ones are added to the vocabulary."""
        # Four bytes a term: a million passages are held so.
        numbers = array("i")
        for word in self._words(text):
            if word not in self._numbers:
                stop = word in self._stop_words
                number = None if stop else self.vocabulary.setdefault(self._stem(word), len(self.vocabulary))
                self._numbers[word] = number
            if (known := self._numbers[word]) is not None:
                numbers.append(known)
        return numbers

    def known(self, text: str) -> list[int]:
        """The terms of a query that the passages have."""
        stems = (self._stem(word) for word in self._words(text) if word not in self._stop_words)
        return [self.vocabulary[stem] for stem in stems if stem in self.vocabulary]

    def _words(self, text: str) -> list[str]:
        # Full-width and half-width forms become one, as do composed and decomposed letters.
        text = text if text.isascii() else unicodedata.normalize("NFKC", text)
        if self._turkish:
            text = text.replace("I", "ı").replace("İ", "i")
        return split(text.lower())


def _stop_words(language: str) -> frozenset[str]:
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))


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


def _languages(passages: Sequence[str]) -> Iterable[str]:
    """The languages of a sample that py3langid is sure of: Snowball's name, or else the code."""
    # Half a second and 60 MB.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    pieces = [""]
    for number in np.random.default_rng(SEED).permutation(len(passages))[:SAMPLE]:
        pieces[-1] = f"{pieces[-1]} {passages[number][:AT_MOST]}".strip()
        if len(pieces[-1]) >= ENOUGH:
            pieces.append("")
    # What is left over is short, unless it is all that there is.
    for code, probability in map(identifier.classify, pieces[:-1] or pieces):
        # "zxx": there is no language in it, as of numbers.
        if probability >= SURE and code != "zxx":
            yield STEMMED.get(code, code)
