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
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from m3kit.arguments import add_encoding_arguments, positive
from m3kit.encoding.trained_with import Encoding, trained_encoding
from m3kit.errors import KitError
from m3kit.mining.texts import collect, load
from m3kit.prepared import check_output, find_prepared
from m3kit.processes import leave_group
from m3kit.workspace import alone_with, replace_folder, workspace

MANIFEST, STAMP = "mining.json", "stamp.json"


@dataclass(frozen=True)
class MiningSettings:
    """As ``add_arguments`` says. ``encoding``: what is given of ``trained_with.Encoding``; the rest is as trained."""

    corpus: Path | None = None
    depth: int = 50
    negatives: int = 8
    max_share: float | None = None
    no_filter: bool = False
    reranker: str | None = None
    shard_size: int = 20_000
    encoding: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    precision: str = "auto"
    device: str = "auto"
    cache_dir: str | None = None

    def check(self) -> None:
        """Raise ``KitError`` for what no mining can follow."""
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise KitError(f"--max_share {self.max_share:g} is no share; give a number above 0 and up to 1, as in 0.95")
        if self.no_filter and (self.max_share is not None or self.reranker):
            raise KitError("--no_filter switches off --max_share and --reranker; leave it out, or these")
        if self.depth < self.negatives:
            raise KitError(
                f"--depth {self.depth} is less than --negatives {self.negatives}; look at more candidates than are kept"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = MiningSettings()
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, __doc__
    parser.add_argument(
        "--train_data", nargs="+", required=True, type=Path, metavar="PATH", help="prepared folders, or that of these"
    )
    parser.add_argument(
        "--model", required=True, help="a folder, or a name on the Hub; a tuned one for a further round"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="where the rows are written, and mining.json")
    parser.add_argument("--corpus", type=Path, help='further passages: BEIR\'s corpus.jsonl, or lines with "text"')
    # which negatives
    parser.add_argument("--depth", type=positive, default=default.depth, help="candidates by each score")
    parser.add_argument("--negatives", type=positive, default=default.negatives, help="kept a row, hardest first")
    parser.add_argument(
        "--max_share",
        type=float,
        help="a negative scores at most this share of its positive's score (default: calibrated on the rows)",
    )
    parser.add_argument("--no_filter", action="store_true", help="keep false negatives in: to see what the filters do")
    parser.add_argument("--reranker", help="a cross-encoder; what it scores above the share is thrown away too")
    # the machine
    add_encoding_arguments(parser, "(default: as the model was trained)")
    parser.add_argument("--cache_dir", help="where Hub models are kept (default: the Hub library's own place)")
    parser.add_argument(
        "--shard_size", type=positive, default=default.shard_size, help="passages held in memory at once"
    )
    parser.add_argument("--json", action="store_true", help="print what mining.json holds instead of the folders")


def run(args: argparse.Namespace) -> None:
    given = {of.name: getattr(args, of.name) for of in fields(Encoding)}
    settings = MiningSettings(
        encoding={name: value for name, value in given.items() if value is not None},
        **{of.name: getattr(args, of.name) for of in fields(MiningSettings) if of.name != "encoding"},
    )
    manifest = mine(args.train_data, args.model, args.output_dir, settings)
    leave_group()
    if not manifest:
        return  # the first process prints
    if args.json:
        print(json.dumps(manifest, ensure_ascii=False, indent=2))
        return
    for folder in dict.fromkeys(args.output_dir / Path(file["output"]).parent for file in manifest["files"]):
        print(folder)


def mine(train_data: list[Path], model: str, output_dir: Path, settings: MiningSettings) -> dict[str, Any]:
    """Write the rows of prepared data with mined negatives, each file as FOLDER/FILE, and ``mining.json``, which it
    returns.

    Rows that are not of retrieval are copied. Same rows, model and settings: same bytes, whatever was interrupted and
    however many processes took part. Processes other than the first return an empty dict. Raises ``KitError``.
    """
    began = time.monotonic()
    settings.check()
    files = find_prepared(train_data)
    check_output(output_dir, files.values(), MANIFEST)
    # Late, so that errors in arguments do not wait for torch.
    from m3kit.encoding.encode import Encoder, EncodeSettings
    from m3kit.encoding.models import choose_device, choose_precision, find_model
    from m3kit.mining.false_negatives import calibrate, hardest_known
    from m3kit.mining.mined_rows import Chooser, write_rows
    from m3kit.mining.search import Processes, Search
    from m3kit.teachers import Reranker

    processes = Processes()
    found_model = find_model("the model", model, settings.cache_dir)
    device, _ = choose_device(settings.device)
    if settings.device == "auto" and device != "cpu":
        device, _ = choose_device(f"cuda:{processes.local_rank}")
    machine: dict[str, Any] = {
        "device": device,
        "precision": choose_precision(settings.precision, device)[0],
        "batch_size": settings.batch_size,
    }
    encoding = EncodeSettings(**asdict(trained_encoding(found_model.folder, settings.encoding)), **machine)
    encoder = Encoder(found_model, encoding, colbert=False)
    reranker = Reranker(settings.reranker, cache_dir=settings.cache_dir, **machine) if settings.reranker else None
    kept = output_dir.absolute().with_name(f".{output_dir.name}.mining")
    with ExitStack() as stack:
        if processes.rank == 0:
            stack.enter_context(alone_with(output_dir))
            kept.mkdir(exist_ok=True)
            try:
                counts, digest = collect(list(files.values()), settings.corpus, kept)
            except KitError:
                shutil.rmtree(kept)
                raise
            _keep_or_clear(kept, _stamp(digest, found_model.folder, encoding, settings))
            _say(f"{counts['rows_mined']} rows, {counts['queries']} queries, {counts['passages']} passages; encoded as "
                 f"{asdict(encoding)}")  # fmt: skip
            for note in encoder.notes:
                _say(note)
        processes.wait()
        texts = load(kept)
        search = Search(texts, encoder, settings.depth, settings.shard_size, kept, processes)
        found = search.run()
        encoder.close()
        if processes.rank:
            return {}
        searched = time.monotonic()
        scratch = stack.enter_context(workspace(output_dir))
        share, reason = settings.max_share, "--no_filter" if settings.no_filter else "--max_share"
        if share is None and not settings.no_filter:
            share, reason = calibrate(hardest_known(texts, found.best["positives"].of, found.pair_scores))
        manifest = {
            "model": model,
            "settings": json.loads(json.dumps(asdict(settings), default=str)),
            "encoding": asdict(encoding),
            "notes": encoder.notes,
            "bm25": search.bm25.settings,
            "share": {"value": share, "reason": reason},
            **write_rows(files, Chooser(texts, found, share, settings.negatives, reranker), scratch / "mined"),
        }
        manifest["counts"] = counts | manifest["counts"]
        times = {"search": searched - began, "filters": time.monotonic() - searched}
        manifest["seconds"] = {name: round(seconds, 1) for name, seconds in times.items()}
        written = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
        (scratch / "mined" / MANIFEST).write_text(written, "utf-8")
        replace_folder(scratch / "mined", output_dir)
        shutil.rmtree(kept)
    _tell(manifest, output_dir)
    return manifest


def _stamp(texts: str, model: Path, encoding, settings: MiningSettings) -> dict[str, Any]:
    """What the search depends on."""
    from m3kit.encoding.models import LIBRARIES, model_digest

    return {
        "texts": texts,
        "model": model_digest(model),
        "encoding": asdict(encoding),
        "depth": settings.depth,
        "shard_size": settings.shard_size,
        "libraries": [version(name) for name in LIBRARIES],
    }


def _keep_or_clear(kept: Path, stamp: dict[str, Any]) -> None:
    """Keep the shards that an earlier run finished of the same search, and no others."""
    written = json.dumps(stamp)
    if (kept / STAMP).is_file() and (kept / STAMP).read_text("utf-8") == written:
        _say(f"going on with what an earlier run left in {kept}")
        return
    for file in kept.glob("shard-*.npz"):
        file.unlink()
    (kept / STAMP).write_text(written, "utf-8")


def _tell(manifest: dict[str, Any], output_dir: Path) -> None:
    counts, share = manifest["counts"], manifest["share"]
    if share["value"] is None:
        _say("no filter: false negatives are among these")
    else:
        _say(f"a negative scores at most {share['value']:g} of its positive ({share['reason']})")
    for what in ("thrown_away", "given_negatives_thrown_away"):
        reasons = ", ".join(f"{count}: {reason}" for reason, count in manifest[what].items())
        title = "candidates thrown away" if what == "thrown_away" else what.replace("_", " ")
        _say(f"{title}: {sum(manifest[what].values())}" + (f" ({reasons})" if reasons else ""))
    _say(
        f"{counts['rows_written']} rows written ({counts['rows_copied']} of other tasks unchanged); "
        f"{counts['negatives_mined']} negatives mined for {counts['rows_with_mined_negatives']} rows, "
        f"{counts['given_negatives_kept']} given ones kept"
    )
    if left := counts.get("rows_left_as_given"):
        _say(f"{left} rows keep the negatives they had: nothing passed the filters (--max_share says how strict)")
    if lost := counts.get("rows_without_their_teacher_scores"):
        _say(f"{lost} rows lost their teacher scores, which the new negatives do not have; score the rows anew")
    for example in manifest["examples"]:
        _say(f"query:    {_short(example['query'])}")
        for kind in ("positive", "negative"):
            _say(f"  {kind} {example[f'{kind}_score']:.3f} {_short(example[kind])}")
    _say(f"all numbers are in {output_dir / MANIFEST}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:99]}…"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
