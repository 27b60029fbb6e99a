"""recipe=best: decisions with reasons from the facts, nothing that a user has set, the same answer when asked again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from conftest import EXAMPLE_DATA
from runs import write_rows

from m3kit.__main__ import main
from m3kit.encoding.trained_with import recipe_chose
from m3kit.errors import KitError
from m3kit.recipe.decide import Facts, decide
from m3kit.recipe.facts import read_arguments

FACTS = Facts(
    rows=2000,
    retrieval_rows=2000,
    classified_rows=0,
    held_out=100,
    width=1024,
    heads=True,
    processes=1,
    temperature=0.015,
    needed_gb=36,
    memory_gb=80,
)


def decided(**changes) -> dict:
    return {decision.name: decision.value for decision in decide(replace(FACTS, **changes))}


def test_every_decision_has_a_reason():
    for decision in decide(FACTS):
        assert len(decision.reason) > 10, decision


@pytest.mark.parametrize(("rows", "queries"), [(50, 8), (200, 16), (400, 32), (4_000, 128), (1_000_000, 128)])
def test_the_batch_grows_with_the_rows_and_leaves_steps(rows, queries):
    assert decided(rows=rows, retrieval_rows=rows)["per_device_train_batch_size"] == queries
    assert decided(rows=rows, retrieval_rows=rows, processes=4)["per_device_train_batch_size"] == queries // 4


@pytest.mark.parametrize(("rows", "epochs"), [(50, 8), (400, 6), (4_000, 2), (100_000, 1)])
def test_few_rows_are_seen_more_often(rows, epochs):
    assert decided(rows=rows, retrieval_rows=rows)["num_train_epochs"] == epochs


def test_a_batch_that_is_set_is_what_epochs_are_counted_by():
    assert decided(rows=800, retrieval_rows=800, batch=8)["num_train_epochs"] == 1
    assert decided(rows=800, retrieval_rows=800)["num_train_epochs"] > 1


def test_graded_pairs_take_smaller_batches():
    assert decided(rows=50_000, retrieval_rows=0)["per_device_train_batch_size"] == 32


def test_wider_models_learn_slower():
    assert decided(width=384)["learning_rate"] == 1e-4
    assert decided(width=1024)["learning_rate"] == pytest.approx(3.75e-5, rel=0.1)


@pytest.mark.parametrize("rows", [500, 100_000])
def test_only_heads_of_the_base_pull_at_the_encoder_and_only_by_retrieval(rows):
    assert 0 < decided(rows=rows, retrieval_rows=rows)["heads_reach"] < 1
    assert decided(rows=rows, retrieval_rows=rows, heads=False)["heads_reach"] == 0
    assert decided(rows=rows, retrieval_rows=0)["heads_reach"] == 0


def test_how_much_of_the_base_is_measured_only_where_that_can_be_told():
    assert decided(held_out=20)["merge_shares"] == (0.6,)
    assert len(decided(held_out=200)["merge_shares"]) > 1


def test_nothing_of_the_base_is_mixed_in_where_most_rows_are_classified():
    assert "merge_shares" not in decided(rows=800, retrieval_rows=0, classified_rows=800, held_out=0)
    assert decided(rows=800, retrieval_rows=500, classified_rows=300, held_out=0)["merge_shares"] == (0.6,)


def test_memory_decides_whether_anything_is_computed_twice():
    assert decided()["gradient_checkpointing"] is False
    assert "gradient_checkpointing" not in decided(memory_gb=24)


def test_arguments_are_read_as_the_trainer_reads_them():
    read = read_arguments(
        ["--", "--train_data", "a", "b", "--model_name_or_path=x", "--fp16", "--seed", "1", "--seed", "2"]
    )
    assert read == {"train_data": ["a", "b"], "model_name_or_path": ["x"], "fp16": [], "seed": ["2"]}
    with pytest.raises(KitError, match="no --model_name_or_path"):
        read_arguments(["--", "--train_data", "a"])
    with pytest.raises(KitError, match="a is no argument"):
        read_arguments(["--", "a"])


@pytest.fixture
def ask(starter, tmp_path, capsys):
    rows = write_rows(tmp_path / "rows")
    command = ["recipe", "--output_dir", str(tmp_path / "recipe")]
    trainer = ["--train_data", *map(str, sorted(rows.iterdir())), "--model_name_or_path", str(starter)]
    trainer += ["--learning_rate", "1e-5", "--query_max_len", "16", "--passage_max_len", "16"]

    def run(options=(), arguments=()) -> tuple[dict[str, list[str]], str]:
        assert main([*command, *options, "--", *trainer, *arguments]) == 0
        out, err = capsys.readouterr()
        words: dict[str, list[str]] = {}
        for word in out.split("\n")[:-1]:
            if word.startswith("--"):
                words[name := word[2:]] = []
            else:
                words[name].append(word)
        return words, err

    run.record = tmp_path / "recipe" / "recipe.json"
    run.rows = rows
    return run


@pytest.mark.slow
def test_words_for_the_trainer_on_stdout_reasons_on_stderr_and_in_the_record(ask):
    words, told = ask()
    assert words["merge_shares"] == ["0.6"] and float(words["learning_rate"][0]) > 1e-5
    assert 0.005 <= float(words["dense_temperature"][0]) <= 0.1
    record = json.loads(ask.record.read_text("utf-8"))
    assert {decision["name"] for decision in record["decisions"]} == words.keys()
    for decision in record["decisions"]:
        assert decision["reason"] in told
    assert record["facts"]["rows"] == 40
    run = ask.record.parent.parent  # the verdict on it will not advise the recipe
    assert recipe_chose(run) and not recipe_chose(run.parent)


@pytest.mark.slow
def test_what_is_set_is_kept(ask):
    words, _ = ask(["--kept", "num_train_epochs"], ["--temperature", "0.05", "--train_group_size", "4"])
    assert not words.keys() & {"num_train_epochs", "train_group_size", "dense_temperature", "temperature"}


@pytest.mark.slow
def test_asked_again_it_does_not_look_again_unless_something_is_other(ask):
    first, _ = ask()
    written = ask.record.stat().st_mtime_ns
    assert ask()[0] == first and ask.record.stat().st_mtime_ns == written
    assert "learning_rate" not in ask(arguments=["--learning_rate", "2e-5"])[0]
    assert ask.record.stat().st_mtime_ns != written
    file = next(ask.rows.glob("retrieval/*.jsonl"))
    file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    ask()
    assert json.loads(ask.record.read_text("utf-8"))["facts"]["rows"] == 39


@pytest.mark.slow
def test_mined_rows_take_the_place_of_the_given_ones_where_asked_for(ask):
    words, told = ask(["--mine_negatives"])
    assert [folder.rpartition("/recipe/")[2] for folder in words["train_data"]] == [
        "mined/classification-no_in_batch_neg",
        "mined/retrieval",
    ]
    assert "as mine_negatives says" in told
    assert "train_data" not in ask()[0]


def test_the_example_is_enough_to_find_what_is_needed(tmp_path, capsys):
    missing = ["recipe", "--output_dir", str(tmp_path), "--", "--train_data", str(EXAMPLE_DATA)]
    assert main(missing) == 1
    assert "no --model_name_or_path" in capsys.readouterr().err
