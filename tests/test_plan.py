"""A plan is a function of what is typed, of the environment, of the script and of the machine."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3kit.planning import machine
from m3kit.planning.folders import EVAL_FILES
from m3kit.planning.request import WrongInput, read_request
from m3kit.planning.steps import quote
from m3kit.settings import SETTINGS


def read(*words: str, script: str = "single", environment: dict | None = None, block: dict | None = None):
    return read_request(script, words, environment or {}, block or {})


@pytest.mark.parametrize("script", ["single", "multi"])
def test_nothing_said_gives_the_defaults(script):
    request = read(script=script)
    for setting in SETTINGS:
        if setting.name not in ("train_data", "output_dir", "deepspeed", "sts_as") and not setting.several:
            assert request[setting.name] == setting.default_of(script), setting.name
    assert not request.chosen_by_user


def test_an_argument_wins_over_the_environment_and_that_over_the_script():
    environment, block = (
        {"SEED": "2", "TEMPERATURE": "0.05"},
        {"seed": ["1"], "temperature": ["0.1"], "warmup_steps": ["7"]},
    )
    request = read("--seed", "3", environment=environment, block=block)
    assert (request["seed"], request["temperature"], request["warmup_steps"]) == ("3", "0.05", "7")
    assert request.chosen_by_user == {"seed", "temperature", "warmup_steps"}


def test_a_setting_that_is_no_variable_of_the_script_is_one_of_the_environment():
    assert read(environment={"HEADS_REACH": "0.5"})["heads_reach"] == "0.5"
    assert read(environment={"DATA_COLUMNS": "query=q", "COLUMNS": "80"})["columns"] == "query=q"
    assert read(environment={"MERGE_SHARES": "0.5 0.7"})["merge_shares"] == "0.5 0.7"


WRONG = {
    "--learnig_rate 1e-5": "did you mean --learning_rate?",
    "--learning_rate abc": "learning_rate is a number above 0, not 'abc'",
    "--learning_rate nan": "a number above 0",
    "--use_lora True": "lora_rank",
    "--warmup_ratio 0.1": "warmup_steps",
    "--normlized True": "normalize_embeddings",
    "--same_task_within_batch True": "same_dataset_within_batch",
    "rows/retrieval": "stands without a name",
    "--resume_from_checkpoint out": "goes on by itself",
    "--load_best_model_at_end True": "keeps the best checkpoint",
    "--max_steps x": "a whole number",
    "--optim adam": "adamw_torch",
    "--bf16 maybe": "True or False",
    "--holdout 1": "from 0 to below 1",
    "--merge_shares 0.5 2": "up to 1",
    "--merge_shares": "needs a value",
    "--train_data": "one or more folders or files",
    "--seed -1": "0 or more",
    "--recipe best --per_device_train_batch_size auto": "recipe=best chooses one",
    "--deepspeed nowhere.json": "no DeepSpeed configuration",
}


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_input_is_refused_with_what_to_type(typed):
    with pytest.raises(WrongInput) as refused:
        read(*typed.split(), script="multi")
    assert WRONG[typed] in str(refused.value)
    assert str(refused.value).count("\n") <= 1


def test_wrong_values_of_the_environment_are_refused_too():
    with pytest.raises(WrongInput, match="temperature is a number above 0, not 'warm'"):
        read(environment={"TEMPERATURE": "warm"})


def test_further_arguments_of_the_trainer_stay_as_they_came():
    words = [
        "--weight_decay",
        "0.1",
        "--run_name",
        'a b(c"d',
        "--max_steps=-1",
        "--logging-first-step",
        "--debug",
        "a",
        "b",
    ]
    assert read(*words).extra == words


def test_in_wsl_memory_of_gpus_is_taken_as_ever_for_its_driver_fails_at_segments_that_grow(monkeypatch):
    for name in machine.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    for release, expandable in (("6.8.0-45-generic", True), ("5.15.153.1-microsoft-standard-WSL2", False)):
        monkeypatch.setattr(machine.platform, "release", lambda release=release: release)
        assert machine.look("python3").expandable is expandable


def test_smoke_changes_defaults_only():
    request = read("--smoke", "--query_max_len", "64", environment={"LEARNING_RATE": "3e-4"})
    assert (request["query_max_len"], request["passage_max_len"], request["learning_rate"]) == ("64", "128", "3e-4")
    assert request["output_dir"].endswith("outputs/smoke_single_gpu") and request.is_on("allow_cpu")


def test_evaluation_data_is_what_evaluate_reads():
    from m3kit.test_data import beir, tasks

    assert set(EVAL_FILES) == {beir.FILES[0], *(files[0] for files in tasks.FILES.values())}


words = st.text(string.ascii_letters + " '\"$`\\;|&*?[]~#=-ä漢", max_size=12)


@given(st.lists(words, max_size=6))
def test_any_words_are_read_or_refused_and_nothing_else_happens(typed):
    try:
        request = read(*typed)
    except WrongInput as refused:
        assert str(refused)
    else:
        assert request["model_name_or_path"]


@given(st.lists(words, min_size=1, max_size=4))
def test_what_is_shown_can_be_pasted(typed):
    import shlex

    assert shlex.split(quote(typed)) == typed
