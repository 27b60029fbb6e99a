"""How much memory `m3kit mine` takes, and how long, as passages grow; killed and resumed it must write the same files.

    python benchmarks/mining.py --passages 100000 200000 --queries 500 --output results.json
    python benchmarks/mining.py --passages 1000000 --kill_after 3

Makes up retrieval rows and a corpus, and mines with a tiny model in a process of its own, whose memory is sampled. With
``--kill_after N`` the same is done once more, killed when N shards are finished and run again, and the files compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from prepare import memory_of

KIT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--kill_after", type=int, metavar="SHARDS", help="also kill a run then, and resume it")
    parser.add_argument("--folder", type=Path, help="where everything is written (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("mine", nargs="*", help="further arguments of m3kit mine, after --")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="m3kit-benchmark-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        make_model(folder / "model")
        runs = [measure(folder, count, args.queries, args.kill_after, args.mine) for count in args.passages]
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    print(json.dumps({"runs": runs}, indent=2))
    print("| passages | queries | CPU s | peak MiB | resumed: same files |\n|---|---|---|---|---|", file=sys.stderr)
    for run in runs:
        columns = ("passages", "queries", "cpu_seconds", "peak_memory_mib", "resumed_same")
        cells = (run.get(column, "-") for column in columns)
        print(f"| {' | '.join(f'{one:,}' if type(one) is int else str(one) for one in cells)} |", file=sys.stderr)
    if args.output:
        args.output.write_text(json.dumps({"runs": runs}, indent=2) + "\n")


def make_model(folder: Path) -> None:
    """One thin random layer with both heads and a vocabulary of words: encoding is not what is measured."""
    sys.path.insert(0, str(KIT / "tests"))
    sys.path.insert(0, str(KIT))
    from tiny import write_tiny_model

    write_tiny_model(folder)


def measure(folder: Path, passages: int, queries: int, kill_after: int | None, arguments: list[str]) -> dict:
    rows, corpus = folder / "rows" / "retrieval" / "train.jsonl", folder / "corpus.jsonl"
    generate(rows, corpus, passages, queries)
    command = [sys.executable, "-m", "m3kit", "mine", "--train_data", rows, "--corpus", corpus]
    command += ["--model", folder / "model", "--max_share", "1", *arguments]
    whole, resumed = folder / "whole", folder / "resumed"
    used = sum(os.times()[2:4])  # by processes that have ended
    seconds, peak, _ = timed([*command, "--output_dir", whole], whole, None)
    used = sum(os.times()[2:4]) - used
    run = {
        "passages": passages,
        "queries": queries,
        "corpus_mib": round(corpus.stat().st_size / 2**20),
        "arguments": arguments,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "seconds_of": json.loads((whole / "mining.json").read_text())["seconds"],
        "peak_memory_mib": round(peak / 2**20),
    }
    if kill_after:
        killed, _, was_killed = timed([*command, "--output_dir", resumed], resumed, kill_after)
        again, _, _ = timed([*command, "--output_dir", resumed], resumed, None)
        name = "retrieval/train.jsonl"
        run["killed_after_seconds"], run["resumed_seconds"] = round(killed, 1), round(again, 1)
        run["resumed_same"] = was_killed and (whole / name).read_bytes() == (resumed / name).read_bytes()
    for made in (whole, resumed):
        shutil.rmtree(made, ignore_errors=True)
    print(json.dumps(run), file=sys.stderr, flush=True)
    return run


def generate(rows: Path, corpus: Path, passages: int, queries: int) -> None:
    """Passages of about 40 words, of 50,000 as frequent as words of a language are (Zipf), and the model's own."""
    sys.path.insert(0, str(KIT / "tests"))
    from tiny import WORDS

    draw = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    made_up = ["".join(draw.choices(letters, range(26, 0, -1), k=draw.randint(2, 9))) for _ in range(50_000)]
    words = WORDS + made_up
    weights = np.cumsum([1 / (number + 5) for number in range(len(words))]).tolist()
    rows.parent.mkdir(parents=True, exist_ok=True)
    with corpus.open("w") as file:
        for _ in range(passages):
            file.write(json.dumps({"text": " ".join(draw.choices(words, cum_weights=weights, k=40))}) + "\n")
    with rows.open("w") as file:
        for _ in range(queries):
            positive = draw.choices(words, cum_weights=weights, k=40)
            negative = " ".join(draw.choices(words, cum_weights=weights, k=40))
            row = {"query": " ".join(positive[:8]), "pos": [" ".join(positive)], "neg": [negative]}
            file.write(json.dumps(row | {"prompt": "", "type": "retrieval"}) + "\n")


def timed(command: list, output: Path, kill_after: int | None) -> tuple[float, int, bool]:
    """(seconds, peak bytes of memory, whether it was killed) of a command."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(KIT)}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    peak, killed = 0, False
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        if kill_after and not killed and finished_shards(output) >= kill_after:
            process.kill()
            killed = True
        time.sleep(0.25)
    if process.returncode and not killed:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return time.perf_counter() - start, peak, killed


def finished_shards(output: Path) -> int:
    return len(list(output.with_name(f".{output.name}.mining").glob("shard-??????.npz")))


if __name__ == "__main__":
    main()
