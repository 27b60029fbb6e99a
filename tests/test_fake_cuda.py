"""The training step has all its tensors on the GPU, and hardly ever waits for it: shown without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_cuda import VARIANTS
from torch.utils.cpp_extension import include_paths, library_paths

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(torch.version.cuda), reason="a PyTorch with CUDA has the hooks that these tests fake"),
]

TESTS = Path(__file__).parent
# Beside those of the optimizer and of the log.
MOST_SYNCS = 2
SPOILED = ("spoiled", "FlagEmbedding's collator")


@pytest.fixture(scope="module")
def found(starter, tmp_path_factory):
    compiler = shutil.which("g++")
    if not compiler:
        pytest.skip("there is no g++ to compile tests/fake_cuda.cpp with")
    library = tmp_path_factory.mktemp("fake") / "fake_cuda.so"
    headers = [f"-I{path}" for path in include_paths()]
    (torch_folder,) = library_paths()
    linked = [f"-L{torch_folder}", f"-Wl,-rpath,{torch_folder}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    source = TESTS / "fake_cuda.cpp"
    subprocess.run([compiler, "-std=c++20", "-shared", "-fPIC", "-o", library, source, *headers, *linked], check=True)
    # Before torch is loaded, for it looks but once whether there is a GPU.
    paths = {"LD_PRELOAD": str(library), "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, TESTS / "fake_cuda.py", starter]
    done = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("variant", [name for name in (*VARIANTS, "evaluation") if name not in SPOILED])
def test_all_tensors_are_on_the_gpu_and_the_host_hardly_waits(found, variant):
    assert not found[variant]["error"]
    if variant != "evaluation":
        assert sum(found[variant]["syncs"].values()) <= MOST_SYNCS, found[variant]["syncs"]


def test_a_tensor_left_on_the_cpu_is_found(found):
    assert "found at least two devices" in found["spoiled"]["error"]


def test_waiting_is_counted(found):
    """FlagEmbedding's collator leaves it to the model to look what is in a batch."""
    told = found["FlagEmbedding's collator"]
    assert not told["error"]
    assert {what.split()[0] for what in told["syncs"]} >= {"unique", "nonzero", "item", "new_tensor"}
    assert sum(told["syncs"].values()) > MOST_SYNCS
