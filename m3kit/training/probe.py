"""What a training step takes on this device, measured: some of the longest texts, forward and backward."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m3kit.errors import KitError
from m3kit.training.batches import RowSet
from m3kit.training.collator import Collator
from m3kit.training.dataset import SameDatasetTrainDataset
from m3kit.training.device_memory import memory_of
from m3kit.training.layout import Drawn
from m3kit.training.runner import Runner
from m3kit.training.scores import CHUNK

# Of each data set, evenly over all of it, so that chance has no part in it.
SAMPLE = 256
# Texts are doubled until they have so many tokens (a CPU's are few for time's sake), or would take too much of what is
# free: a CPU's memory that is overdrawn ends the process.
ENOUGH_TOKENS, ENOUGH_ON_CPU, SHARE = 8192, 2048, 0.25
NO_LIMIT = 2**40
# Products of tokens by tokens, in 32 bits, with their gradients: small where texts are few, but no larger than that.
SCORES = 3 * 4 * CHUNK
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class RowTokens:
    """A data set: its rows, and the tokens, padding included, of the texts of some of them."""

    rows: int
    sample: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """Bytes. ``tokens`` took ``taken`` beside the weights; all further ones take ``per_token`` each."""

    tokens: int
    taken: int
    per_token: float

    def fit_into(self, room: int) -> int:
        return self.tokens + int((room - self.taken) / self.per_token)


class Probe(Runner):
    """The run's model, rows and precision, without its output folder and without any other process."""

    def __init__(self, model_args, data_args, training_args, processes: int = 1, deepspeed: bool = False):
        self.model_args, self.data_args, self.training_args = model_args, data_args, training_args
        self.is_first = False  # who tells of precision and kernel: the run itself
        # It asks for the other processes at once.
        training_args.negatives_cross_device = False
        self.memory = memory_of(training_args.device, processes)
        # DeepSpeed's model is of 16 bits itself.
        self.dtype = DTYPES.get(training_args.precision)
        self.casts = self.dtype is not None and not deepspeed
        self.free = self.memory.free()
        self.tokenizer, self.model = self.load_tokenizer_and_model()
        self.train_dataset = self.load_train_dataset()
        self.data_collator = self.load_data_collator()
        self.sets = self._look_at_rows()
        self._make_ready()

    def load_train_dataset(self) -> Rows:
        args = self.training_args
        return Rows(self.data_args, default_batch_size=1, seed=args.seed, tokenizer=self.tokenizer)

    def load_data_collator(self) -> Collator:
        collator = super().load_data_collator()
        collator.sub_batch_tokens, collator.sub_batch_size = NO_LIMIT, -1
        return collator

    def _look_at_rows(self) -> list[RowTokens]:
        sets: list[RowTokens] = []
        lengths: dict[str, int] = {}
        for rows in self.train_dataset.sets:
            sample = []
            for query, passages in self.train_dataset.sample(rows):
                of_query = self._lengths([query], self.data_args.query_max_len)
                of_passages = self._lengths(passages, self.data_args.passage_max_len)
                sample.append(sum(of_query + of_passages))
                lengths.update(zip([query, *passages], of_query + of_passages, strict=True))
            sets.append(RowTokens(len(rows.rows), tuple(sample)))
        self._longest, self._shortest = max(lengths, key=lengths.__getitem__), min(lengths, key=lengths.__getitem__)
        self.longest = lengths[self._longest]
        return sets

    def _lengths(self, texts: list[str], max_len: int) -> list[int]:
        ids = self.tokenizer(texts, truncation=True, max_length=max_len)["input_ids"]
        multiple = self.data_args.pad_to_multiple_of or 1
        return [-(-len(text) // multiple) * multiple for text in ids]

    def _make_ready(self) -> None:
        args, model = self.training_args, self.model
        model.sub_batch_tokens, model.sub_batch_size = NO_LIMIT, -1
        if args.gradient_checkpointing:
            kwargs = dict(args.gradient_checkpointing_kwargs or {})
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs or None)
        with self._fitting():
            model.to(args.device, self.dtype if self.dtype and not self.casts else None).train()
        # Gradients are accounted for as a whole. That of the words, made last, would hide what the texts take.
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.numbers = sum(parameter.numel() for parameter in model.parameters())
        self.trained = sum(parameter.numel() for parameter in trained)
        words = model.model.get_input_embeddings().weight
        self.trained_words = words.numel() if words.requires_grad else 0
        words.requires_grad_(False)
        for parameter in trained:
            if parameter is not words:
                parameter.register_post_accumulate_grad_hook(_drop_gradient)

    @property
    def kept_per_token(self) -> int:
        """What is held of each token until the end of a step, though it is encoded in parts: vectors and gradients."""
        size = self.model.config.hidden_size
        if not self.training_args.unified_finetuning:
            return 2 * 4 * size
        return 2 * (4 * size + (self.dtype.itemsize if self.dtype else 4) * self.model.colbert_linear.out_features)

    def measure(self) -> Measured:
        """Of the longest text twice as many each time: of one length, they are all computed at once.

        Raises ``KitError`` where not even one fits.
        """
        with self._fitting():
            # What the first step sets up for good is not the texts'.
            self.step(self._shortest, 1)
            found = [self.step(self._longest, 1)]
        enough = ENOUGH_ON_CPU if self.training_args.device.type == "cpu" else ENOUGH_TOKENS
        while True:
            try:
                found.append(self.step(self._longest, 2 ** len(found)))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                break
            tokens, taken = found[-1]
            if tokens >= enough or 2 * taken > SHARE * self.free:
                break
        tokens, taken = found[-1]
        before = found[-2] if len(found) > 1 else (0, 0)
        per_token = (taken - before[1]) / (tokens - before[0])
        # Texts that differ have more words. A model may be too small to be told from what else goes on in a process.
        per_token = max(per_token + 2 * 4 * self.model.config.hidden_size, self.kept_per_token)
        return Measured(tokens, taken, per_token)

    def step(self, text: str, count: int) -> tuple[int, int]:
        """(padded tokens, bytes at most beside weights) of forward and backward of a query and its passages."""
        batch = self.data_collator([([text], count * [text], None, False)])
        batch = {side: [self._to_device(part) for part in batch[side]] for side in ("queries", "passages")}
        device = self.training_args.device.type
        gc.collect()
        self.memory.begin()
        with torch.autocast(device, self.dtype, enabled=self.casts) if self.casts else contextlib.nullcontext():
            loss = self.model(**batch).loss
        loss.backward()
        del loss
        return sum(part["input_ids"].numel() for side in batch.values() for part in side), self.memory.taken()

    def _to_device(self, part: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values.to(self.training_args.device) for name, values in part.items()}

    @contextlib.contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise does_not_fit(f"not even one text fits into the {gib(self.free)} that are free") from error


class Rows(SameDatasetTrainDataset):
    def sample(self, rows: RowSet) -> Iterator[tuple[str, list[str]]]:
        """Of rows evenly over a data set, the query and its group of passages."""
        for place in np.unique(np.linspace(0, len(rows.rows) - 1, SAMPLE).astype(int)):
            number = int(rows.rows[place])
            row = self._texts[number]
            group = self._group_size(rows, row["neg"], row.get("train_group_size"))
            raw = self._raw_batch(rows, [Drawn(number, 0, list(range(group - 1)))])
            (query,), passages, _ = self._create_batch_data(raw)
            yield query, passages


def does_not_fit(what: str) -> KitError:
    return KitError(
        f"{what}; give --gradient_checkpointing True, a shorter --passage_max_len or --precision bf16 or fp16, or a "
        "device with more memory; or --per_device_train_batch_size 2 to try it all the same"
    )


def gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**30:,.2f} GiB"


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _is_out_of_memory(error: BaseException) -> bool:
    # A CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
