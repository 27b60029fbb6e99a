"""Trainings by the kit's own command that are killed after a few steps, and what their log says of these."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from side_by_side.cases import PUBLISHED, Case
from side_by_side.rows import rows_of, write_rows

KIT = Path(__file__).resolve().parent.parent.parent
WARM_UP = 3
GROUP = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
SETTINGS = {name: value for name, value in PUBLISHED.items() if name != "fp16"} | {"pad_to_multiple_of": 1}
# How a line begins that says what was chosen.
CHOICES = ("Precision:", "Attention:", "sub_batch_tokens", "out of memory", "verflow", "skipped")


class ShortRuns:
    """The model and the rows that all checks train on, made once; and their training."""

    def __init__(self, folder: Path, device: str, shape: str) -> None:
        self.folder, self.device, self.count = folder, device, 0
        short = Case(about="", shapes=(shape,), rows=0, runs=())
        full = Case(about="", shapes=(shape,), rows=0, runs=(), passage_words=512)
        sizes = (600, 1100) if device == "cuda" else (40, 40)
        self.base = folder / "base"
        self.rows = {}
        for name, case, size in (("real lengths", short, sizes[0]), ("512 tokens", full, sizes[1])):
            (folder / name).mkdir()
            native, users = write_rows(rows_of(case, size, None), folder / name)
            if not self.base.exists():
                self.run("-m", "side_by_side.bases", shape, native, self.base)
            output = folder / name / "prepared"
            self.run("-m", "m3kit", "prepare", "--train_data", users, "--output_dir", output, "--train_group_size", 8)
            self.rows[name] = output / "retrieval"
        # Losses can only be compared without dropout.
        config = json.loads((self.base / "config.json").read_text("utf-8"))
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (self.base / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        paths = os.pathsep.join([str(KIT / "benchmarks"), str(KIT)])
        card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": card, **more}

    def run(self, *words: object) -> None:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{done.stderr[-2000:]}\nfailed ({done.returncode}): {' '.join(command)}")

    def train(self, *, steps: int = 8, rows: str = "real lengths", variables: dict | None = None, **settings) -> dict:
        """So many steps, then it is killed: nothing is saved. The error's last lines where it ended before."""
        self.count += 1
        output = self.folder / f"run {self.count}"
        values = {**SETTINGS, "model_name_or_path": self.base, "train_data": self.rows[rows], "output_dir": output}
        values |= {"max_steps": 10_000, "save_steps": 10_000, "report_to": "none", "use_cpu": self.device == "cpu"}
        values |= {"precision": "auto", **settings}
        words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        environment = self.environment(**GROUP, MASTER_PORT=str(29_600 + self.count), **(variables or {}))
        log = self.folder / f"run {self.count}.log"
        held = 0.0
        with log.open("w") as file:
            command = [sys.executable, "-m", "m3kit.training", *words]
            process = psutil.Popen(command, env=environment, stdout=file, stderr=file)
            try:
                while process.poll() is None and len(logged(output)) < steps + WARM_UP:
                    time.sleep(0.5)
                    held = max(held, self.held_gib())
            finally:
                for one in [*process.children(recursive=True), process]:
                    one.kill()
                process.wait()
        lines = logged(output)
        if len(lines) < steps + WARM_UP:
            return {"error": log.read_text("utf-8")[-600:]}
        speeds = [line["tokens_per_second"] for line in lines[WARM_UP:]]
        return {
            "tokens_per_second": round(statistics.median(speeds)),
            "peak_gb": round(lines[-1]["memory_gb"], 2),
            "card_gib": round(held, 2),
            "losses": [round(line["loss"], 4) for line in lines[:4]],
            "gradient_norms": [line.get("grad_norm") for line in lines[:4]],
            "said": said(log.read_text("utf-8")),
        }

    def held_gib(self) -> float:
        """What of the card is in use, PyTorch's reserve and the context included."""
        if self.device == "cpu":
            return 0.0
        words = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        words.append(f"--id={self.environment()['CUDA_VISIBLE_DEVICES']}")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return float(done.stdout) / 1024 if done.stdout.strip().isdigit() else 0.0


def logged(output: Path) -> list[dict]:
    """The steps in the log of a run, which may be writing its last line."""
    file = output / "train_log.jsonl"
    text = file.read_text("utf-8") if file.exists() else ""
    entries = [json.loads(line) for line in text.split("\n")[:-1]]
    return [entry for entry in entries if "tokens_per_second" in entry]


def said(log: str) -> list[str]:
    """The sentences about what was chosen."""
    lines = [line.rpartition(" -   ")[2][:300] for line in log.split("\n")]
    return [line for line in lines if any(words in line for words in CHOICES)][:8]
