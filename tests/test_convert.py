"""Converted rows train on plain FlagEmbedding without its data defects, and every row read is accounted for."""

from __future__ import annotations

from collections import defaultdict

import pytest
from conftest import examples
from data_helpers import prepared
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from m3kit.data.negatives import walk
from m3kit.errors import KitError
from m3kit.reading.text import same_text

# Few letters, so that queries and passages meet again and again.
SHORT = st.text("abA ", min_size=1, max_size=2).filter(str.strip)
PASSAGES = st.lists(SHORT, max_size=4)
FEWER = settings(max_examples=examples(60), deadline=None)  # each writes and reads files


def pairs(count: int, negative: bool = True) -> list[dict]:
    rows = [{"query": f"query {i}", "positive": f"passage {i}"} for i in range(count)]
    return [row | {"negative": f"other {i}"} for i, row in enumerate(rows)] if negative else rows


def retrieval(query: str, positive: list[str], negative: list[str]) -> dict:
    return {"query": query, "positive": positive, "negative": negative}


def sts(sentence1: str, sentence2: str, score: float) -> dict:
    return {"sentence1": sentence1, "sentence2": sentence2, "score": score}


def labelled(per_label: dict[str, int]) -> list[dict]:
    return [{"text": f"{name} {i}", "label": name} for name, count in per_label.items() for i in range(count)]


def check_rows(rows: list[dict]) -> None:
    """What every converted set promises."""
    for row in rows:
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
    rows, entry = prepared(
        "retrieval",
        [
            retrieval("What is Io?", ["a moon"], ["a star"]),
            retrieval("what is  io?", ["a moon of Jupiter"], ["a moon"]),
        ],
    )
    check_rows(rows)
    (row,) = rows
    assert row["query"] == "What is Io?"
    assert row["pos"] == ["a moon", "a moon of Jupiter"]
    assert row["neg"] == ["a star"]  # "a moon" is right for this query
    assert (entry["rows_used"], entry["rows_merged"]) == (1, 1)
    assert sum(entry["texts_removed"].values()) == 1


def test_repeated_texts_are_left_out_and_counted():
    rows, entry = prepared("retrieval", [retrieval("q", ["p", "P"], ["n", "m", "n"]), retrieval("r", ["s"], ["t"])])
    assert (rows[0]["pos"], rows[0]["neg"][:2]) == (["p"], ["n", "m"])
    assert sum(entry["texts_removed"].values()) == 2


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("retrieval", [retrieval("q", ["p"], [])]),
        ("retrieval", [retrieval("q", ["p"], ["P"]), retrieval("r", ["p"], [])]),
        ("sts", [sts("one", "other", 1.0)]),
        ("retrieval", [{"query": "q", "pos": ["p"], "neg": []}]),
    ],
)
def test_d2_a_row_for_which_there_is_no_negative_is_refused(task, rows):
    with pytest.raises(KitError, match=r"rows\.jsonl:1: no negative here, and no other passage"):
        prepared(task, rows)


def test_a_row_for_which_there_is_no_negative_is_set_aside_where_that_was_asked_for():
    given_rows = [retrieval("q", ["p"], ["n"]), retrieval("r", ["p", "n"], [])]
    rows, entry = prepared("retrieval", given_rows, skip_bad_rows=True)
    assert [row["query"] for row in rows] == ["q"]
    assert (entry["rows_used"], sum(entry["rows_set_aside"].values())) == (1, 1)


def test_one_negative_a_row_trains_in_groups_of_two():
    """D3: with a group of eight FlagEmbedding would encode the one negative seven times."""
    rows, entry = prepared("retrieval", pairs(10))
    assert {row["type"] for row in rows} == {"only_1neg"}
    assert entry["negatives_added"] == 0


def test_missing_negatives_are_drawn_from_the_set():
    rows, entry = prepared("retrieval", pairs(10) + pairs(20, negative=False)[10:])
    check_rows(rows)
    passages = {f"passage {i}" for i in range(20)} | {f"other {i}" for i in range(10)}
    assert all(len(row["neg"]) == 1 and row["neg"][0] in passages for row in rows)
    assert entry["negatives_added"] == 10


def test_rows_with_several_negatives_train_in_full_groups_without_a_repeat():
    given_rows = [retrieval(f"query {i}", [f"passage {i}"], [f"n {i} {k}" for k in range(3)]) for i in range(10)]
    rows, _ = prepared("retrieval", given_rows)
    check_rows(rows)
    assert {row["type"] for row in rows} == {"retrieval"}
    for row, asked in zip(rows, given_rows, strict=True):
        assert len(row["neg"]) == 7
        assert row["neg"][:3] == asked["negative"]


def test_the_instruction_becomes_the_prompt_of_retrieval_rows_only():
    instruction = {"query_instruction_for_retrieval": "Find: "}
    assert prepared("retrieval", pairs(3), **instruction)[0][0]["prompt"] == "Find: "
    assert prepared("clustering", labelled({"a": 3, "b": 3}), **instruction)[0][0]["prompt"] == ""


@FEWER
@given(st.lists(st.builds(retrieval, SHORT, PASSAGES.filter(bool), PASSAGES), min_size=1, max_size=12))
def test_every_query_gets_negatives_that_are_not_its_positives_or_is_refused(rows):
    pool = {same_text(text) for row in rows for text in row["positive"] + row["negative"]}
    positives, possible = defaultdict(set), defaultdict(set)
    for row in rows:
        query = same_text(row["query"])
        positives[query] |= {same_text(text) for text in row["positive"]}
        possible[query] |= {same_text(text) for text in row["negative"]} | pool - {query}
    try:
        made, _ = prepared("retrieval", rows)
    except KitError:
        assert any(possible[query] <= positives[query] for query in positives)
        return
    check_rows(made)
    assert {same_text(row["query"]) for row in made} == set(positives)
    for row in made:
        assert {same_text(text) for text in row["pos"]} == positives[same_text(row["query"])]


@FEWER
@given(st.lists(st.builds(sts, SHORT, SHORT, st.sampled_from([0, 0.3, 0.4, 0.6, 0.8, 1])), min_size=1))
def test_no_sts_negative_was_scored_above_the_threshold(rows):
    sentences, near, queries, scores = set(), defaultdict(set), set(), defaultdict(set)
    for row in rows:
        one, other = same_text(row["sentence1"]), same_text(row["sentence2"])
        sentences |= {one, other}
        scores[frozenset((one, other))].add(row["score"])
        if row["score"] > 0.4:
            near[one].add(other)
            near[other].add(one)
        if row["score"] >= 0.8 and one != other:
            queries.add(one)
    try:
        made, _ = prepared("sts", rows, sts_as="contrastive")
    except KitError as error:
        contradicted = any(max(given) - min(given) > 0.3 for given in scores.values())
        assert contradicted == ("the same pair as" in str(error))
        assert contradicted or not queries or any(sentences <= near[query] | {query} for query in queries)
        return
    check_rows(made)
    assert {same_text(row["query"]) for row in made} == queries
    for row in made:
        assert not near[same_text(row["query"])] & {same_text(text) for text in row["neg"]}


@FEWER
@given(st.lists(st.builds(sts, SHORT, SHORT, st.sampled_from([0, 0.3, 0.4, 0.6, 0.8, 1])), min_size=1))
def test_every_pair_trains_with_its_score_once(rows):
    scores, sentences = defaultdict(list), set()
    for row in rows:
        pair = frozenset(map(same_text, (row["sentence1"], row["sentence2"])))
        scores[pair].append(row["score"])
        sentences |= pair
    assume(len({score for pair, found in scores.items() if len(pair) == 2 for score in found}) > 1)
    try:
        made, entry = prepared("sts", rows)
    except KitError as error:
        contradicted = any(max(given) - min(given) > 0.3 for given in scores.values())
        assert contradicted == ("the same pair as" in str(error))
        # No sentence is left for a filler.
        assert contradicted or len(sentences) < 3
        return
    check_rows(made)
    found = {frozenset(map(same_text, (row["query"], *row["pos"]))): row["pos_scores"] for row in made}
    assert len(found) == len(made)
    assert found == {pair: [pytest.approx(sum(s) / len(s))] for pair, s in scores.items() if len(pair) == 2}
    assert {(row["type"], len(row["neg"]), len(row["neg_scores"])) for row in made} == {("graded_sts", 1, 1)}
    assert entry["negatives_added"] == 0


def test_no_sts_pair_is_set_aside_for_its_score():
    given_rows = [sts(f"one {i}", f"other {i}", i / 10) for i in range(11)]
    rows, entry = prepared("sts", [*given_rows, sts("other 5", "ONE 5", 0.6), sts("same", "Same", 0.9)])
    assert [row["pos_scores"] for row in rows] == [[0.55 if i == 5 else i / 10] for i in range(11)]
    assert (entry["type"], entry["rows_used"], entry["rows_merged"]) == ("graded_sts", 11, 1)
    assert entry["rows_set_aside"] == {"both sentences are the same text": 1}


def test_sts_pairs_of_one_score_are_positives_for_there_is_nothing_to_compare():
    rows, entry = prepared("sts", [sts(f"one {i}", f"other {i}", 1) for i in range(3)])
    assert {row["type"] for row in rows} == {"symmetric_sts"}
    assert "all pairs have one score" in str(entry["notes"])


def test_sts_pairs_become_positives_and_hard_negatives():
    rows, entry = prepared(
        "sts",
        [
            sts("the moon is full", "it is full moon", 0.9),
            sts("the moon is full", "the moon is new", 0.2),
            sts("stars twinkle", "planets do not", 0.5),
            sts("comets have tails", "cats have tails", 0.0),
        ],
        sts_as="contrastive",
    )
    check_rows(rows)
    (row,) = rows
    assert (row["query"], row["pos"], row["type"]) == ("the moon is full", ["it is full moon"], "symmetric_sts")
    assert row["neg"][0] == "the moon is new"
    assert set(row["neg"]) == {
        "the moon is new", "stars twinkle", "planets do not", "comets have tails", "cats have tails"
    }  # fmt: skip
    assert (entry["rows_used"], sum(entry["rows_set_aside"].values())) == (2, 2)


def test_scores_of_0_to_5_are_rescaled_when_asked_for():
    given_rows = [sts("a", "b", 4.5), sts("c", "d", 1)]
    with pytest.raises(KitError, match="--sts_max_score 5"):
        prepared("sts", given_rows)
    rows, _ = prepared("sts", given_rows, sts_max_score=5.0)
    assert [(row["query"], row["pos"], row["pos_scores"]) for row in rows] == [("a", ["b"], [0.9]), ("c", ["d"], [0.2])]


def test_classification_draws_a_text_to_its_label():
    given_rows = labelled({"lost_property": 2, "weather": 2, "tickets": 2})
    rows, _ = prepared("classification", given_rows, {"weather": "asks about the weather"})
    check_rows(rows)
    first = rows[0]
    assert first["query"] == "lost_property 0"
    assert first["pos"] == ["lost property"]
    assert first["neg"] == ["asks about the weather", "tickets"]
    assert first["type"] == "symmetric_class"


def test_of_very_many_labels_each_row_is_given_others_as_negatives():
    rows, _ = prepared("classification", labelled({f"label{i}": 1 for i in range(250)}))
    check_rows(rows)
    assert {len(row["neg"]) for row in rows} == {100}
    assert len({text for row in rows for text in row["neg"]}) == 250


@pytest.mark.parametrize(("positives", "count"), [("labels", 6), ("texts", 6), ("both", 12)])
def test_classification_positives_may_be_texts_too(positives, count):
    rows, _ = prepared("classification", labelled({"a": 3, "b": 3}), classification_positives=positives)
    check_rows(rows)
    assert len(rows) == count
    assert {row["type"] for row in rows} == {"symmetric_class"}


def test_clustering_takes_positives_of_the_label_and_negatives_of_others():
    rows, _ = prepared("clustering", labelled({"a": 9, "b": 9, "c": 9}))
    check_rows(rows)
    for row in rows:
        label = row["query"][0]
        assert all(text[0] == label and text != row["query"] for text in row["pos"])
        assert len(row["neg"]) == 14
        assert all(text[0] != label for text in row["neg"])


def test_a_label_with_one_row_is_set_aside_and_still_serves_as_negative():
    rows, entry = prepared("clustering", labelled({"a": 3, "b": 1}))
    check_rows(rows)
    assert [row["query"][0] for row in rows] == ["a", "a", "a"]
    assert rows[0]["neg"] == ["b 0"]
    assert sum(entry["rows_set_aside"].values()) == 1


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (labelled({"a": 3}), "only one label"),
        (
            [{"text": "x", "label": "a"}, {"text": "X", "label": "b"}],
            r"rows\.jsonl:2: the same text as line 1, with label 'b' instead of 'a'",
        ),
    ],
)
@pytest.mark.parametrize("task", ["clustering", "classification"])
def test_labels_that_cannot_teach_are_refused(task, rows, what):
    with pytest.raises(KitError, match=what):
        prepared(task, rows)


def test_native_rows_keep_what_they_bring():
    extra = {"prompt": "p: ", "type": "retrieval", "pos_scores": [3.5], "neg_scores": [0.5, 1.5]}
    given_rows = [{"query": f"q {i}", "pos": [f"p {i}"], "neg": [f"n {i}", f"m {i}"], **extra} for i in range(3)]
    rows, _ = prepared("retrieval", given_rows)
    assert rows == given_rows


def test_native_rows_without_negatives_or_prompt_get_them():
    given_rows = [{"query": f"q {i}", "pos": [f"p {i}"]} for i in range(4)]
    rows, _ = prepared("retrieval", given_rows, query_instruction_for_retrieval="Q: ")
    check_rows(rows)
    assert all(len(row["neg"]) == 1 and row["prompt"] == "Q: " and row["type"] == "only_1neg" for row in rows)


def test_native_scores_without_a_negative_are_refused():
    row = {"query": "q", "pos": ["p"], "neg": [], "pos_scores": [1.0], "neg_scores": []}
    with pytest.raises(KitError, match=r"rows\.jsonl:1: this row has scores but no negative"):
        prepared("retrieval", [row])


@given(seed=st.integers(0, 2**32), key=st.integers(0, 2**64 - 1), size=st.integers(0, 300))
def test_a_walk_meets_everything_once(seed, key, size):
    assert sorted(walk(seed, key, size)) == list(range(size))
    assert list(walk(seed, key, size)) == list(walk(seed, key, size))
