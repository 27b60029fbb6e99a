"""How often each data set comes, and that every row of it comes as often as any other."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import KIT, batches, dataset, native

from m3kit.batches.order import share_out


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
