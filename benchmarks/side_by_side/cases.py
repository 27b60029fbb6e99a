"""What is measured: each case with its rows, its settings, who runs it, and what it should show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

LIBRARY, KIT, SENTENCE = "FlagEmbedding", "kit", "sentence-transformers"
ON_GPU = "on a GPU"

# Those of FlagEmbedding's examples/finetune/embedder/encoder_only/m3.sh, but for what several GPUs need.
PUBLISHED = {
    "learning_rate": 1e-5,
    "warmup_steps": 0.1,
    "per_device_train_batch_size": 2,
    "train_group_size": 8,
    "query_max_len": 512,
    "passage_max_len": 512,
    "pad_to_multiple_of": 8,
    "temperature": 0.02,
    "sentence_pooling_method": "cls",
    "normalize_embeddings": True,
    "kd_loss_type": "m3_kd_loss",
    "unified_finetuning": True,
    "use_self_distill": True,
    "self_distill_start_step": 0,
    "gradient_checkpointing": True,
    "dataloader_drop_last": True,
    "fp16": ON_GPU,
}
# The kit's own default: it pads to the longest of texts that are of about one length.
OWN_PADDING = {"pad_to_multiple_of": 1}
DENSE = {"unified_finetuning": False, "use_self_distill": False}
DENSE_32 = {
    **DENSE,
    "per_device_train_batch_size": 32,
    "train_group_size": 2,
    "query_max_len": 128,
    "passage_max_len": 128,
    "gradient_checkpointing": False,
    "fp16": False,
}


@dataclass(frozen=True)
class Run:
    """One contender in a process of its own. ``settings`` go over those of the case."""

    name: str
    contender: str
    settings: dict = field(default_factory=dict)
    # None: all rows of the case, once.
    steps: int | None = None


@dataclass(frozen=True)
class Promise:
    """``value`` makes one number of the figures of all runs, by name; ``shape``: the one it is promised for."""

    says: str
    value: Callable[[dict[str, dict]], float]
    at_most: float | None = None
    at_least: float | None = None
    shape: str | None = None

    def kept(self, value: float) -> bool:
        return value <= self.at_most if self.at_most is not None else value >= self.at_least


@dataclass(frozen=True)
class Case:
    """``rows``: how many all runs train on. ``passage_words``: a length for all passages, or None for real ones."""

    about: str
    shapes: tuple[str, ...]
    rows: int
    runs: tuple[Run, ...]
    negatives: int = 7
    passage_words: int | None = None
    settings: dict = field(default_factory=lambda: PUBLISHED)
    promises: tuple[Promise, ...] = ()
    # Clocks around the encoder, which take a little time themselves.
    time_encoder: bool = False


def ratio(figure: str, run: str, to: str) -> Callable[[dict[str, dict]], float]:
    return lambda runs: runs[run][figure] / runs[to][figure]


def growth_over_vectors(runs: dict[str, dict]) -> float:
    small, large = runs["batch 8"], runs["batch 256"]
    return (large["above_bytes"] - small["above_bytes"]) / large["vector_bytes_per_step"]


CASES = {
    "published": Case(
        about="the published settings: batch 2, group 8, 512 tokens, dense + sparse + ColBERT, self-distillation, "
        "gradient checkpointing",
        shapes=("xlmr-small",),
        rows=22,
        runs=(Run(LIBRARY, LIBRARY), Run(KIT, KIT, OWN_PADDING)),
        promises=(
            Promise(
                "memory above weights, gradients and optimizer, kit : FlagEmbedding",
                ratio("above_bytes", KIT, LIBRARY),
                at_most=0.25,
                shape="xlmr-small",
            ),
            Promise(
                "CPU time a step, kit : FlagEmbedding",
                ratio("cpu_seconds_per_step", KIT, LIBRARY),
                at_most=0.4,
                shape="xlmr-small",
            ),
        ),
    ),
    "one-negative": Case(
        about="rows of a query, a positive and a negative, everything else as each has it by default: batch 2",
        shapes=("xlmr-small",),
        rows=42,
        negatives=1,
        runs=(Run(LIBRARY, LIBRARY), Run(KIT, KIT, OWN_PADDING)),
        promises=(
            Promise(
                "different query–passage pairs per CPU second, kit : FlagEmbedding",
                ratio("pairs_per_cpu_second", KIT, LIBRARY),
                at_least=4,
            ),
        ),
    ),
    "batch": Case(
        about="a batch of 8 and one of 256, group 8, 128 tokens, 4,096 padded tokens encoded at once",
        shapes=("minilm",),
        rows=512,
        passage_words=128,
        settings={**PUBLISHED, "query_max_len": 128, "passage_max_len": 128, "sub_batch_tokens": 4096},
        runs=tuple(Run(f"batch {size}", KIT, {"per_device_train_batch_size": size}, steps=1) for size in (8, 256)),
        promises=(
            Promise(
                "growth of the memory from batch 8 to 256 : vectors of batch 256 in 32 bits",
                growth_over_vectors,
                at_most=3,
            ),
        ),
    ),
    "dense": Case(
        about="dense vectors only, 128 tokens, one negative, batch 32; FlagEmbedding at its published batch 2, group 8",
        shapes=("minilm",),
        rows=352,
        negatives=1,
        settings={**PUBLISHED, **DENSE_32},
        runs=(
            Run(SENTENCE, SENTENCE),
            Run(f"{SENTENCE} bf16", SENTENCE, {"bf16": True}),
            # Its loss for large batches, which computes everything twice to save memory.
            Run(f"{SENTENCE} cached", SENTENCE, {"cached": True}),
            Run(KIT, KIT, OWN_PADDING),
            Run(f"{KIT} bf16", KIT, {**OWN_PADDING, "bf16": True}),
            Run(LIBRARY, LIBRARY, {**PUBLISHED, **DENSE, "query_max_len": 128, "passage_max_len": 128}),
        ),
        promises=(
            Promise(
                "rows per second, kit : sentence-transformers", ratio("rows_per_second", KIT, SENTENCE), at_least=1
            ),
            Promise(
                "rows per second, kit in bf16 : sentence-transformers in fp32 with the loss for large batches",
                ratio("rows_per_second", f"{KIT} bf16", f"{SENTENCE} cached"),
                at_least=2,
            ),
        ),
    ),
    "full": Case(
        about="the published settings with passages of 512 tokens",
        shapes=("bge-m3",),
        rows=4,
        passage_words=520,
        runs=(Run(KIT, KIT, OWN_PADDING, steps=1),),
        time_encoder=True,
        promises=(
            Promise(
                "time outside of the encoder's layers (look-up, heads, losses) : time in them",
                lambda runs: runs[KIT]["outside_encoder_share"],
                at_most=0.05,
                shape="bge-m3",
            ),
            Promise("peak memory in GiB", lambda runs: runs[KIT]["peak_bytes"] / 2**30, at_most=24, shape="bge-m3"),
        ),
    ),
}
