"""What DeepSpeed makes of ds_stage0.json: PyTorch's fused AdamW, without nvcc, and the plain one's results."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import KIT

# In a process of its own: DeepSpeed keeps to the group of processes that it was first started with.
STEPS = """
import collections, json, sys, torch, deepspeed
from torch.utils._python_dispatch import TorchDispatchMode

class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = collections.Counter()
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations[str(function)] += 1
        return function(*args, **(kwargs or {}))

found = []
for config in json.load(sys.stdin):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(20)))
    engine, optimizer, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    for step in range(4):
        rows = torch.randn(4, 8, generator=torch.Generator().manual_seed(step)).to(next(engine.parameters()).dtype)
        engine.backward(engine(rows).float().square().mean())
        with Count() as count:
            engine.step()
    plain = getattr(optimizer, "optimizer", optimizer)
    found.append({
        "class": f"{type(plain).__module__}.{type(plain).__name__}",
        "fused": plain.param_groups[0].get("fused"),
        "operations": sum(count.operations.values()),
        "syncs": count.operations["aten._local_scalar_dense.default"],
        "weights": [value for parameter in model.parameters() for value in parameter.float().flatten().tolist()],
    })
print(json.dumps(found))
"""


@pytest.mark.slow
def test_it_is_pytorchs_fused_adamw_with_the_results_of_the_plain_one():
    configs = [made(precision, fused) for precision in ("fp32", "bf16") for fused in (True, False)]
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        input=json.dumps(configs),
        env={**os.environ, **group},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for shipped, plain in (found[:2], found[2:]):
        assert (shipped["class"], shipped["fused"]) == ("torch.optim.adamw.AdamW", True) and not plain["fused"]
        assert shipped["weights"] == pytest.approx(plain["weights"], rel=1e-5, abs=1e-6)
        assert shipped["operations"] < plain["operations"] and shipped["syncs"] < plain["syncs"]


def made(precision: str, fused: bool) -> dict:
    """The configuration with what transformers fills where it says "auto"."""
    config = json.loads((KIT / "ds_stage0.json").read_text("utf-8"))
    config |= {"train_micro_batch_size_per_gpu": 4, "train_batch_size": 4, "gradient_accumulation_steps": 1}
    config |= {"gradient_clipping": 1.0, "fp16": {"enabled": False}, "bf16": {"enabled": precision == "bf16"}}
    del config["scheduler"]
    optimizer = config["optimizer"]["params"]
    optimizer |= {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    if not fused:
        del optimizer["fused"]
    return config
