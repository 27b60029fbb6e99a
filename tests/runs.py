"""Whole training runs in processes that can be killed: the trainer's own ``main``, one process or several."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import read_jsonl, write_jsonl
from forks import CONTEXT
from safetensors.torch import load_file

WORDS = "moon river glass winter copper bread signal garden paper violin harbour cloud".split()


def write_rows(folder: Path, count: int = 40, negatives: int = 3, seed: int = 0) -> Path:
    """Prepared rows of random words, each text once."""
    chance = random.Random(seed)

    def text(name: str) -> str:
        return " ".join([name, *chance.choices(WORDS, k=chance.randint(2, 9))])

    rows = [
        {
            "query": text(f"q{i}"),
            "pos": [text(f"p{i}"), text(f"o{i}")],
            "neg": [text(f"n{i}.{k}") for k in range(negatives)],
            "prompt": "",
            "type": "retrieval",
        }
        for i in range(count)
    ]
    write_jsonl(folder / "retrieval" / "train.jsonl", rows[: count // 2])
    alone = [{**row, "type": "symmetric_class"} for row in rows[count // 2 :]]
    write_jsonl(folder / "classification-no_in_batch_neg" / "train.jsonl", alone)
    return folder


def arguments(model: Path, rows: Path, output: Path, **settings) -> list[str]:
    values = {
        "model_name_or_path": model,
        "output_dir": output,
        "cache_path": output.parent / "cache",
        "use_cpu": True,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "train_group_size": 3,
        "query_max_len": 16,
        "passage_max_len": 16,
        "unified_finetuning": True,
        "use_self_distill": True,
        "self_distill_start_step": 4,
        "max_steps": 24,
        "save_steps": 5,
        "save_total_limit": 2,
        "dataloader_num_workers": 1,
        "report_to": "none",
        **settings,
    }
    named = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return ["--train_data", *map(str, sorted(rows.iterdir())), *named]


def runner(words: list[str], cls=None):
    """In this process, before it trains; ``cls``: FlagEmbedding's in place of the kit's."""
    from transformers import HfArgumentParser

    from m3kit.batches.arguments import DataArguments
    from m3kit.training.arguments import ModelArguments, TrainingArguments
    from m3kit.training.runner import Runner

    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model, data, training = parser.parse_args_into_dataclasses(args=words)
    return (cls or Runner)(model_args=model, data_args=data, training_args=training)


class Run:
    """A run as it was started; ``wait`` gives the exit codes of its processes."""

    def __init__(self, words: list[str], processes: int = 1, **environment: str) -> None:
        self.output = Path(words[words.index("--output_dir") + 1])
        self.log = self.output.with_name(f"{self.output.name}.log")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.processes = []
        for rank in range(processes):
            variables = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"} | environment
            if processes > 1:
                variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(processes)}
            process = CONTEXT.Process(target=_train, args=(words, variables, str(self.log)))
            process.start()
            self.processes.append(process)

    def wait(self) -> list[int]:
        for process in self.processes:
            process.join(300)
        return [process.exitcode for process in self.processes]

    def send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def when(self, happened: Callable[[], bool]) -> bool:
        """Wait until it has happened, or the run is over (then False)."""
        while not happened():
            if not any(process.is_alive() for process in self.processes):
                return False
            time.sleep(0.001)
        return True

    def step(self) -> int:
        path = self.output / "train_log.jsonl"
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        return max([0, *(int(line[9 : line.index(",")]) for line in lines)])

    def saving(self) -> bool:
        return any((self.output / ".saving").glob("checkpoint-*"))


def _train(words: list[str], environment: dict[str, str], log: str) -> None:
    import fp16_on_cpu
    from fake_card import FakeCard

    from m3kit.training import evaluation
    from m3kit.training.__main__ import main

    # Steps as short as these could pay for few evaluations.
    evaluation.COST = float(environment.get("EVALUATION_COST", "inf"))
    # As in a process of its own; this one would hand on how it was made itself.
    multiprocessing.set_start_method("fork", force=True)
    os.environ |= environment
    torch.set_num_threads(1)
    with open(log, "a", buffering=1) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.argv = ["m3kit.training", *words]
        if scale := environment.get("FP16_ON_CPU"):
            fp16_on_cpu.allow(scale)
        # Megabytes that tensors may take, as on a small GPU.
        with FakeCard(environment["FAKE_CARD"]) if "FAKE_CARD" in environment else contextlib.nullcontext():
            code = main()
        # Threads of the process group that outlive the interpreter may abort the process.
        left = threads("gloo")
        assert code == 1 or not left, left
        sys.exit(code)


def threads(name: str, patience: float = 10) -> list[str]:
    """Names of this process's threads with this in them, once those that are ending have had some seconds for it."""
    until = time.monotonic() + patience
    while True:
        found = []
        for file in Path("/proc/self/task").glob("*/comm"):
            with contextlib.suppress(OSError):
                found.append(file.read_text().strip())
        left = [thread for thread in found if name in thread]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


def train(words: list[str], processes: int = 1, **environment: str) -> Run:
    """A run from start to end, which must be a good one."""
    run = Run(words, processes, **environment)
    codes = run.wait()
    assert codes == [0] * processes, (codes, run.log.read_text("utf-8")[-3000:])
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "model.safetensors")
    for head in ("colbert_linear", "sparse_linear"):
        loaded = torch.load(folder / f"{head}.pt", weights_only=True)
        found |= {f"{head}.{name}": value for name, value in loaded.items()}
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    """To the last bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, different


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_jsonl(folder / "train_log.jsonl") if "loss" in row}
