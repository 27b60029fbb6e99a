"""Which training gives the better model: the kit beside sentence-transformers and FlagEmbedding, on held-out data.

    python benchmarks/quality.py --base FOLDER --data FOLDER/debian-en FOLDER/cranfield --rows 400 all \
        --systems base st-5e-5 st-mined-5e-5 classic best --seeds 0 1 2 --work work/quality

Each of ``--data`` is a folder in the kit's layout with an ``eval/``; retrieval rows are held out as further queries.
``--base`` is a model with M3 heads; without heads these are trained first, encoder fixed, on the rows of
``--heads_rows``, and kept. Every cell (set, rows, system, seed) is a folder below ``--work`` with a result.json: run
the same command again and only what is missing is done. Without ``--systems`` only the table is made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from referee.neutral import Model, measure
from referee.sets import load
from referee.systems import KIT, SENTENCE, Job, Machine, train
from referee.table import compare, table

HEADS = ("colbert_linear.pt", "sparse_linear.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a model folder")
    parser.add_argument("--heads_rows", type=Path, nargs="+", help="rows of other sets to train heads on, once")
    parser.add_argument("--pooling", default="mean", help="of the base: cls or mean")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of data sets")
    parser.add_argument("--rows", nargs="+", default=["all"], help="sizes of the training data, such as 200 400 all")
    parser.add_argument(
        "--systems",
        nargs="*",
        default=[],
        help=f"base, flagembedding, classic, best[:name=value,…], {', '.join(SENTENCE)}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--held_out", type=int, default=500, help="retrieval rows that become test queries")
    parser.add_argument(
        "--passages", type=int, default=3000, help="at most so many in a test, the relevant ones besides"
    )
    parser.add_argument("--max_len", type=int, default=64, help="tokens of a text, in training and in the test")
    parser.add_argument("--fp32", action="store_true", help="no 16 bits in training")
    parser.add_argument(
        "--forgotten", type=Path, nargs="*", default=[], help="other sets to measure dense scores on too"
    )
    parser.add_argument("--keep_models", action="store_true", help="a model is deleted once it is measured")
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    base = with_heads(args.base, args.heads_rows, args.pooling, args.max_len, args.work)
    machine = Machine(base, args.pooling, args.max_len, not args.fp32)
    sets = [load(folder, args.held_out, args.passages) for folder in args.data]
    others = [load(folder, args.held_out, args.passages) for folder in args.forgotten]
    for seed in args.seeds:
        for data in sets:
            for rows in args.rows:
                for system in args.systems:
                    job = Job(data, None if rows == "all" else int(rows), system, seed)
                    run(job, machine, others, args)
    print(table(args.work))
    print()
    print(compare(args.work))


def run(job: Job, machine: Machine, others: list, args: argparse.Namespace) -> None:
    folder = job.folder(args.work)
    result = folder / "result.json"
    if result.exists() or (job.system == "base" and job.seed != args.seeds[0]):
        return
    print(f"{job.data.name}, {job.rows or 'all'} rows, {job.system}, seed {job.seed} …", file=sys.stderr, flush=True)
    path, seconds = train(job, machine, args.work)
    model = Model(path, machine.pooling, machine.max_len)
    found = {
        "set": job.data.name,
        "task": job.data.task,
        "rows": len(job.data.rows[: job.rows]),
        "asked": job.rows or "all",
        "system": job.system,
        "seed": job.seed,
        "cpu_seconds": seconds,
        "figures": measure(model, job.data),
        "forgotten": {
            other.name: measure(model, other, heads=False) for other in others if other.name != job.data.name
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    if hybrid := _served(path):
        found["served"] = hybrid
    result.with_suffix(".tmp").write_text(json.dumps(found), "utf-8")
    result.with_suffix(".tmp").replace(result)
    if job.system != "base" and not args.keep_models:
        shutil.rmtree(path)


def _served(folder: Path) -> dict | None:
    file = folder / "hybrid.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def with_heads(base: Path, rows: list[Path] | None, pooling: str, max_len: int, work: Path) -> Path:
    """The base itself, or a copy whose two heads are trained first with the encoder fixed."""
    if not rows:
        return base
    made = work / "bases" / "-".join([base.name, *(path.parts[-3] for path in rows)])
    if (made / "model.safetensors").exists():
        return made
    import torch
    from transformers import AutoConfig

    start = work / "bases" / "start"
    shutil.rmtree(start, ignore_errors=True)
    shutil.copytree(base, start)
    size = AutoConfig.from_pretrained(base).hidden_size
    torch.manual_seed(0)
    colbert, sparse = torch.nn.Linear(size, size), torch.nn.Linear(size, 1)
    torch.nn.init.eye_(colbert.weight)
    torch.nn.init.zeros_(colbert.bias)
    # Every token begins with a weight: at 0 ReLU would let no gradient back.
    torch.nn.init.constant_(sparse.bias, 0.2)
    for name, head in zip(HEADS, (colbert, sparse), strict=True):
        torch.save(head.state_dict(), start / name)
    settings = {
        "model_name_or_path": start,
        "output_dir": made,
        "fix_encoder": True,
        "learning_rate": 1e-3,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "sentence_pooling_method": pooling,
        "query_max_len": max_len,
        "passage_max_len": max_len,
        "precision": "auto",
        "eval_data": "none",
        "report_to": "none",
    }
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    command = [KIT / "run_flagembedding_training_single_gpu.sh", "--train_data", *rows, *words]
    environment = {"ALLOW_CPU": "True", "PYTHON": sys.executable}
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr, env={**os.environ, **environment})
    shutil.rmtree(start)
    return made


if __name__ == "__main__":
    main()
