"""What ``recipe=best`` decides before anything is tried: a pure function of a few facts, each decision with its reason.

What the numbers were tried on is in benchmarks/README.md (quality.py): one small model, mostly 400 rows.
"""

from __future__ import annotations

from dataclasses import dataclass

# A rate that suits 384 dimensions with the word embeddings fixed. That wider models take less, in proportion, is not
# measured yet; it gives bge-m3 about twice what its authors advise, and the base is mixed in afterwards.
RATE, RATE_WIDTH = 1e-4, 384
# With few rows new word embeddings cost more memory than they bring. Where few ends is not measured yet.
FEW_ROWS = 10_000
# Where no gradient of the heads' losses reaches the encoder, sparse scores fall below the base's. Where all of it does,
# text unlike the rows gains less. New heads cost the dense vectors more than they bring.
REACH = 0.3
# So many steps are enough, and more passes over the rows than that teach them by heart.
STEPS, MOST_EPOCHS = 75, 8
# Of the memory that is there, what a step may need by the estimate.
ROOM = 0.5
# So many held-out queries tell shares of the tuned model apart; as many others judge the one that they choose.
ENOUGH_QUERIES = 100


@dataclass(frozen=True)
class Facts:
    """What is known of the rows, the base and the machine.

    ``rows`` to train on; ``retrieval_rows`` of them, and ``classified_rows``. ``held_out`` queries to choose by. The
    base's ``width``, if it has ``heads``, and the ``temperature`` that fits it on the
    retrieval rows, None where these are too few.
    ``needed_gb`` of memory without gradient checkpointing, and ``memory_gb`` of the device.
    ``batch``: the queries of a step where the user has set them.
    """

    rows: int
    retrieval_rows: int
    classified_rows: int
    held_out: int
    width: int
    heads: bool
    processes: int
    temperature: float | None
    needed_gb: float
    memory_gb: float
    batch: int | None = None


@dataclass(frozen=True)
class Decision:
    name: str
    value: object
    reason: str

    def words(self) -> list[str]:
        """As arguments of the trainer."""
        values = self.value if isinstance(self.value, (list, tuple)) else [self.value]
        return [f"--{self.name}", *(str(value) for value in values)]


def decide(facts: Facts) -> list[Decision]:
    """The settings for these facts. What a user has set is left out by the caller."""
    few = facts.rows < FEW_ROWS
    # Graded pairs and labels gain little from more than that, retrieval does.
    retrieval = 2 * facts.retrieval_rows >= facts.rows
    batch = facts.batch or min(_batch(facts.rows), 128 if retrieval else 32)
    each = max(1, batch // facts.processes)
    reach = facts.heads and retrieval
    rate = float(f"{RATE * RATE_WIDTH / facts.width:.0e}") if facts.width > RATE_WIDTH else RATE
    epochs = min(MOST_EPOCHS, max(1, STEPS * batch // facts.rows))
    decisions = [
        Decision(
            "per_device_train_batch_size",
            each,
            f"{each * facts.processes} queries a step are one another's negatives, and {facts.rows:,} rows still give "
            f"{max(1, facts.rows // (each * facts.processes))} steps an epoch",
        ),
        Decision("learning_rate", rate, f"for a model {facts.width} wide, in batches of this size"),
        Decision("num_train_epochs", epochs, f"about {epochs * facts.rows // batch} steps: fewer teach too little"),
        Decision("train_group_size", 2, "one hard negative a query: the batch brings the others"),
        Decision(
            "heads_reach",
            REACH if reach else 0.0,
            "some of what the sparse and ColBERT losses teach reaches the encoder: with none, sparse scores fall"
            if reach
            else "the sparse and ColBERT heads learn from the encoder and do not pull at it: "
            + ("few rows are of retrieval" if facts.heads else "they are new"),
        ),
        Decision("freeze_word_embeddings", few, f"{facts.rows:,} rows hold few of the words" if few else "many rows"),
        Decision("eval_steps", 1_000_000, "measured before and after: what is chosen is how much of the base is kept"),
    ]
    if facts.needed_gb < ROOM * facts.memory_gb:
        why = f"a step needs about {facts.needed_gb:.0f} of {facts.memory_gb:.0f} GB: nothing need be computed twice"
        decisions.append(Decision("gradient_checkpointing", False, why))
    if facts.temperature:
        why = "at which the base's own scores fit these rows best: a higher one would undo what it knows"
        decisions.append(Decision("dense_temperature", facts.temperature, why))
    if facts.held_out >= ENOUGH_QUERIES:
        why = f"how much of the base is mixed in is measured: {facts.held_out} held-out queries can choose"
        decisions.append(Decision("merge_shares", (0.3, 0.5, 0.7, 1.0), why))
    elif 2 * facts.classified_rows <= facts.rows:
        why = f"some of the base is mixed in; {facts.held_out} held-out queries are too few to choose by"
        decisions.append(Decision("merge_shares", (0.6,), why))
    return decisions


def _batch(rows: int) -> int:
    """Queries of a step: a power of two from 8 to 128 that leaves at least ten steps an epoch."""
    batch = 8
    while batch < 128 and rows >= 20 * batch:
        batch *= 2
    return batch
