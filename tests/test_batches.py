"""Batches are a function of their number alone, and no text comes twice in one: of rows of every kind."""

from __future__ import annotations

import pickle
import random
import tempfile
from collections import Counter
from pathlib import Path

import datasets
import pytest
from conftest import examples, read_jsonl, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from training_helpers import KIT, PLAIN, batches, dataset, groups, native

from m3kit.batches import order as order_module
from m3kit.batches.layout import Candidate, lay_out
from m3kit.batches.order import generator

FEW = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
EPOCHS = 3


def made(rows: list[dict], tmp_path: Path, processes=1, **arguments) -> list:
    """The kit's data set of the rows, as each process has it; not by `datasets`' cache, which takes its time."""
    path = write_jsonl(tmp_path / arguments.pop("name", "rows") / "rows.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(read_jsonl(path)))
        return [
            dataset(KIT, [path.parent], tmp_path, processes=processes, rank=rank, **arguments)
            for rank in range(processes)
        ]


def whole(shares: list, number: int) -> tuple[list[str], list[list[str]]]:
    """(queries, their groups) of a batch over all processes, which must have equal parts of it."""
    items = [share[number] for share in shares]
    assert len({(len(item[0]), len(item[1])) for item in items}) == 1
    return [query for item in items for query in item[0]], [group for item in items for group in groups(item)]


def told_apart(rows: list[dict]) -> list[dict]:
    """Rows whose prompt says which of them it is."""
    return [row | {"prompt": f"{number}:"} for number, row in enumerate(rows)]


def check_batch(rows: list[dict], queries: list[str], passages: list[list[str]], size: int, processes: int) -> bool:
    """Each row with passages of its own, and as many rows as may be. Whether nothing comes twice."""
    numbers = [int(query.partition(":")[0]) for query in queries]
    assert len(set(numbers)) == len(numbers)
    assert 0 < len(numbers) <= size
    assert len(numbers) % processes == 0
    used = [passage for group in passages for passage in group]
    clean = len(set(used)) == len(used)
    for number, query, group in zip(numbers, queries, passages, strict=True):
        row = rows[number]
        assert query == f"{number}:{row['query']}"
        assert group[0] in row["pos"]
        assert len(group) >= 2
        assert set(group[1:]) <= set(row["neg"])
        keys = {row["query"], *row["pos"]}
        theirs = {passage for other in passages if other is not group for passage in other}
        for other in numbers:
            if other != number:
                theirs |= {rows[other]["query"], *rows[other]["pos"]}
        clean = clean and not keys & theirs and not keys & set(group[1:])
    return clean


TEXTS = st.sampled_from([f"text {number}" for number in range(12)])
ROWS = st.fixed_dictionaries(
    {
        "query": st.one_of(TEXTS, st.uuids().map(str)),
        "pos": st.lists(st.one_of(TEXTS, st.uuids().map(str)), min_size=1, max_size=3),
        "neg": st.lists(st.one_of(TEXTS, st.uuids().map(str)), min_size=1, max_size=5),
    }
)


@st.composite
def runs(draw, rows=ROWS):
    """(rows, rows of a batch a process, processes, batches of a block)"""
    processes = draw(st.integers(1, 3))
    found = draw(st.lists(rows, min_size=processes, max_size=40))
    return told_apart(found), draw(st.integers(1, 6)), processes, draw(st.sampled_from([1, 2, 64]))


def check_run(run, epochs=EPOCHS) -> None:
    rows, batch_size, processes, block = run
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "BLOCK", block)
        shares = made(rows, Path(scratch), processes, batch_size=batch_size)
        size = shares[0].sets[0].global_size
        assert len(shares[0]) == len(rows) // size
        for epoch in range(epochs):
            seen = Counter()
            for step in range(len(shares[0])):
                queries, passages = whole(shares, epoch * len(shares[0]) + step)
                if not check_batch(rows, queries, passages, size, processes):
                    # Only to have a row for each process.
                    assert len(queries) == processes
                    assert "clashes" in shares[0].sets[0].told
                seen.update(queries)
            assert set(seen.values()) <= {1}
            if len({text for row in rows for text in (row["query"], *row["pos"], *row["neg"])}) == sum(
                1 + len(row["pos"]) + len(row["neg"]) for row in rows
            ):
                assert len(seen) == len(shares[0]) * size


@FEW
@given(runs())
def test_no_batch_holds_a_text_twice_and_no_row_comes_twice_in_a_pass(run):
    check_run(run)


@FEW
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 3), st.sampled_from([1, 2, 64]))
def test_rows_without_a_text_in_common_all_come_once_an_epoch_but_for_the_rest(count, batch_size, processes, block):
    check_run((told_apart(native(max(count, processes))), batch_size, processes, block))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("count", [2, 3, 13])
@pytest.mark.parametrize(
    "alike",
    [
        {"pos": ["p"]},
        {"neg": ["n"]},
        {"neg": ["n", "m", "o"]},
        {"query": "q"},
        {"pos": ["p"], "neg": ["p"]},
        {"query": "q", "pos": ["q"], "neg": ["q"]},
    ],
)
def test_rows_that_are_all_alike_never_fail(tmp_path, alike, count, processes, caplog):
    rows = told_apart([row | alike for row in native(count)])
    shares = made(rows, tmp_path, processes, batch_size=3)
    for number in range(2 * len(shares[0])):
        queries, passages = whole(shares, number)
        assert len(queries) == len(set(queries)) > 0
        assert all(len(group) >= 2 for group in passages)
    # With one process a batch of one row is always to be had, unless it has no negative that is no answer.
    no_negative = set(alike.get("pos", [])) & set(alike.get("neg", []))
    clash = no_negative or (processes == 2 and alike != {"neg": ["n", "m", "o"]})
    # Each share is told of once; in a run those of the other processes are quiet.
    assert sum("hold a passage twice" in record.message for record in caplog.records) == processes * bool(clash)


def test_smaller_groups_come_before_smaller_batches(tmp_path):
    rows = told_apart([row | {"neg": [f"n{k}" for k in range(8)]} for row in native(4)])
    (data,) = made(rows, tmp_path, batch_size=4)
    ((queries, passages, *_),) = batches(data)
    assert len(queries) == 4
    assert len(passages) == 4 * 3


def test_rows_that_are_left_over_are_told(tmp_path, caplog):
    rows = told_apart([row | {"pos": ["p"]} for row in native(8)] + native(8, name="b"))
    (data,) = made(rows, tmp_path, batch_size=8)
    # One row with the common passage in each of two batches, beside the eight others, spread over both.
    assert sorted(len(queries) for queries, *_ in batches(data)) in ([4, 6], [5, 5], [3, 7], [2, 8])
    assert "38% of the rows have no place" in caplog.text


def test_rows_that_share_a_passage_are_spread_over_the_batches():
    rows = [{**row, "pos": ["p"]} if number < 16 else row for number, row in enumerate(native(64))]
    for seed in range(20):
        chance = generator(seed)
        found = [
            Candidate(number, row["query"], row["pos"], row["neg"], 8, chance)
            for number, row in ((number, rows[number]) for number in chance.permutation(64).tolist())
        ]
        block = lay_out(found, 16, 4, 1, shares_negatives=True)
        assert (block.left_over, block.clashes) == (0, 0)
        assert all(sum(drawn.row < 16 for drawn in batch) == 1 for batch in block.batches)


def test_batches_are_shared_by_the_processes_in_the_order_of_chance():
    rows = [{**row, "pos": [f"p{number // 3}"]} for number, row in enumerate(native(30))]
    for seed in range(20):
        chance = generator(seed)
        order = chance.permutation(30).tolist()
        found = [
            Candidate(number, rows[number]["query"], rows[number]["pos"], rows[number]["neg"], 8, chance)
            for number in order
        ]
        block = lay_out(found, 2, 12, 4, shares_negatives=True)
        placed = [drawn.row for batch in block.batches for drawn in batch]
        # Ten passages of three rows each: a batch has at most ten rows, and of these eight are shared by four.
        assert [len(batch) for batch in block.batches] == [8, 8]
        assert block.left_over == 24 - len(set(placed))
        for batch in block.batches:
            assert sorted(batch, key=lambda drawn: order.index(drawn.row)) == batch


def test_without_in_batch_negatives_only_the_group_is_free_of_repeats(tmp_path):
    rows = told_apart([row | {"pos": ["p"], "neg": ["p", "n", "n", "m"]} for row in native(6)])
    (data,) = made(rows, tmp_path, batch_size=3, name="classification-no_in_batch_neg")
    for item in batches(data):
        assert len(item[0]) == 3
        assert all(group[0] == "p" and sorted(group[1:]) == ["m", "n"] for group in groups(item))
        assert item[3]


def test_plain_flagembedding_puts_a_passage_into_a_batch_twice(tmp_path):
    rows = told_apart([row | {"neg": ["n", "m", f"p{i + 1}", "o", "x"]} for i, row in enumerate(native(8))])
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    def repeats(item) -> int:
        return len(item[1]) - len(set(item[1]))

    assert all(repeats(item) for item in batches(dataset(PLAIN, [path], tmp_path, batch_size=4)))
    assert not any(repeats(item) for item in batches(dataset(KIT, [path], tmp_path, batch_size=4)))


# S2: what an item holds depends on how many were asked for before


def test_s2_an_item_depends_on_its_number_alone(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(12, prompt=""))
    plain = dataset(PLAIN, [path], tmp_path)
    assert plain[0] != plain[0]
    data, other = (dataset(KIT, [path], tmp_path) for _ in range(2))
    numbers = list(range(3 * len(data)))
    items = [data[number] for number in numbers]
    random.Random(1).shuffle(numbers)
    for number in numbers:
        assert other[number] == data[number] == items[number]
    with pytest.raises(IndexError):
        data[-1]


@FEW
@given(runs(), st.randoms(use_true_random=False))
def test_s2_items_are_equal_in_any_order_and_in_another_process(run, order):
    rows, batch_size, processes, _ = run
    with tempfile.TemporaryDirectory() as scratch:
        for share in made(rows, Path(scratch), processes, batch_size=batch_size, shuffle_ratio=0.5):
            copy = pickle.loads(pickle.dumps(share))
            numbers = list(range(EPOCHS * len(share)))
            items = {number: share[number] for number in numbers}
            order.shuffle(numbers)
            assert {number: copy[number] for number in numbers} == items


def first(features):
    return features[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_s2_items_come_from_the_workers_of_a_data_loader_as_they_are(tmp_path, workers):
    path = write_jsonl(tmp_path / "rows.jsonl", native(30, prompt=""))
    data = dataset(KIT, [path], tmp_path)
    expected = [data[number] for number in range(6 * len(data))]
    loader = DataLoader(data, collate_fn=first, num_workers=workers)
    for epoch in (0, 1, 5):
        data.epoch = epoch
        assert list(loader) == expected[epoch * len(data) : (epoch + 1) * len(data)]


def test_s2_pythons_chance_is_left_as_it_was(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", native(12, prompt=""))
    random.seed(3)
    state = random.getstate()
    items = [batches(dataset(KIT, [path], tmp_path, seed=seed)) for seed in (1, 2)]
    assert random.getstate() == state
    assert items[0] != items[1]


def test_epochs_differ_in_order_and_in_what_is_drawn(tmp_path):
    rows = [row | {"pos": [f"p{i}.{k}" for k in range(5)]} for i, row in enumerate(native(40, negatives=20, prompt=""))]
    data = dataset(KIT, [write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path, batch_size=4)
    epochs = [[data[epoch * len(data) + step] for step in range(len(data))] for epoch in range(2)]
    orders, positives, negatives = [], [], []
    for epoch in epochs:
        found = {query: group for item in epoch for query, group in zip(item[0], groups(item), strict=True)}
        orders.append(list(found))
        positives.append({query: group[0] for query, group in found.items()})
        negatives.append({query: set(group[1:]) for query, group in found.items()})
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    assert positives[0] != positives[1]
    assert negatives[0] != negatives[1]
