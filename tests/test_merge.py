"""Merging: the numbers, the files beside them, what loads the result, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3kit.__main__ import main
from m3kit.encoding.trained_with import trained_encoding
from m3kit.errors import KitError
from m3kit.merge import merge
from m3kit.run_folder.saving import write_sentence_transformers_files

HEADS = ("colbert_linear.pt", "sparse_linear.pt")
TEXTS = ["river stone", "copper light garden", "winter"]


def copy(model: Path, folder: Path, seed: int | None = None) -> Path:
    """A copy of a model; with a seed, as if it had been trained on: every number is moved a little."""
    shutil.copytree(model, folder)
    if seed is not None:
        chance = torch.Generator().manual_seed(seed)
        write_weights(folder, {
            name: {key: value + 0.05 * torch.randn(value.shape, generator=chance) for key, value in tensors.items()}
            for name, tensors in weights(folder).items()
        })  # fmt: skip
    return folder


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = {"model.safetensors": load_file(folder / "model.safetensors")}
    return found | {name: torch.load(folder / name) for name in HEADS if (folder / name).is_file()}


def write_weights(folder: Path, changed: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, tensors in changed.items():
        if name == "model.safetensors":
            save_file(tensors, folder / name, metadata={"format": "pt"})
        else:
            torch.save(tensors, folder / name)


@pytest.fixture
def base(model_folder, tmp_path):
    return copy(model_folder, tmp_path / "base")


@pytest.fixture
def tuned(model_folder, tmp_path):
    """As a run leaves it, pooling by mean."""
    folder = copy(model_folder, tmp_path / "tuned", seed=1)
    write_sentence_transformers_files(folder, dimension=16, pooling="mean", normalize=True, max_length=40)
    settings = {"query_max_len": 20, "passage_max_len": 40, "sentence_pooling_method": "mean"}
    settings |= {"normalize_embeddings": True, "query_instruction_for_retrieval": "light "}
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    (folder / "optimizer.pt").write_bytes(b"not of the model")
    return folder


@pytest.mark.parametrize(("given", "shares"), [((), (0.5, 0.5)), (("--weights", "0.25", "0.75"), (0.25, 0.75))])
def test_every_weight_is_the_mean_of_both(base, tuned, tmp_path, capsys, given, shares):
    out = tmp_path / "out"
    assert main(["merge", "--models", str(base), str(tuned), *given, "--output_dir", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    merged = weights(out)
    assert merged.keys() == {"model.safetensors", *HEADS}
    one, other = weights(base), weights(tuned)
    for name, tensors in merged.items():
        assert tensors.keys() == one[name].keys() == other[name].keys()
        for key, value in tensors.items():
            # No score uses the pooler.
            expected = shares[0] * one[name][key] + shares[1] * other[name][key]
            expected = other[name][key] if key.startswith("pooler.") else expected
            torch.testing.assert_close(value, expected)
    record = json.loads((out / "merge.json").read_text())
    assert [model["weight"] for model in record["models"]] == list(shares)
    assert [model["path"] for model in record["models"]] == [str(base), str(tuned)]


def test_all_of_one_model_is_that_model(base, tuned, tmp_path):
    merge([base, tuned], [0, 1], tmp_path / "out")
    found, expected = weights(tmp_path / "out"), weights(tuned)
    assert all(torch.equal(found[name][key], expected[name][key]) for name in expected for key in expected[name])


def test_both_libraries_load_it_with_the_pooling_of_the_tuned_model(base, tuned, tmp_path):
    from FlagEmbedding import BGEM3FlagModel
    from sentence_transformers import SentenceTransformer

    out = tmp_path / "out"
    merge([base, tuned], [0.3, 0.7], out)
    flag = BGEM3FlagModel(str(out), use_fp16=False, devices=["cpu"], pooling_method="mean", colbert_dim=8)
    encoded = flag.encode(TEXTS, return_sparse=True, return_colbert_vecs=True)
    sentence = SentenceTransformer(str(out), device="cpu")
    assert np.abs(encoded["dense_vecs"] - sentence.encode(TEXTS)).max() < 1e-5
    # It is of the two, and neither.
    for other in (base, tuned):
        vectors = BGEM3FlagModel(str(other), use_fp16=False, devices=["cpu"], pooling_method="mean", colbert_dim=8)
        assert np.abs(vectors.encode(TEXTS)["dense_vecs"] - encoded["dense_vecs"]).max() > 1e-3
    torch.testing.assert_close(flag.model.colbert_linear.weight.detach().float(), torch.load(out / HEADS[0])["weight"])
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
    assert not (out / "optimizer.pt").exists()
    assert not (out / "run.json").exists()  # it is no run


def test_evaluation_encodes_it_as_the_tuned_model_was_trained(base, tuned, tmp_path):
    merge([base, tuned], [0.5, 0.5], tmp_path / "out")
    assert trained_encoding(tmp_path / "out", {}) == trained_encoding(tuned, {})
    assert trained_encoding(tuned, {}).query_instruction_for_retrieval == "light "


def test_files_are_those_of_the_model_that_has_them_whatever_the_order(base, tuned, tmp_path):
    merge([tuned, base], [0.5, 0.5], tmp_path / "out")
    assert json.loads((tmp_path / "out/1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"]


def test_checkpoints_of_a_run_and_a_base_in_the_older_form(base, tuned, tmp_path):
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    expected = weights(base)["model.safetensors"]["embeddings.word_embeddings.weight"]
    (base / "model.safetensors").unlink()
    checkpoints = [copy(tuned, tmp_path / "run" / f"checkpoint-{step}") for step in (90, 120)]
    merge([base, *checkpoints], [0.5, 0.25, 0.25], tmp_path / "out")
    name = "embeddings.word_embeddings.weight"
    tensor = weights(tmp_path / "out")["model.safetensors"][name]
    torch.testing.assert_close(tensor, (expected + weights(tuned)["model.safetensors"][name]) / 2)
    assert not (tmp_path / "out/pytorch_model.bin").exists()


def test_models_of_16_bits_are_merged_in_32(base, tuned, tmp_path):
    for folder in (base, tuned):
        halves = {key: value.half() for key, value in weights(folder)["model.safetensors"].items()}
        write_weights(folder, {"model.safetensors": halves})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    merge([base, tuned], [0.5, 0.5], tmp_path / "out")
    assert {tensor.dtype for tensor in weights(tmp_path / "out")["model.safetensors"].values()} == {torch.float32}
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "out").dtype == torch.float32


def no_heads(folder):
    for head in HEADS:
        (folder / head).unlink()


def one_head(folder):
    (folder / HEADS[1]).unlink()


def other_shape(folder):
    tensors = weights(folder)["model.safetensors"]
    tensors["embeddings.word_embeddings.weight"] = torch.zeros(99, 16)
    write_weights(folder, {"model.safetensors": tensors})


def other_colbert(folder):
    torch.save(torch.nn.Linear(16, 4).state_dict(), folder / HEADS[0])


def lacks_a_tensor(folder):
    tensors = weights(folder)["model.safetensors"]
    del tensors["encoder.layer.0.output.dense.bias"]
    write_weights(folder, {"model.safetensors": tensors})


def other_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))


def cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_heads, r"base has M3 heads .* and .*tuned has none"),
        (one_head, r"tuned has no sparse_linear\.pt"),
        (other_shape, r"embeddings\.word_embeddings\.weight is 16 × 16 in .*base and 99 × 16 in .*tuned"),
        (other_colbert, r"weight is 8 × 16 in .*base and 4 × 16 in .*tuned"),
        (lacks_a_tensor, r"base has the tensor encoder\.layer\.0\.output\.dense\.bias and .*tuned has not \(1 such"),
        (other_architecture, "not of one architecture: num_attention_heads is 2 and 4"),
        (cut_off, r"tuned/model\.safetensors cannot be read"),
        (no_weights, r"tuned has neither model\.safetensors nor pytorch_model\.bin"),
    ],
)
def test_what_cannot_be_merged_is_named_and_nothing_is_left(base, tuned, tmp_path, spoil, told):
    spoil(tuned)
    with pytest.raises(KitError, match=told):
        merge([base, tuned], [0.5, 0.5], tmp_path / "new" / "out")
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_dir()]


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ([0.7, 0.4], "sum to 1"),
        ([1.5, -0.5], "0 or more"),
        ([float("nan"), 1], "0 or more"),
        ([1.0], "2 models and 1 weights"),
    ],
)
def test_weights_that_are_no_shares_are_refused(base, tuned, tmp_path, shares, told):
    with pytest.raises(KitError, match=told):
        merge([base, tuned], shares, tmp_path / "out")


def test_no_folder_with_other_things_is_overwritten_and_no_model(base, tuned, tmp_path):
    for target in (tuned, base):
        with pytest.raises(KitError, match="one of the models"):
            merge([base, tuned], [0.5, 0.5], target)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(KitError, match="choose an empty or new folder"):
        merge([base, tuned], [0.5, 0.5], tmp_path / "mine")
    # An earlier merge makes room.
    for shares in ([0.5, 0.5], [0, 1]):
        merge([base, tuned], shares, tmp_path / "out")
    assert torch.equal(weights(tmp_path / "out")[HEADS[0]]["weight"], weights(tuned)[HEADS[0]]["weight"])
