"""Rows of a file into prepared rows: what FlagEmbedding trains on, and what becomes of each row on the way.

A prepared row is a dict of query, pos, neg, prompt and type, and of what a row of FlagEmbedding's own brings besides.
Rows of one query are merged, negatives that are positives left out, missing negatives drawn from the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

from m3kit.data.negatives import walk
from m3kit.data.rowset import RowSet
from m3kit.data.settings import Settings
from m3kit.reading.problems import BadRow
from m3kit.reading.rows import MERGED, Row
from m3kit.reading.text import key_of, shown

# The type of STS rows with a score. FlagEmbedding has no such type.
GRADED = "graded_sts"
# FlagEmbedding's type of classified texts.
CLASSIFIED = "symmetric_class"
# Where pairs are contrastive: at or above the first they are positives, at or below the second hard negatives; those
# between teach neither and are set aside.
STS_POSITIVE, STS_NEGATIVE = 0.8, 0.4
SAME = "both sentences are the same text"
BETWEEN = f"score between {STS_NEGATIVE} and {STS_POSITIVE}: neither positive nor negative"
ALONE = "low score, and neither sentence has a positive pair"
ONLY_ONE = "the only row of its label: it has no positive"
# How many texts of the same label a clustering row offers as its positive; one of them is drawn in each epoch.
CLUSTERING_POSITIVES = 4
# Label texts offered as negatives, where there are more labels: others for each row.
LABEL_NEGATIVES = 100

Made = Iterator[tuple[Row, dict[str, Any] | BadRow]]


@dataclass
class Conversion:
    """How the rows of one set are converted, and what was added and left out."""

    data: RowSet
    settings: Settings
    shared: dict[int, set[int]] = field(default_factory=dict)  # positives that other files give for its queries
    type: str = ""  # FlagEmbedding's
    wanted: int = 0  # negatives of each query
    negatives_added: int = 0
    texts_removed: Counter[str] = field(default_factory=Counter)
    pool: dict[int, str] = field(default_factory=dict)  # texts that may be drawn as negatives, by their keys
    _pool_keys: list[int] = field(default_factory=list)

    def rows(self) -> Made:
        """(row, prepared row or what is wrong with it). Raises ``BadRow`` where the set cannot teach what it is for."""
        return _CONVERT[self.data.task](self)

    def fill_pool(self, rows: Iterable[Row], with_query: bool = False) -> None:
        for row in rows:
            for key, text in zip(row.keys[not with_query :], row.texts[not with_query :], strict=True):
                self.pool.setdefault(key, text)
        self._pool_keys = list(self.pool)

    def draw(self, key: int, count: int, forbidden: Collection[int]) -> list[str]:
        """Up to ``count`` different texts of the pool for the query with that key, none whose key is forbidden."""
        drawn: list[str] = []
        for place in walk(self.settings.seed, key, len(self._pool_keys)) if count > 0 else ():
            found = self._pool_keys[place]
            if found not in forbidden:
                drawn.append(self.pool[found])
                if len(drawn) == count:
                    break
        self.negatives_added += len(drawn)
        return drawn

    def distinct(self, texts: list[tuple[int, str]]) -> dict[int, str]:
        """Texts by their keys, the first of each; repeats are counted."""
        found: dict[int, str] = {}
        for key, text in texts:
            found.setdefault(key, text)
        self.texts_removed["given twice for one query"] += len(texts) - len(found)
        return found

    def made(self, query: str, pos: list[str], neg: list[str], prompt: str | None = None) -> dict[str, Any] | BadRow:
        if not neg:
            what = "no negative here, and no other passage to draw one from"
            return BadRow(what, "give it one, or add rows", code="no-negative")
        prompt = self.settings.query_instruction_for_retrieval if prompt is None else prompt
        return {"query": query, "pos": pos, "neg": neg, "prompt": prompt, "type": self.type}


def shared_positives(sets: list[RowSet]) -> dict[int, set[int]]:
    """The positives of every query that stands in several files, by the query's key."""
    files: dict[int, int] = defaultdict(int)
    for data in sets:
        for key in {row.keys[0] for row in data.rows} if len(sets) > 1 else ():
            files[key] += 1
    several = {key for key, count in files.items() if count > 1}
    shared: dict[int, set[int]] = defaultdict(set)
    for row in (row for data in sets for row in data.rows if several and row.keys[0] in several):
        shared[row.keys[0]].update(row.positive_keys)
    return shared


def _retrieval(job: Conversion) -> Made:
    """The earliest row of each query leads, the others are merged into it.

    A set whose queries bring one negative each (the median) trains with groups of two, any other with the full group.
    """
    queries: dict[int, list[Row]] = {}
    for row in job.data.used:
        queries.setdefault(row.keys[0], []).append(row)
    counts = [count for rows in queries.values() if (count := sum(len(row.negatives) for row in rows))]
    job.wanted = 1 if not counts or median(counts) <= 1 else job.settings.train_group_size - 1
    job.type = "only_1neg" if job.wanted == 1 else "retrieval"
    job.fill_pool(row for rows in queries.values() for row in rows)
    # Grades become teacher scores, where every query has negatives with a grade.
    scored = all(row.value for rows in queries.values() for row in rows) and all(
        {key for row in rows for key in row.negative_keys}
        - {key for row in rows for key in row.positive_keys}
        - job.shared.get(query, set())
        for query, rows in queries.items()
    )
    for first, *others in queries.values():
        for row in others:
            row.fate = MERGED
        yield first, _merged(job, [first, *others], scored)


def _merged(job: Conversion, rows: list[Row], scored: bool) -> dict[str, Any] | BadRow:
    first, query = rows[0], rows[0].keys[0]
    elsewhere = job.shared.get(query, set())
    if len(rows) == 1 and not (elsewhere or scored) and len(set(first.keys)) == len(first.keys):
        # What nearly every row is: alone with its query, its texts all different.
        drawn = job.draw(query, job.wanted - len(first.negatives), first.keys)
        return job.made(first.query, first.positives, first.negatives + drawn)
    positives = [pair for row in rows for pair in zip(row.positive_keys, row.positives, strict=True)]
    negatives = [pair for row in rows for pair in zip(row.negative_keys, row.negatives, strict=True)]
    right = job.distinct(positives)
    wrong = job.distinct([pair for pair in negatives if pair[0] not in right and pair[0] not in elsewhere])
    left_out = sum(key in right or key in elsewhere for key, _ in negatives)
    job.texts_removed["negatives that are positives of their query"] += left_out
    drawn = []
    if not scored:
        drawn = job.draw(query, job.wanted - len(wrong), {*right, *wrong, *elsewhere, query})
    made = job.made(first.query, list(right.values()), [*wrong.values(), *drawn])
    if scored and isinstance(made, dict):
        given = [pair for row in rows for pair in zip(row.keys[1:], row.value["scores"], strict=True)]
        scores = dict(sorted(given, key=lambda pair: pair[1]))  # the highest of several
        made |= {"pos_scores": [scores[key] for key in right], "neg_scores": [scores[key] for key in wrong]}
    return made


def _native(job: Conversion) -> Made:
    """FlagEmbedding's own rows: kept as they are, with what they lack put in."""
    rows = list(job.data.used)
    types = {row.value.get("type"): row.line for row in reversed(rows)}
    if len(types) > 1:
        what = f"rows of one file must have one type, found {sorted(map(str, types))}"
        raise BadRow(what, "split the file by type", sorted(types.values())[1], code="types")
    (kind,) = types or (None,)
    job.type = kind or ("only_1neg" if not rows or median(len(row.negatives) for row in rows) <= 1 else "retrieval")
    job.wanted = 1 if job.type in ("only_1neg", CLASSIFIED) else job.settings.train_group_size - 1
    job.fill_pool(rows)
    for row in rows:
        negatives = row.negatives
        if "neg_scores" not in row.value:
            negatives = negatives + job.draw(row.keys[0], job.wanted - len(negatives), set(row.keys))
        made = job.made(row.query, row.positives, negatives)
        if isinstance(made, BadRow) and "neg_scores" in row.value:
            # A drawn negative has no teacher score, so it cannot stand beside scored ones.
            made = BadRow("this row has scores but no negative", "give it one, with its score", code="no-negative")
        yield row, made if isinstance(made, BadRow) else made | row.value


def _sts(job: Conversion) -> Made:
    """Pairs with their scores; those that all have one score cannot be compared, and are taken for positives."""
    rows = [row for row in job.data.rows if not row.fate or row.fate == MERGED]
    job.fill_pool(rows, with_query=True)
    scores = {row.value for row in rows if row.keys[0] != row.keys[1]}
    if job.settings.sts_as == "contrastive" or len(scores) < 2:
        if job.settings.sts_as != "contrastive":
            job.data.notes.append("all pairs have one score, so they are trained as positives")
        yield from _contrastive(job, rows)
        return
    job.type = GRADED
    pairs: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        if row.keys[0] == row.keys[1]:
            row.fate = SAME  # its cosine is 1 whatever the model
        else:
            pairs.setdefault(tuple(sorted(row.keys)), []).append(row)
    for first, *others in pairs.values():
        for row in others:
            row.fate = MERGED
        grade = sum(row.value for row in (first, *others)) / (1 + len(others))
        # A filler that the kit never reads: a row of FlagEmbedding's has a negative.
        added = job.negatives_added
        made = job.made(first.query, first.positives, job.draw(first.keys[0], 1, first.keys), prompt="")
        job.negatives_added = added
        yield first, made if isinstance(made, BadRow) else made | {"pos_scores": [grade], "neg_scores": [0.0]}


def _contrastive(job: Conversion, rows: list[Row]) -> Made:
    """For the untouched library: pairs of a high score are query and positive.

    What a sentence scores low with is its hard negative, from whichever side; others of the file fill the group, none
    that the sentence was paired with above the lower threshold.
    """
    job.type, job.wanted = "symmetric_sts", job.settings.train_group_size - 1
    leading: dict[int, list[Row]] = {}
    near: dict[int, set[int]] = defaultdict(set)
    low: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for row in rows:
        first, second = row.keys
        if row.value >= STS_POSITIVE and first != second:
            leading.setdefault(first, []).append(row)
        if row.value > STS_NEGATIVE:
            near[first].add(second)
            near[second].add(first)
        else:
            low[first].append((second, row.positives[0]))
            low[second].append((first, row.query))
    if not leading:
        what = f"no pair scores {STS_POSITIVE} or more, so there is no positive to train on"
        raise BadRow(what, "add such pairs", code="no-positive")
    for row in rows:
        if row.value >= STS_POSITIVE:
            if row.keys[0] == row.keys[1]:
                row.fate = SAME
        elif row.value > STS_NEGATIVE:
            row.fate = BETWEEN
        elif not leading.keys() & row.keys:
            row.fate = ALONE
    if 2 * sum(not row.fate for row in rows) < len(rows):
        job.data.notes.append(
            "most pairs teach nothing as positives and negatives: --sts_as graded trains on all of them"
        )
    for query, pairs in leading.items():
        right = job.distinct([(row.keys[1], row.positives[0]) for row in pairs])
        wrong = job.distinct([(key, text) for key, text in low[query] if key not in near[query] and key != query])
        for row in pairs[1:]:
            row.fate = MERGED
        drawn = job.draw(query, job.wanted - len(wrong), {*near[query], *wrong, query})
        yield pairs[0], job.made(pairs[0].query, list(right.values()), [*wrong.values(), *drawn], prompt="")


def _labelled(job: Conversion) -> Made:
    """Classification draws a text to its label's text, and away from the others'; clustering to texts of its label,
    and away from texts of other labels. Each text comes once."""
    data, settings = job.data, job.settings
    texts: dict[int, Row] = {}
    for row in data.used:
        if texts.setdefault(row.keys[0], row) is not row:
            row.fate = MERGED
    labels: dict[str, list[Row]] = {}
    for row in texts.values():
        labels.setdefault(row.value, []).append(row)
    if len(labels) < 2:
        what = f"only one label, {shown(next(iter(labels)))!r}" if labels else "no row is left, so no label"
        raise BadRow(f"{what}: there is nothing to tell apart", "add rows of other labels", code="one-label")
    mode = settings.classification_positives if data.task == "classification" else "texts"
    job.type = CLASSIFIED if data.task == "classification" else "symmetric_clustering"
    job.wanted = settings.train_group_size - 1
    if data.task == "classification" and len({key_of(data.label_texts[label]) for label in labels}) < len(labels):
        raise BadRow("two labels have the same text", "tell them apart in labels.json beside the file", code="labels")
    if mode == "texts" and all(len(rows) < 2 for rows in labels.values()):
        what = "every label has a single row, so no row has a positive"
        raise BadRow(what, "give each label at least two rows", code="label-once")
    by_label = [row for rows in labels.values() for row in rows]
    starts, start = {}, 0
    for label, rows in labels.items():
        starts[label], start = start, start + len(rows)
    names = [data.label_texts.get(label, label) for label in labels]
    place_of = {label: place for place, label in enumerate(labels)}
    for row in texts.values():
        members = labels[row.value]
        if mode != "texts":
            yield (
                row,
                job.made(
                    row.query,
                    [data.label_texts[row.value]],
                    _other_labels(job, names, place_of[row.value], row.keys[0]),
                    prompt="",
                ),
            )
        if mode != "labels" and len(members) > 1:
            begin, end = starts[row.value], starts[row.value] + len(members)
            same = (members[place] for place in walk(settings.seed, row.keys[0], len(members)))
            positives = list(islice((other.query for other in same if other is not row), CLUSTERING_POSITIVES))
            # The rows of other labels are those before and those after the label's own.
            places = walk(settings.seed, row.keys[0], len(by_label) - len(members))
            others = (by_label[place if place < begin else place + end - begin].query for place in places)
            negatives = list(islice(others, 2 * job.wanted))
            job.negatives_added += len(negatives)
            yield row, job.made(row.query, positives, negatives, prompt="")
        elif mode == "texts":
            row.fate = ONLY_ONE


def _other_labels(job: Conversion, names: list[str], own: int, key: int) -> list[str]:
    """Other labels' texts than the one at the place ``own``; of very many some, others for each row."""
    others: Collection[int] = range(len(names) - 1)
    if len(others) > LABEL_NEGATIVES:
        others = sorted(islice(walk(job.settings.seed, key, len(others)), LABEL_NEGATIVES))
    return [names[place + (place >= own)] for place in others]


_CONVERT = {
    "retrieval": _retrieval,
    "sts": _sts,
    "classification": _labelled,
    "clustering": _labelled,
    "native": _native,
}
