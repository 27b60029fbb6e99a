"""The memory of a step: against what is measured on a CPU, its shortcuts, what options do to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from transformers import AutoConfig

from m3kit.training import footprint as module
from m3kit.training.footprint import Step, footprint, peaks

pytestmark = pytest.mark.slow

PROBE = Path(__file__).with_name("memory_probe.py")
# Without these glibc keeps much of what is freed: real, but no tensors.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}

MINILM = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
XLM_R = MINILM | {"model_type": "xlm-roberta", "vocab_size": 250002, "max_position_embeddings": 514}
WIDE = XLM_R | {
    "vocab_size": 30522,
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
NO_DROPOUT = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
TINY = XLM_R | {"vocab_size": 500, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}

STEP = Step(
    batch_size=2,
    group_size=4,
    query_max_len=256,
    passage_max_len=256,
    precision="fp32",
    device="cpu",
    gradient_checkpointing=True,
    unified_finetuning=True,
    sub_batch_tokens=16384,
)


def config_of(settings: dict):
    settings = dict(settings)
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def most(peaks: dict) -> int:
    return max(held.total() for held in peaks.values())


# ---- Against what is measured ----


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        pytest.param(MINILM, {}, id="checkpointed layers"),
        pytest.param(MINILM, {"precision": "bf16"}, id="checkpointed layers, 16 bits"),
        pytest.param(MINILM, {"gradient_checkpointing": False}, id="all activations"),
        pytest.param(MINILM, {"gradient_checkpointing": False, "precision": "bf16"}, id="all activations, 16 bits"),
        pytest.param(MINILM | NO_DROPOUT, {"gradient_checkpointing": False}, id="the fused attention kernel"),
        pytest.param(XLM_R, {"passage_max_len": 64, "query_max_len": 32}, id="a large vocabulary"),
        pytest.param(XLM_R, {"passage_max_len": 64, "unified_finetuning": False}, id="dense only"),
        pytest.param(WIDE, {"passage_max_len": 128, "query_max_len": 64}, id="wide layers"),
        pytest.param(MINILM, {"sub_batch_tokens": 512}, id="sub-batches"),
        pytest.param(
            MINILM,
            {"sub_batch_tokens": 1024, "gradient_checkpointing": False, "precision": "bf16"},
            id="sub-batches, all activations of one",
        ),
        pytest.param(
            MINILM,
            {"batch_size": 12, "group_size": 2, "passage_max_len": 32, "sub_batch_tokens": 1024},
            id="long queries, scored in chunks",
        ),
        pytest.param(MINILM, {"untouched": True, "passage_max_len": 64, "query_max_len": 64}, id="untouched"),
    ],
)
def test_the_plan_is_what_training_takes(settings, changes):
    step = replace(STEP, **changes)
    probed = subprocess.run(
        [sys.executable, PROBE, json.dumps({**asdict(step), "config": settings})],
        env={**os.environ, **MALLOC, "PYTHONPATH": str(PROBE.parent.parent), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    measured, planned = int(probed.stdout), sum(footprint(config_of(settings), step).values())
    print(f"planned {planned >> 20} MiB, measured {measured >> 20} MiB: {planned / measured:.3f}")
    assert abs(planned / measured - 1) <= 0.15, (planned / measured, planned, measured)


# ---- Shortcuts ----


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": False},
        {"precision": "bf16", "unified_finetuning": False},
        {"device": "cuda", "precision": "fp16"},
        {"device": "cuda", "precision": "fp16", "deepspeed": True},
        {"sub_batch_tokens": 256},
        {"untouched": True},
        {"fix_encoder": True},
        {"processes": 2},
    ],
)
def test_few_layers_tell_what_all_hold(changes):
    config, step = config_of(TINY), replace(STEP, **{"query_max_len": 32, "passage_max_len": 64} | changes)
    assert config.num_hidden_layers > max(module.FEW_LAYERS)
    assert sum(footprint(config, step).values()) == most(peaks(config, step))


def test_few_of_the_sub_batches_and_of_the_chunks_tell_what_all_hold(monkeypatch):
    config = config_of(TINY | {"num_hidden_layers": 2})
    # A few queries' tokens at a time, so that there are several.
    monkeypatch.setattr(module.scores, "QUERY_TOKENS", 64)
    monkeypatch.setattr(module.scores, "CHUNK", 2**14)
    step = replace(STEP, batch_size=4, query_max_len=64, passage_max_len=64, sub_batch_tokens=192)
    quick = most(peaks(config, step))
    ops = []
    add = module.Ledger.add
    monkeypatch.setattr(module.Ledger, "add", lambda self, *args: (ops.append(1), add(self, *args)))
    peaks(config, step)
    few = len(ops)
    monkeypatch.setattr(module, "_encode_few", lambda *_: None)
    monkeypatch.setattr(module, "_score_few", contextlib.nullcontext)
    assert most(peaks(config, step)) == quick
    assert len(ops) - few > 1.5 * few


# ---- What options do ----


def held(config=None, **changes) -> dict[str, int]:
    return footprint(config or config_of(MINILM), replace(STEP, **changes))


def test_parameters_and_moments_are_those_of_the_trained_weights():
    from transformers import AutoModel

    config = config_of(TINY | {"num_hidden_layers": 2})
    encoder = AutoModel.from_config(config)
    count = sum(parameter.numel() for parameter in encoder.parameters()) + 32 * 32 + 32 + 32 + 1
    pooler = sum(parameter.numel() for parameter in encoder.pooler.parameters())
    buffers = sum(buffer.nbytes for buffer in encoder.buffers())
    found = held(config)
    assert found["parameters"] == 4 * count + buffers
    assert found["optimizer"] == 2 * 4 * (count - pooler)


def test_each_option_saves_what_it_is_there_for():
    asked = held(gradient_checkpointing=False)
    assert held()["activations"] < asked["activations"] / 2
    assert held(gradient_checkpointing=False, precision="bf16")["activations"] < asked["activations"]
    assert held(gradient_checkpointing=False, unified_finetuning=False)["heads"] < asked["heads"] / 10
    assert held(gradient_checkpointing=False, sub_batch_tokens=1024)["activations"] < asked["activations"] / 2
    # Three tensors of texts by tokens by vocabulary.
    assert sum(held(untouched=True).values()) > sum(held().values()) + 8 * 256 * 30522 * 4


def test_deepspeed_keeps_16_bit_weights_with_32_bit_copies_and_ddp_a_second_set_of_gradients():
    config = config_of(XLM_R)
    trained = held(config, query_max_len=8, passage_max_len=8)["optimizer"] / 8
    deepspeed = held(config, query_max_len=8, passage_max_len=8, deepspeed=True, device="cuda", precision="fp16")
    # A weight: 2 bytes and its gradient 2, then 4 each: the copy, two moments, the gradient again, AdamW's own tensor.
    assert sum(deepspeed.values()) == pytest.approx(24 * trained, rel=0.02)
    alone, together = (held(config, query_max_len=8, passage_max_len=8, processes=count) for count in (1, 2))
    assert sum(together.values()) - sum(alone.values()) == pytest.approx(4 * trained, rel=0.001)


def test_vectors_of_other_processes_are_held_too():
    step = dict(batch_size=16, query_max_len=32, passage_max_len=32, sub_batch_tokens=256, processes=8)
    config = config_of(TINY | {"vocab_size": 50})
    alone, together = (held(config, unified_negatives_cross_device=crossed, **step) for crossed in (False, True))
    vectors = 16 * (1 + 4) * 31 * 32 * 4
    assert sum(together.values()) - sum(alone.values()) > 7 * vectors
