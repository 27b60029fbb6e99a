"""The texts of a batch as sub-batches of about one length, in which next to nothing is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderSameDatasetCollator
from torch import Tensor

# A sub-batch ends where it would be padding by more than this share.
MOST_PADDING = 0.05
# Above any id of a word.
NO_ID = 2**31 - 1


@dataclass
class Collator(AbsEmbedderSameDatasetCollator):
    """FlagEmbedding's, but for the sub-batches: FlagEmbedding pads every text of a batch to the longest.

    Queries and passages each become a list of sub-batches of n texts with L tokens: ``input_ids`` and
    ``attention_mask`` (n, L), ``places`` (n,), the numbers that the texts have in the batch, and what
    ``with_contents`` adds. ``sub_batch_size`` limits the texts of each.
    """

    # Of a sub-batch, padding included. A longer text is a sub-batch of its own.
    sub_batch_tokens: int = 16384
    # Where fewer tokens take no less time, a sub-batch goes on below that number, whatever the padding.
    worthwhile_tokens: int = 0

    def __call__(self, features: Sequence[tuple]) -> dict[str, Any]:
        ((queries, passages, teacher_scores, no_in_batch_neg_flag),) = features
        sides = [self._sub_batches(queries, self.query_max_len), self._sub_batches(passages, self.passage_max_len)]
        (queries, passages), words = with_contents(sides, self.tokenizer)
        return {
            "queries": queries,
            "passages": passages,
            # Numbers, not a tensor: under DeepSpeed transformers turns a tensor of them into one of 16 bits.
            "teacher_scores": teacher_scores or None,
            "no_in_batch_neg_flag": no_in_batch_neg_flag,
            "words": words,
        }

    def _sub_batches(self, texts: list[str], max_len: int) -> list[dict[str, Tensor]]:
        encoded = self.tokenizer(texts, truncation=True, max_length=max_len)
        found = []
        for places in self._part([len(ids) for ids in encoded["input_ids"]]):
            some = {name: [values[place] for place in places] for name, values in encoded.items()}
            padded = self.tokenizer.pad(some, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt")
            found.append({**padded, "places": torch.tensor(places)})
        return found

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


def with_contents(sides: Sequence[Any], tokenizer) -> tuple[list[list[dict[str, Any]]], list[Tensor]]:
    """What a step has to know of the contents of its batch: on a GPU each look at them would wait for all before.

    ``sides`` are queries and passages, as the collators make them: sub-batches, or a single one. Each sub-batch gets
    ``places`` where it has none, ``padded``, whether there is any padding, and ``tokens`` (T,): which of its n·(L - 1)
    tokens, the first of each text left out, are no padding. Then the batch's different ids in ascending order, (U,),
    and those of each side that have a weight in sparse vectors, with ``NO_ID`` after them.
    """
    special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    found, words = [], []
    for side in sides:
        parts, count = [], 0
        for part in side if isinstance(side, list) else [side]:
            ids, mask = part["input_ids"], part["attention_mask"]
            places = torch.arange(count, count + len(ids), device=ids.device)
            tokens = mask[:, 1:].flatten().nonzero().squeeze(1)
            parts.append({"places": places, **part, "padded": not mask.all(), "tokens": tokens})
            count += len(ids)
        found.append(parts)
        words.append(torch.cat([part["input_ids"].flatten() for part in parts]).unique())
    weighted = [F.pad(ids[torch.isin(ids, ids.new_tensor(special), invert=True)], (0, 1), value=NO_ID) for ids in words]
    return found, [torch.cat(words).unique(), *weighted]
