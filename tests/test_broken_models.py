"""A model folder that lacks a file, or holds a damaged one, is refused with its name and a cure."""

from __future__ import annotations

import shutil

import pytest
import torch
from runs import arguments, runner, write_rows

from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import find_model
from m3kit.errors import KitError


def cut(file, size: int = 0) -> None:
    file.write_bytes(file.read_bytes()[:size])


BROKEN = {
    "configuration is half": (lambda folder: cut(folder / "config.json", 20), "copy or download the model again"),
    "weights are half": (lambda folder: cut(folder / "model.safetensors", 2000), "copy or download the model again"),
    "weights are empty": (lambda folder: cut(folder / "model.safetensors"), "copy or download the model again"),
    "weights are gone": (lambda folder: (folder / "model.safetensors").unlink(), "copy or download the model again"),
    "tokenizer is empty": (lambda folder: cut(folder / "tokenizer.json"), "copy or download the model again"),
    # transformers makes one that has no words, and every text would be the same.
    "tokenizer is gone": (
        lambda folder: [file.unlink() for file in folder.glob("token*")],
        r"has no tokenizer \(tokenizer.json is missing or empty\); copy the one of its base there",
    ),
    "head is empty": (lambda folder: cut(folder / "sparse_linear.pt"), "copy or download the model again"),
    "head is text": (lambda folder: (folder / "sparse_linear.pt").write_text("no"), "file .pt or .bin does not hold"),
    "head is of another model": (
        lambda folder: torch.save(torch.nn.Linear(7, 9).state_dict(), folder / "colbert_linear.pt"),
        r"size mismatch.*copy or download the model again",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_it_is_refused_by_evaluation_and_by_training(what, starter, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(starter, broken)
    damage, said = BROKEN[what]
    damage(broken)
    with pytest.raises(KitError, match=said) as refused:
        Encoder(find_model("tuned", str(broken)), EncodeSettings()).dense(["a text"])
    assert str(broken) in str(refused.value)
    with pytest.raises(KitError, match=said) as refused:
        runner(arguments(broken, write_rows(tmp_path / "rows"), tmp_path / "output"))
    assert str(broken) in str(refused.value)
