"""README.md: a model card that the Hugging Face Hub reads, with the verdict in it, good or bad."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m3kit.evaluation.metrics import MEASURES, SCORES
from m3kit.evaluation.table import has_scores
from m3kit.report.about_run import data, problems, settings, time_and_memory
from m3kit.report.numbers import Source
from m3kit.report.page import environment
from m3kit.report.record import Record
from m3kit.report.tables import bm25_rows, counted, retrieval_tables, task_tables
from m3kit.report.usage import make_usage
from m3kit.report.view import hub_name, model_paths, state, verdict
from m3kit.report.words import SCORE_NAMES

# By this line a card is known to be the kit's, and may be written anew.
MARK = "<!-- m3kit report: this model card is written anew by each report; delete this line to keep it as it is -->"
# Of bases whose licence is known. Any other is left out, for a wrong one is worse than none.
LICENSES = {"BAAI/bge-m3": "mit", "BAAI/bge-m3-unsupervised": "mit", "BAAI/bge-m3-retromae": "mit"}
HUB_TASKS = {
    "sts": ("semantic-similarity", "Semantic Similarity"),
    "classification": ("text-classification", "Text Classification"),
    "clustering": ("clustering", "Clustering"),
}
TAGS = ["sentence-transformers", "feature-extraction", "sentence-similarity", "FlagEmbedding", "bge-m3"]


def is_ours(path: Path) -> bool:
    """Whether a card may be replaced: there is none, or the kit wrote it."""
    try:
        return MARK in path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return True


def make_card(record: Record) -> str:
    """The whole card, front matter first."""
    # Late: it takes a moment, and errors in the run's files must not wait for it.
    from huggingface_hub import ModelCard, ModelCardData

    base = hub_name(model_paths(record)[0])
    results = list(_results(record))
    front = ModelCardData(
        license=LICENSES.get(base or ""),
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        base_model=base,
        model_name=record.name,
        eval_results=results or None,
    )
    return str(
        ModelCard(f"---\n{front.to_yaml()}\n---\n\n{MARK}\n\n{_body(record, base)}", ignore_metadata_errors=False)
    )


def _body(record: Record, base: str | None) -> str:
    metrics = Source(record.metrics)
    # What is published must not tell where files lie on somebody's disk.
    rows = [dict(row, input="/".join(Path(row["input"]).parts[-2:])) for row in (data(record) or {}).get("rows", [])]
    shown = settings(record)
    template = environment(autoescape=False, finalize=_escaped).get_template("card.md.j2")
    return template.render(
        name=record.name,
        base=base or Path(model_paths(record)[0]).name,
        base_is_on_hub=bool(base),
        verdict=verdict(record),
        state=state(record),
        retrieval=retrieval_tables(metrics, record.metrics)[:1] if metrics else [],
        tasks=task_tables(metrics)[:1] if metrics else [],
        bm25=bm25_rows(metrics),
        counted=counted(record.metrics),
        eval_data=_data_name(record.metrics.get("eval_data")),
        general=_general(metrics),
        rows=rows,
        problems=[problem for problem in problems(record) if problem["severity"] != "note"],
        settings=[row for row in shown.get("key", []) if row[0] != "Base model"],
        versions=shown.get("versions", []),
        time=time_and_memory(record, metrics),
        usage=make_usage(record, "MODEL"),
        raw=_Raw,
    )


def _general(metrics: Source) -> dict[str, Any] | None:
    general = metrics.of("general")
    if not general:
        return None
    name = _data_name(general.part.get("eval_data"))
    return {"tables": retrieval_tables(general, general.part)[:1], "counted": counted(general.part), "name": name}


class _Raw(str):
    """Text that is Markdown already."""


def _escaped(value: Any) -> Any:
    """A user's text must not become a heading, a table or HTML."""
    if not isinstance(value, str) or isinstance(value, _Raw):
        return value
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", re.sub(r"\s+", " ", value)).replace("&", "&amp;")


# ---- front matter --------------------------------------------------------------------------------------------------


def _results(record: Record) -> Iterator[Any]:
    """Of the last model, as the Hub's model-index has them."""
    if not record.metrics:
        return
    name = list(record.metrics["models"])[-1]
    model = record.metrics["models"][name]
    yield from _retrieval_results(model, record.metrics.get("eval_data"))
    for task, figures in model.get("tasks", {}).items():
        kind, title = HUB_TASKS.get(task, (task, task))
        for metric, value in figures.items():
            yield _result(kind, title, record.metrics.get("eval_data"), metric, metric, value)
    if general := record.metrics.get("general"):
        yield from _retrieval_results(general["models"].get(name, {}), general.get("eval_data"))


def _retrieval_results(model: Mapping[str, Any], dataset: str | None) -> Iterator[Any]:
    for score in SCORES:
        for metric in MEASURES if has_scores(model, score) else ():
            if metric in model[score]:
                kind = ("information-retrieval", "Information Retrieval")
                yield _result(
                    *kind, dataset, f"{score} {metric}", f"{SCORE_NAMES[score]} {metric}", model[score][metric]
                )


def _result(task: str, title: str, dataset: str | None, metric: str, metric_name: str, value: float) -> Any:
    from huggingface_hub import EvalResult

    name = _data_name(dataset)
    return EvalResult(
        task_type=task,
        task_name=title,
        dataset_type=re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "test-data",
        dataset_name=name,
        metric_type=re.sub(r"[^a-z0-9@]+", "_", metric.lower()),
        metric_name=metric_name,
        metric_value=value,
    )


def _data_name(folder: str | None) -> str:
    """Of test data; "eval" alone says nothing, so that the folder that it lies in is named too."""
    path = Path(str(folder or "test data"))
    return "/".join(path.parts[-2:]) if path.name == "eval" else path.name
