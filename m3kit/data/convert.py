"""Rows of each task turned into rows that FlagEmbedding trains on.

A converted row is ``{"query": str, "pos": [str], "neg": [str], "prompt": str, "type": str, …}``. It always has a
``prompt`` (D1), lists that are never empty (D2), and, as far as the set has them, as many different negatives as its
group size takes (D3). ``type`` is FlagEmbedding's and sets the group size there (D6):

- ``only_1neg``: one positive, one negative; no negative is ever encoded seven times
- ``retrieval``: the full group
- ``symmetric_sts``, ``symmetric_clustering``: the full group, the prompt goes before passages too
- ``symmetric_class``: as many as there are labels, at most the full group
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from m3kit.data.formats import LabelledRow, NativeRow, RetrievalRow, Row, StsRow
from m3kit.data.negatives import NegativePool, same_text
from m3kit.data.problems import BadRow

# Pairs at or above the first are positives, at or below the second they are hard negatives; those between teach
# neither and are set aside.
STS_POSITIVE = 0.8
STS_NEGATIVE = 0.4
# How many texts of the same label a clustering row offers as its positive; one of them is drawn in each epoch.
CLUSTERING_POSITIVES = 4


@dataclass(frozen=True)
class Settings:
    """What decides how rows are converted; kept in the manifest."""

    train_group_size: int = 8
    seed: int = 42
    query_instruction_for_retrieval: str = ""
    classification_positives: str = "labels"


@dataclass
class Converted:
    """Converted rows, and what became of those read: ``read == used + merged + sum(set_aside.values())``."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0
    used: int = 0
    merged: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    negatives_added: int = 0
    texts_removed: Counter[str] = field(default_factory=Counter)


def convert(task: str, rows: list[Row], settings: Settings, labels: dict[str, str]) -> Converted:
    """Convert the rows of one file; ``task`` is retrieval, sts, native, classification or clustering.

    ``labels`` describes labels of classification. Raises ``BadRow`` when the rows cannot teach what the task asks.
    """
    if task == "classification":
        return convert_classification(rows, labels, settings)
    converters = {
        "retrieval": convert_retrieval,
        "sts": convert_sts,
        "clustering": convert_clustering,
        "native": convert_native,
    }
    return converters[task](rows, settings)


def convert_retrieval(rows: list[RetrievalRow], settings: Settings) -> Converted:
    """Merge rows of one query, then draw the negatives that are missing.

    A set whose rows bring one negative each (the median) trains with groups of two, any other with the full group.
    """
    result = Converted(read=len(rows))
    queries: dict[str, RetrievalRow] = {}
    positives: dict[str, list[str]] = defaultdict(list)
    given: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        key = same_text(row.query)
        queries.setdefault(key, row)
        positives[key] += row.positives
        given[key] += row.negatives
    result.used, result.merged = len(queries), len(rows) - len(queries)

    negatives = {key: _without_false(positives[key], given[key], result) for key in queries}
    counts = [len(texts) for texts in negatives.values() if texts]
    group_size = 2 if not counts or statistics.median(counts) <= 1 else settings.train_group_size
    group_size = min(group_size, settings.train_group_size)

    pool = NegativePool((text for row in rows for text in row.positives + row.negatives), settings.seed)
    kind = "only_1neg" if group_size == 2 else "retrieval"
    for key, first in queries.items():
        forbidden = positives[key] + negatives[key] + [first.query]
        added = pool.draw(first.query, group_size - 1 - len(negatives[key]), forbidden)
        result.negatives_added += len(added)
        right, wrong = _distinct(positives[key], result), negatives[key] + added
        result.rows.append(_row(first.line, first.query, right, wrong, kind, settings.query_instruction_for_retrieval))
    return result


def convert_sts(rows: list[StsRow], settings: Settings) -> Converted:
    """Pairs of high score are query and positive; what a sentence scores low with are its hard negatives.

    Other sentences of the set fill the group, none that the sentence was paired with above the lower threshold.
    """
    result = Converted(read=len(rows))
    near: dict[str, list[str]] = defaultdict(list)
    far: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for one, other in ((row.sentence1, row.sentence2), (row.sentence2, row.sentence1)):
            (far if row.score <= STS_NEGATIVE else near)[same_text(one)].append(other)

    positives: dict[str, list[str]] = defaultdict(list)
    queries: dict[str, StsRow] = {}
    for row in rows:
        if row.score >= STS_POSITIVE and same_text(row.sentence1) != same_text(row.sentence2):
            key = same_text(row.sentence1)
            result.merged += key in queries
            queries.setdefault(key, row)
            positives[key].append(row.sentence2)
    for row in rows:
        if row.score >= STS_POSITIVE:
            if same_text(row.sentence1) == same_text(row.sentence2):
                result.set_aside["both sentences are the same text"] += 1
        elif row.score > STS_NEGATIVE:
            result.set_aside[f"score between {STS_NEGATIVE} and {STS_POSITIVE}: neither positive nor negative"] += 1
        elif same_text(row.sentence1) in queries or same_text(row.sentence2) in queries:
            result.used += 1
        else:
            result.set_aside["low score, and neither sentence has a positive pair"] += 1
    result.used += len(queries)

    pool = NegativePool((text for row in rows for text in (row.sentence1, row.sentence2)), settings.seed)
    for key, first in queries.items():
        query = first.sentence1
        negatives = _without_false(near[key] + [query], far[key], result)
        forbidden = near[key] + negatives + [query]
        added = pool.draw(query, settings.train_group_size - 1 - len(negatives), forbidden)
        result.negatives_added += len(added)
        right = _distinct(positives[key], result)
        result.rows.append(_row(first.line, query, right, negatives + added, "symmetric_sts"))
    if not result.rows:
        raise BadRow(f"no pair scores {STS_POSITIVE} or more, so there is no positive to train on", "add such pairs")
    return result


def convert_classification(rows: list[LabelledRow], labels: dict[str, str], settings: Settings) -> Converted:
    """The label's text is the positive, those of all other labels the negatives.

    ``labels`` may describe a label; one that it does not name is used by its own name with spaces for underscores.
    ``settings.classification_positives``: "labels", "texts" (as in clustering) or "both".
    """
    if settings.classification_positives == "texts":
        return convert_clustering(rows, settings, "symmetric_class")
    names = list(dict.fromkeys(row.label for row in rows))
    _check_labels(names)
    texts = {name: labels.get(name, name.replace("_", " ")) for name in names}
    if len({same_text(text) for text in texts.values()}) < len(names):
        raise BadRow("two labels have the same text", "tell them apart in labels.json beside the file")
    rows, result = _unique_texts(rows)
    for row in rows:
        negatives = [text for name, text in texts.items() if name != row.label]
        result.rows.append(_row(row.line, row.text, [texts[row.label]], negatives, "symmetric_class"))
    if settings.classification_positives == "both":
        by_text = convert_clustering(rows, settings, "symmetric_class")
        result.rows.extend(by_text.rows)
        result.negatives_added += by_text.negatives_added
    return result


def convert_clustering(rows: list[LabelledRow], settings: Settings, kind: str = "symmetric_clustering") -> Converted:
    """Texts of the same label are the positives, texts of other labels the negatives."""
    _check_labels(list(dict.fromkeys(row.label for row in rows)))
    rows, result = _unique_texts(rows)
    members: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        members[row.label].append(row.text)
    own = {label: NegativePool(texts, settings.seed) for label, texts in members.items()}
    everything = NegativePool((row.text for row in rows), settings.seed)
    for row in rows:
        positives = own[row.label].draw(row.text, CLUSTERING_POSITIVES, [row.text])
        if not positives:
            result.used -= 1
            result.set_aside["the only row of its label: it has no positive"] += 1
            continue
        # Twice the group, so that each epoch draws another half.
        negatives = everything.draw(row.text, 2 * (settings.train_group_size - 1), members[row.label])
        result.negatives_added += len(negatives)
        result.rows.append(_row(row.line, row.text, positives, negatives, kind))
    if not result.rows:
        raise BadRow("every label has a single row, so no row has a positive", "give each label at least two rows")
    return result


def convert_native(rows: list[NativeRow], settings: Settings) -> Converted:
    """FlagEmbedding's own rows: kept as they are, with what they lack put in."""
    result = Converted(read=len(rows), used=len(rows))
    types = {row.extra.get("type") for row in rows}
    if len(types) > 1:
        raise BadRow(f"rows of one file must have one type, found {sorted(map(str, types))}", "split the file by type")
    median = statistics.median(len(row.neg) for row in rows)
    kind = types.pop() or ("only_1neg" if median <= 1 else "retrieval")
    wanted = 1 if kind in ("only_1neg", "symmetric_class") else settings.train_group_size - 1
    pool = NegativePool((text for row in rows for text in row.pos + row.neg), settings.seed)
    for row in rows:
        scored = "neg_scores" in row.extra
        if scored and not row.neg:
            raise BadRow("this row has scores but no negative", "give it one, with its score", row.line)
        # A drawn negative has no teacher score, so it cannot stand beside scored ones.
        added = [] if scored else pool.draw(row.query, wanted - len(row.neg), row.pos + row.neg + [row.query])
        result.negatives_added += len(added)
        made = _row(row.line, row.query, row.pos, row.neg + added, kind, settings.query_instruction_for_retrieval)
        result.rows.append(made | row.extra)
    return result


def _row(line: int, query: str, pos: list[str], neg: list[str], kind: str, prompt: str = "") -> dict[str, Any]:
    if not neg:
        raise BadRow("no negative here, and no other passage to draw one from", "give it one, or add rows", line)
    return {"query": query, "pos": pos, "neg": neg, "prompt": prompt, "type": kind}


def _distinct(texts: list[str], result: Converted) -> list[str]:
    """Each text once, in the order given; repeats are counted."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(same_text(text), text)
    if repeats := len(texts) - len(first):
        result.texts_removed["given twice for one query"] += repeats
    return list(first.values())


def _without_false(positives: list[str], negatives: list[str], result: Converted) -> list[str]:
    """The different negatives that are not the text of a positive; those left out are counted."""
    right = {same_text(text) for text in positives}
    kept = [text for text in negatives if same_text(text) not in right]
    if false := len(negatives) - len(kept):
        result.texts_removed["negatives that are positives of their query"] += false
    return _distinct(kept, result)


def _check_labels(names: list[str]) -> None:
    if len(names) < 2:
        raise BadRow(f"only one label, {names[0]!r}: there is nothing to tell apart", "add rows of other labels")


def _unique_texts(rows: list[LabelledRow]) -> tuple[list[LabelledRow], Converted]:
    """Rows with each text once; the same text under two labels is refused, for one of the two is wrong."""
    first: dict[str, LabelledRow] = {}
    for row in rows:
        seen = first.setdefault(same_text(row.text), row)
        if seen.label != row.label:
            what = f"the same text as line {seen.line}, with label {row.label!r} instead of {seen.label!r}"
            raise BadRow(what, "delete the wrong one", row.line)
    return list(first.values()), Converted(read=len(rows), used=len(first), merged=len(rows) - len(first))
