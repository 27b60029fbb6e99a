"""A run that was ended in any way goes on to the very weights that it would have had."""

from __future__ import annotations

import json
import random
import signal

import pytest
from conftest import EXAMPLE_DATA, KIT, read_jsonl
from runs import Run, arguments, assert_same_weights, losses, train, write_rows

pytestmark = pytest.mark.slow

ONE_AND_TWO = pytest.mark.parametrize("processes", [1, 2])
HELD_OUT = {"eval_data": EXAMPLE_DATA / "eval", "eval_steps": 6}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows [1]"))


@pytest.fixture(scope="module")
def uninterrupted(starter, rows, tmp_path_factory):
    """The run that all others are compared with, by number of processes; made once each."""
    folder, made = tmp_path_factory.mktemp("uninterrupted"), {}

    def of(processes: int, **settings):
        key = f"{processes}{sorted(settings)}"
        if key not in made:
            made[key] = train(arguments(starter, rows, folder / str(len(made)), **settings), processes).output
        return made[key]

    return of


@pytest.fixture
def words(starter, rows, tmp_path):
    return lambda **settings: arguments(starter, rows, tmp_path / "output", **settings)


def kill(run: Run) -> None:
    run.send(signal.SIGKILL)
    assert set(run.wait()) == {-signal.SIGKILL}


@ONE_AND_TWO
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_killed_at_any_step_it_ends_with_the_same_weights(uninterrupted, words, processes, seed):
    expected = uninterrupted(processes)
    run = Run(words(), processes)
    at = random.Random(seed).randint(1, 23)
    assert run.when(lambda: run.step() >= at)
    kill(run)
    again = train(words(), processes)
    assert_same_weights(expected, again.output)
    assert losses(expected) == losses(again.output)


@ONE_AND_TWO
@pytest.mark.parametrize("save", [1, 3])
def test_killed_at_a_save_it_ends_with_the_same_weights(uninterrupted, words, processes, save):
    run = Run(words(), processes)
    assert run.when(lambda: run.step() >= 5 * save - 1 and run.saving())
    kill(run)
    again = train(words(), processes)
    assert_same_weights(uninterrupted(processes), again.output)
    assert not list((again.output / ".saving").glob("*"))


@ONE_AND_TWO
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_a_checkpoint_of_that_very_step(uninterrupted, words, processes, number):
    run = Run(words(save_steps=1000), processes)
    assert run.when(lambda: run.step() >= 7)
    run.send(number)
    run.send(number)
    assert run.wait() == [128 + number] * processes
    step = run.step()
    assert 7 <= step < 24
    assert [path.name for path in run.output.glob("checkpoint-*")] == [f"checkpoint-{step}"]
    told = f"stopped by {number.name} after step {step}, which is saved; run the same command again to go on"
    assert run.log.read_text("utf-8").count(told) == 1
    record = json.loads((run.output / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("stopped", f"stopped by {number.name}")
    again = train(words(save_steps=1000), processes)
    assert f"Going on from step {step}." in again.log.read_text("utf-8")
    assert_same_weights(uninterrupted(processes), again.output)


def test_stopped_at_a_step_to_be_evaluated_it_is_evaluated_when_it_goes_on(uninterrupted, words):
    expected = uninterrupted(1, **HELD_OUT)
    run = Run(words(save_steps=1000, **HELD_OUT))
    assert run.when(lambda: run.step() >= 5)
    run.send(signal.SIGTERM)
    run.wait()
    again = train(words(save_steps=1000, **HELD_OUT))
    assert_same_weights(expected, again.output)

    def evaluations(output):
        rows = [json.loads(line) for line in (output / "train_log.jsonl").read_text().splitlines()]
        return {row["step"]: row["eval_hybrid_nDCG@10"] for row in rows if "eval_seconds" in row}

    assert evaluations(again.output) == evaluations(expected)
    assert sorted(evaluations(expected)) == [0, 6, 12, 18, 24]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "missing", "no seal"])
def test_a_broken_last_checkpoint_is_passed_over_for_the_one_before(uninterrupted, words, damage):
    run = Run(words())
    assert run.when(lambda: (run.output / "checkpoint-10").exists())
    kill(run)
    checkpoints = sorted((int(path.name[11:]), path) for path in run.output.glob("checkpoint-*"))
    (before, _), (last, folder) = checkpoints[-2:]
    victim = folder / ("checkpoint.json" if damage == "no seal" else "optimizer.pt")
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-100])
    elif damage == "emptied":
        victim.write_bytes(b"")
    else:
        victim.unlink()
    again = train(words())
    log = again.log.read_text("utf-8")
    assert f"checkpoint-{last} is passed over" in log
    assert victim.name in log
    assert f"Going on from step {before}." in log
    assert_same_weights(uninterrupted(1), again.output)


def test_a_finished_run_is_kept_and_another_run_than_the_unfinished_is_refused(words, starter, rows, tmp_path):
    run = Run(words())
    assert run.when(lambda: (run.output / "checkpoint-5").exists())
    kill(run)
    other = Run(words(learning_rate=1e-4, per_device_train_batch_size=4))
    assert other.wait() == [1]
    log = other.log.read_text("utf-8")
    assert "learning_rate was 0.001 and is now 0.0001; per_device_train_batch_size was 2 and is now 4" in log
    harmless = train(words(logging_steps=2))
    assert "other than before: logging_steps 2 instead of 1" in harmless.log.read_text("utf-8")
    finished = Run(words())
    assert finished.wait() == [1]
    assert "already holds a finished training run" in finished.log.read_text("utf-8")
    train(words(overwrite_output_dir=True, max_steps=2))


def test_stopped_before_its_first_checkpoint_it_begins_anew_with_whatever_settings(words):
    run = Run(words())
    assert run.when(lambda: run.step() >= 1)
    kill(run)
    again = train(words(learning_rate=1e-4))
    steps = [row["step"] for row in read_jsonl(again.output / "train_log.jsonl") if "loss" in row]
    assert steps == list(range(1, 25))


def test_an_epoch_that_was_gone_on_with_says_which_of_its_rows_it_counts(words):
    run = Run(words())
    assert run.when(lambda: (run.output / "checkpoint-5").exists())
    kill(run)
    again = train(words(save_steps=1000))
    log = (again.output / "train.log").read_text("utf-8")
    step = int(log.partition("Going on from step ")[2].partition(".")[0])
    assert step in (5, 10, 15)
    assert f"epoch 1 is over: {40 - 2 * step} rows trained after step {step}" in log


def test_deepspeed_trains_saves_and_resumes_with_two_ranks(uninterrupted, words):
    settings = {"deepspeed": KIT / "ds_stage0.json"}
    expected = uninterrupted(2, **settings)
    run = Run(words(**settings), 2)
    assert run.when(lambda: (run.output / "checkpoint-5").exists() and run.step() >= 8)
    kill(run)
    again = train(words(**settings), 2)
    assert "Going on from step" in again.log.read_text("utf-8")
    assert_same_weights(expected, again.output)


def test_an_error_that_nobody_foresaw_ends_the_run(words):
    """The processes that make batches do not keep it from ending."""
    run = Run(words())
    assert run.when(lambda: run.step() >= 3)
    log = run.output / "train_log.jsonl"
    log.unlink()
    log.mkdir()  # the next step cannot be logged
    assert run.wait() == [1]
    assert "IsADirectoryError" in run.log.read_text("utf-8")


@ONE_AND_TWO
def test_an_evaluation_is_left_at_once_and_made_when_the_run_goes_on(words, processes, tmp_path):
    corpus = tmp_path / "eval"
    (corpus / "qrels").mkdir(parents=True)
    texts = [f"passage {number} about the moon and the river" for number in range(3000)]
    rows = ({"_id": str(number), "text": text} for number, text in enumerate(texts))
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = ({"_id": f"q{number}", "text": texts[number]} for number in range(60))
    (corpus / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{number}\t{number}\t1" for number in range(60))]
    (corpus / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    settings = {"eval_data": corpus, "eval_steps": 6, "max_steps": 12}

    run = Run(words(**settings), processes)
    assert run.when(lambda: run.step() >= 6)  # which is evaluated now
    run.send(signal.SIGTERM)
    assert set(run.wait()) == {143}
    assert evaluated(run.output) == [0]
    assert (run.output / "checkpoint-6").is_dir()
    again = train(words(**settings), processes)
    assert evaluated(again.output) == [0, 6, 12]


def evaluated(output) -> list[int]:
    """The steps after which an evaluation was finished."""
    rows = map(json.loads, (output / "train_log.jsonl").read_text("utf-8").splitlines())
    return [row["step"] for row in rows if "eval_seconds" in row]
