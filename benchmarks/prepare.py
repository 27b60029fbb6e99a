"""How fast `m3kit prepare` is and how much memory it takes, beside a bare loop over the same lines.

    python benchmarks/prepare.py --rows 5000 1000000 --output results.json
    python benchmarks/prepare.py --rows 100000 --labels 20000

Generates retrieval rows of about 300 bytes of text (a tenth of them without a negative, one query in fifty repeated,
one row in a hundred not in ASCII) or, with --labels, texts of so many labels. Prepares them with the kit's default
settings in a process of its own, and then reads the same lines and writes as many bytes with orjson alone. Both are
timed in this one run, and a start of Python that does nothing; the memory is that of all processes together
(proportional set size, sampled 20 times a second).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KIT = Path(__file__).resolve().parent.parent
BARE_LOOP = """
import sys, orjson
source, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
written = 0
with open(source, "rb") as file, open(target, "wb") as out:
    for line in file:
        data = orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE)
        written += out.write(data)
    out.write(bytes(max(0, size - written)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 1_000_000])
    parser.add_argument("--labels", type=int, help="texts of so many labels, in place of retrieval rows")
    parser.add_argument("--folder", type=Path, help="where the rows are written (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("prepare", nargs="*", help="further arguments of m3kit prepare, after --")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="m3kit-benchmark-"))
    results = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", "runs": []}
    try:
        for rows in args.rows:
            results["runs"].append(measure(rows, args.labels, folder, args.prepare))
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


def measure(rows: int, labels: int | None, folder: Path, arguments: list[str]) -> dict:
    source = folder / ("classification" if labels else "retrieval") / f"{rows}.jsonl"
    source.parent.mkdir(parents=True, exist_ok=True)
    if labels:
        generate_labelled(source, rows, labels)
    else:
        generate(source, rows)
    prepared = folder / "prepared"
    shutil.rmtree(prepared, ignore_errors=True)
    command = [sys.executable, "-m", "m3kit", "prepare", "--train_data", source, "--output_dir", prepared, *arguments]
    seconds, memory = timed(command)
    manifest = json.loads((prepared / "manifest.json").read_text())
    size = sum(path.stat().st_size for path in prepared.rglob("*") if path.is_file())
    start, _ = timed([sys.executable, "-c", ""])
    bare, _ = timed([sys.executable, "-c", BARE_LOOP, source, folder / "bare.jsonl", str(size)])
    result = {
        "rows": rows,
        "labels": labels,
        "bytes": source.stat().st_size,
        "arguments": arguments,
        "seconds": round(seconds, 2),
        "start_of_python_seconds": round(start, 2),
        "rows_per_second": round(rows / seconds),
        "peak_memory_mib": round(memory / 2**20),
        "bare_loop_seconds": round(bare, 2),
        "times_the_bare_loop": round(seconds / bare, 2),
        "rows_used": manifest["sets"][0]["rows_used"],
        "negatives_added": manifest["sets"][0]["negatives_added"],
    }
    print(json.dumps(result), flush=True)
    source.unlink()
    return result


def generate(path: Path, rows: int) -> None:
    """The same rows at every call."""
    generator = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(generator.choices(letters, range(26, 0, -1), k=generator.randint(2, 9))) for _ in range(30_000)]
    phrases = [" ".join(generator.choices(words, k=7)) for _ in range(100_000)]
    words_of = random.Random()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            one, two, three, four, five = generator.choices(phrases, k=5)
            # words drawn anew for each query, by its number: no two are alike but those that are meant to be the same
            words_of.seed(number if number % 50 else number // 2)
            query = " ".join(words_of.choices(words, k=9)) + ("" if number % 100 else " é")
            row = {"query": query, "positive": f"{one} {two}. {number}"}
            if number % 10:
                row["negative"] = f"{three}, {four} {five[:9]}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def generate_labelled(path: Path, rows: int, labels: int) -> None:
    """The same rows at every call."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlucmfwypvbgkjqxz", k=generator.randint(2, 9))) for _ in range(30_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"text": " ".join(generator.choices(words, k=12)), "label": f"label {number % labels}"}
            file.write(json.dumps(row) + "\n")


def timed(command: list) -> tuple[float, int]:
    """(seconds, peak bytes of memory of all its processes) of a command."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(KIT)}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return seconds, peak


def memory_of(process: int) -> int:
    """Proportional set size in bytes of a process and those it started."""
    total = 0
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as file:
                total += sum(memory_of(int(child)) for child in file.read().split())
    except OSError:
        pass  # it has ended meanwhile
    return total


if __name__ == "__main__":
    main()
