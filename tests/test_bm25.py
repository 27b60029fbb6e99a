"""BM25: what counts as a term in which language, and how passages are ranked."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from m3kit.encoding.bm25 import Bm25, Terms, main_language, split

ENGLISH = [
    "The library reads and writes compressed archives of many formats, and it streams them without a temporary file.",
    "A small program for the command line that lists running processes and shows how much memory each of them uses.",
    "These fonts cover the scripts of most European languages and were drawn for reading long texts on a screen.",
    "This game puts you in the role of a captain whose ship was stranded on an island full of hungry pirates.",
]
GERMAN = [
    "Diese Bibliothek liest und schreibt komprimierte Archive in vielen Formaten und braucht keine temporären Dateien.",
    "Ein kleines Programm für die Kommandozeile, das laufende Prozesse auflistet und ihren Speicherverbrauch anzeigt.",
    "Die Schriften decken die meisten europäischen Sprachen ab und sind für lange Texte am Bildschirm gezeichnet.",
    "In diesem Spiel ist man Kapitän eines Schiffes, das auf einer Insel voller hungriger Piraten gestrandet ist.",
]
CHINESE = ["这个库可以读写多种格式的压缩文件，不需要临时文件。", "这是一个命令行小程序，列出正在运行的进程和内存。"] * 5
UKRAINIAN = ["Ця бібліотека читає та записує стиснені архіви багатьох форматів і не потребує тимчасових файлів."] * 5


def rank_bm25(queries: list[str], passages: list[str], depth: int = 200) -> tuple[list[list[int]], dict]:
    """The rankings, and the settings in words."""
    index = Bm25(passages)
    return index.rank(queries, depth), index.settings


def test_needs_no_torch():
    code = "import sys, m3kit.encoding.bm25 as b; b.Bm25(['x y']).rank(['x']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- ranking -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_lucenes_formula():
    random = np.random.default_rng(1)
    words = ["".join(chr(97 + letter) for letter in random.integers(0, 26, 4)) for _ in range(40)]
    passages = [" ".join(random.choice(words, random.integers(1, 30))) for _ in range(60)]
    queries = [" ".join(random.choice(words, 4)) for _ in range(20)]
    rankings, settings = rank_bm25(queries, passages)
    assert settings["stemmer"] is None  # what is checked here is the formula

    tokens = [passage.split() for passage in passages]
    average = np.mean([len(each) for each in tokens])
    for query, ranked in zip(queries, rankings, strict=True):
        scores = np.zeros(60)
        for word in query.split():
            having = sum(word in each for each in tokens)
            for number, each in enumerate(tokens):
                frequency, norm = each.count(word), 0.9 * (1 - 0.4 + 0.4 * len(each) / average)
                scores[number] += math.log(1 + (60 - having + 0.5) / (having + 0.5)) * frequency / (frequency + norm)
        assert sorted(ranked) == np.flatnonzero(scores).tolist()
        # bm25s computes in 32 bits
        assert (np.diff(scores[ranked]) <= 1e-5).all()


def test_of_equal_scores_the_earlier_passage_ranks_first_also_where_the_list_is_cut():
    passages = ["river stone", "river river", "apple", "river stone", "river stone", "stone"]
    assert rank_bm25(["river", "apple stone"], passages)[0] == [[1, 0, 3, 4], [2, 5, 0, 3, 4]]
    assert rank_bm25(["river", "apple stone"], passages, depth=3)[0] == [[1, 0, 3], [2, 5, 0]]
    assert rank_bm25(["river"], ["river"] * 500)[0] == [list(range(200))]


def test_only_what_shares_a_term_is_ranked():
    rankings, _ = rank_bm25(["the", "", "?!", "unheard", "ship"], ENGLISH)
    assert rankings == [[], [], [], [], [3]]


def test_passages_without_any_term():
    assert rank_bm25(["x"], ["…", "x", ""])[0] == [[1]]
    for passages in ([], ["…", "!?"]):
        rankings, settings = rank_bm25(["x", "y"], passages)
        assert rankings == [[], []] and "no passage holds a word" in settings["reason"]
    assert "reason" not in rank_bm25(["x"], ["x"])[1]


def test_nothing_is_printed_where_stderr_is_no_terminal(capfd):
    rank_bm25(["ship"], ENGLISH)
    assert capfd.readouterr() == ("", "")


# ---- languages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "passages, language",
    [(ENGLISH, "english"), (GERMAN, "german"), (CHINESE, "zh"), (UKRAINIAN, "uk")],
)
def test_the_language_is_found(passages, language):
    # A few passages in another do not count.
    assert main_language(passages * 9 + (GERMAN if passages == ENGLISH else ENGLISH)) == (language, language)
    assert main_language(passages) == (language, language)


def test_short_passages_are_put_together_for_it():
    titles = [" ".join(passage.split()[:4]) for passage in ENGLISH * 10]
    assert main_language(titles)[0] == "english"


def test_mixed_and_unknown_languages_are_neither_stemmed_nor_stopped():
    rankings, settings = rank_bm25(["stems", "captain", "the"], [*ENGLISH, *GERMAN, "stem", "stems"])
    assert settings["language"] == "mixed: english 50%, german 50%"
    assert settings["stemmer"] is None and settings["stop_words"] is None
    assert rankings[:2] == [[9], [3]] and sorted(rankings[2]) == [0, 1, 2, 3]
    assert rank_bm25(["7"], ["7 8 9", "1 2"])[1]["language"] == "no known language"
    # A language that has no stemmer is named all the same.
    assert rank_bm25(["x"], UKRAINIAN)[1]["stemmer"] is None


def test_settings_say_what_was_done():
    assert rank_bm25(["ship"], ENGLISH)[1] == {
        "k1": 0.9, "b": 0.4, "method": "lucene", "language": "english", "stemmer": "Snowball english",
        "stop_words": "bm25s english (33 words)",
        "tokens": "lower-cased words; single characters in scripts without spaces and in Korean",
    }  # fmt: skip


def test_stemming_and_stop_words_of_the_language():
    assert rank_bm25(["LISTED the process", "stranding"], ENGLISH)[0] == [[1], [3]]
    assert rank_bm25(["und die Archiven", "Programme"], GERMAN)[0] == [[0], [1]]


# ---- terms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, terms",
    [
        ("gzip, x86_64 don't", ["gzip", "x86_64", "don", "t"]),
        ("压缩文件", ["压", "缩", "文", "件"]),
        ("读，写", ["读", "写"]),
        ("Python入門3", ["Python", "入", "門", "3"]),
        ("ゲームです", ["ゲ", "ー", "ム", "で", "す"]),
        ("한국어 글", ["한", "국", "어", "글"]),
        ("ดีที่สุด", ["ดี", "ที่", "สุ", "ด"]),  # with their vowel signs and tones
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # \w alone would cut these at their vowel signs
        ("été naïve", ["été", "naïve"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
    ],
)
def test_words_and_single_characters(text, terms):
    assert split(text) == terms


def test_forms_of_one_letter_are_one():
    assert rank_bm25(["ＡＢＣ", "e\u0301te\u0301", "ｶﾞｽ"], ["abc", "été", "ガス"])[0] == [[0], [1], [2]]


def test_turkish_has_two_letters_i():
    turkish = Terms([], "turkish")
    assert turkish.learn("ISPARTA İzmir").tolist() == [0, 1]
    assert turkish.known("ısparta izmir") == [0, 1] and turkish.known("isparta") == []


def test_a_stem_is_one_term_and_a_stop_word_none():
    terms = Terms([], "english")
    assert terms.learn("Running the runs, run!").tolist() == [0, 0, 0]
    assert terms.known("the runner runs") == [0] and list(terms.vocabulary) == ["run"]
