"""The texts of a batch as sub-batches of about one length, in which next to nothing is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderSameDatasetCollator

# A sub-batch ends where it would be padding by more than this share.
MOST_PADDING = 0.05


@dataclass
class Collator(AbsEmbedderSameDatasetCollator):
    """FlagEmbedding's, but for the sub-batches: FlagEmbedding pads every text of a batch to the longest.

    Queries and passages each become a list of sub-batches ``{"input_ids", "attention_mask", "places"}``: (n, L), (n, L)
    and (n,), the numbers that the texts have in the batch. ``sub_batch_size`` limits the texts of each.
    """

    # Of a sub-batch, padding included. A longer text is a sub-batch of its own.
    sub_batch_tokens: int = 16384
    # Where fewer tokens take no less time, a sub-batch goes on below that number, whatever the padding.
    worthwhile_tokens: int = 0

    def __call__(self, features: Sequence[tuple]) -> dict[str, Any]:
        ((queries, passages, teacher_scores, no_in_batch_neg_flag),) = features
        return {
            "queries": self._sub_batches(queries, self.query_max_len),
            "passages": self._sub_batches(passages, self.passage_max_len),
            "teacher_scores": teacher_scores or None,
            "no_in_batch_neg_flag": no_in_batch_neg_flag,
        }

    def _sub_batches(self, texts: list[str], max_len: int) -> list[dict[str, torch.Tensor]]:
        encoded = self.tokenizer(texts, truncation=True, max_length=max_len)
        parts = self._part([len(ids) for ids in encoded["input_ids"]])
        return [self._pad(encoded, places) for places in parts]

    def _pad(self, encoded: dict[str, list], places: list[int]) -> dict[str, torch.Tensor]:
        padded = self.tokenizer.pad(
            {name: [values[place] for place in places] for name, values in encoded.items()},
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="pt",
        )
        return {**padded, "places": torch.tensor(places)}

    def _part(self, lengths: list[int]) -> list[list[int]]:
        """The numbers of the texts of each sub-batch, from the longest text to the shortest."""
        multiple = self.pad_to_multiple_of or 1
        padded = [-(-length // multiple) * multiple for length in lengths]
        most_texts = self.sub_batch_size if self.sub_batch_size and self.sub_batch_size > 0 else len(lengths)
        parts: list[list[int]] = []
        longest = tokens = 0
        for place in sorted(range(len(lengths)), key=lambda place: -padded[place]):
            size = longest * (len(parts[-1]) + 1) if parts else 0
            if (
                not parts
                or size > self.sub_batch_tokens
                or len(parts[-1]) >= most_texts
                or (size > self.worthwhile_tokens and size - tokens - padded[place] > MOST_PADDING * size)
            ):
                parts.append([])
                longest, tokens = padded[place], 0
            parts[-1].append(place)
            tokens += padded[place]
        return parts
