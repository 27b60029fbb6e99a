"""Converted rows train on plain FlagEmbedding without its data defects, and every row read is accounted for."""

from __future__ import annotations

import string
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3kit.data.convert import (
    Settings,
    convert,
    convert_classification,
    convert_clustering,
    convert_native,
    convert_retrieval,
    convert_sts,
)
from m3kit.data.formats import LabelledRow, NativeRow, RetrievalRow, StsRow
from m3kit.data.negatives import NegativePool, same_text
from m3kit.data.problems import BadRow

SETTINGS = Settings()
# Few letters, so that queries and passages meet again and again.
SHORT = st.text("abA ", min_size=1, max_size=2).filter(str.strip)
PASSAGES = st.lists(SHORT, max_size=4)


def pairs(count: int, negative: bool = True) -> list[RetrievalRow]:
    return [RetrievalRow(i, f"query {i}", [f"passage {i}"], [f"other {i}"] if negative else []) for i in range(count)]


def labelled(per_label: dict[str, int]) -> list[LabelledRow]:
    return [LabelledRow(i, f"{name} {i}", name) for name, count in per_label.items() for i in range(count)]


def check_rows(result, group_size=8):
    """What every converted set promises."""
    assert result.read == result.used + result.merged + sum(result.set_aside.values())
    for row in result.rows:
        assert isinstance(row["prompt"], str)  # D1
        assert isinstance(row["pos"], list)  # D2
        assert row["pos"]
        assert isinstance(row["neg"], list)
        assert row["neg"]
        positives = {same_text(text) for text in row["pos"]}
        negatives = [same_text(text) for text in row["neg"]]
        assert not positives & set(negatives)
        assert len(negatives) == len(set(negatives))


def test_rows_of_one_query_are_merged():
    rows = [
        RetrievalRow(1, "What is Io?", ["a moon"], ["a star"]),
        RetrievalRow(2, "what is  io?", ["a moon of Jupiter"], ["a moon"]),
    ]
    result = convert_retrieval(rows, SETTINGS)
    check_rows(result)
    (row,) = result.rows
    assert row["query"] == "What is Io?"
    assert row["pos"] == ["a moon", "a moon of Jupiter"]
    assert row["neg"] == ["a star"]  # "a moon" is right for this query
    assert (result.used, result.merged) == (1, 1)
    assert sum(result.texts_removed.values()) == 1


def test_repeated_texts_are_left_out_and_counted():
    rows = [RetrievalRow(1, "q", ["p", "P"], ["n", "m", "n"]), RetrievalRow(2, "r", ["s"], ["t"])]
    result = convert_retrieval(rows, SETTINGS)
    assert (result.rows[0]["pos"], result.rows[0]["neg"][:2]) == (["p"], ["n", "m"])
    assert sum(result.texts_removed.values()) == 2


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("retrieval", [RetrievalRow(1, "q", ["p"], [])]),
        ("retrieval", [RetrievalRow(1, "q", ["p"], ["P"]), RetrievalRow(2, "r", ["p"], [])]),
        ("sts", [StsRow(1, "one", "other", 1.0)]),
        ("native", [NativeRow(1, "q", ["p"], [], {})]),
    ],
)
def test_d2_a_row_for_which_there_is_no_negative_is_refused(task, rows):
    with pytest.raises(BadRow, match="no negative here, and no other passage"):
        convert(task, rows, SETTINGS, {})


def test_one_negative_a_row_trains_in_groups_of_two():
    """D3: with a group of eight FlagEmbedding would encode the one negative seven times."""
    result = convert_retrieval(pairs(10), SETTINGS)
    assert {row["type"] for row in result.rows} == {"only_1neg"}
    assert result.negatives_added == 0


def test_missing_negatives_are_drawn_from_the_set():
    result = convert_retrieval(pairs(10) + pairs(20, negative=False)[10:], SETTINGS)
    check_rows(result)
    passages = {f"passage {i}" for i in range(20)} | {f"other {i}" for i in range(10)}
    assert all(len(row["neg"]) == 1 and row["neg"][0] in passages for row in result.rows)
    assert result.negatives_added == 10


def test_rows_with_several_negatives_train_in_full_groups_without_a_repeat():
    rows = [RetrievalRow(i, f"query {i}", [f"passage {i}"], [f"n {i} {k}" for k in range(3)]) for i in range(10)]
    result = convert_retrieval(rows, SETTINGS)
    check_rows(result)
    assert {row["type"] for row in result.rows} == {"retrieval"}
    assert all(len(row["neg"]) == 7 and row["neg"][:3] == rows[i].negatives for i, row in enumerate(result.rows))


def test_the_instruction_becomes_the_prompt_of_retrieval_rows_only():
    settings = Settings(query_instruction_for_retrieval="Find: ")
    assert convert_retrieval(pairs(3), settings).rows[0]["prompt"] == "Find: "
    assert convert_clustering(labelled({"a": 3, "b": 3}), settings).rows[0]["prompt"] == ""


@given(st.lists(st.builds(RetrievalRow, st.just(1), SHORT, PASSAGES.filter(bool), PASSAGES), min_size=1, max_size=12))
def test_every_query_gets_negatives_that_are_not_its_positives_or_is_refused(rows):
    pool = {same_text(text) for row in rows for text in row.positives + row.negatives}
    positives, possible = defaultdict(set), defaultdict(set)
    for row in rows:
        query = same_text(row.query)
        positives[query] |= {same_text(text) for text in row.positives}
        possible[query] |= {same_text(text) for text in row.negatives} | pool - {query}
    try:
        check_rows(convert_retrieval(rows, SETTINGS))
    except BadRow:
        assert any(possible[query] <= positives[query] for query in positives)


@given(st.lists(st.builds(StsRow, st.just(1), SHORT, SHORT, st.sampled_from([0, 0.3, 0.4, 0.6, 0.8, 1])), min_size=1))
def test_no_sts_negative_was_scored_above_the_threshold(rows):
    sentences, near, queries = set(), defaultdict(set), set()
    for row in rows:
        one, other = same_text(row.sentence1), same_text(row.sentence2)
        sentences |= {one, other}
        if row.score > 0.4:
            near[one].add(other)
            near[other].add(one)
        if row.score >= 0.8 and one != other:
            queries.add(one)
    try:
        result = convert_sts(rows, SETTINGS)
    except BadRow:
        assert not queries or any(sentences <= near[query] | {query} for query in queries)
        return
    check_rows(result)
    assert {same_text(row["query"]) for row in result.rows} == queries
    for row in result.rows:
        assert not near[same_text(row["query"])] & {same_text(text) for text in row["neg"]}


def test_sts_pairs_become_positives_and_hard_negatives():
    rows = [
        StsRow(1, "the moon is full", "it is full moon", 0.9),
        StsRow(2, "the moon is full", "the moon is new", 0.2),
        StsRow(3, "stars twinkle", "planets do not", 0.5),
        StsRow(4, "comets have tails", "cats have tails", 0.0),
    ]
    result = convert_sts(rows, SETTINGS)
    check_rows(result)
    (row,) = result.rows
    assert (row["query"], row["pos"], row["type"]) == ("the moon is full", ["it is full moon"], "symmetric_sts")
    assert row["neg"][0] == "the moon is new"
    assert set(row["neg"]) == {
        "the moon is new", "stars twinkle", "planets do not", "comets have tails", "cats have tails"
    }  # fmt: skip
    assert (result.used, sum(result.set_aside.values())) == (2, 2)


def test_classification_draws_a_text_to_its_label():
    rows = labelled({"lost_property": 2, "weather": 2, "tickets": 2})
    result = convert_classification(rows, {"weather": "asks about the weather"}, SETTINGS)
    check_rows(result)
    first = result.rows[0]
    assert first["query"] == "lost_property 0"
    assert first["pos"] == ["lost property"]
    assert first["neg"] == ["asks about the weather", "tickets"]
    assert first["type"] == "symmetric_class"


@pytest.mark.parametrize(("positives", "count"), [("labels", 6), ("texts", 6), ("both", 12)])
def test_classification_positives_may_be_texts_too(positives, count):
    settings = Settings(classification_positives=positives)
    result = convert_classification(labelled({"a": 3, "b": 3}), {}, settings)
    check_rows(result)
    assert len(result.rows) == count
    assert {row["type"] for row in result.rows} == {"symmetric_class"}


def test_clustering_takes_positives_of_the_label_and_negatives_of_others():
    result = convert_clustering(labelled({"a": 9, "b": 9, "c": 9}), SETTINGS)
    check_rows(result)
    for row in result.rows:
        label = row["query"][0]
        assert all(text[0] == label and text != row["query"] for text in row["pos"])
        assert len(row["neg"]) == 14
        assert all(text[0] != label for text in row["neg"])


def test_a_label_with_one_row_is_set_aside_and_still_serves_as_negative():
    result = convert_clustering(labelled({"a": 3, "b": 1}), SETTINGS)
    check_rows(result)
    assert [row["query"][0] for row in result.rows] == ["a", "a", "a"]
    assert result.rows[0]["neg"] == ["b 0"]
    assert sum(result.set_aside.values()) == 1


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (labelled({"a": 3}), "only one label"),
        (
            [LabelledRow(1, "x", "a"), LabelledRow(2, "X", "b")],
            "the same text as line 1, with label 'b' instead of 'a'",
        ),
    ],
)
@pytest.mark.parametrize("convert", [convert_clustering, lambda rows, s: convert_classification(rows, {}, s)])
def test_labels_that_cannot_teach_are_refused(convert, rows, what):
    with pytest.raises(BadRow, match=what):
        convert(rows, SETTINGS)


def test_native_rows_keep_what_they_bring():
    extra = {"prompt": "p: ", "type": "retrieval", "pos_scores": [3.5], "neg_scores": [0.5, 1.5]}
    rows = [NativeRow(i, f"q {i}", [f"p {i}"], [f"n {i}", f"m {i}"], extra) for i in range(3)]
    result = convert_native(rows, SETTINGS)
    check_rows(result)
    for row, given_row in zip(result.rows, rows, strict=True):
        assert row == {"query": given_row.query, "pos": given_row.pos, "neg": given_row.neg, **extra}


def test_native_rows_without_negatives_or_prompt_get_them():
    rows = [NativeRow(i, f"q {i}", [f"p {i}"], [], {}) for i in range(4)]
    result = convert_native(rows, Settings(query_instruction_for_retrieval="Q: "))
    check_rows(result)
    assert all(len(row["neg"]) == 1 and row["prompt"] == "Q: " and row["type"] == "only_1neg" for row in result.rows)


def test_native_scores_without_a_negative_are_refused():
    with pytest.raises(BadRow, match="has scores but no negative") as caught:
        convert_native([NativeRow(5, "q", ["p"], [], {"pos_scores": [1.0], "neg_scores": []})], SETTINGS)
    assert caught.value.line == 5


@given(
    passages=st.lists(st.text(string.ascii_letters, min_size=1, max_size=2), max_size=30),
    count=st.integers(0, 10),
    forbidden=st.lists(st.text(string.ascii_letters, min_size=1, max_size=2), max_size=5),
)
def test_the_pool_gives_all_it_can_and_nothing_forbidden(passages, count, forbidden):
    drawn = NegativePool(passages, seed=1).draw("key", count, forbidden)
    allowed = {same_text(text) for text in passages} - {same_text(text) for text in forbidden}
    assert {same_text(text) for text in drawn} <= allowed
    assert len({same_text(text) for text in drawn}) == len(drawn) == min(count, len(allowed))
    assert drawn == NegativePool(passages, seed=1).draw("key", count, forbidden)
