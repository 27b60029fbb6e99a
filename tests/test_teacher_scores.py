"""D7: teacher scores belong to their passages, in every batch, and what they lack is said."""

from __future__ import annotations

import pytest
from conftest import write_jsonl
from training_helpers import KIT, PLAIN, batches, dataset, native

from m3kit.batches.arguments import DataArguments
from m3kit.batches.dataset import SameDatasetTrainDataset
from m3kit.errors import KitError


def scored(count, name="", negatives=7, offset=10.0):
    """Rows whose scores tell which passages they are of."""
    rows = native(count, negatives, name, prompt="")
    for number, row in enumerate(rows):
        row["pos_scores"] = [offset + number]
        row["neg_scores"] = [-offset - number - k / 10 for k in range(negatives)]
    return rows


def unscored(count, name="u"):
    return [row | {"pos_scores": None, "neg_scores": None} for row in native(count, name=name, prompt="")]


def scores_of(rows):
    return {
        passage: score
        for row in rows
        for kind in ("pos", "neg")
        for passage, score in zip(row[kind], row[f"{kind}_scores"] or [], strict=False)
    }


def distilled(cls, rows, tmp_path, **arguments):
    path = rows if not isinstance(rows, list) else write_jsonl(tmp_path / "rows.jsonl", rows)
    return dataset(cls, [path], tmp_path, **{"knowledge_distillation": True} | arguments)


def test_d7_rows_with_and_without_scores_never_share_a_batch(tmp_path, caplog):
    rows = [row for pair in zip(scored(6), unscored(6), strict=True) for row in pair]
    with pytest.raises(AssertionError):
        batches(distilled(PLAIN, rows, tmp_path, batch_size=4))
    data = distilled(KIT, rows, tmp_path, batch_size=3)
    found = scores_of(rows)
    for queries, passages, scores, _ in batches(data):
        assert scores == (None if queries[0].startswith("u") else [found[passage] for passage in passages])
    assert [(entry["teacher_scores"], entry["rows"]) for entry in data.describe()] == [(False, 6), (True, 6)]
    assert "teacher scores in 6 of 12 rows" in caplog.text
    assert "within 0 … 1" not in caplog.text


@pytest.mark.parametrize("mixed", [False, True])
def test_d7_files_with_and_without_scores(tmp_path, mixed):
    write_jsonl(tmp_path / "data" / "a.jsonl", scored(4, "a"))
    write_jsonl(tmp_path / "data" / "b.jsonl", native(4, name="b", prompt=""))
    # Whole numbers beside fractions.
    write_jsonl(
        tmp_path / "data" / "c.jsonl",
        [row | {"pos_scores": [3], "neg_scores": [0] * 7} for row in native(4, name="c", prompt="")],
    )
    data = distilled(KIT, tmp_path / "data", tmp_path, same_dataset_within_batch=not mixed)
    seen = {query[0]: scores is not None for queries, _, scores, _ in batches(data) for query in queries}
    assert seen == {"a": True, "b": False, "c": True}


def test_d7_without_distillation_scores_are_no_matter(tmp_path):
    rows = [*scored(3), *unscored(3)]
    data = distilled(KIT, rows, tmp_path, batch_size=6, knowledge_distillation=False)
    ((queries, _, scores, _),) = batches(data)
    assert len(queries) == 6
    assert scores is None


def test_d7_distillation_without_any_scores_is_refused(tmp_path):
    assert all(scores == [] for _, _, scores, _ in batches(distilled(PLAIN, unscored(4), tmp_path)))
    for rows in (unscored(4), native(4, prompt="")):
        with pytest.raises(KitError, match="no row has teacher scores; give the rows pos_scores and neg_scores"):
            distilled(KIT, rows, tmp_path)


@pytest.mark.parametrize("offset", [3.0, 0.0])
def test_d7_probabilities_are_warned_of(tmp_path, caplog, offset):
    rows = native(4, prompt="", pos_scores=[0.9 + offset], neg_scores=[0.1] * 7)
    distilled(KIT, rows, tmp_path)
    assert ("within 0 … 1" in caplog.text) == (offset == 0)
    assert ("--teacher_temperature 0.05, or --teacher_normalisation zscore" in caplog.text) == (offset == 0)


def test_d7_probabilities_are_no_matter_where_a_setting_scales_them(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt="", pos_scores=[0.9], neg_scores=[0.1] * 7))
    arguments = DataArguments(train_data=[str(path)], cache_path=str(tmp_path / "cache"), knowledge_distillation=True)
    SameDatasetTrainDataset(arguments, 2, 1, teacher_as_is=False)
    assert "within 0 … 1" not in caplog.text


@pytest.mark.parametrize("column", ["pos_scores", "neg_scores"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda scores: [*scores, 1.0], r'row 3: "{}" has \d scores for \d passages'),
        (lambda scores: scores[1:], r'row 3: "{}" has \d scores for \d passages'),
        (lambda scores: [float("nan"), *scores[1:]], 'row 3: "{}" is no list of finite numbers'),
        (lambda scores: [float("inf"), *scores[1:]], 'row 3: "{}" is no list of finite numbers'),
        (lambda scores: [None, *scores[1:]], 'row 3: "{}" is no list of finite numbers'),
        (lambda scores: ["high", *scores[1:]], 'row 3: "{}" is no list of finite numbers'),
        (lambda scores: 1.0, 'row 3: "{}" is no list of finite numbers'),
    ],
)
def test_d7_scores_that_are_not_one_finite_number_a_passage_are_refused(tmp_path, column, change, told):
    rows = [*unscored(1), *scored(4)]
    rows[2][column] = change(rows[2][column])
    with pytest.raises(KitError, match=told.format(column)):
        distilled(KIT, rows, tmp_path)


def test_d7_a_row_with_half_of_its_scores_has_none(tmp_path):
    rows = scored(4)
    for row in rows[:2]:
        row["neg_scores"] = None
    data = distilled(KIT, rows, tmp_path)
    assert [(entry["teacher_scores"], entry["rows"]) for entry in data.describe()] == [(False, 2), (True, 2)]
    assert {len(scores or []) for _, _, scores, _ in batches(data)} == {0, 16}
