"""How fast training is and how much memory it takes: the kit beside FlagEmbedding and sentence-transformers.

    python benchmarks/training.py --output results.json
    python benchmarks/training.py --cases published --shapes xlmr-small starter --rows FILE.jsonl

All train on the same rows from the same weights, each in a process of its own, with the same number of threads. The
cases, with their settings, are in side_by_side/cases.py. Tables go to standard output, every figure to the JSON file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from side_by_side.bases import SHAPES
from side_by_side.cases import CASES, KIT, Case, Run
from side_by_side.figures import derive, judge, markdown, median
from side_by_side.rows import rows_of, write_rows

KIT_FOLDER = Path(__file__).resolve().parent.parent
PACKAGES = ("FlagEmbedding", "sentence-transformers", "torch", "transformers", "accelerate", "tokenizers")
WARM_UP = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="models (default: those of each case)")
    parser.add_argument("--contenders", nargs="+", help="names of runs, as in the tables (default: all of the case)")
    parser.add_argument("--base", type=Path, help="a folder with weights, instead of random ones, for shape minilm")
    parser.add_argument("--rows", type=Path, help="rows to train on, in the kit's columns or FlagEmbedding's")
    parser.add_argument("--count", type=int, help="how many rows (default: as each case has it)")
    parser.add_argument("--repeats", type=int, default=1, help="times each is run, by turns; medians are told")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each process")
    parser.add_argument("--folder", type=Path, help="where all is written (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="m3kit-benchmark-"))
    report = {"machine": machine(), "threads": args.threads, "rows_from": args.rows and args.rows.name, "results": []}
    try:
        for name in args.cases:
            for shape in args.shapes or CASES[name].shapes:
                result = measure(name, shape, args, folder / f"{name}-{shape}")
                report["results"].append(result)
                print(markdown(result) + "\n", flush=True)
                if args.output:  # after each, for the whole takes long
                    args.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


def machine() -> dict:
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n")
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def measure(name: str, shape: str, args: argparse.Namespace, folder: Path) -> dict:
    """All runs of a case on a shape, ``folder`` being their own."""
    case = CASES[name]
    shutil.rmtree(folder, ignore_errors=True)
    rows = rows_of(case, args.count or case.rows, args.rows)
    native, users = write_rows(rows, folder)
    base = folder / "base"
    weights = [args.base] if args.base and shape == "minilm" else []
    call([sys.executable, "-m", "side_by_side.bases", shape, native, base, *weights], args.threads, folder / "base.log")
    hidden = json.loads((base / "config.json").read_text("utf-8"))["hidden_size"]
    runs = [run for run in case.runs if not args.contenders or run.name in args.contenders]
    repeats: dict[str, list[dict]] = {run.name: [] for run in runs}
    for number in range(args.repeats):
        for run in runs:
            print(f"{name}, {shape}: {run.name} ({number + 1} of {args.repeats})", file=sys.stderr, flush=True)
            own = folder / f"{run.name} {number + 1}"
            counted = run_contender(case, run, len(rows), base, native, users, args.threads, own)
            repeats[run.name].append(derive(counted, hidden))
    figures = {run: median(found) for run, found in repeats.items()}
    return {
        "case": name,
        "shape": shape,
        "about": case.about,
        "weights": "given" if weights else "random",
        "settings": {run.name: {**case.settings, **run.settings} for run in runs},
        "runs": figures,
        "repeats": repeats,
        "promises": judge(case, shape, figures),
    }


def run_contender(
    case: Case, run: Run, rows: int, base: Path, native: Path, users: Path, threads: int, folder: Path
) -> dict:
    folder.mkdir()
    settings = {**case.settings, **run.settings}
    steps = rows // settings["per_device_train_batch_size"] - WARM_UP
    if steps < 1:
        sys.exit(f"{rows} rows are not enough for two batches of {settings['per_device_train_batch_size']}")
    if run.contender == KIT:
        rows_folder = prepare(users, base, settings, threads, folder)
    else:
        rows_folder = native
        settings.pop("sub_batch_tokens", None)
    spec = {
        "contender": run.contender,
        "settings": settings,
        "base": str(base),
        "rows": str(rows_folder),
        "output_dir": str(folder / "output"),
        "cache_dir": str(folder / "cache"),
        "warm_up": WARM_UP,
        "steps": min(steps, run.steps or steps),
        "time_encoder": case.time_encoder,
    }
    (folder / "spec.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    result = folder / "result.json"
    call(
        [sys.executable, "-m", "side_by_side.contender", folder / "spec.json", result],
        threads,
        folder / "contender.log",
    )
    return json.loads(result.read_text("utf-8"))


def prepare(users: Path, base: Path, settings: dict, threads: int, folder: Path) -> Path:
    """The kit's way: rows are prepared before they are trained on, which is not timed here."""
    words = ["--train_data", users, "--output_dir", folder / "prepared", "--tokenizer", base]
    words += ["--train_group_size", settings["train_group_size"]]
    call([sys.executable, "-m", "m3kit", "prepare", *words], threads, folder / "prepare.log")
    return folder / "prepared" / "retrieval"


def call(command: list, threads: int, log: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(KIT_FOLDER / "benchmarks"), str(KIT_FOLDER)]),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        # With several, transformers would spread one process over all.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            list(map(str, command)), env=environment, stdout=file, stderr=file, check=False
        ).returncode
    if code:
        sys.exit(f"{log.read_text('utf-8')[-3000:]}\nfailed ({code}): {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
