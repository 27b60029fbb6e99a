"""Vectors of the base are kept by content, and found again only for the same model, settings and text."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import mostly_slow
from tiny import PASSAGES

from m3kit.evaluation import vector_cache
from m3kit.evaluation.encode import Encoder, EncodeSettings
from m3kit.evaluation.models import find_model

SETTINGS = EncodeSettings(batch_size=4, query_max_len=16, passage_max_len=16)
TEXTS = list(PASSAGES.values())


def encode(model: Path, cache: Path, texts=TEXTS, settings=SETTINGS, kind="passages"):
    """The vectors, how many of them were found, and whether the model had to be loaded."""
    with closing(Encoder(find_model("base", str(model)), settings, cache)) as encoder:
        vectors = getattr(encoder, kind)(texts)
        return vectors, encoder.cache.found, "flag_model" in vars(encoder)


def assert_same(one, two) -> None:
    np.testing.assert_array_equal(one.dense, two.dense)
    assert [dict(weights) for weights in one.lexical] == [dict(weights) for weights in two.lexical]
    for a, b in zip(one.colbert, two.colbert, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_second_time_nothing_is_encoded_and_the_vectors_are_the_same_to_the_last_bit(model_folder, tmp_path):
    first, found, loaded = encode(model_folder, tmp_path)
    assert (found, loaded) == (0, True)
    again, found, loaded = encode(model_folder, tmp_path)
    assert (found, loaded) == (len(TEXTS), False)
    assert_same(first, again)


def test_a_closed_encoder_finds_its_vectors_again(model_folder, tmp_path):
    encoder = Encoder(find_model("base", str(model_folder)), SETTINGS, tmp_path)
    for _ in range(2):
        with closing(encoder):
            encoder.passages(TEXTS)
    assert encoder.cache.found == len(TEXTS)


def test_of_a_changed_corpus_only_what_is_new_is_encoded(model_folder, tmp_path):
    first, *_ = encode(model_folder, tmp_path, TEXTS[:8])
    mixed, found, _ = encode(model_folder, tmp_path, ["winter garden", *reversed(TEXTS[:8])])
    assert found == 8
    np.testing.assert_array_equal(mixed.dense[1:], first.dense[::-1])
    alone, *_ = encode(model_folder, tmp_path / "other", ["winter garden"])
    np.testing.assert_allclose(mixed.dense[0], alone.dense[0], atol=1e-6)


@pytest.mark.parametrize(
    "changed", mostly_slow([{"pooling_method": "mean"}, {"passage_max_len": 8}, {"normalize_embeddings": False}])
)
def test_other_settings_find_nothing(model_folder, tmp_path, changed):
    encode(model_folder, tmp_path)
    assert encode(model_folder, tmp_path, settings=replace(SETTINGS, **changed))[1] == 0
    # What does not change a vector does not matter.
    assert encode(model_folder, tmp_path, settings=replace(SETTINGS, batch_size=2))[1] == len(TEXTS)


def test_a_changed_model_finds_nothing_and_a_copy_of_it_everything(model_folder, tmp_path):
    encode(model_folder, tmp_path / "cache")
    copy = Path(shutil.copytree(model_folder, tmp_path / "copy"))
    assert encode(copy, tmp_path / "cache")[1] == len(TEXTS)
    torch.save(torch.nn.Linear(16, 1).state_dict(), copy / "sparse_linear.pt")
    assert encode(copy, tmp_path / "cache")[1] == 0


def test_a_query_is_not_a_passage(model_folder, tmp_path):
    encode(model_folder, tmp_path)
    assert encode(model_folder, tmp_path, kind="queries")[1] == 0
    assert encode(model_folder, tmp_path, kind="dense")[1] == 0


@pytest.mark.parametrize("damage", mostly_slow(["garbage", "folder is a file", "broken vector"]))
def test_a_cache_that_cannot_be_used_is_told_and_does_without(model_folder, tmp_path, capsys, damage):
    cache = tmp_path / "cache"
    good, *_ = encode(model_folder, cache)
    (file,) = cache.glob("*.sqlite")
    if damage == "garbage":
        file.write_bytes(b"no database " * 1000)
    elif damage == "broken vector":
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE vectors SET dense = x'00'")
    else:
        shutil.rmtree(cache)
        cache.write_text("")
    vectors, found, loaded = encode(model_folder, cache)
    assert (found, loaded) == (0, True)
    assert_same(good, vectors)
    assert capsys.readouterr().err.count("cannot be used") == 1
    # What was broken is gone, and the next time it is made anew.
    encode(model_folder, cache)
    assert encode(model_folder, cache)[1] == (0 if cache.is_file() else len(TEXTS))


def test_a_cache_without_room_keeps_what_it_has_and_says_so(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(vector_cache, "_make_room", lambda *_: 5000)
    encode(model_folder, tmp_path)
    assert "is full" in capsys.readouterr().err
    found = encode(model_folder, tmp_path)[1]
    assert 0 < found < len(TEXTS)


def test_the_oldest_models_make_room_first(tmp_path, monkeypatch):
    for age, name in enumerate(["old", "ours", "new"]):
        (tmp_path / f"{name}.sqlite").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{name}.sqlite", (age, age))
    usage = shutil.disk_usage(tmp_path)._replace(free=1300)
    monkeypatch.setattr(vector_cache.shutil, "disk_usage", lambda _: usage)
    # A quarter of 1,300 free and 300 held is 400, and half of that is to be left for what comes.
    assert vector_cache._make_room(tmp_path / "ours.sqlite") == 200
    assert {file.stem for file in tmp_path.iterdir()} == {"ours", "new"}


def test_evaluating_again_takes_the_base_from_the_cache(model_folder, tmp_path, capsys):
    from tiny import write_beir

    from m3kit.__main__ import main

    words = ["evaluate", "--models", f"base={model_folder}", f"tuned={model_folder}", "--device", "cpu", "--json"]
    words += ["--eval_data", str(write_beir(tmp_path / "eval")), "--output_dir", str(tmp_path / "out")]
    words += ["--vector_cache", str(tmp_path / "vectors"), "--general_data", "none"]
    told = []
    for _ in range(2):
        assert main(words) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [run["models"]["base"]["cached_texts"] for run in told] == [0, 15]
    assert [run["models"]["tuned"]["cached_texts"] for run in told] == [0, 0]
    assert told[0]["comparisons"] == told[1]["comparisons"]
