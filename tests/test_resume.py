"""With which settings and data a run may go on: real arguments, written to JSON and read back."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import re
import tempfile
from pathlib import Path

import pytest
from conftest import write_jsonl
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderTrainingArguments
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3TrainingArguments
from transformers import HfArgumentParser
from transformers import TrainingArguments as PlainArguments

from m3kit.batches.arguments import DataArguments
from m3kit.errors import KitError
from m3kit.run_folder import run_record
from m3kit.run_folder.run_record import RunRecord, read_record
from m3kit.training.arguments import ModelArguments, TrainingArguments

DATA = [
    {"path": "/a/retrieval/train.jsonl", "rows": 1000, "digest": "aa", "batch_size_per_device": 2},
    {"path": "/a/sts/train.jsonl", "rows": 20, "digest": "bb", "batch_size_per_device": 2},
]


def parse(folder: Path, *arguments: str) -> dict:
    """As the runner collects them."""
    rows = write_jsonl(folder / "rows.jsonl", [{"query": "q"}])
    given = ["--model_name_or_path", "BAAI/bge-m3", "--train_data", str(rows), "--output_dir", str(folder / "out")]
    given += ["--use_cpu", "True", "--report_to", "none", "--learning_rate", "1e-5", *arguments]
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses(given)
    found = {**dataclasses.asdict(data_args), **dataclasses.asdict(model_args), **training_args.to_dict()}
    found.pop("token")
    return found


def differences(record: dict, settings: dict, data: list[dict], processes: int) -> tuple[list[str], list[str]]:
    """(what may be other than in a record, what may not), as the user is told."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.json").write_text(json.dumps(record))
        try:
            return RunRecord(Path(folder), settings, data, processes, from_step=8).changed, []
        except KitError as error:
            assert json.loads((Path(folder) / "run.json").read_text()) == record
            told = str(error).partition("another than the one asked for: ")[2]
            return [], re.split(r"[.] Put th", told)[0].split("; ")


@pytest.fixture
def record(tmp_path) -> dict:
    RunRecord(tmp_path, parse(tmp_path), DATA, 2)
    return json.loads((tmp_path / "run.json").read_text())


def test_the_same_again_has_no_differences(tmp_path, record):
    assert differences(record, parse(tmp_path), DATA, 2) == ([], [])


FREE = {
    "bf16": ("True", "bf16 True instead of False"),
    "precision": ("bf16", "bf16 True instead of False"),
    "attn_implementation": ("eager", "attn_implementation eager instead of auto"),
    "tf32": ("False", "tf32 False instead of None"),
    "save_steps": ("7", "save_steps 7 instead of 500"),
    "save_total_limit": ("1", "save_total_limit 1 instead of None"),
    "logging_steps": ("10", "logging_steps 10 instead of 1"),
    "eval_data": ("/somewhere", "eval_data /somewhere instead of None"),
    "eval_steps": ("0.5", "eval_steps 0.5 instead of 0.25"),
    "report_to": ("tensorboard", "report_to ['tensorboard'] instead of []"),
    "disable_tqdm": ("False", "disable_tqdm False instead of True"),
    "dataloader_num_workers": ("0", "dataloader_num_workers 0 instead of 2"),
    "dataloader_prefetch_factor": ("4", "dataloader_prefetch_factor 4 instead of None"),
    "dataloader_pin_memory": ("True", None),
    "cache_dir": ("/cache", "cache_dir /cache instead of None"),
    "cache_path": ("/cache", "cache_path /cache instead of None"),
    "gradient_checkpointing": ("True", "gradient_checkpointing True instead of False"),
    "gradient_checkpointing_kwargs": (
        '{"use_reentrant": false}',
        "gradient_checkpointing_kwargs {'use_reentrant': False} instead of None",
    ),
    "sub_batch_size": ("4", "sub_batch_size 4 instead of None"),
    "sub_batch_tokens": ("4096", "sub_batch_tokens 4096 instead of auto"),
    "pad_to_multiple_of": ("8", "pad_to_multiple_of 8 instead of None"),
    "ddp_timeout": ("60", "ddp_timeout 60 instead of 7200"),
    "ddp_find_unused_parameters": ("True", "ddp_find_unused_parameters True instead of False"),
    "output_dir": ("/elsewhere", None),
    "overwrite_output_dir": ("True", None),
    "resume_from_checkpoint": ("checkpoint-1", None),
    "run_name": ("mine", None),
    "log_level": ("info", None),
    "hub_token": ("secret", None),
    "hub_model_id": ("mine", None),
}


@pytest.mark.parametrize("name", FREE)
def test_how_is_trained_may_change_and_is_told(tmp_path, record, name):
    value, said = FREE[name]
    assert differences(record, parse(tmp_path, f"--{name}", value), DATA, 2) == ([said] if said else [], [])


REFUSED = {
    "learning_rate": ("5e-6", "learning_rate was 1e-05 and is now 5e-06"),
    "weight_decay": ("0.1", "weight_decay was 0.0 and is now 0.1"),
    "adam_beta2": ("0.99", "adam_beta2 was 0.999 and is now 0.99"),
    "optim": ("adamw_torch", "optim was adamw_torch_fused and is now adamw_torch"),
    "lr_scheduler_type": ("cosine", "lr_scheduler_type was linear and is now cosine"),
    "warmup_steps": ("10", "warmup_steps was 0 and is now 10.0"),
    "num_train_epochs": ("4", "num_train_epochs was 3.0 and is now 4.0"),
    "max_steps": ("4", "max_steps was -1 and is now 4"),
    "seed": ("1", "seed was 42 and is now 1"),
    "per_device_train_batch_size": ("2", "per_device_train_batch_size was 8 and is now 2"),
    "gradient_accumulation_steps": ("2", "gradient_accumulation_steps was 1 and is now 2"),
    "dataloader_drop_last": ("True", "dataloader_drop_last was False and is now True"),
    "model_name_or_path": ("other", "model_name_or_path was BAAI/bge-m3 and is now other"),
    "train_group_size": ("2", "train_group_size was 8 and is now 2"),
    "query_max_len": ("64", "query_max_len was 32 and is now 64"),
    "query_instruction_for_retrieval": ("", "query_instruction_for_retrieval was None and is now empty"),
    "passage_instruction_format": ("x" * 99, f"passage_instruction_format was {{}}{{}} and is now {'x' * 79}…"),
    "mixing_temperature": ("2", "mixing_temperature was 1.0 and is now 2.0"),
    "same_dataset_within_batch": ("False", "same_dataset_within_batch was True and is now False"),
    "unified_finetuning": ("True", "unified_finetuning was False and is now True"),
    "use_self_distill": ("True", "use_self_distill was False and is now True"),
    "temperature": ("0.05", "temperature was 0.02 and is now 0.05"),
    "negatives_cross_device": ("True", "negatives_cross_device was False and is now True"),
    "mrl_dims": ("64", "mrl_dims was [] and is now [64]"),
    "accelerator_config": ('{"split_batches": true}', None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_learned_may_not_change(tmp_path, record, name):
    value, said = REFUSED[name]
    harmless, (refused,) = differences(record, parse(tmp_path, f"--{name}", value), DATA, 2)
    assert harmless == []
    assert refused == said or (said is None and refused.startswith(f"{name} was {{"))


def test_every_setting_of_flagembedding_and_the_kit_that_may_change_is_known(tmp_path):
    """A setting that a later version adds is refused until it is known to be harmless."""
    own = {field.name for cls in (ModelArguments, DataArguments) for field in dataclasses.fields(cls)}
    for cls in (AbsEmbedderTrainingArguments, EncoderOnlyEmbedderM3TrainingArguments, TrainingArguments):
        own |= {field.name for field in dataclasses.fields(cls)}
    own -= {field.name for field in dataclasses.fields(PlainArguments)}
    assert {name for name in own if run_record._matches(name, (*run_record.FREE, *run_record.UNSAID))} == {
        "train_data",
        "cache_dir",
        "cache_path",
        "pad_to_multiple_of",
        "sub_batch_size",
        "sub_batch_tokens",
        "precision",
        "attn_implementation",
        "eval_data",
        "overwrite_output_dir",
    }


def test_every_pattern_is_that_of_a_setting(tmp_path):
    names = list(parse(tmp_path))
    for pattern in (*run_record.FREE, *run_record.UNSAID):
        assert any(run_record._matches(name, [pattern]) for name in names), pattern


def test_a_setting_that_only_one_version_of_the_kit_has_is_no_difference(tmp_path, record):
    now = parse(tmp_path)
    now["of_a_later_version"] = 3
    record["settings"]["of_an_earlier_version"] = 3
    assert differences(record, now, DATA, 2) == ([], [])


def test_values_that_json_does_not_know_compare_equal(tmp_path):
    class Kind(enum.Enum):
        SOME = "some"

    settings = {"a": (1, 2), "b": Path("/x"), "c": Kind.SOME, "d": 1e-05, "e": {"f": (None,)}, "g": float("inf")}
    data = [{"path": Path("/a/b.jsonl"), "rows": 1, "digest": "a"}]
    RunRecord(tmp_path, settings, data, 1)
    assert differences(json.loads((tmp_path / "run.json").read_text()), settings, data, 1) == ([], [])


@pytest.mark.parametrize(
    ("before", "now", "harmless", "refused"),
    [
        (None, None, 0, 0),
        (None, "", 1, 0),
        ("ds_stage0.json", "/moved/ds_stage0.json", 1, 0),
        ("ds_stage0.json", {"zero_optimization": {"stage": 0}}, 1, 0),
        ("ds_stage0.json", None, 0, 1),
        (None, "ds_stage0.json", 0, 1),
    ],
)
def test_deepspeed_may_move_but_neither_come_nor_go(tmp_path, record, before, now, harmless, refused):
    record["settings"]["deepspeed"] = before
    found = differences(record, {**parse(tmp_path), "deepspeed": now}, DATA, 2)
    assert tuple(map(len, found)) == (harmless, refused)


@pytest.mark.parametrize(
    ("before", "now", "with_deepspeed"),
    [
        ("fp16", "bf16", True),
        ("bf16", "fp16", False),
        ("fp32", "bf16", False),
        ("fp32", "fp16", False),
        ("bf16", "fp32", False),
        ("fp16", "fp32", False),
    ],
)
@pytest.mark.parametrize("deepspeed", [True, False])
def test_the_precision_may_change_but_with_deepspeed_only_where_it_can_go_on(
    tmp_path, record, before, now, with_deepspeed, deepspeed
):
    def settings(precision: str) -> dict:
        switches = {name: name == precision for name in ("fp16", "bf16")}
        return {**parse(tmp_path), **switches, "precision": precision, "deepspeed": "ds.json" if deepspeed else None}

    record["settings"] = settings(before)
    changes = len({before, now} - {"fp32"})
    expected = (changes, 0) if with_deepspeed or not deepspeed else (0, changes)
    assert tuple(map(len, differences(record, settings(now), DATA, 2))) == expected


# Data


def changed(number: int, **entries) -> list[dict]:
    data = copy.deepcopy(DATA)
    data[number] |= entries
    return data


@pytest.mark.parametrize(
    ("now", "refused"),
    [
        (DATA[::-1], []),
        (changed(0, path="/moved/to/retrieval/train.jsonl"), []),
        (changed(0, batch_size_per_device=1), []),
        (
            changed(0, digest="cc"),
            ["data set retrieval/train.jsonl had 1,000 rows (digest aa) and has now 1,000 rows (digest cc)"],
        ),
        (
            changed(0, rows=1234),
            ["data set retrieval/train.jsonl had 1,000 rows (digest aa) and has now 1,234 rows (digest aa)"],
        ),
        (DATA[:1], ["data set sts/train.jsonl had 20 rows (digest bb) and has now no rows"]),
        (
            [*DATA, {**DATA[0], "path": "/b/retrieval/train.jsonl"}],
            [
                "data set retrieval/train.jsonl had 1,000 rows (digest aa) and has now "
                "1,000 rows (digest aa) and 1,000 rows (digest aa)"
            ],
        ),
        (
            changed(1, path="/a/sts-no_in_batch_neg/train.jsonl"),
            [
                "data set sts-no_in_batch_neg/train.jsonl had no rows and has now 20 rows (digest bb)",
                "data set sts/train.jsonl had 20 rows (digest bb) and has now no rows",
            ],
        ),
    ],
)
def test_the_rows_are_compared_wherever_they_lie(tmp_path, record, now, refused):
    assert differences(record, parse(tmp_path), now, 2) == ([], refused)


def test_moved_data_is_told(tmp_path, record):
    rows = write_jsonl(tmp_path / "moved" / "rows.jsonl", [{"query": "q"}])
    (moved,), refused = differences(record, parse(tmp_path, "--train_data", str(rows)), DATA, 2)
    assert moved.startswith("train_data ['/")
    assert refused == []


def test_a_refusal_says_what_to_do_and_leaves_the_record(tmp_path, record):
    with pytest.raises(KitError) as raised:
        RunRecord(tmp_path, {**parse(tmp_path), "seed": 2, "save_steps": 3}, DATA, 1, from_step=8)
    assert str(raised.value) == (
        f"{tmp_path} holds an unfinished run, and it is another than the one asked for: seed was 42 and is now 2; "
        "it ran in 2 process(es) and would now in 1. Put these back to go on with it, or give another --output_dir, or "
        "--overwrite_output_dir True to delete it and train anew"
    )
    assert dataclasses.asdict(read_record(tmp_path)) == record
