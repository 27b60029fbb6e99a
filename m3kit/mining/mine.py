"""Mine hard negatives for prepared retrieval rows, and keep the false ones out.

    python -m m3kit mine --train_data PREPARED --model BAAI/bge-m3 --output_dir mined
    torchrun --nproc_per_node 4 -m m3kit mine --train_data PREPARED --model BAAI/bge-m3 --output_dir mined

Candidates are the best passages by dense vectors, by sparse ones and by BM25. A second round is another call, with the
model that was trained on the first: --model outputs/run. Run again after an interruption it goes on from the last
shard of passages that was finished.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash

from m3kit.data.workspace import alone_with
from m3kit.errors import KitError
from m3kit.evaluation.evaluate import _positive, _true_or_false
from m3kit.evaluation.trained_with import Encoding, trained_encoding
from m3kit.mining.mining_settings import MiningSettings
from m3kit.mining.prepared import MINING, collect, digest, load, prepared_files
from m3kit.mining.processes import Processes

SCRATCH, STAMP, RESULT = ".mining", "stamp.json", "result"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = MiningSettings()
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, __doc__
    parser.add_argument("--train_data", nargs="+", required=True, metavar="PATH", help="what prepare wrote")
    parser.add_argument(
        "--model", required=True, help="a folder, or a name on the Hub; a tuned one for a further round"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="where the rows are written, and mining.json")
    parser.add_argument("--corpus", type=Path, help='further passages: BEIR\'s corpus.jsonl, or lines with "text"')
    # which negatives
    parser.add_argument("--depth", type=_positive, default=default.depth, help="candidates by each score")
    parser.add_argument("--negatives", type=_positive, default=default.negatives, help="kept a row, hardest first")
    parser.add_argument(
        "--max_share",
        type=float,
        help="a negative scores at most this share of its positive's score (default: calibrated on the rows)",
    )
    parser.add_argument("--no_filter", action="store_true", help="keep false negatives in: to see what the filters do")
    parser.add_argument("--reranker", help="a cross-encoder; what it scores above the share is thrown away too")
    # encoding
    trained = "(default: as the model was trained)"
    parser.add_argument("--query_max_len", type=_positive, help=f"tokens {trained}")
    parser.add_argument("--passage_max_len", type=_positive, help=f"tokens {trained}")
    parser.add_argument("--pooling_method", choices=["cls", "mean", "last_token"], help=trained)
    parser.add_argument("--normalize_embeddings", type=_true_or_false, metavar="True|False", help=trained)
    parser.add_argument("--query_instruction_for_retrieval", help=f"text put before each query {trained}")
    parser.add_argument("--batch_size", type=_positive, default=default.batch_size, help="texts; smaller needs less")
    # machine
    parser.add_argument("--precision", choices=["auto", "fp32", "fp16", "bf16"], default="auto")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--cache_dir", help="where Hub models are kept (default: the Hub library's own place)")
    parser.add_argument(
        "--shard_size", type=_positive, default=default.shard_size, help="passages held in memory at once"
    )
    parser.add_argument("--json", action="store_true", help="print what mining.json holds instead of the folders")


def run(args: argparse.Namespace) -> None:
    given = {field.name: getattr(args, field.name) for field in fields(Encoding)}
    names = {field.name for field in fields(MiningSettings)} - {"filter", "encoding"}
    settings = MiningSettings(
        filter=not args.no_filter,
        encoding={name: value for name, value in given.items() if value is not None},
        **{name: getattr(args, name) for name in names},
    )
    manifest = mine([Path(path) for path in args.train_data], args.model, args.output_dir, settings)
    if not manifest:
        return  # the first process prints
    if args.json:
        print(json.dumps(manifest, ensure_ascii=False, indent=2))
        return
    for folder in manifest["folders"]:
        print(args.output_dir / folder)


def mine(train_data: list[Path], model: str, output_dir: Path, settings: MiningSettings) -> dict[str, Any]:
    """Write the rows with mined negatives below ``output_dir`` and return what its mining.json says.

    Same rows, model and settings: same bytes, whatever was interrupted and however many processes took part. Processes
    other than the first return an empty dict. Raises ``KitError``.
    """
    began = time.monotonic()
    settings.check()
    files = prepared_files(train_data)
    _check_output(output_dir, files)
    # Late, so that errors in arguments do not wait for torch.
    from m3kit.evaluation.encode import Encoder, EncodeSettings
    from m3kit.evaluation.models import choose_device, choose_precision, find_model
    from m3kit.mining.search import Search

    processes = Processes()
    found_model = find_model("the model", model, settings.cache_dir)
    device, _ = choose_device(settings.device)
    if settings.device == "auto" and device != "cpu":
        device, _ = choose_device(f"cuda:{processes.local_rank}")
    encoding = EncodeSettings(
        **asdict(trained_encoding(found_model.folder, settings.encoding)),
        batch_size=settings.batch_size,
        precision=choose_precision(settings.precision, device)[0],
        device=device,
    )
    encoder = Encoder(found_model, encoding, colbert=False)
    scratch = output_dir / SCRATCH
    with ExitStack() as stack:
        if processes.rank == 0:
            stack.enter_context(alone_with(output_dir))
            stamp = _stamp(files, settings, found_model.folder, encoding, processes.count)
            counts = _collect_once(files, settings.corpus, scratch, stamp)
            _say(f"{counts['rows_mined']} rows, {counts['queries']} queries, {counts['passages']} passages; encoded as "
                 f"{asdict(encoding)}")  # fmt: skip
            for note in encoder.notes:
                _say(note)
        processes.wait()
        texts = load(scratch)
        search = Search(texts, encoder, settings.depth, settings.shard_size, scratch, processes)
        found = search.run()
        encoder.close()
        if found is None:
            return {}
        searched = time.monotonic()
        manifest = {
            "model": model,
            "settings": json.loads(json.dumps(asdict(settings), default=str)),
            "encoding": asdict(encoding),
            "notes": encoder.notes,
            "bm25": found.bm25,
            **_choose_and_write(files, texts, found, settings, scratch / RESULT, counts),
        }
        manifest["seconds"] = {
            "search": round(searched - began, 1),
            "filters": round(time.monotonic() - searched, 1),
        }
        _put_in_place(scratch / RESULT, output_dir, manifest)
        shutil.rmtree(scratch)
    _tell(manifest, output_dir)
    return manifest


def _check_output(output_dir: Path, files: list[Path]) -> None:
    if output_dir.exists() and not output_dir.is_dir():
        raise KitError(f"--output_dir {output_dir} is no folder; choose an empty or new one")
    ours = (SCRATCH, MINING)
    if output_dir.is_dir() and any(output_dir.iterdir()) and not any((output_dir / name).exists() for name in ours):
        raise KitError(f"{output_dir} holds files that mine did not write; choose an empty or new folder")
    for file in files:
        if output_dir.resolve() in file.resolve().parents:
            raise KitError(f"{file} lies in --output_dir {output_dir} and would be replaced; choose another folder")


def _stamp(files: list[Path], settings: MiningSettings, model: Path, encoding, processes: int) -> dict[str, Any]:
    """What the search depends on; a state with another stamp is thrown away."""
    from m3kit.evaluation.vector_cache import LIBRARIES, model_digest

    code = xxhash.xxh3_64()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return {
        "files": [[str(file), digest(file)] for file in files],
        "corpus": settings.corpus and settings.corpus.is_file() and digest(settings.corpus),
        "model": model_digest(model),
        "encoding": asdict(encoding),
        "depth": settings.depth,
        "shard_size": settings.shard_size,
        "processes": processes,
        "code": [code.hexdigest(), *map(version, LIBRARIES)],
    }


def _collect_once(files: list[Path], corpus: Path | None, scratch: Path, stamp: dict[str, Any]) -> dict[str, int]:
    """The texts in the scratch folder, as they are there or written anew; returns counts."""
    try:
        kept = json.loads((scratch / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        kept = {}
    if kept.get("stamp") == stamp:
        _say(f"going on with what an earlier run left in {scratch}")
        return kept["counts"]
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        counts = collect(files, corpus, scratch)
    except KitError:
        shutil.rmtree(scratch)
        raise
    temporary = scratch / f"{STAMP}.tmp"
    temporary.write_text(json.dumps({"stamp": stamp, "counts": counts}), "utf-8")
    temporary.replace(scratch / STAMP)
    return counts


def _choose_and_write(files, texts, found, settings: MiningSettings, folder: Path, counts) -> dict[str, Any]:
    from m3kit.mining.false_negatives import Positives, calibrate, hardest_known
    from m3kit.mining.mined_rows import Chooser, write_rows

    shutil.rmtree(folder, ignore_errors=True)
    positives = Positives(texts)
    share, reason = None, "--no_filter"
    if settings.max_share is not None:
        share, reason = settings.max_share, "--max_share"
    elif settings.filter:
        best = found.positives
        share, reason = calibrate(hardest_known(texts, positives, best.numbers, best.scores, found.row_scores))
    tally = write_rows(files, folder, Chooser(texts, found, positives, share, settings))
    return {
        "share": {"value": share, "reason": reason},
        "counts": counts | {"rows_written": sum(entry["rows"] for entry in tally.files)} | dict(tally.counts),
        "thrown_away": dict(tally.thrown_away.most_common()),
        "given_negatives_thrown_away": dict(tally.given_thrown_away.most_common()),
        "files": tally.files,
        "folders": list(dict.fromkeys(str(Path(entry["output"]).parent) for entry in tally.files)),
        "examples": tally.examples,
    }


def _put_in_place(result: Path, output_dir: Path, manifest: dict[str, Any]) -> None:
    """Put the finished files in the place of those of an earlier run; mining.json comes last."""
    target = output_dir / MINING
    if target.is_file():
        for folder in json.loads(target.read_text("utf-8"))["folders"]:
            shutil.rmtree(output_dir / folder, ignore_errors=True)
        target.unlink()
    for folder in manifest["folders"]:
        shutil.rmtree(output_dir / folder, ignore_errors=True)  # of a run that was killed just here
        (result / folder).rename(output_dir / folder)
    temporary = output_dir / f"{MINING}.tmp"
    temporary.write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", "utf-8")
    temporary.replace(target)


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    counts, share = manifest["counts"], manifest["share"]
    if share["value"] is None:
        _say("no filter: false negatives are among these")
    else:
        _say(f"a negative scores at most {share['value']:g} of its positive ({share['reason']})")
    for title, thrown in (
        ("candidates thrown away", manifest["thrown_away"]),
        ("given negatives thrown away", manifest["given_negatives_thrown_away"]),
    ):
        reasons = ", ".join(f"{count}: {reason}" for reason, count in thrown.items())
        _say(f"{title}: {sum(thrown.values())}" + (f" ({reasons})" if reasons else ""))
    _say(
        f"{counts['rows_written']} rows written ({counts['rows_copied']} of other tasks unchanged); "
        f"{counts.get('negatives_mined', 0)} negatives mined for {counts.get('rows_with_mined_negatives', 0)} rows, "
        f"{counts.get('given_negatives_kept', 0)} given ones kept"
    )
    if left := counts.get("rows_left_as_given"):
        _say(f"{left} rows keep the negatives they had: nothing passed the filters (--max_share says how strict)")
    if lost := counts.get("rows_without_their_teacher_scores"):
        _say(f"{lost} rows lost their teacher scores, which the new negatives do not have; score the rows anew")
    for example in manifest["examples"]:
        _say(f"query:    {_short(example['query'])}")
        _say(f"  positive {example['positive_score']:.3f} {_short(example['positive'])}")
        _say(f"  negative {example['negative_score']:.3f} {_short(example['negative'])}")
    _say(f"all numbers are in {output_dir / MINING}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:99]}…"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
