"""Classification and clustering: rows of text and label.

Classification draws a text to its label's text and away from the others'; clustering to texts of the same label and
away from texts of other labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3kit.data.convert.plan import Plan, Source, Tally, make_plan, prepared_row
from m3kit.data.dataset import MERGED, USED, DataSet
from m3kit.data.grouping import earliest
from m3kit.data.negatives import walk
from m3kit.data.problems import BadRow
from m3kit.data.settings import Settings
from m3kit.data.text import keys_of, shown

# How many texts of the same label a clustering row offers as its positive; one of them is drawn in each epoch.
CLUSTERING_POSITIVES = 4
# Label texts offered as negatives, where there are more labels: others for each row.
LABEL_NEGATIVES = 100

ONLY_ONE = "the only row of its label: it has no positive"


def plan(data: DataSet, settings: Settings) -> Plan:
    """Each text once; with texts as positives, a label's only row is set aside (it still serves as a negative)."""
    index, fates = data.index, data.fates
    rows = np.flatnonzero(fates.used)
    leader = rows[earliest(index.query_keys()[rows])]
    fates.give(rows[leader != rows], MERGED)
    rows = np.flatnonzero(fates.used)
    label = index.column("number").astype(np.int64)
    present = np.unique(label[rows])
    if len(present) < 2:
        what = f"only one label, {shown(data.labels[present[0]])!r}" if len(present) else "no row is left, so no label"
        raise BadRow(f"{what}: there is nothing to tell apart", "add rows of other labels", code="one-label")
    mode = settings.classification_positives if data.task == "classification" else "texts"
    if data.task == "classification":
        _check_label_texts([data.label_texts[number] for number in present])
    by_label = rows[np.argsort(label[rows], kind="stable")]
    starts = np.searchsorted(label[by_label], np.arange(len(data.labels) + 1))
    index.save("by_label", by_label.astype(np.uint32))
    index.save("label_starts", starts)
    if mode == "texts":
        sizes = np.diff(starts)
        if sizes.max() < 2:
            what = "every label has a single row, so no row has a positive"
            raise BadRow(what, "give each label at least two rows", code="label-once")
        fates.set_aside(rows[sizes[label[rows]] == 1], ONLY_ONE)
    kind = "symmetric_class" if data.task == "classification" else "symmetric_clustering"
    return make_plan(data, settings, kind, settings.train_group_size - 1)


def convert(source: Source, start: int, stop: int, tally: Tally) -> Iterator[tuple[int, dict | BadRow]]:
    """(row, prepared row) of the rows used in start … stop; with "both" positives up to two of a row."""
    plan, index = source.plan, source.index
    fates = index.column("fate", start, stop)
    labels = index.column("number", start, stop).astype(np.int64).tolist()
    keys = index.keys(start, stop)[0].tolist()
    mode = plan.settings.classification_positives if plan.task == "classification" else "texts"
    starts = index.mapped("label_starts")
    present = [number for number in range(len(starts) - 1) if starts[number + 1] > starts[number]]
    for place, (texts, _, _) in enumerate(source.texts.rows(start, stop)):
        if fates[place] != USED:
            continue
        row, (text,), label, key = start + place, texts, labels[place], keys[place]
        if mode != "texts":
            negatives = _other_labels(plan, present, label, key)
            yield row, prepared_row(text, [plan.label_texts[label]], negatives, "", plan.type)
        if mode != "labels" and starts[label + 1] - starts[label] > 1:
            positives, negatives = _texts(source, row, label, key)
            tally.negatives_added += len(negatives)
            yield row, prepared_row(text, positives, negatives, "", plan.type)


def _other_labels(plan: Plan, present: list[int], label: int, key: int) -> list[str]:
    others = [number for number in present if number != label]
    if len(others) > LABEL_NEGATIVES:
        order = walk(plan.settings.seed, key, len(others))
        others = sorted(others[next(order)] for _ in range(LABEL_NEGATIVES))
    return [plan.label_texts[number] for number in others]


def _texts(source: Source, row: int, label: int, key: int) -> tuple[list[str], list[str]]:
    """(positives, negatives) of a row: texts of its label, and twice the group of others, as each epoch draws anew."""
    seed, wanted = source.plan.settings.seed, 2 * source.plan.negatives
    by_label, starts = source.index.mapped("by_label"), source.index.mapped("label_starts")
    begin, end = int(starts[label]), int(starts[label + 1])
    members = (int(by_label[begin + place]) for place in walk(seed, key, end - begin))
    positives = [source.texts.row(member)[0][0] for member in _first(CLUSTERING_POSITIVES, members, row)]
    # The rows of other labels are those before and those after the label's own.
    places = walk(seed, key, len(by_label) - (end - begin))
    others = (int(by_label[place if place < begin else place + end - begin]) for place in places)
    return positives, [source.texts.row(other)[0][0] for other in _first(wanted, others, row)]


def _first(count: int, numbers: Iterator[int], without: int) -> list[int]:
    found: list[int] = []
    for number in numbers:
        if number != without:
            found.append(number)
            if len(found) == count:
                break
    return found


def _check_label_texts(texts: list[str]) -> None:
    if len(set(keys_of(texts)[1])) < len(texts):
        raise BadRow("two labels have the same text", "tell them apart in labels.json beside the file", code="labels")
