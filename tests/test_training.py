"""What the kit's training corrects: each correction beside the defect, as plain FlagEmbedding shows it."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import write_jsonl
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Runner
from training_helpers import native

from m3kit.batches.arguments import DataArguments
from m3kit.errors import KitError
from m3kit.run_folder.saving import write_sentence_transformers_files
from m3kit.training.arguments import ModelArguments, TrainingArguments
from m3kit.training.runner import Runner

# S4 and the model


def runner_for(model, data, output, **arguments):
    return Runner(
        model_args=ModelArguments(model_name_or_path=str(model)),
        data_args=DataArguments(train_data=[str(data)], query_max_len=32, passage_max_len=32),
        training_args=TrainingArguments(
            output_dir=str(output), use_cpu=True, report_to=[], disable_tqdm=True, unified_finetuning=True, **arguments
        ),
    )


def test_s4_a_model_with_one_head_is_refused(starter, tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt=""))
    model = tmp_path / "model"
    model.mkdir()
    for path in starter.iterdir():
        if path.name != "sparse_linear.pt":
            (model / path.name).write_bytes(path.read_bytes())
    # FlagEmbedding loads it, and the ColBERT head that is there is lost.
    heads = EncoderOnlyEmbedderM3Runner.get_model(str(model))
    kept = torch.load(model / "colbert_linear.pt")
    assert not torch.equal(heads["colbert_linear"].weight, kept["weight"])
    with pytest.raises(KitError, match=r"has no sparse_linear\.pt"):
        runner_for(model, data, tmp_path / "output")


@pytest.mark.filterwarnings("error::FutureWarning")
def test_nothing_warns_of_the_older_name_of_checkpointing(starter, tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt=""))
    given = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    run = runner_for(starter, data, tmp_path / "output", max_steps=1, **given)
    run.run()
    assert run.model.model.is_activation_checkpointing


def test_a_model_that_is_neither_folder_nor_name_is_named(tmp_path):
    data = write_jsonl(tmp_path / "rows.jsonl", native(4, prompt=""))
    with pytest.raises(KitError, match="there is no model at"):
        runner_for("./no/such/model", data, tmp_path / "output")


def test_a_run_leaves_a_model_that_loads_everywhere_alike(starter, tmp_path):
    """S5: sentence-transformers pools as the model was trained, not by mean."""
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    data = write_jsonl(tmp_path / "rows.jsonl", native(8, prompt=""))
    output = tmp_path / "output"
    runner_for(starter, data, output, num_train_epochs=1, per_device_train_batch_size=4).run()

    texts = ["Why does the moon look larger near the horizon?", "望远镜", "p1"]
    flag = BGEM3FlagModel(str(output), use_fp16=False, devices=["cpu"]).encode(texts)["dense_vecs"]
    sentence = SentenceTransformer(str(output), device="cpu").encode(texts)
    assert abs(flag - sentence).max() < 1e-4
    assert (output / "model.safetensors").stat().st_mode == (output / "config.json").stat().st_mode
    record = json.loads((output / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["steps"] == 2
    assert record["settings"]["per_device_train_batch_size"] == 4
    assert record["data"][0]["rows"] == 8


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
def test_sentence_transformers_reads_the_pooling(starter, tmp_path, pooling):
    from sentence_transformers import SentenceTransformer

    for path in starter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_sentence_transformers_files(tmp_path, dimension=128, pooling=pooling, normalize=False, max_length=99)
    model = SentenceTransformer(str(tmp_path), device="cpu")
    assert model.max_seq_length == 99
    assert len(model) == 2
    assert model[1].pooling_mode == pooling.replace("_", "")
