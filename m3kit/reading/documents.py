"""One JSON object that holds many rows: what other tools write as a whole file."""

from __future__ import annotations

from typing import Any


def rows_of_document(document: Any) -> list[dict[str, Any]] | None:
    """The rows of an object of a known form; None: it is of none, and may be a row itself."""
    for form in (_llama_index, _squad, _columns, _list_of_rows):
        rows = form(document)
        if rows is not None:
            return rows
    return None


def _llama_index(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """LlamaIndex's EmbeddingQAFinetuneDataset: queries, corpus, relevant_docs."""
    queries, corpus, relevant = (document.get(name) for name in ("queries", "corpus", "relevant_docs"))
    if not (isinstance(queries, dict) and isinstance(corpus, dict) and isinstance(relevant, dict)):
        return None
    return [
        {"query": query, "positive": [corpus.get(passage) for passage in relevant.get(name) or []]}
        for name, query in queries.items()
    ]


def _squad(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """SQuAD: a question's paragraph is its positive; questions without an answer in it are left out."""
    try:
        return [
            {"query": question["question"], "positive": paragraph["context"]}
            for article in document["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
            if not question.get("is_impossible")
        ]
    except (KeyError, TypeError):
        return None


def _columns(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A column for each name, as lists or, as pandas' ``to_json`` writes them, as {number: value}."""
    columns = [list(value.values()) if isinstance(value, dict) else value for value in document.values()]
    if len(columns) < 2 or not all(isinstance(column, list) and len(column) > 1 for column in columns):
        return None
    if len(set(map(len, columns))) > 1:
        return None
    return [dict(zip(document, values, strict=True)) for values in zip(*columns, strict=True)]


def _list_of_rows(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """An object whose only list holds the rows: {"version": …, "data": [{…}, …]}."""
    lists = [value for value in document.values() if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
        if not any(isinstance(document.get(name), str) for name in ("query", "question", "anchor", "text")):
            return lists[0]
    return None
