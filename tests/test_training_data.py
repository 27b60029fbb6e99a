"""What the kit corrects about the data it trains on: each correction beside plain FlagEmbedding's defect."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace

import pytest
from conftest import write_jsonl
from training_helpers import KIT, PLAIN, batches, dataset, groups, native

from m3kit.batches.arguments import DataArguments
from m3kit.data.prepare import prepare
from m3kit.data.settings import Settings
from m3kit.errors import KitError

# D1: a query without a prompt becomes "None" + query


def test_d1_queries_of_prepared_rows_do_not_begin_with_none(tmp_path):
    plain = dataset(PLAIN, [write_jsonl(tmp_path / "native.jsonl", native(4))], tmp_path)
    assert all(query.startswith("None") for queries, *_ in batches(plain) for query in queries)

    folders = prepare([tmp_path / "native.jsonl"], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        seen = [query for queries, *_ in batches(dataset(cls, folders, tmp_path)) for query in queries]
        assert sorted(seen) == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize("some", [[], native(2, prompt="")])
def test_d1_rows_without_a_prompt_are_refused(tmp_path, some):
    path = write_jsonl(tmp_path / "native.jsonl", [*some, *native(2)])
    with pytest.raises(KitError, match=f'row {len(some) + 1} has no "prompt"' if some else 'have no "prompt"'):
        dataset(KIT, [path], tmp_path)


# D2: an empty pos or neg fails deep inside, a string is taken as a list of characters


@pytest.mark.parametrize("good", [0, 3])
@pytest.mark.parametrize("column", ["pos", "neg"])
@pytest.mark.parametrize("broken", [[], None, "text", 1, ["text", None], ["text", 1], {"a": "text"}])
def test_d2_rows_that_are_no_lists_of_passages_are_refused(tmp_path, column, broken, good):
    rows = native(good + 2, prompt="")
    rows[good][column] = broken
    with pytest.raises(KitError, match=f'row {good + 1}: "{column}" is no list with a passage in it'):
        dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path)


@pytest.mark.parametrize("query", [None, 1, ["text"]])
def test_d2_rows_whose_query_is_no_text_are_refused(tmp_path, query):
    rows = native(3, prompt="")
    rows[1]["query"] = query
    with pytest.raises(KitError, match='row 2: "query" is no text'):
        dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path)


def test_d2_a_bad_row_far_down_is_named_by_its_number(tmp_path):
    rows = native(40, prompt="")
    rows[29]["neg"] = []
    with pytest.raises(KitError, match="row 30: "):
        dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path)


def test_d2_a_string_and_a_missing_negative_become_lists(tmp_path):
    rows = [{"query": f"q{i}", "positive": f"passage {i}"} for i in range(4)]
    folders = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        for queries, passages, *_ in batches(dataset(cls, folders, tmp_path)):
            assert len(passages) == 2 * len(queries)
            assert all(passage.startswith("passage ") for passage in passages)


@pytest.mark.parametrize(
    "content",
    ["{{{\n", "5\n", "\n\n", '{"query": "half a l', '{"query": "\xe9", "pos": ["p"], "neg": ["n"], "prompt": ""}\n'],
    ids=["no JSON", "a number", "empty lines", "half a line", "Latin-1"],
)
def test_a_file_without_rows_of_json_is_named(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(KitError, match=r"rows\.jsonl: cannot be read as rows of JSON"):
        dataset(KIT, [path], tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("batch_size", value) for value in (-3, 1.5, "4")),
        *(("train_group_size", value) for value in (-1, 2.5, "3")),
        *(("type", value) for value in (5, ["retrieval"])),
    ],
)
def test_native_columns_of_another_kind_are_refused(tmp_path, column, value):
    path = write_jsonl(tmp_path / "rows.jsonl", native(3, prompt="", **{column: value}))
    with pytest.raises(KitError, match=f'rows.jsonl: row 1: "{column}" is '):
        dataset(KIT, [path], tmp_path)


def test_rows_without_a_place_are_told_once_a_set(tmp_path, caplog):
    """Though their share may be another in each epoch."""
    rows = [row | {"pos": ["p"]} for row in native(8, prompt="")] + native(8, name="b", prompt="")
    data = dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path, batch_size=8)
    for number in range(2 * len(data)):
        data[number]
    assert caplog.text.count("have no place") == 1


def test_a_folder_without_rows_is_told(tmp_path):
    write_jsonl(tmp_path / "data" / "rows.csv", [])
    with pytest.raises(KitError, match="no row to train on in .*data"):
        dataset(KIT, [tmp_path / "data"], tmp_path)


# D3: one negative is encoded seven times


@pytest.mark.parametrize("negative", ["a word", None])
def test_d3_no_passage_is_encoded_twice_for_a_query(tmp_path, negative):
    rows = [{"query": f"q{i}", "positive": f"p{i}", "negative": negative and f"{negative} {i}"} for i in range(4)]
    folders = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "prepared", Settings())
    for cls in (PLAIN, KIT):
        for item in batches(dataset(cls, folders, tmp_path)):
            assert all(len(set(group)) == len(group) for group in groups(item))


def test_d3_a_group_is_no_larger_than_its_rows_have_passages(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(2, negatives=2, prompt="", type="symmetric_sts"))
    (_, plain, *_), *_ = batches(dataset(PLAIN, [path], tmp_path, batch_size=4))
    assert len(plain) == 16
    assert len(set(plain)) == 6
    (_, passages, *_), *_ = batches(dataset(KIT, [path], tmp_path))
    assert len(passages) == len(set(passages)) == 6


def test_d3_a_negative_that_is_given_twice_or_answers_the_query_counts_once_or_not(tmp_path):
    rows = [{"query": f"q{i}", "pos": [f"p{i}"], "neg": [f"n{i}", f"p{i}", f"n{i}"], "prompt": ""} for i in range(4)]
    data = dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path)
    found = {query: group for item in batches(data) for query, group in zip(item[0], groups(item), strict=True)}
    assert found == {f"q{i}": [f"p{i}", f"n{i}"] for i in range(4)}


def test_d3_all_processes_have_groups_of_one_size(tmp_path):
    rows = native(2, negatives=5, prompt="", type="symmetric_class") + native(
        2, negatives=1, name="b", prompt="", type="symmetric_class"
    )
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    def sizes(cls, seed):
        shares = [dataset(cls, [path], tmp_path, processes=2, rank=rank, seed=seed)[0] for rank in range(2)]
        return {len(groups(share)[0]) for share in shares}

    assert any(len(sizes(PLAIN, seed)) == 2 for seed in range(10))
    assert all(sizes(KIT, seed) == {2} for seed in range(10))


# D4: the suffix no_in_batch_neg is lost by a slash


def test_d4_a_trailing_slash_keeps_no_in_batch_neg(tmp_path):
    folder = tmp_path / "clustering-no_in_batch_neg"
    write_jsonl(folder / "rows.jsonl", native(4, prompt=""))
    arguments = SimpleNamespace(**{**vars(DataArguments(train_data=[str(folder)])), "train_data": [f"{folder}/"]})
    plain = PLAIN(arguments, default_batch_size=2, seed=1, tokenizer=None)
    assert plain.no_in_batch_neg_flags == [False]
    data = dataset(KIT, [f"{folder}/"], tmp_path)
    assert [entry["in_batch_negatives"] for entry in data.describe()] == [False]
    assert all(no_in_batch_neg for *_, no_in_batch_neg in batches(data))


def test_d4_mixed_data_sets_are_one_with_in_batch_negatives(tmp_path):
    alone = tmp_path / "clustering-no_in_batch_neg"
    write_jsonl(alone / "a.jsonl", native(3, prompt="", type="symmetric_clustering", batch_size=1))
    write_jsonl(alone / "b.jsonl", native(2, prompt="", name="b", type="retrieval", train_group_size=2))
    data = dataset(
        KIT, [alone], tmp_path, batch_size=5, same_dataset_within_batch=False, small_threshold=9, drop_threshold=9
    )
    ((queries, passages, scores, no_in_batch_neg),) = batches(data)
    assert sorted(queries) == ["bq0", "bq1", "q0", "q1", "q2"]
    assert len(passages) == 5 * 8
    assert (scores, no_in_batch_neg) == (None, False)


# D5: too few rows give no batch, without a word


def test_d5_a_small_set_is_trained_in_smaller_batches_and_that_is_said(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", native(5, prompt=""))
    assert len(dataset(PLAIN, [path], tmp_path, batch_size=4, processes=2)) == 0
    data = dataset(KIT, [path], tmp_path, batch_size=4, processes=2)
    assert [len(queries) for queries, *_ in batches(data)] == [2]
    assert "too small for batches of 4 on 2 process" in caplog.text


def test_d5_fewer_rows_than_processes_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(1, prompt=""))
    with pytest.raises(KitError, match="cannot be shared by 2 processes"):
        dataset(KIT, [path], tmp_path, processes=2)


# D6: a symmetric type halves the batch, down to none; a type hides train_group_size


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_d6_the_batch_is_as_large_as_asked_for(tmp_path, batch_size):
    path = write_jsonl(tmp_path / "rows.jsonl", native(8, prompt="", type="symmetric_sts"))
    if batch_size == 1:
        with pytest.raises(ValueError, match="must not be zero"):
            dataset(PLAIN, [path], tmp_path, batch_size=1)
    data = dataset(KIT, [path], tmp_path, batch_size=batch_size)
    assert [len(queries) for queries, *_ in batches(data)] == [batch_size] * (8 // batch_size)


def test_d6_columns_of_native_rows_count_beside_a_type(tmp_path):
    rows = native(8, prompt="", type="retrieval", batch_size=4, train_group_size=3)
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert {len(passages) for _, passages, *_ in batches(dataset(PLAIN, [path], tmp_path))} == {4 * 8}
    assert {len(passages) for _, passages, *_ in batches(dataset(KIT, [path], tmp_path))} == {4 * 3}


@pytest.mark.parametrize(("group", "arguments"), [(5, {}), (1, {"train_group_size": 1})])
def test_d6_a_group_may_be_larger_than_the_setting_or_the_positive_alone(tmp_path, group, arguments):
    extra = {} if arguments else {"train_group_size": 5}
    path = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt="", **extra))
    for cls in (PLAIN, KIT):
        data = dataset(cls, [path], tmp_path, **{"train_group_size": 3} | arguments)
        assert {len(passages) for _, passages, *_ in batches(data)} == {2 * group}


def test_rows_of_two_types_in_one_file_never_share_a_batch(tmp_path):
    rows = native(4, prompt="", type="only_1neg") + native(4, prompt="", name="b", type="retrieval")
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(AssertionError, match="Data type is not consistent"):
        batches(dataset(PLAIN, [path], tmp_path, batch_size=8))
    data = dataset(KIT, [path], tmp_path, batch_size=8)
    assert {len(passages): {query[0] for query in queries} for queries, passages, *_ in data} == {8: {"q"}, 32: {"b"}}
    assert [(entry["type"], entry["rows"]) for entry in data.describe()] == [("only_1neg", 4), ("retrieval", 4)]


def test_a_type_of_fewer_rows_than_processes_is_left_out_and_that_is_said(tmp_path, caplog):
    rows = native(4, prompt="", type="only_1neg") + native(1, prompt="", name="b", type="retrieval")
    data = dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path, processes=2)
    assert [entry["rows"] for entry in data.describe()] == [4]
    assert "1 row(s) are left out" in caplog.text
    with pytest.raises(KitError, match="enough for 8 processes"):
        dataset(KIT, [tmp_path / "rows.jsonl"], tmp_path, processes=8)


# What else of the files must not matter, or must


def test_a_path_with_brackets_is_read(tmp_path):
    path = write_jsonl(tmp_path / "a [b]" / "rows [1].jsonl", native(2, prompt=""))
    assert len(batches(dataset(KIT, [path.parent], tmp_path))) == 1


@pytest.mark.parametrize("small_threshold", [0, 4, 9])
def test_the_order_of_the_files_in_a_folder_does_not_matter(tmp_path, monkeypatch, small_threshold):
    for count, name in enumerate("dabc", start=2):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", native(count, prompt="", name=name))
    listed = sorted(os.listdir(tmp_path / "data"))
    made = {}
    for cls in (PLAIN, KIT):
        for order in (listed, listed[::-1]):
            with monkeypatch.context() as patch:
                patch.setattr(os, "listdir", lambda _, order=order: order)
                data = dataset(cls, [tmp_path / "data"], tmp_path, small_threshold=small_threshold)
            made.setdefault(cls, []).append(batches(data))
    assert made[PLAIN][0] != made[PLAIN][1]
    assert made[KIT][0] == made[KIT][1]


def test_small_files_are_one_data_set_named_after_their_folder(tmp_path):
    folder, other = tmp_path / "data", tmp_path / "other"
    for place, count, name in [(folder, 2, "a"), (folder, 6, "b"), (folder, 3, "c"), (other, 2, "d"), (other, 5, "e")]:
        write_jsonl(place / f"{name}.jsonl", native(count, prompt="", name=name, type=f"type {name}"))
    sets = dataset(KIT, [folder, folder / "a.jsonl", other], tmp_path, small_threshold=4, drop_threshold=3).describe()
    assert [(entry["path"], entry["type"], entry["rows"]) for entry in sets] == [
        (f"{folder}/*", "type a", 2),
        (f"{folder}/*", "type c", 3),
        (f"{folder}/b.jsonl", "type b", 6),
        (f"{other}/e.jsonl", "type e", 5),
    ]
    assert len({entry["digest"] for entry in sets}) == 3


def test_the_digest_tells_that_a_file_was_changed(tmp_path):
    path, rows = tmp_path / "rows.jsonl", native(4, prompt="")
    first, again, changed = (
        dataset(KIT, [write_jsonl(path, made)], tmp_path).describe()
        for made in (rows, rows, [*rows[:3], rows[3] | {"query": "Q3"}])
    )
    assert first == again
    assert {**changed[0], "digest": first[0]["digest"]} == first[0]
    assert changed[0]["digest"] != first[0]["digest"]


def test_a_sample_of_a_file_is_the_same_each_time(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(20, prompt=""))
    random.seed(7)
    first, second = (dataset(KIT, [path], tmp_path, max_example_num_per_dataset=6) for _ in range(2))
    assert len(first) == 3
    assert batches(first) == batches(second)
    plain = [batches(dataset(PLAIN, [path], tmp_path, max_example_num_per_dataset=6)) for _ in range(2)]
    assert plain[0] != plain[1]
