"""The memory plan: what steps really take, on a CPU; its shortcuts; what it says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from transformers import AutoConfig

from m3kit import memory
from m3kit.errors import KitError
from m3kit.free_memory import free_on_machine
from m3kit.memory import GIB, Line, find_config, judge, plan, render
from m3kit.training import footprint as module
from m3kit.training.footprint import KINDS, Step, footprint, peaks

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


@pytest.mark.slow
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
        pytest.param(MINILM, {"batch_size": 4, "sub_batch_tokens": 1024}, id="sub-batches"),
        pytest.param(
            MINILM,
            {"batch_size": 4, "sub_batch_tokens": 2048, "gradient_checkpointing": False, "precision": "bf16"},
            id="sub-batches, all activations of one",
        ),
        pytest.param(
            MINILM,
            {"batch_size": 8, "query_max_len": 512, "passage_max_len": 32, "sub_batch_tokens": 1024},
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
    print(f"planned {planned / GIB:.3f} GiB, measured {measured / GIB:.3f} GiB: {planned / measured:.3f}")
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


# ---- What is said ----


def arguments(*given: str):
    parser = ArgumentParser()
    memory.add_arguments(parser)
    return parser.parse_args(given)


def test_bge_m3_needs_no_download_and_others_do(tmp_path):
    config = find_config("BAAI/bge-m3", cache_dir=str(tmp_path))
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (1024, 24, 250002)
    for name in ("someone/never-downloaded", "no such/folder at all"):
        with pytest.raises(KitError, match="not on this machine yet"):
            find_config(name, cache_dir=str(tmp_path))
    with pytest.raises(KitError, match="holds no model"):
        find_config(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_downloaded_model_is_found_in_the_cache(tmp_path):
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/config.json").write_text(json.dumps(MINILM))
    assert find_config("someone/model", cache_dir=str(tmp_path)).hidden_size == 384


def test_the_command_prints_table_and_verdict(starter, capsys):
    assert memory.run(arguments("--model_name_or_path", str(starter), "--device", "cpu", "--precision", "fp32")) is None
    first, worst, _, heading, *rows, verdict = capsys.readouterr().out.splitlines()
    assert "2 queries with 8 passages" in first and "fp32" in first
    assert worst.startswith("The worst case: all texts as long as query_max_len (512 tokens)")
    assert heading.split() == [*KINDS, "sum"]
    assert [row.split("  ")[0] for row in rows] == [
        "as asked for",
        "gradient_checkpointing False",
        "precision bf16",
        "unified_finetuning False",
        "sub_batch_tokens 8192",
        "sub_batch_tokens 32768",
        "per_device_train_batch_size 4",
        "FlagEmbedding untouched",
    ]
    assert verdict.startswith("It ")


def test_an_automatic_batch_is_planned_as_two_and_said_so(starter, capsys):
    memory.run(arguments("--model_name_or_path", str(starter), "--per_device_train_batch_size", "auto"))
    out = capsys.readouterr().out
    assert "per_device_train_batch_size is auto" in out and "planned for 2" in out
    assert "an estimate" in out


def test_a_model_that_cannot_be_planned_is_a_sentence():
    with pytest.raises(KitError, match="no plan: a step of a mpnet model"):
        plan(AutoConfig.for_model("mpnet", num_hidden_layers=1), STEP)


def line(change: str, gib: float) -> Line:
    return Line(change, {"parameters": int(gib * GIB), "heads": 0})


def test_the_table_tells_differences():
    rendered = render([line("as asked for", 2), line("more", 3.5), line("equal", 2.001)]).splitlines()
    assert [row.split()[-1] for row in rendered[1:]] == ["2.00", "+1.50", "same"]
    assert len({row.index("2.00") for row in rendered if "as asked" in row or "equal" in row}) == 1


def test_whether_it_fits_and_what_would():
    lines = [line("as asked for", 10), line("smaller", 6), line("larger", 12), line("FlagEmbedding untouched", 1)]
    assert judge(lines, "cuda", 4, 24 * GIB).startswith("It fits: about 10.8 GiB with CUDA, and the GPU has 24.0 GiB")
    assert judge(lines, "cuda", 1, 11 * GIB).startswith("It just fits")
    assert judge(lines, "cuda", 1, 8 * GIB).endswith("what would: smaller.")
    assert judge(lines, "cuda", 1, 2 * GIB).endswith("change several.")
    # Processes on a CPU share its memory.
    assert judge(lines, "cpu", 1, 16 * GIB).startswith("It fits")
    assert judge(lines, "cpu", 2, 16 * GIB).endswith("what would: smaller.")
    assert "cannot be told" in judge(lines, "cuda", 1, None)


# ---- What is free ----


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 << 20} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_memory_without_limits_is_the_machine_s(tmp_path):
    assert free_on_machine(machine(tmp_path, {})) == 8 * GIB
    unlimited = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/memory.current": "5\n",
    }
    assert free_on_machine(machine(tmp_path, unlimited)) == 8 * GIB


def test_free_memory_ends_at_the_container_s_limit(tmp_path):
    group = "sys/fs/cgroup"
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        f"{group}/outer/memory.max": f"{4 * GIB}\n",
        f"{group}/outer/memory.current": f"{3 * GIB}\n",
        f"{group}/outer/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        f"{group}/outer/inner/memory.max": "max\n",
        f"{group}/outer/inner/memory.current": "7\n",
    }
    assert free_on_machine(machine(tmp_path / "nested", files)) == 2 * GIB
    files = {
        "proc/self/cgroup": "0::/named/outside\n",
        f"{group}/memory.max": f"{3 * GIB}\n",
        f"{group}/memory.current": "0\n",
    }
    assert free_on_machine(machine(tmp_path / "container", files)) == 3 * GIB
    files = {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/abc\n",
        f"{group}/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{group}/memory/memory.usage_in_bytes": f"{GIB}\n",
    }
    assert free_on_machine(machine(tmp_path / "version 1", files)) == GIB
