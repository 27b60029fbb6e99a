"""LoRA: adapters and heads learn, the base stays; what is saved is a whole model, and a run goes on as if unbroken."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import EXAMPLE_DATA, KIT, read_jsonl
from runs import Run, arguments, assert_same_weights, train, weights, write_rows
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel, HfArgumentParser, XLMRobertaConfig, XLMRobertaModel

from m3kit.batches.arguments import DataArguments
from m3kit.encoding.encode import EncodeSettings
from m3kit.errors import KitError
from m3kit.training.arguments import ModelArguments, TrainingArguments
from m3kit.training.evaluation import LiveEmbedder
from m3kit.training.lora import add_adapters, merged
from m3kit.training.runner import Runner

slow = pytest.mark.slow
SIZES = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
IDS = torch.arange(4, 24).view(2, 10)
# Of each layer: query, key, value and output of attention, and the two of the feed-forward network.
ADAPTED = 6


@pytest.fixture(params=[(XLMRobertaModel, XLMRobertaConfig), (BertModel, BertConfig)], ids=["xlm-r", "bert"])
def encoder(request):
    model, config = request.param
    torch.manual_seed(1)
    return model(config(**SIZES)).eval()


def learn(encoder) -> None:
    """Adapters begin with no effect."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)


def hidden(encoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder(IDS).last_hidden_state


def test_adapters_are_on_all_layers_of_attention_and_feed_forward_and_change_nothing_yet(encoder):
    before, numbers = hidden(encoder), sum(parameter.numel() for parameter in encoder.parameters())
    add_adapters(encoder, 3)
    assert torch.equal(hidden(encoder), before)
    trained = {name: parameter.shape for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name and "pooler" not in name for name in trained)
    assert len(trained) == 2 * ADAPTED * SIZES["num_hidden_layers"]
    assert {min(shape) for shape in trained.values()} == {3}
    assert sum(p.numel() for p in encoder.parameters()) - sum(map(np.prod, trained.values())) == numbers


def test_the_merged_encoder_gives_the_same_and_has_the_names_of_the_base(encoder):
    before, names = hidden(encoder), encoder.state_dict().keys()
    assert merged(encoder) is encoder
    add_adapters(encoder, 3)
    learn(encoder)
    live = {name: value.clone() for name, value in encoder.state_dict().items()}
    learned = hidden(encoder)
    assert (learned - before).abs().max() > 0.01
    plain = merged(encoder)
    assert plain.state_dict().keys() == names
    # The one to save has no buffers that are not saved.
    loaded = type(encoder)(encoder.config).eval()
    loaded.load_state_dict(plain.state_dict())
    assert torch.allclose(hidden(loaded), learned, atol=1e-5)
    assert all(torch.equal(value, live[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(hidden(encoder), learned)


def test_of_16_bits_the_merged_encoder_has_32(encoder):
    add_adapters(encoder, 3)
    learn(encoder)
    encoder.bfloat16()
    plain = merged(encoder)
    assert {value.dtype for value in plain.state_dict().values()} == {torch.float32}
    name = "encoder.layer.1.output.dense"
    layer = encoder.get_submodule(name)
    a, b = (side["default"].weight.float() for side in (layer.lora_A, layer.lora_B))
    assert torch.allclose(plain.get_parameter(f"{name}.weight"), layer.base_layer.weight.float() + 2 * b @ a, atol=1e-6)


def parse(words: list[str]):
    return HfArgumentParser((ModelArguments, DataArguments, TrainingArguments)).parse_args_into_dataclasses(words)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lora_rank": -1}, "lora_rank is a whole number, 0 for none, not '-1'"),
        ({"lora_rank": 4, "fix_encoder": True}, "fix_encoder True does not; leave one of them out"),
    ],
)
def test_nonsense_is_refused(tmp_path, settings, says):
    rows = write_rows(tmp_path / "rows")
    with pytest.raises(KitError, match=says):
        parse(arguments(tmp_path, rows, tmp_path / "output", **settings))


# Whole runs


@pytest.fixture
def words(starter, tmp_path):
    rows = write_rows(tmp_path / "rows")

    def of(name: str = "output", **settings) -> list[str]:
        return arguments(starter, rows, tmp_path / name, **{"lora_rank": 4, "max_steps": 12, **settings})

    return of


def changed(one: dict, other: dict) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapted_layers_and_heads_change_and_nothing_else(words, starter, checkpointing):
    # sub_batch_tokens: each batch is encoded again for its gradients.
    settings = {"gradient_checkpointing": checkpointing, "sub_batch_tokens": 64}
    run = train(words(eval_data=EXAMPLE_DATA / "eval", eval_steps=6, **settings))
    base, tuned = weights(starter), weights(run.output / "checkpoint-12")
    linear = {
        name
        for name, value in base.items()
        if name.startswith("encoder.") and name.endswith(".weight") and value.dim() == 2
    }
    assert len(linear) == ADAPTED * 2
    heads = {f"{head}_linear.{kind}" for head in ("colbert", "sparse") for kind in ("weight", "bias")}
    assert changed(base, tuned) == linear | heads
    for name in linear:
        assert torch.linalg.matrix_rank(tuned[name] - base[name], rtol=1e-3) <= 4
    # What is put in the output is the model alone.
    assert (run.output / "checkpoint-12" / "lora_adapters.safetensors").is_file()
    assert not list(run.output.glob("*adapter*"))
    assert json.loads((run.output / "run.json").read_text())["settings"]["lora_rank"] == 4
    told = run.log.read_text("utf-8")
    assert "LoRA: adapters of rank 4" in told
    assert "ten times the learning rate" not in told


@slow
def test_the_optimizer_holds_what_is_trained_alone(words):
    small, whole = train(words(max_steps=1)).output, train(words("whole", max_steps=1, lora_rank=0)).output
    sizes = [(folder / "checkpoint-1" / "optimizer.pt").stat().st_size for folder in (small, whole)]
    assert sizes[0] < sizes[1] / 10


@slow
def test_a_saved_model_gives_the_vectors_of_the_live_one(words, tmp_path):
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    run = Runner(*parse(words(dataloader_num_workers=0)))
    run.run()
    texts = ["moon river glass", "bread", "winter garden paper violin"]
    settings = EncodeSettings(query_max_len=16, passage_max_len=16, device="cpu")
    live = LiveEmbedder(run.model.eval(), run.tokenizer, settings).encode(texts)
    for folder in (run.output_dir, run.output_dir / "checkpoint-12"):
        saved = BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")
        found = saved.encode(texts, max_length=16, return_dense=True, return_sparse=True, return_colbert_vecs=True)
        assert np.allclose(found["dense_vecs"], live["dense_vecs"], atol=1e-5)
        for one, other in zip(found["lexical_weights"], live["lexical_weights"], strict=True):
            assert one == pytest.approx(other, abs=1e-5)
        for one, other in zip(found["colbert_vecs"], live["colbert_vecs"], strict=True):
            assert np.allclose(one, other, atol=1e-5)
        dense = SentenceTransformer(str(folder), device="cpu").encode(texts)
        assert np.allclose(dense, live["dense_vecs"], atol=1e-5)
    base = BGEM3FlagModel(run.model_args.model_name_or_path, use_fp16=False, devices="cpu").encode(texts)
    assert np.abs(base["dense_vecs"] - live["dense_vecs"]).max() > 1e-3


@slow
@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_and_resumed_it_ends_with_the_same_weights(words, processes):
    expected = train(words("unbroken"), processes).output
    run = Run(words(save_steps=5), processes)
    assert run.when(lambda: run.step() >= 7)
    for process in run.processes:
        process.kill()
    run.wait()
    again = train(words(save_steps=5), processes)
    assert "Going on from step 5." in again.log.read_text("utf-8")
    assert_same_weights(expected, again.output)
    one, other = (
        load_file(folder / "checkpoint-12" / "lora_adapters.safetensors") for folder in (expected, again.output)
    )
    assert not changed(one, other)


@slow
def test_what_a_run_cannot_go_on_with_is_refused(words, starter, tmp_path):
    def stopped(name: str, **settings) -> None:
        run = Run(words(name, save_steps=2, max_steps=40, **settings))
        assert run.when(lambda: run.step() >= 3)
        for process in run.processes:
            process.kill()
        run.wait()

    def told(name: str, **settings) -> str:
        again = Run(words(name, save_steps=2, max_steps=40, **settings))
        assert again.wait() == [1]
        return again.log.read_text("utf-8")

    stopped("output")
    assert "lora_rank was 4 and is now 8" in told("output", lora_rank=8)
    assert "lora_rank was 4 and is now 0" in told("output", lora_rank=0)
    # The same name, another model.
    base = tmp_path / "base"
    shutil.copytree(starter, base)
    stopped("of-a-base", model_name_or_path=base)
    values = load_file(base / "model.safetensors")
    values["encoder.layer.0.attention.self.query.weight"] += 0.001
    save_file(values, base / "model.safetensors", {"format": "pt"})
    assert "the base model is another now" in told("of-a-base", model_name_or_path=base)
    # A record from before there were adapters.
    stopped("before", lora_rank=0)
    path = tmp_path / "before" / "run.json"
    record = json.loads(path.read_text())
    del record["settings"]["lora_rank"]
    path.write_text(json.dumps(record))
    assert "was trained without LoRA" in told("before")


@slow
def test_deepspeed_trains_and_goes_on_and_saves_32_bits(words):
    settings = {"deepspeed": KIT / "ds_stage0.json", "bf16": True, "max_steps": 8, "save_steps": 3}
    settings |= {"gradient_checkpointing": True, "learning_rate": 1e-2}
    run = Run(words(**settings), 2)
    assert run.when(lambda: (run.output / "checkpoint-3").is_dir())
    for process in run.processes:
        process.kill()
    run.wait()
    again = train(words(**settings), 2)
    assert "Going on from step 3." in again.log.read_text("utf-8")
    folder = again.output / "checkpoint-8"
    saved = load_file(folder / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    assert AutoModel.from_pretrained(folder).dtype == torch.float32


@slow
def test_a_low_rate_is_told_and_the_loss_falls_with_a_high_one(words):
    low = train(words(learning_rate=1e-5, max_steps=1))
    assert "They need about ten times the learning rate of full fine-tuning; 1e-05 may be" in low.log.read_text("utf-8")
    run = train(words("long", learning_rate=5e-3, max_steps=120, unified_finetuning=False, save_steps=120))
    losses = [row["loss"] for row in read_jsonl(run.output / "train_log.jsonl") if "loss" in row]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20]), (np.mean(losses[:20]), np.mean(losses[-20:]))
