"""Evaluation encodes as a model was trained: what its folder says, unless something else is asked for."""

from __future__ import annotations

import json

import pytest

from m3kit.encoding.trained_with import Encoding, trained_encoding, training_told
from m3kit.errors import KitError


def test_a_file_of_another_tool_by_the_name_of_the_record_says_nothing(tmp_path):
    (tmp_path / "run.json").write_text("[1]")
    assert trained_encoding(tmp_path, {}) == Encoding()


def write(folder, name: str, content) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def sentence_transformers(folder, pooling: dict, normalize: bool = True, **config) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    write(folder, "modules.json", modules if normalize else modules[:2])
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 384, **pooling})
    if config:
        write(folder, "sentence_bert_config.json", config)


def test_a_model_that_says_nothing_is_taken_as_bge_m3(tmp_path):
    assert trained_encoding(tmp_path, {}) == Encoding("cls", True, 512, 512, None)


@pytest.mark.parametrize(
    ("pooling", "method"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode": ["lasttoken"]}, "last_token"),
    ],
)
def test_a_model_of_sentence_transformers_older_and_newer(tmp_path, pooling, method):
    sentence_transformers(tmp_path, pooling, max_seq_length=256)
    assert trained_encoding(tmp_path, {}) == Encoding(method, True, 256, 256)


def test_no_normalising_where_the_model_has_none_and_no_8192_tokens(tmp_path):
    sentence_transformers(tmp_path, {"pooling_mode": "cls"}, normalize=False, max_seq_length=8192)
    assert trained_encoding(tmp_path, {}) == Encoding("cls", False, 512, 512)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
    ],
)
def test_a_pooling_that_flagembedding_lacks_is_refused_unless_another_is_given(tmp_path, pooling):
    sentence_transformers(tmp_path, pooling)
    with pytest.raises(KitError, match="--pooling_method"):
        trained_encoding(tmp_path, {})
    assert trained_encoding(tmp_path, {"pooling_method": "mean"}).pooling_method == "mean"


def test_a_run_of_the_kit_says_it_in_run_json_and_for_its_checkpoints_too(tmp_path):
    settings = {
        "sentence_pooling_method": "mean",
        "normalize_embeddings": False,
        "query_max_len": 32,
        "passage_max_len": 1024,
        "query_instruction_for_retrieval": "find: ",
    }
    write(tmp_path, "run.json", {"settings": settings | {"learning_rate": 1}})
    sentence_transformers(tmp_path, {"pooling_mode": "cls"}, max_seq_length=512)
    trained = Encoding("mean", False, 32, 1024, "find: ")
    assert trained_encoding(tmp_path, {}) == trained
    assert trained_encoding(tmp_path / "checkpoint-12", {}) == trained
    given = {"query_max_len": 64, "normalize_embeddings": True, "passage_max_len": None}
    assert trained_encoding(tmp_path, given) == Encoding("mean", True, 64, 1024, "find: ")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "modules.json").write_text("[{")
    with pytest.raises(KitError, match=r"modules\.json is broken JSON"):
        trained_encoding(tmp_path, {})


def test_that_most_steps_taught_nothing_is_said_again_with_the_verdict(tmp_path):
    assert training_told(tmp_path) is None
    told = "In 83 of 100 steps the dense loss was below 0.01."
    for said, expected in ((told, told), (None, None)):
        (tmp_path / "run.json").write_text(json.dumps({"settings": {}, "empty_steps": said}), "utf-8")
        assert training_told(tmp_path) == expected
