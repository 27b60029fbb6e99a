"""README.md: a model card that the Hugging Face Hub reads, with the verdict in it, good or bad."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from markupsafe import Markup

from m3kit.records import FOUND, HEADLINE, Metrics
from m3kit.report.lines import score_lines, task_lines
from m3kit.report.page import environment, make_view
from m3kit.report.plots import Plot
from m3kit.report.record import PREPARED, Record

# By this line a card is known to be the kit's, and may be written anew.
MARK = "<!-- m3kit report: this model card is written anew by each report; delete this line to keep it as it is -->"
# Of bases whose licence is known. Any other is left out, for a wrong one is worse than none.
LICENSES = {"BAAI/bge-m3": "mit", "BAAI/bge-m3-unsupervised": "mit", "BAAI/bge-m3-retromae": "mit"}
TAGS = ["sentence-transformers", "feature-extraction", "sentence-similarity", "FlagEmbedding", "bge-m3"]
ROWS = 3
# Settings that a reader asks for first.
SETTINGS = """num_train_epochs learning_rate per_device_train_batch_size train_group_size query_max_len passage_max_len
    temperature unified_finetuning lora_rank merge_shares precision seed""".split()


def make_card(record: Record, plots: Mapping[str, Plot], rows: Sequence[tuple[str, str, str]]) -> str:
    """The whole card, front matter first; ``rows``: those of the training data that it shows."""
    # Late: it takes a moment, and errors in the run's files must not wait for it.
    from huggingface_hub import ModelCardData

    # A folder of the base's name, or one that it would lie in, says that it has none on the Hub.
    named = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", record.base, re.ASCII) and not Path(record.base).parent.is_dir()
    on_hub = record.base if named else None
    front = ModelCardData(
        license=LICENSES.get(on_hub or ""),
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        base_model=on_hub,
        model_name=record.name,
        eval_results=_results(record.metrics) if record.metrics else None,
    )
    body = environment(autoescape=False, finalize=_escaped).get_template("card.md.j2")
    view = make_view(record, "MODEL") | {"plots": plots, "SETTINGS": SETTINGS, "rows": rows}
    view |= {"on_hub": on_hub, "base": on_hub or Path(record.base).name}
    return f"---\n{front.to_yaml()}\n---\n\n{MARK}\n\n" + re.sub(r"\n{3,}", "\n\n", body.render(view))


def _escaped(value: Any) -> Any:
    """A user's text must not become a heading, a table, a link or HTML, nor turn the rest around; ``|safe`` stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(r"[\u202a-\u202e\u2066-\u2069]", "", re.sub(r"\s+", " ", value))
    text = re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text).replace("&", "&amp;")
    # Bare addresses would become links.
    return re.sub(r"(?<=\w)(?=://|@[\w-]+\.)|(?<=\bwww)(?=\.)", r"\\", text)


def sample_rows(record: Record) -> list[tuple[str, str, str]]:
    """The first rows that were trained on, of as many files as there are."""
    found: list[list[tuple[str, str, str]]] = []
    for entry in record.manifest.sets if record.manifest else ():
        file = record.folder / PREPARED / entry.output
        # A sample, not a promise.
        with suppress(OSError, ValueError, LookupError, TypeError), file.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, ROWS)]
            found.append([(row["query"], row["pos"][0], (row.get("neg") or ["–"])[0]) for row in rows])
    return [row for row in chain(*zip_longest(*found)) if row][:ROWS]


def _results(metrics: Metrics) -> list[Any] | None:
    """Of the last model, the few figures that count, as the Hub's model-index has them."""
    from huggingface_hub import EvalResult

    path = Path(metrics.eval_data or "test data")
    name = path.name if path.name != "eval" else f"{path.parent.name}/eval"
    lines = score_lines(metrics, HEADLINE, FOUND) + task_lines(metrics)
    return [
        EvalResult(
            task_type="information-retrieval" if line.metric in (HEADLINE, FOUND) else "feature-extraction",
            dataset_type=re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "test-data",
            dataset_name=name,
            metric_type=re.sub(r"[^a-z0-9@]+", "_", f"{line.label} {line.metric}".lower()),
            metric_name=f"{line.label} {line.metric}",
            metric_value=line.values[-1],
        )
        for line in lines
        if line.values[-1] is not None
    ] or None
