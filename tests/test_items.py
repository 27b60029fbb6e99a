"""What an item holds: FlagEmbedding's texts of the same rows, and the longest that can come."""

from __future__ import annotations

import random

import pytest
from conftest import write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_helpers import KIT, PLAIN, batches, dataset, groups, native

from m3kit.batches.rows import CHARACTERS_PER_TOKEN

QUERY = {"query_instruction_for_retrieval": "find: ", "query_instruction_format": "<{}> {}"}
PASSAGE = {"passage_instruction_for_retrieval": "passage: ", "passage_instruction_format": "{}|{}"}


@pytest.mark.parametrize("given_words", [{}, QUERY, PASSAGE, QUERY | PASSAGE])
@pytest.mark.parametrize(
    "kind", [None, "retrieval", "only_1neg", "symmetric_sts", "symmetric_class", "symmetric_clustering"]
)
def test_an_item_is_what_flagembedding_makes_of_the_rows(tmp_path, monkeypatch, kind, given_words):
    """Of those rows, with the negatives in that order."""
    rows = native(8, negatives=3, prompt="Prompt: ", pos_scores=[2.0], neg_scores=[0.5, 0.25, 0.125])
    rows = [row | ({"type": kind} if kind else {}) for row in rows]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    arguments = {"train_group_size": 4, "knowledge_distillation": True} | given_words
    plain, data = (dataset(cls, [path], tmp_path, batch_size=4, **arguments) for cls in (PLAIN, KIT))
    monkeypatch.setattr(random, "sample", lambda found, count: found[:count])
    seen = []
    for queries, passages, scores, alone in batches(data):
        chosen = [next(row for row in rows if query.endswith(row["query"])) for query in queries]
        raw = {name: [row[name] for row in chosen] for name in rows[0]}
        for place, group in enumerate(groups((queries, passages))):
            order = [n for passage in group for n, text in enumerate(chosen[place]["neg"]) if passage.endswith(text)]
            for name in ("neg", "neg_scores"):
                raw[name][place] = [raw[name][place][n] for n in order]
        assert (queries, passages, scores) == plain._create_batch_data(raw)
        assert not alone
        seen += queries
    assert len(set(seen)) == len(rows)


def test_the_shuffle_ratio_shuffles_the_thirds_of_long_positives(tmp_path):
    thirds = ["a" * 42, "b" * 42, "c" * 41]
    rows = [row | {"pos": ["".join(thirds)]} for row in native(20, prompt="", negatives=1)]
    path = write_jsonl(tmp_path / "rows-no_in_batch_neg.jsonl", rows)
    found = [passages[0] for _, passages, *_ in batches(dataset(KIT, [path], tmp_path, 1, shuffle_ratio=0.5))]
    shuffled = [text for text in found if text != "".join(thirds)]
    assert 0 < len(shuffled) < 20
    assert all(sorted(text.split(" ")) == thirds for text in shuffled)


def characters(item) -> int:
    return sum(map(len, item[0] + item[1]))


LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=6)
SIZED = st.tuples(st.integers(1, 99), LENGTHS, LENGTHS, st.integers(0, 20), st.sampled_from([None, 2, 3, 5]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(SIZED, min_size=4, max_size=30),
    kind=st.sampled_from(["", "only_1neg", "symmetric_sts", "symmetric_class"]),
    processes=st.integers(1, 2),
    words=st.sampled_from([{}, PASSAGE]),
)
def test_no_batch_has_more_characters_than_the_heaviest(tmp_path_factory, rows, kind, processes, words):
    folder = tmp_path_factory.mktemp("rows")
    made = []
    for number, (query, pos, neg, prompt, group) in enumerate(rows):
        found = [f"{number}.{place}.".ljust(length, "x") for place, length in enumerate([query, *pos, *neg])]
        row = {"query": found[0], "pos": found[1 : 1 + len(pos)], "neg": found[1 + len(pos) :], "prompt": "p" * prompt}
        made.append(row | {"type": kind, "train_group_size": group})
    path = write_jsonl(folder / "rows.jsonl", made)
    shares = [
        dataset(KIT, [path], folder, batch_size=3, processes=processes, rank=rank, train_group_size=4, **words)
        for rank in range(processes)
    ]
    (heaviest,) = shares[0].heaviest()
    assert shares[-1].heaviest() == [heaviest]
    groups(heaviest)
    for share in shares:
        assert max(characters(share[number]) for number in range(3 * len(share))) <= characters(heaviest)


def test_the_heaviest_is_of_long_texts_not_of_one_that_is_cut(tmp_path):
    rows = native(8, prompt="", negatives=3)
    rows[3]["neg"] = ["x" * 100_000, "y", "z"]
    for row in rows[4:6]:
        row["neg"] = [text.ljust(CHARACTERS_PER_TOKEN * 100, "x") for text in row["neg"]]
    graded = {"type": "graded_sts", "pos_scores": [1.0], "neg_scores": [0.0]}
    pairs = native(4, negatives=1, prompt="", **graded)
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", made) for name, made in (("a", rows), ("b", pairs))]
    first, second = dataset(KIT, paths, tmp_path, passage_max_len=100).heaviest()
    assert sorted(first[0]) == ["q4", "q5"]
    assert (len(first[1]), first[2:]) == (8, (None, False))
    assert (len(second[0]), len(second[1]), second[2:]) == (4, 4, ([1.0] * 4, True))
