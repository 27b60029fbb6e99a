"""The parts of mining: near-copies, the share, the best of shards, BM25 in shards, texts kept on disk."""

from __future__ import annotations

import numpy as np
import pytest
from mining_helpers import made_up_rows, write_rows

from m3kit.encoding.bm25 import Bm25
from m3kit.mining.false_negatives import calibrate, one_word_apart
from m3kit.mining.search import Best
from m3kit.mining.sharded_bm25 import ShardedBm25
from m3kit.mining.texts import collect, load


def test_one_changed_word_is_seen_in_short_texts_too():
    words = "a red fox ran home".split()
    for near in (
        "a red dog ran home",
        "a red fox ran",
        "red fox ran home",
        "a red old fox ran home",
        "a red fox ran home",
    ):
        assert one_word_apart(words, near.split()) and one_word_apart(near.split(), words), near
    for far in ("a blue dog ran home", "a red fox", "home ran fox red a", "a red fox ran home at once"):
        assert not one_word_apart(words, far.split()), far
    assert not one_word_apart("red fox".split(), "red dog".split())


def test_the_share_stays_in_its_bounds_and_follows_the_negatives():
    values = [calibrate(np.full(100, score, np.float32))[0] for score in (0.1, 0.7, 0.8, 1.2)]
    assert values == pytest.approx([0.80, 0.85, 0.90, 0.98])
    # A tenth of them are false: that does not move it.
    mixed = np.concatenate([np.full(90, 0.7), np.full(10, 1.0)]).astype(np.float32)
    assert calibrate(mixed)[0] == pytest.approx(0.85)


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_the_best_are_those_of_a_full_sort_however_the_passages_come(depth):
    draw = np.random.default_rng(depth)
    scores = draw.integers(-3, 6, (7, 40)).astype(np.float32)  # many ties
    # Two processes have every other shard; the first takes what both have found.
    parts, files = [Best(7, depth, 0.0), Best(7, depth, 0.0)], []
    for number, (start, stop) in enumerate([(0, 10), (10, 11), (11, 30), (30, 40)]):
        some = scores[:, start:stop]
        found = [parts[number % 2].entering(at, some[at : at + 4], -some[at : at + 4], start) for at in (0, 4)]
        files.append(np.concatenate(found))
        parts[number % 2].take(files[-1])
    whole = Best(7, depth, 0.0)
    for found in files:
        whole.take(found)
    for query in range(7):
        order = np.argsort(-scores[query], kind="stable")
        expected = [number for number in order.tolist() if scores[query, number] > 0][:depth]
        entries = whole.of(query)
        assert entries["passage"].tolist() == expected
        assert entries["dense"].tolist() == (-scores[query, expected]).tolist()


def test_bm25_in_shards_ranks_as_bm25_over_all_at_once():
    rows = made_up_rows(60)
    queries, passages = [row["query"] for row in rows], [row["pos"][0] for row in rows]
    words = ShardedBm25(queries, passages)
    scores = np.hstack([(words.queries @ words.passages(passages[at : at + 25])).toarray() for at in (0, 25, 50)])
    expected = Bm25(passages).rank(queries, depth=5)
    assert np.argsort(-scores, kind="stable")[:, :1].tolist() == [found[:1] for found in expected]


def test_texts_are_read_back_once_each_and_rows_by_their_numbers(tmp_path):
    row = {"query": "wer? 字", "pos": ["Ünïcode 字\n", "b"], "neg": ["c", "b"], "prompt": "", "type": "retrieval"}
    rows = [row, row | {"pos": ["last"], "neg": ["c"]}]
    counts, digest = collect([write_rows(tmp_path, rows)], None, tmp_path)
    texts = load(tmp_path)
    assert list(texts.queries) == ["wer? 字"] and list(texts.passages) == ["Ünïcode 字\n", "b", "c", "last"]
    found = [(query, own.tolist(), given.tolist()) for query, own, given in map(texts.row, range(2))]
    assert found == [(0, [0, 1], [2, 1]), (0, [3], [2])]
    assert texts.is_positive().tolist() == [True, True, False, True]
    assert counts["passages"] == 4 and counts["passages_of_the_corpus_alone"] == 0
    assert collect([write_rows(tmp_path, rows[::-1])], None, tmp_path)[1] != digest
