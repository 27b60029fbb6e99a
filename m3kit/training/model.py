"""FlagEmbedding's M3 model with its losses put right, and told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from FlagEmbedding.abc.finetune.embedder import EmbedderOutput
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from m3kit.training.losses import candidate_loss, own_group, self_distill_loss, total_loss


@dataclass
class M3Output(EmbedderOutput):
    """``parts``: the losses by name, before they are weighted and without gradients, for the log.

    They are dense, sparse, colbert and ensemble, each contrastive or a teacher's, and self_distill: all that there are.
    """

    parts: dict[str, Tensor] | None = None


class Vectors(NamedTuple):
    """Of N texts: (N, D), (N, vocabulary) and (N, L - 1, D'); the last two are None without unified fine-tuning."""

    dense: Tensor
    sparse: Tensor | None
    colbert: Tensor | None


class M3Model(EncoderOnlyEmbedderM3Model):
    """The losses and gradients of FlagEmbedding where those are right, and right ones where it has a defect:

    - T2: unified fine-tuning without in-batch negatives. FlagEmbedding picks each row's group out of scores that are of
      the group already. With more rows than passages in a group that is an IndexError; otherwise one candidate is left,
      the ensemble loss is 0 whatever the scores, and self-distillation takes every candidate for certain.
    - A teacher's m3_kd_loss without in-batch negatives: see ``losses``.
    - T3: sub-batches and unified fine-tuning: see ``encode``.
    - T5: negatives across devices for dense scores alone: see ``unified_negatives_cross_device``.

    B queries have a group of G passages each; ``losses`` tells what scores look like.
    """

    # Sparse, ColBERT and ensemble scores too are of the texts of all processes: the loss of each is that of one process
    # with all rows. Set by the runner, which makes FlagEmbedding's model one of this class: there is no __init__.
    unified_negatives_cross_device = False

    def forward(self, queries=None, passages=None, teacher_scores=None, no_in_batch_neg_flag=False) -> M3Output:
        """The loss of a batch; none outside of training. ``teacher_scores`` is a flat list of B·G numbers."""
        q, p = self.encode(queries), self.encode(passages)
        if not self.training:
            return M3Output()
        group_size = len(p.dense) // len(q.dense)
        q_mask, teacher = self._get_queries_attention_mask(queries), None
        if teacher_scores is not None:
            teacher = torch.tensor(teacher_scores, device=q.dense.device).view(len(q.dense), group_size).softmax(dim=-1)
        crossed = self.negatives_cross_device and not no_in_batch_neg_flag
        if crossed and self.unified_negatives_cross_device:
            q, p = self._gather(q), self._gather(p)
            q_mask, teacher = self._dist_gather_tensor(self._to_longest(q_mask)), self._dist_gather_tensor(teacher)
            crossed = False  # from here on it is a larger batch and no more
        scores, losses = {}, {}

        def add(name: str, matrix: Tensor) -> None:
            scores[name] = own_group(matrix, group_size) if no_in_batch_neg_flag else matrix
            losses[name] = candidate_loss(scores[name], group_size, teacher, self.kd_loss_type)

        # In FlagEmbedding's order, so that gradients add up in the same one: to the last bit.
        if crossed:
            scores["dense"], losses["dense"] = self._crossed_dense(q.dense, p.dense, teacher)
        else:
            add("dense", self.compute_dense_score(q.dense, p.dense))
        if self.unified_finetuning:
            add("sparse", self.compute_sparse_score(q.sparse, p.sparse))
            add("colbert", self.compute_colbert_score(q.colbert, p.colbert, q_mask=q_mask))
            add("ensemble", self.ensemble_score(None, None, *scores.values()))
        if self.unified_finetuning and self.use_self_distill and self.step > self.self_distill_start_step:
            losses["self_distill"] = self_distill_loss(scores)
        self.step += 1
        return M3Output(loss=total_loss(losses), parts={name: loss.detach() for name, loss in losses.items()})

    def _crossed_dense(self, q: Tensor, p: Tensor, teacher: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, B·G) of this process's texts, for the ensemble, and the loss of (W·B, W·B·G); as in FlagEmbedding."""
        scores, loss = self._compute_cross_device_neg_loss(q, p, teacher, self.compute_dense_score)
        rows, columns = (slice(size * self.process_rank, size * (self.process_rank + 1)) for size in (len(q), len(p)))
        return scores[rows, columns], loss

    # ---- Vectors ----

    def encode(self, features) -> Vectors:
        """Vectors of all texts. ``features`` are of a batch, or a list of such: sub-batches, each padded by itself.

        FlagEmbedding cannot put ColBERT vectors of different lengths together, and saves no memory either: it keeps
        what the gradients of all sub-batches need. Here that is kept of one at a time, and computed again for the
        gradients. The vectors, and so the losses, are those of the undivided batch. (Only where the tokenizer pads on
        the left: FlagEmbedding leaves out the first position, which is a token in the longest texts of a sub-batch.)
        """
        if not isinstance(features, list):
            size = self.sub_batch_size
            if not size or size < 0:
                return Vectors(*self._encode(features))
            starts = range(0, len(features["input_ids"]), size)
            features = [{name: values[i : i + size] for name, values in features.items()} for i in starts]
        dense, sparse, colbert = zip(*map(self._encode_again, features), strict=True)
        if not self.unified_finetuning:
            return Vectors(torch.cat(dense), None, None)
        longest = max(vectors.shape[1] for vectors in colbert)
        return Vectors(torch.cat(dense), torch.cat(sparse), torch.cat([self._pad(c, longest) for c in colbert]))

    def _encode_again(self, features):
        """``_encode``, and once more when its gradients are asked for."""
        return checkpoint(self._encode, features, use_reentrant=False)

    def _sparse_embedding(self, hidden_state: Tensor, input_ids: Tensor, return_embedding: bool = True) -> Tensor:
        """(N, vocabulary): of each token the largest weight it has in a text, from (N, L, D) and (N, L).

        FlagEmbedding makes three tensors (N, L, vocabulary) of it in training, its costliest by far (T1).
        """
        if not (self.training and return_embedding):
            return super()._sparse_embedding(hidden_state, input_ids, return_embedding)
        weights = torch.relu(self.sparse_linear(hidden_state)).squeeze(-1)
        vectors = weights.new_zeros(len(input_ids), self.vocab_size).scatter_reduce(1, input_ids, weights, "amax")
        tokenizer, counts = self.tokenizer, weights.new_ones(self.vocab_size)
        counts[[tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]] = 0
        return vectors * counts

    def _pad(self, values: Tensor, length: int) -> Tensor:
        """(N, length, …) of (N, L, …): with zeros, as a mask has for padding and FlagEmbedding for its vectors."""
        missing = length - values.shape[1]
        sides = (0, missing) if self.tokenizer.padding_side == "right" else (missing, 0)
        return F.pad(values, (*(0, 0) * (values.dim() - 2), *sides))

    # ---- Other processes ----

    def _gather(self, vectors: Vectors) -> Vectors:
        """Those of all processes, in order; gradients flow into this one's own."""
        dense, sparse, colbert = vectors
        return Vectors(*map(self._dist_gather_tensor, (dense, sparse, self._to_longest(colbert))))

    def _to_longest(self, values: Tensor | None) -> Tensor | None:
        """Padded to the length of the longest of all processes."""
        if values is None:
            return None
        length = torch.tensor(values.shape[1], device=values.device)
        dist.all_reduce(length, dist.ReduceOp.MAX)
        return self._pad(values, int(length))
