"""Where classified texts have their negatives from: the labels of the batch's other rows, or some that they bring."""

from __future__ import annotations

import datasets
import pyarrow.compute as pc

from m3kit.training.batches import RowSet

# FlagEmbedding's type of classified texts.
CLASSIFIED = "symmetric_class"
# With fewer labels a group holds most of them.
MANY = 16


def settle_negatives(rows: RowSet, dataset: datasets.Dataset, wanted: str, group_size: int) -> str | None:
    """Decide for a set of classified texts, and return the decision with its reason; None for any other set.

    ``wanted`` is ``label_negatives``: auto, group or batch. In the batch each row brings its label alone, and no label
    comes twice: as many texts are encoded as there are rows, and each has all other labels of the batch as negatives.
    """
    if rows.type != CLASSIFIED or rows.in_batch_negatives or rows.teacher_scores:
        return None
    against = "as label_negatives says" if wanted == "group" else _against(rows, dataset, wanted, group_size)
    if against:
        return f"negatives are of each row's own group: {against}"
    rows.in_batch_negatives = rows.positives_alone = True
    why = "as label_negatives says" if wanted == "batch" else f"no fewer than in groups of {group_size}, at less cost"
    return f"negatives are the labels of the other rows of a batch: {rows.batch_size - 1} of them, {why}"


def _against(rows: RowSet, dataset: datasets.Dataset, wanted: str, group_size: int) -> str:
    """What speaks against the batch's labels as negatives, or nothing."""
    if wanted == "auto" and rows.batch_size < group_size:
        return f"batches of {rows.batch_size} have fewer labels than groups of {group_size}"
    found = dataset.select(rows.rows).select_columns(["query", "pos"]).with_format("arrow")[:]
    labels = pc.list_flatten(found["pos"])
    if len(labels) != len(found) or pc.any(pc.is_in(labels, value_set=found["query"].combine_chunks())).as_py():
        # Texts of one label would be each other's negatives.
        return "the positives are not one label's text each"
    counts = pc.value_counts(labels).field("counts")
    if wanted == "auto" and len(counts) < MANY:
        return f"there are {len(counts)} labels, fewer than {MANY}"
    if wanted == "auto" and (most := pc.max(counts).as_py()) > rows.batches:
        return f"a label has {most} rows, and {rows.batches} batches have room for it once each"
    return ""
