"""The line about memory that a dry run shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import KIT

from m3kit.planning.machine import Machine, set_up
from m3kit.planning.memory import BGE_M3, count_parameters, tell_memory
from m3kit.planning.request import read_request


def told(*words: str, script: str = "single", gpus: int = 1) -> str:
    request = read_request(script, words, {"HF_HUB_OFFLINE": "1"}, {})
    return tell_memory(request, set_up(request, Machine(gpus, "for a test", 8, True), "it", dry_run=True))


def test_bge_m3_has_568_million_parameters():
    assert count_parameters(BGE_M3) == pytest.approx(568e6, rel=0.01)


def test_parameters_are_counted_as_transformers_does(tmp_path):
    from transformers import AutoConfig, AutoModel

    shape = {"vocab_size": 3000, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512}
    model = AutoModel.from_config(AutoConfig.for_model("xlm-roberta", num_attention_heads=4, **shape))
    counted = sum(weight.numel() for weight in model.parameters())
    assert count_parameters(model.config.to_dict()) == pytest.approx(counted, rel=0.03)


def test_what_is_held_follows_the_settings():
    def gib(*words: str, **kwargs) -> float:
        return float(told(*words, **kwargs).split("about ")[1].split(" GiB")[0])

    assert "about 8.4 GiB on each GPU; a card of 16 GB is enough" in told()
    plain, deepspeed = (gib(*words, script="multi", gpus=2) for words in (("--deepspeed", "none"), ()))
    assert gib() < plain < deepspeed
    offloaded = gib("--deepspeed", str(KIT / "configs" / "ds_zero2_offload.json"), script="multi", gpus=2)
    assert offloaded < gib() < plain
    assert gib("--lora_rank", "8") < gib("--freeze_word_embeddings", "True") < gib()


def test_a_model_that_is_not_here_is_not_reckoned(tmp_path):
    assert told("--model_name_or_path", "somebody/else") == ""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), "utf-8")
    assert told("--model_name_or_path", str(tmp_path)) == ""


def test_a_dry_run_ends_with_it():
    script = KIT / "run_flagembedding_training_single_gpu.sh"
    done = subprocess.run(
        [script, "--dry-run"], capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable}
    )
    assert done.stderr.strip().splitlines()[-1].startswith("Memory: weights, gradients and optimizer take about")
