"""Let a teacher score every passage of prepared rows, for training with --knowledge_distillation True.

    python -m m3kit score --train_data prepared --teacher reranker:BAAI/bge-reranker-v2-m3 --output_dir scored
    python -m m3kit score --train_data prepared --teacher hybrid --model BAAI/bge-m3 --output_dir scored

Rows of retrieval get pos_scores and neg_scores, all of them or none are written; rows of other tasks are copied. Scores
are raw: train on a reranker's as they are, on those of hybrid, which lie close together, with --teacher_temperature
0.02 to 0.1. Stopped and run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from xxhash import xxh3_128

from m3kit.errors import KitError
from m3kit.prepared import PreparedRow, check_output, find_prepared, read_prepared
from m3kit.progress import bar
from m3kit.reading.problems import Problem, refuse
from m3kit.workspace import alone_with, replace_folder, workspace

if TYPE_CHECKING:
    from m3kit.teachers import Hybrid, Reranker

MANIFEST = "scores.json"
RERANKER, HYBRID, GIVEN = "reranker:", "hybrid", "given"
# Pairs that are scored, and kept on disk, at once: what a kill loses.
SHARD = 512
QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--train_data", nargs="+", required=True, type=Path, metavar="PATH", help="prepared folders, or that of these"
    )
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="KIND",
        help="reranker:PATH, a cross-encoder of FlagEmbedding or sentence-transformers; hybrid, the dense, sparse and "
        "ColBERT scores of --model with BM25; given, where the rows have scores, which are checked and kept",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the scored folders are written")
    parser.add_argument("--model", default="BAAI/bge-m3", help="of hybrid: the base (default: %(default)s)")
    parser.add_argument(
        "--bm25_weight",
        type=float,
        default=0.5,
        help="of hybrid: what BM25 adds to the score of a query's best passage (default: %(default)s; 0: no BM25)",
    )
    parser.add_argument("--max_length", type=int, help="tokens of a text; of query and passage together for a reranker")
    parser.add_argument("--batch_size", type=int, default=32, help="pairs or texts; smaller needs less memory")
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--cache_dir", help="where hub models are kept (default: the hub library's own place)")
    parser.add_argument("--json", action="store_true", help="print what scores.json holds")


def run(args: argparse.Namespace) -> None:
    if args.teacher not in (HYBRID, GIVEN) and not (args.teacher.startswith(RERANKER) and args.teacher != RERANKER):
        raise KitError(f"--teacher {args.teacher} is not known; give reranker:PATH, hybrid or given")
    if args.batch_size < 1 or (args.max_length is not None and args.max_length < 1):
        raise KitError("--batch_size and --max_length are whole numbers above 0")
    if not 0 <= args.bm25_weight < math.inf:
        raise KitError(f"--bm25_weight is a number of 0 or more, not {args.bm25_weight:g}")
    manifest = score(args.train_data, args.output_dir, lambda passages: _teacher(args, passages))
    if args.json:
        print(json.dumps(manifest, ensure_ascii=False, indent=2))
        return
    for folder in dict.fromkeys(args.output_dir / Path(file["output"]).parent for file in manifest["files"]):
        print(folder)


def _teacher(args: argparse.Namespace, passages: Iterable[str]) -> Reranker | Hybrid | None:
    if args.teacher == GIVEN:
        return None
    # Late, so that errors in arguments and data do not wait for torch.
    from m3kit.teachers import Hybrid, Reranker

    common = {name: getattr(args, name) for name in ("device", "precision", "batch_size", "max_length", "cache_dir")}
    if args.teacher == HYBRID:
        return Hybrid(args.model, passages, args.bm25_weight, **common)
    return Reranker(args.teacher.removeprefix(RERANKER), **common)


def score(
    train_data: Sequence[Path], output_dir: Path, make_teacher: Callable[[Iterable[str]], Reranker | Hybrid | None]
) -> dict[str, Any]:
    """Write the prepared rows with a teacher's scores, each file as FOLDER/FILE, and ``scores.json``, which it returns.

    ``make_teacher`` gets the passages of all rows; where it gives None, the rows' own scores are taken. Raises
    ``KitError`` that names file and line of each row that has no finite score for every passage; then nothing is
    written, and what was scored before is kept for the next time.
    """
    files = find_prepared(train_data)
    check_output(output_dir, files.values(), MANIFEST)
    rows = {name: list(read_prepared(file)) for name, file in files.items()}
    wanted = [row for of_file in rows.values() for row in of_file if row.is_retrieval]
    if not wanted:
        raise KitError("there is no row of retrieval to score; rows of other tasks are trained without a teacher")
    replaced = sum(row.scores() is not None for row in wanted)
    teacher = make_teacher(dict.fromkeys(passage for row in wanted for *_, passage in row.pairs))
    with alone_with(output_dir), workspace(output_dir) as scratch:
        if teacher:
            with closing(teacher):
                found = _score(wanted, teacher, _kept(output_dir))
            if replaced:
                print(f"{replaced} rows had scores, which those of the teacher replace", file=sys.stderr)
        else:
            found = [row.scores() for row in wanted]
        refuse([_unscored(row) for row, own in zip(wanted, found, strict=True) if own is None], "the rows")
        scores = [own for own in found if own is not None]
        manifest = {
            "teacher": teacher.about if teacher else {"kind": GIVEN},
            "rows_copied": sum(map(len, rows.values())) - len(wanted),
            **_about(wanted, scores),
            "files": [{"source": str(file), "output": name} for name, file in files.items()],
        }
        new, left = scratch / "scored", iter(scores)
        for name, of_file in rows.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(b"".join(_line(row, left) for row in of_file))
        (new / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
        replace_folder(new, output_dir)
        _kept(output_dir).unlink(missing_ok=True)
    _tell(manifest, output_dir)
    return manifest


def _unscored(row: PreparedRow) -> Problem:
    what = f"no finite score for each of {len(row.data['pos'])} positives and {len(row.data['neg'])} negatives"
    return Problem(row.file, row.line, what, "give pos_scores and neg_scores, or a teacher that can score the row")


def _line(row: PreparedRow, left: Iterator[list[float]]) -> bytes:
    if not row.is_retrieval:
        return row.raw + b"\n"
    scores, positives = next(left), len(row.data["pos"])
    scored = {"pos_scores": scores[:positives], "neg_scores": scores[positives:]}
    return orjson.dumps(row.data | scored, option=orjson.OPT_APPEND_NEWLINE)


# ---- scores ----


def _kept(output_dir: Path) -> Path:
    """What was scored of a folder that is not written yet."""
    return output_dir.absolute().with_name(f".{output_dir.name}.scores")


def _score(rows: Sequence[PreparedRow], teacher: Reranker | Hybrid, kept: Path) -> list[list[float] | None]:
    """The scores of each row, or None where one is not finite.

    Each pair is scored once. Whole shards are appended to the file ``kept``, whose first line says what they are scores
    of: where all of that is the same again, they are taken from there.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    places = [[numbers.setdefault(pair, len(numbers)) for pair in row.pairs] for row in rows]
    pairs = list(numbers)
    digest = xxh3_128(orjson.dumps([teacher.about, teacher.batch_size, SHARD]))
    for pair in pairs:
        digest.update(orjson.dumps(pair))
    head = digest.hexdigest().encode() + b"\n"
    before = kept.read_bytes() if kept.is_file() else b""
    scores = np.empty(0, np.float32)
    if before.startswith(head):
        scores = np.frombuffer(before[len(head) :][: (len(before) - len(head)) // 4 * 4], np.float32)
        if len(scores) < len(pairs):
            scores = scores[: len(scores) // SHARD * SHARD]
    if len(scores):
        print(f"{len(scores)} of {len(pairs)} pairs were scored before", file=sys.stderr)
    shards = [scores]
    with kept.open("r+b" if len(scores) else "wb") as file, bar(len(pairs), "scoring", "pairs") as shown:
        file.write(head)
        file.truncate(file.seek(len(head) + scores.nbytes))
        shown.update(len(scores))
        for start in range(len(scores), len(pairs), SHARD):
            shards.append(np.asarray(teacher.scores(pairs[start : start + SHARD]), np.float32))
            file.write(shards[-1].tobytes())
            file.flush()
            shown.update(len(shards[-1]))
    scores = np.concatenate(shards)
    own = [scores[of_row] for of_row in places]
    return [[round(float(one), 6) for one in of_row] if np.isfinite(of_row).all() else None for of_row in own]


def _about(rows: Sequence[PreparedRow], scores: Sequence[list[float]]) -> dict[str, Any]:
    """How positives and negatives score, and how often the teacher disagrees with the labels."""
    split = [(own[: len(row.data["pos"])], own[len(row.data["pos"]) :]) for row, own in zip(rows, scores, strict=True)]
    positives, negatives = (np.concatenate(kind) for kind in zip(*split, strict=True))
    above = [np.greater.outer(neg, pos) for pos, neg in split]
    disagreeing = sum(bool(one.any()) for one in above)
    return {
        "rows_scored": len(rows),
        "positives": {"count": len(positives), "quantiles": _quantiles(positives)},
        "negatives": {"count": len(negatives), "quantiles": _quantiles(negatives)},
        # Rows with a negative above a positive; pairs of a negative and a positive of one row.
        "negative_above_positive": {
            "rows": disagreeing,
            "share_of_rows": round(disagreeing / len(rows), 4),
            "share_of_pairs": round(sum(int(one.sum()) for one in above) / sum(one.size for one in above), 4),
        },
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """By per cent."""
    return {str(share): round(float(np.percentile(values, share)), 4) for share in QUANTILES}


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    about, disagree = manifest["teacher"], manifest["negative_above_positive"]
    name = " ".join(about[key] for key in ("kind", "model") if key in about)
    medians = [manifest[kind]["quantiles"]["50"] for kind in ("positives", "negatives")]
    print(
        f"{output_dir}: {manifest['rows_scored']} rows with the scores of the teacher ({name}), "
        f"{manifest['rows_copied']} of other tasks copied\n"
        f"the teacher disagrees with the labels in {disagree['rows']} rows ({disagree['share_of_rows']:.0%}), where a "
        f"negative scores above a positive; median of positives {medians[0]:.3f}, of negatives {medians[1]:.3f}",
        file=sys.stderr,
    )
