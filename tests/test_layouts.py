"""Every layout of rows is read as a person would read it, or refused with its line, what is wrong and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import read_jsonl
from data_helpers import inspect, prepared
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError

TEXT = st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable())
QUERIES = ["who is Io?", "when does bread rise", "what do seals eat", "where is Oslo"]
ANSWERS = ["Io is a moon", "Bread rises in an hour", "Seals eat fish", "Oslo is in Norway"]
WRONG = ["a tax form", "an old engine", "a song of spring", "the price of tea"]
ALL = [*zip(QUERIES, ANSWERS, WRONG, strict=True)]
GOOD = {
    "retrieval": {"query": "q", "positive": "p"},
    "sts": {"sentence1": "a", "sentence2": "b", "score": 0.5},
    "labelled": {"text": "t", "label": "l"},
    "native": {"query": "q", "pos": ["p"], "neg": ["n"]},
}


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# A row of a query, the passage that answers it, and a wrong one.
RETRIEVAL = {
    "the kit's own": lambda q, p, n: {"query": q, "positive": p, "negative": n},
    "lists": lambda q, p, n: {"query": q, "positive": [p], "negative": [n]},
    "FlagEmbedding's": lambda q, p, n: {"query": q, "pos": [p], "neg": [n], "prompt": "", "type": None, "id": 7},
    "FlagEmbedding's, pos a text": lambda q, p, n: {"query": q, "pos": p, "neg": n},
    "sentence-transformers'": lambda q, p, n: {"anchor": q, "positive": p, "negative": n},
    "anchor, pos, neg": lambda q, p, n: {"anchor": q, "pos": p, "neg": n},
    "capitals and spaces": lambda q, p, n: {"Search Query": q, "Positive_Passage": p, "Hard-Negative": n},
    "question and answer": lambda q, p, n: {"Question": q, "ANSWER": p, "rejected": n},
    "a preference": lambda q, p, n: {"prompt": q, "chosen": p, "rejected": n},
    "numbered negatives": lambda q, p, n: {"query": q, "positive": p, "neg1": n, "neg2": None},
    "tevatron's": lambda q, p, n: {
        "query_id": "1",
        "query": q,
        "positive_passages": [{"docid": "2", "title": "", "text": p}],
        "negative_passages": [{"docid": "3", "text": n}],
    },
    "DPR's": lambda q, p, n: {
        "question": q,
        "answers": ["x"],
        "positive_ctxs": [{"title": "", "text": p}],
        "negative_ctxs": [],
        "hard_negative_ctxs": [{"title": "", "text": n}],
    },
    "MS MARCO's": lambda q, p, n: {
        "query": q,
        "query_id": 3,
        "query_type": "person",
        "answers": ["x"],
        "passages": {"is_selected": [0, 1], "passage_text": [n, p], "url": ["", ""]},
    },
    "MS MARCO's, as objects": lambda q, p, n: {
        "query": q,
        "query_type": "person",
        "passages": [{"is_selected": 0, "passage_text": n}, {"is_selected": 1, "passage_text": p}],
    },
    "ms-swift's": lambda q, p, n: {
        "messages": message(q),
        "positive_messages": [message(p)],
        "negative_messages": [message(n)],
    },
    "a set": lambda q, p, n: {"set": {"query": q, "pos": [p], "neg": [n]}},
    "scores of a list": lambda q, p, n: {"query": q, "passages": [n, p], "scores": [0, 2]},
    "labels of a list": lambda q, p, n: {"question": q, "documents": [n, p], "labels": [False, True]},
}


def trained(tmp_path: Path, name: str, content: str, **settings) -> list[dict]:
    """The rows that a file trains with."""
    file = tmp_path / "data" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content, encoding="utf-8")
    prepare([file], tmp_path / "prepared", Settings(**settings))
    (entry,) = json.loads((tmp_path / "prepared" / "manifest.json").read_text())["sets"]
    return read_jsonl(tmp_path / "prepared" / entry["output"])


def texts(rows: list[dict]) -> list[tuple[str, str, str]]:
    return [(row["query"], *row["pos"], row["neg"][0]) for row in rows]


def told(tmp_path: Path, record: dict, after: dict | None = None, **settings) -> tuple[list, list[dict]]:
    """(sets, problems) of a file whose third line is a record, perhaps after a good one."""
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(after) if after else ''}\n \n{json.dumps(record)}\n")
    return inspect(file, **({"task": "clustering"} | settings))


@pytest.mark.parametrize("layout", RETRIEVAL)
def test_each_layout_of_a_query_and_its_passages_trains(layout):
    rows, _ = prepared("retrieval", [RETRIEVAL[layout](*row) for row in ALL])
    assert texts(rows) == ALL


@pytest.mark.parametrize(
    "record",
    [
        {"question": QUERIES[0], "answer": ANSWERS[0]},
        {"Q": QUERIES[0], "Response": ANSWERS[0], "id": 3},
        {"instruction": QUERIES[0], "output": ANSWERS[0]},
        {"query": QUERIES[0], "document": ANSWERS[0], "url": "http://a.b"},
        {"question": QUERIES[0], "context": ANSWERS[0], "answers": {"text": ["x"], "answer_start": [0]}},
        {"set": [QUERIES[0], ANSWERS[0]]},
        {"query": QUERIES[0], "positive": [ANSWERS[0]], "negative": [""]},
        {"query": QUERIES[0], "pos": [ANSWERS[0]], "neg": [""]},
        {"query": QUERIES[0], "positive": ANSWERS[0], "negative": float("nan")},
    ],
)
def test_a_pair_trains_with_negatives_of_the_set(record):
    others = [{"query": q, "positive": p} for q, p, _ in ALL[1:]]
    if {"query", "pos"} <= record.keys():
        others = [{"query": q, "pos": [p]} for q, p, _ in ALL[1:]]
    rows, entry = prepared("retrieval", [record, *others])
    assert [(row["query"], row["pos"]) for row in rows] == [(q, [p]) for q, p, _ in ALL]
    assert entry["negatives_added"] >= 4


def test_all_columns_with_negatives_are_used_in_their_order(tmp_path):
    record = {"query": "q", "positive": ["p", "r"], "negative_10": "o", "hard_negatives": ["n"], "negative_2": "m"}
    ((data,), _) = told(tmp_path, record)
    assert (data.rows[0].positives, data.rows[0].negatives) == (["p", "r"], ["n", "m", "o"])
    record = {"question": "q", "positive_ctxs": [{"text": "p"}], "negative_ctxs": [{"text": "m"}]}
    ((data,), _) = told(tmp_path, record | {"hard_negative_ctxs": [{"title": "t", "text": "n"}]})
    assert data.rows[0].negatives == ["t n", "m"]


def test_further_fields_of_flag_embedding_are_kept(tmp_path):
    extra = {"prompt": "P: ", "pos_scores": [1], "neg_scores": [0.5]}
    ((data,), _) = told(tmp_path, GOOD["native"] | extra | {"type": None, "id": 7})
    assert (data.rows[0].value, data.unused_columns) == (extra, ["id"])


@pytest.mark.parametrize(
    ("grades", "rule"),
    [((1, 0), 0.5), ((2, 0), 1), (("1", "0"), 0.5), ((True, False), 0.5), ((0.9, 0.1), 0.45), ((2, -1), 1)],
)
@pytest.mark.parametrize("names", ["query positive relevance", "Query Passage Label", "question answer score"])
def test_a_grade_beside_a_passage_says_whether_it_is_right(grades, rule, names):
    rows = [("q", "right", grades[0]), ("q", "wrong", grades[1]), ("other", "another", grades[0])]
    written, entry = prepared("retrieval", [dict(zip(names.split(), row, strict=True)) for row in rows])
    assert [row["pos"] for row in written] == [["right"], ["another"]]
    assert "wrong" in written[0]["neg"]
    assert f"passages graded {rule:g} or more are positives, the others negatives" in entry["notes"]


def test_grades_that_are_votes_tell_no_right_from_wrong_and_are_warned_about(tmp_path):
    (data,), problems = told(tmp_path, {"query": "q", "positive": "p", "score": 17})
    assert data.rows[0].positives == ["p"]
    assert [(problem["severity"], problem["code"]) for problem in problems] == [("warning", "grades")]


@pytest.mark.parametrize(
    ("record", "score"),
    [
        ({"sentence1": "a", "sentence2": "b", "score": 1}, 1),
        ({"sentence1": "a", "sentence2": "b", "label": "0.5"}, 0.5),
        ({"Sentence_A": "a", "Sentence_B": "b", "Relatedness Score": 0.25}, 0.25),
        ({"question1": "a", "question2": "b", "is_duplicate": 0}, 0),
        ({"premise": "a", "hypothesis": "b", "label": 0}, 1),
        ({"premise": "a", "hypothesis": "b", "label": "Neutral"}, 0.5),
        ({"sentence1": "a", "sentence2": "b", "gold_label": "contradiction"}, 0),
    ],
)
def test_pairs_have_scores_or_classes(tmp_path, record, score):
    ((data,), problems) = told(tmp_path, record)
    assert (data.kind, data.rows[0].texts, data.rows[0].value, problems) == ("sts", ["a", "b"], score, [])


def test_scores_are_divided_by_the_largest_and_classes_are_not(tmp_path):
    for record in ({"sentence1": "a", "sentence2": "b", "score": 5}, {"premise": "a", "hypothesis": "b", "label": 0}):
        ((data,), _) = told(tmp_path, record, sts_max_score=5.0)
        assert data.rows[0].value == 1


@pytest.mark.parametrize(
    ("record", "label"),
    [
        ({"text": "t", "label": "l"}, "l"),
        ({"text": "t", "label": 3}, "3"),
        ({"text": "t", "label": 3, "label_text": "three"}, "three"),
        ({"Utterance": "t", "Intent": "book"}, "book"),
    ],
)
def test_texts_have_labels(tmp_path, record, label):
    ((data,), _) = told(tmp_path, record)
    assert (data.kind, data.rows[0].texts, data.rows[0].value) == ("labelled", ["t"], label)
    assert data.unused_columns == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("triples.tsv", "\n".join(map("\t".join, ALL)) + "\n", ALL),
        ("lists.csv", "query,pos,neg\n" + "".join(f'{q},"[\'{p}\']","[\'{n}\']"\n' for q, p, n in ALL), ALL),
        ("excel.csv", "Query;Positive;Negative\r\n" + "\r\n".join(map(";".join, ALL)), ALL),
        ("columns.json", json.dumps({"query": QUERIES, "positive": ANSWERS, "negative": WRONG}), ALL),
        ("squad.json", json.dumps({"data": [{"paragraphs": [
            {"context": p, "qas": [{"question": q, "answers": []}]}]} for q, p, _ in ALL]}), None),
        ("index.json", json.dumps({
            "queries": {str(n): q for n, q in enumerate(QUERIES)}, "corpus": {str(n): p for n, p in enumerate(ANSWERS)},
            "relevant_docs": {str(n): [str(n)] for n in range(4)}, "mode": "text"}), None),
    ],
)  # fmt: skip
def test_whole_files_of_other_tools_train(tmp_path, name, content, expected):
    rows = trained(tmp_path, name, content)
    if expected:
        assert texts(rows) == expected
    assert [(row["query"], row["pos"]) for row in rows] == [(q, [p]) for q, p, _ in ALL]


def test_columns_may_be_named(tmp_path):
    record = {"question": "q", "answer": "p", "wrong": ["n"], "query": "not this one", "company": "x"}
    columns = {"query": "question", "positive": "answer", "negative": "wrong", "group": "company"}
    ((data,), _) = told(tmp_path, record, columns=tuple(columns.items()))
    assert (data.rows[0].texts, data.rows[0].group, data.unused_columns) == (["q", "p", "n"], "x", ["query"])


def test_a_passage_that_is_named_is_still_graded():
    rows = [{"Frage": "q", "Antwort": "p", "label": 1}, {"Frage": "q", "Antwort": "n", "label": 0}]
    rows.append({"Frage": "other", "Antwort": "r", "label": 1})
    written, _ = prepared("retrieval", rows, columns=(("query", "Frage"), ("positive", "Antwort")))
    assert [row["pos"] for row in written] == [["p"], ["r"]]


def test_a_column_that_is_named_set_is_no_nested_row(tmp_path):
    ((data,), _) = told(tmp_path, {"query": "q", "positive": "p", "set": "train"})
    assert (data.rows[0].texts, data.unused_columns) == (["q", "p"], ["set"])


BAD = [
    ({"query": "", "positive": "p"}, '"query" is empty'),
    ({"query": "  \n", "positive": "p"}, '"query" is empty'),
    ({"query": "\u200b\ufeff", "positive": "p"}, '"query" is empty'),
    ({"Question": "", "Answer": "p"}, '"Question" is empty'),
    ({"query": 3, "positive": "p"}, '"query" is a int'),
    ({"query": "q", "positive": []}, '"positive" is an empty list'),
    ({"query": "q", "positive": ["p", 5]}, '"positive" is a int'),
    ({"query": "q", "positive": None}, '"positive" is missing'),
    ({"query": "q", "positive": float("nan")}, '"positive" is missing'),
    ({"query": "q", "positive": "p", "negative": ["n", ""]}, '"negative" is empty'),
    ({"query": "q", "positive": "p", "negative": {"a": 1}}, '"negative" is a dict'),
    ({"query": "q", "positive": {"title": ["t"], "text": "p"}}, '"positive.title" is a list'),
    ({"query": "\ud800", "positive": "p"}, "surrogate"),
    ({"query": "q", "passage": "p", "label": "physics"}, "'physics', not a number"),
    ({"query": "q", "passages": ["p", "r"], "labels": [1]}, "1 grades for 2 passages"),
    ({"sentence1": "a", "sentence2": "b", "score": 4.5}, "--sts_max_score 5"),
    ({"sentence1": "a", "sentence2": "b", "score": -0.1}, "outside 0..1"),
    ({"sentence1": "a", "sentence2": "b", "score": float("nan")}, "not a number"),
    ({"sentence1": "a", "sentence2": "b", "score": float("inf")}, "not a number"),
    ({"sentence1": "a", "sentence2": "b", "score": 10**400}, "not a number"),
    ({"sentence1": "a", "sentence2": "b", "score": "high"}, "not a number"),
    ({"sentence1": "a", "sentence2": "b", "score": "1_0"}, "not a number"),
    ({"sentence1": "a", "sentence2": "b", "score": True}, "not a number"),
    ({"premise": "a", "hypothesis": "b", "label": -1}, "-1 is no class of NLI"),
    ({"text": "t", "label": None}, '"label" is missing'),
    ({"text": "t", "label": 1.5}, '"label" is a float'),
    ({"text": "t", "label": " "}, '"label" is empty'),
    ({"query": "q", "pos": [], "neg": ["n"]}, '"pos" is an empty list'),
    ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1, 2], "neg_scores": [0]}, "2 scores for 1"),
    ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": ["1"], "neg_scores": [0]}, "holds '1', not a number"),
    ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]}, "only one of pos_scores and neg_scores"),
    ({"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": "8"}, '"batch_size" is a str'),
    ({"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": 0}, '"batch_size" is 0'),
    ({"set": "train"}, "nested in another way"),
    ({"messages": [], "positive_messages": []}, "nested in another way"),
    ({"query": "q", "passages": 3, "query_type": "x"}, "nested in another way"),
    ({"headline": "q", "abstract": "p"}, "no known format"),
    ({"query": "q", "positive": "p", "text": "t", "label": "l", "negative": "n"}, "more than one format"),
    ({"query": "q", "positive": "p", "pos": ["p"]}, "more than one format"),
    ({"text": "t"}, "one text alone trains nothing"),
    ({"query-id": "1", "corpus-id": "2", "score": 1}, "these are qrels"),
]


@pytest.mark.parametrize(("record", "what"), BAD)
def test_a_bad_row_is_named_with_its_line_and_a_fix(tmp_path, record, what):
    sets, problems = told(tmp_path, record)
    assert (sets, len(problems)) == ([], 1)
    assert problems[0]["line"] == 3 and problems[0]["severity"] == "error"
    assert what in f"{problems[0]['what']}; {problems[0]['fix']}" and problems[0]["fix"]


@pytest.mark.parametrize(
    ("before", "record", "what"),
    [
        ("labelled", {"text": "t"}, 'no "label" in this row'),
        ("labelled", {"query": "q", "positive": "p"}, "this row is retrieval, the rows before it are labelled"),
        ("retrieval", {"question": "q"}, 'no "positive" in this row'),
        ("sts", {"sentence1": "a", "score": 1}, 'no "sentence2" in this row'),
    ],
)
def test_a_row_that_is_unlike_those_before_is_named(tmp_path, before, record, what):
    _, problems = told(tmp_path, record, GOOD[before])
    errors = [problem for problem in problems if problem["severity"] == "error"]
    assert [problem["line"] for problem in errors] == [3] and what in errors[0]["what"]


def test_rows_with_and_without_negatives_may_stand_together(tmp_path):
    ((data,), _) = told(tmp_path, {"query": "q", "positive": "p", "score": 2}, GOOD["retrieval"] | {"negative": "n"})
    assert (len(data.rows), data.kind) == (2, "retrieval")


@given(query=TEXT, positive=TEXT)
@hypothesis_settings(max_examples=25, deadline=None)
def test_texts_are_kept_to_the_letter(tmp_path_factory, query, positive):
    ((data,), _) = told(tmp_path_factory.getbasetemp(), {"query": query, "positive": positive})
    assert data.rows[0].texts == [query, positive]


@given(content=st.binary(min_size=1, max_size=300))
@hypothesis_settings(max_examples=50, deadline=None)
def test_any_bytes_give_rows_or_named_problems(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    file.write_bytes(content)
    sets, problems = inspect(file)
    assert sets or problems
    assert all(problem["what"] and problem["fix"] and problem["line"] for problem in problems)


def test_grades_of_one_passage_that_differ_count_the_highest_and_stay_its_own():
    rows = [{"query": q, "passage": p, "label": g} for q, p, g in
            [("q1", "a", 1), ("q1", "a", 0), ("q1", "d", 0), ("q2", "b", 1), ("q2", "c", 0)]]  # fmt: skip
    made, _ = prepared("retrieval", rows)
    assert [(row["pos"], row["neg"], row["pos_scores"], row["neg_scores"]) for row in made] == [
        (["a"], ["d"], [1], [0]), (["b"], ["c"], [1], [0])
    ]  # fmt: skip
    # Without the third row its query has no negative of its own: then none of the scores is kept.
    made, _ = prepared("retrieval", [row for row in rows if row["passage"] != "d"])
    assert [row["pos"] for row in made] == [["a"], ["b"]] and not any("pos_scores" in row for row in made)


def test_grades_of_0_alone_are_no_positives():
    with pytest.raises(KitError, match="no passage is graded as right"):
        prepared("retrieval", [{"query": f"q{n}", "passage": f"p{n}", "label": 0} for n in range(6)])
