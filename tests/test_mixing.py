"""How often each data set comes, and that every row of it comes as often as any other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from conftest import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import KIT, batches, dataset, native

from m3kit.training import batches as batches_module
from m3kit.training.batches import RowSet, generator, interleave, share_out


def sets_of(tmp_path, counts: dict[str, int], **arguments):
    for name, count in counts.items():
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", native(count, negatives=1, name=name, prompt=""))
    return dataset(KIT, [tmp_path / "data"], tmp_path, **arguments)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [32, 2]), (2.0, [27, 7]), (1e9, [17, 17]), (0.1, [33, 1])])
def test_the_temperature_mixes_data_sets(tmp_path, temperature, expected):
    data = sets_of(tmp_path, {"a": 64, "b": 4}, mixing_temperature=temperature)
    assert [entry["batches_per_epoch"] for entry in data.describe()] == expected
    assert len(data) == 34
    drawn = Counter(item[0][0][0] for item in batches(data))
    assert drawn == dict(zip("ab", expected, strict=True))


def test_a_data_set_goes_on_where_the_last_epoch_left_it(tmp_path):
    data = sets_of(tmp_path, {"a": 64, "b": 12}, mixing_temperature=3.0)
    counts = [entry["batches_per_epoch"] for entry in data.describe()]
    assert counts[0] < 32
    assert counts[1] > 6
    seen: Counter[str] = Counter()
    passes = []
    for number in range(6 * len(data)):
        queries = data[number][0]
        seen.update(queries)
        passes += queries if queries[0].startswith("b") else []
    # Every row as often as any other of its data set, or once more.
    for name in "ab":
        times = [count for query, count in seen.items() if query.startswith(name)]
        assert max(times) - min(times) <= 1
    assert passes[:12] != passes[12:24]
    assert set(passes[:12]) == set(passes[12:24])


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 64)), min_size=1, max_size=20),
    st.one_of(st.floats(0.01, 100), st.sampled_from([1.0, 1e9])),
)
@settings(deadline=None)
def test_shares_add_up_and_none_is_empty(sets, temperature):
    rows = [count for count, _ in sets]
    natural = [max(1, count // size) for count, size in sets]
    counts = share_out(natural, rows, temperature).tolist()
    assert sum(counts) == sum(natural)
    assert min(counts) >= 1
    if temperature == 1:
        assert counts == natural


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 4))
def test_the_batches_of_a_data_set_come_in_order_from_epoch_to_epoch(counts, epochs):
    seen = [[] for _ in counts]
    for epoch in range(epochs):
        order, running = interleave(np.array(counts), epoch, generator(1, epoch))
        for number, place in zip(order.tolist(), running.tolist(), strict=True):
            seen[number].append(place)
    assert seen == [list(range(epochs * count)) for count in counts]


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 3), st.integers(1, 50), st.floats(1, 1e8))
def test_blocks_have_each_row_once_and_each_batch_its_place(count, batch_size, processes, block_rows, bytes_per_row):
    rows = RowSet("a", ["a"], np.arange(count), batch_size, processes, True, bytes_per_row, seed=(1, 2))
    if not rows.batches:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches_module, "BLOCK_ROWS", block_rows)
        places = [rows.locate(rows.batches + number) for number in range(rows.batches)]
        blocks = {block: rows.block_rows(1, block) for _, block, _ in places}
    assert [(done, block, place) for done, block, place in places] == [
        (1, block, place) for block, (_, count) in blocks.items() for place in range(count)
    ]
    assert sorted(number for found, _ in blocks.values() for number in found.tolist()) == list(range(count))
    assert all(len(found) >= batches * rows.global_size for found, batches in blocks.values())
