"""Names of arguments: the trainer's beside the kit's settings, older ones, and those that would do nothing."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from m3kit.errors import KitError
from m3kit.kinds import NUMBER, SWITCH, TEXT, Kind, choice, several, whole

# As older recipes and other kits have it: the name here.
FORMER = {
    "warmup_ratio": "warmup_steps (below 1: that part of all steps)",
    "normlized": "normalize_embeddings",
    "normalized": "normalize_embeddings",
    "same_task_within_batch": "same_dataset_within_batch",
    "negatives_x_device": "negatives_cross_device",
    "fix_backbone": "fix_encoder",
    "max_passages": "train_group_size",
    "query_max_length": "query_max_len",
    "passage_max_length": "passage_max_len",
    "max_len": "query_max_len and passage_max_len",
    "max_length": "query_max_len and passage_max_len",
    "max_seq_length": "query_max_len and passage_max_len",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "use_lora": "lora_rank (8 to 64)",
    "pooling_method": "sentence_pooling_method",
    "evaluation_strategy": "eval_steps",
    "group_by_length": "no setting: batches are made so that little is padding",
    "no_cuda": "use_cpu, or ALLOW_CPU=True",
}
_HELD_OUT = "the kit evaluates by eval_data and eval_steps, and keeps the best checkpoint"
_BATCHES = "the kit makes the batches itself"
# Arguments that transformers takes and that nothing here would heed: the reason.
WITHOUT_EFFECT = {
    "resume_from_checkpoint": "an unfinished run goes on by itself from its newest whole checkpoint; to begin from "
    "another one give it as --model_name_or_path, with a new --output_dir",
    "do_train": "training is what this does",
    **dict.fromkeys(("do_eval", "do_predict", "eval_strategy", "eval_delay", "eval_on_start"), _HELD_OUT),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _HELD_OUT),
    **dict.fromkeys(("per_device_eval_batch_size", "prediction_loss_only", "eval_accumulation_steps"), _HELD_OUT),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval", "batch_eval_metrics", "include_for_metrics"), _HELD_OUT),
    **dict.fromkeys(("eval_use_gather_object", "eval_do_concat_batches", "no_eval_do_concat_batches"), _HELD_OUT),
    **dict.fromkeys(("remove_unused_columns", "no_remove_unused_columns", "label_names"), _BATCHES),
    **dict.fromkeys(("train_sampling_strategy", "length_column_name", "data_seed"), _BATCHES),
    **dict.fromkeys(("dataloader_persistent_workers", "dataloader_multiprocessing_context"), _BATCHES),
    "auto_find_batch_size": "sub_batch_tokens is found to fit, whatever the batch",
    "activation_checkpointing": "here it has its older name, --gradient_checkpointing",
    "activation_checkpointing_kwargs": "here it has its older name, --gradient_checkpointing_kwargs",
    "label_smoothing_factor": "the losses are FlagEmbedding's, which have none",
    **dict.fromkeys(("use_mrl", "mrl_dims"), "FlagEmbedding has no such training of M3 models"),
    "local_rank": "torchrun sets it",
}
TRAINER_ARGUMENTS = Path(__file__).with_name("trainer_arguments.json")


@cache
def trainer_arguments() -> dict[str, Kind]:
    """All arguments of the kit's trainer (transformers', FlagEmbedding's and its own): name → what values it takes.

    Kept in a file, for importing transformers takes longer than a wrong argument should have to wait for its answer. A
    test holds the file against the trainer.
    """
    described = json.loads(TRAINER_ARGUMENTS.read_text("utf-8"))
    simple = {"int": whole(None), "float": NUMBER, "bool": SWITCH, "str": TEXT, "flag": SWITCH}
    kinds = {}
    for name, (type_name, choices, many) in described.items():
        kind = choice(*choices) if choices else simple[type_name]
        kinds[name] = several(kind) if many else kind
    return kinds


def unknown(name: str, known: Iterable[str]) -> KitError:
    """Return the error for a name that is no setting: it names the one that is meant, or the nearest."""
    if name in FORMER:
        return KitError(f"there is no --{name}; here it is {FORMER[name]}")
    near = difflib.get_close_matches(name, list(known), n=1)
    return KitError(f"there is no --{name}" + (f"; did you mean --{near[0]}?" if near else "; see --help"))
