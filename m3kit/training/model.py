"""FlagEmbedding's M3 model with its losses put right, and told apart, at a fraction of the memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from FlagEmbedding.abc.finetune.embedder import EmbedderOutput
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from m3kit.training.device_memory import release_freed
from m3kit.training.embedding import Words, look_up, looked_up
from m3kit.training.lora import merged
from m3kit.training.losses import (
    candidate_loss,
    cosent_loss,
    reach,
    self_distill_loss,
    teacher_probabilities,
    total_loss,
)
from m3kit.training.scores import (
    Part,
    Texts,
    as_one_part,
    at_least_32_bits,
    colbert_scores,
    dense_scores,
    in_order,
    sparse_scores,
)


@dataclass
class M3Output(EmbedderOutput):
    """``parts``: the losses by name, before they are weighted and without gradients, for the log.

    They are dense, sparse, colbert and ensemble, each contrastive or a teacher's, and self_distill: all that there are.
    """

    parts: dict[str, Tensor] | None = None


class M3Model(EncoderOnlyEmbedderM3Model):
    """The losses and gradients of FlagEmbedding where those are right, and right ones where it has a defect:

    - T1, T4: what its sparse and ColBERT scores cost: see ``scores``.
    - T2: unified fine-tuning without in-batch negatives. FlagEmbedding picks each row's group out of scores that are of
      the group already. With more rows than passages in a group that is an IndexError; otherwise one candidate is left,
      the ensemble loss is 0 whatever the scores, and self-distillation takes every candidate for certain.
    - A teacher's m3_kd_loss without in-batch negatives: see ``losses``.
    - T3: sub-batches and unified fine-tuning: see ``encode``.
    - T5: negatives across devices for dense scores alone: see ``unified_negatives_cross_device``.
    - Mixed precision: FlagEmbedding's scores are of 16 bits, which at temperature 0.02 are off by a tenth and more.

    B queries have a group of G passages each; ``losses`` tells what scores look like. Groups of one passage that come
    with scores are graded pairs (STS), which FlagEmbedding does not know: see ``_graded_losses``.
    """

    # All are set by the runner, which makes FlagEmbedding's model one of this class: there is no __init__.
    #
    # Sparse, ColBERT and ensemble scores too are of the texts of all processes: the loss of each is that of one process
    # with all rows.
    unified_negatives_cross_device = False
    # A batch of more tokens, padding included, is computed again for its gradients, a sub-batch at a time.
    sub_batch_tokens = 16384
    # Of the dense loss alone, where it is not ``temperature``.
    dense_temperature: float | None = None
    # The share of the gradients of all losses but the dense one that reaches the encoder.
    heads_reach = 1.0
    # What is done to teacher scores before they are learnt from: see ``teacher_probabilities``.
    teacher_temperature = 1.0
    teacher_normalisation = "none"

    def activation_checkpointing_enable(self, **kwargs) -> None:
        """transformers' name for what FlagEmbedding has as ``gradient_checkpointing_enable``."""
        self.model.activation_checkpointing_enable(**kwargs)

    def forward(self, queries=None, passages=None, teacher_scores=None, no_in_batch_neg_flag=False) -> M3Output:
        """The loss of a batch; none outside of training. ``teacher_scores`` is a flat list of B·G numbers, or grades.

        ``queries`` and ``passages`` are sub-batches as ``Collator`` makes them, or as FlagEmbedding's does, in order.
        """
        if not self.training:
            return M3Output()
        q, p = self.encode(queries, passages)
        with torch.autocast(q.dense.device.type, enabled=False):
            losses = self._losses(q, p, teacher_scores, no_in_batch_neg_flag)
        self.step += 1
        return M3Output(loss=total_loss(losses), parts={name: loss.detach() for name, loss in losses.items()})

    def _losses(self, q: Texts, p: Texts, teacher_scores: list[float] | None, own_group: bool) -> dict[str, Tensor]:
        group_size, teacher = len(p.dense) // len(q.dense), None
        if teacher_scores is not None and group_size == 1:
            return self._graded_losses(q, p, torch.tensor(teacher_scores, device=q.dense.device))
        if teacher_scores is not None:
            raw = torch.tensor(teacher_scores, device=q.dense.device).view(len(q.dense), group_size)
            teacher = teacher_probabilities(raw, self.teacher_temperature, self.teacher_normalisation)
        crossed = self.negatives_cross_device and not own_group
        if crossed and self.unified_negatives_cross_device:
            q, p, teacher = self._gather(q), self._gather(p), self._dist_gather_tensor(teacher)
            crossed = False  # from here on it is a larger batch and no more
        scores, losses = {}, {}

        def add(name: str, matrix: Tensor) -> None:
            scores[name] = matrix
            losses[name] = candidate_loss(matrix, group_size, teacher, self.kd_loss_type)

        own_temperature = self.dense_temperature or self.temperature
        if crossed:
            scores["dense"], losses["dense"] = self._crossed_dense(q.dense, p.dense, teacher, own_temperature)
        else:
            add("dense", dense_scores(q, p, own_group) / own_temperature)
        if self.unified_finetuning:
            # From here on dense scores serve the ensemble and self-distillation.
            if self.dense_temperature:
                scores["dense"] = scores["dense"] * (own_temperature / self.temperature)
            scores["dense"] = reach(scores["dense"], self.heads_reach)
            add("sparse", sparse_scores(q, p, own_group) / self.temperature)
            add("colbert", colbert_scores(q, p, own_group) / self.temperature)
            add("ensemble", self.ensemble_score(None, None, *scores.values()))
        if self.unified_finetuning and self.use_self_distill and self.step > self.self_distill_start_step:
            losses["self_distill"] = self_distill_loss(scores)
        return losses

    def _graded_losses(self, q: Texts, p: Texts, grades: Tensor) -> dict[str, Tensor]:
        """CoSENT losses of B pairs, graded (B,); of this process's pairs alone.

        One scale serves all kinds of scores, for each is brought to the range of a cosine. Sparse scores grow with the
        number of words, which tells nothing of two pairs: here they are divided by the lengths of both vectors.
        """
        scores = {"dense": F.cosine_similarity(q.dense, p.dense)}
        if self.unified_finetuning:
            own = sparse_scores(q, q, own_group=True) * sparse_scores(p, p, own_group=True)
            scores["sparse"] = (sparse_scores(q, p, own_group=True) * own.clamp(min=1e-6).rsqrt()).squeeze(1)
            scores["colbert"] = colbert_scores(q, p, own_group=True).squeeze(1)
            dense = reach(scores["dense"], self.heads_reach)
            scores["ensemble"] = self.ensemble_score(None, None, dense, scores["sparse"], scores["colbert"]) / 2.3
        return {name: cosent_loss(matrix, grades) for name, matrix in scores.items()}

    def _crossed_dense(self, q: Tensor, p: Tensor, teacher: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
        """(B, B·G) of this process's texts, for the ensemble, and the loss of (W·B, W·B·G); as in FlagEmbedding."""

        def score(queries: Tensor, passages: Tensor) -> Tensor:
            return self.compute_dense_score(queries, passages) * (self.temperature / temperature)

        scores, loss = self._compute_cross_device_neg_loss(q, p, teacher, score)
        rows, columns = (slice(size * self.process_rank, size * (self.process_rank + 1)) for size in (len(q), len(p)))
        return scores[rows, columns], loss

    # ---- Vectors ----

    def encode(self, *sides) -> list[Texts]:
        """The vectors of queries, of passages, and so on: of each side's sub-batches, or the one that it is.

        Where a batch has more than ``sub_batch_tokens``, or sub-batches of at most ``sub_batch_size`` texts are asked
        for, only the vectors are kept, and each sub-batch is encoded once more for its gradients. FlagEmbedding keeps
        what the gradients of all need, and cannot put ColBERT vectors of different lengths together. The vectors, and
        so the losses, are those of the undivided batch. (Only where the tokenizer pads on the left: FlagEmbedding
        leaves out the first position, which is a token in the longest texts of a sub-batch.)
        """
        divided = [side if isinstance(side, list) else [side] for side in sides]
        ids = torch.cat([part["input_ids"].flatten() for side in divided for part in side])
        again = len(ids) > self.sub_batch_tokens or (self.sub_batch_size or -1) > 0
        words = look_up(self.model.get_input_embeddings(), ids)
        return [self._encode_side(side, words, again) for side in divided]

    def _encode_side(self, sub_batches: list[dict[str, Tensor]], words: Words, again: bool) -> Texts:
        dense, parts, count = [], [], 0
        for features in sub_batches:
            places = features.get("places")
            if places is None:
                places = torch.arange(len(features["input_ids"]), device=words.ids.device) + count
            features = {name: values for name, values in features.items() if name != "places"}
            if again:
                vectors, *of_tokens = checkpoint(self._encode_again, features, words, use_reentrant=False)
            else:
                vectors, *of_tokens = self._encode(features, words)
            dense.append(vectors)
            parts.append(Part(places, features["input_ids"], features["attention_mask"], *of_tokens))
            count += len(places)
        return Texts(at_least_32_bits(in_order(dense, (part.places for part in parts))), parts)

    def _encode_again(self, features: dict[str, Tensor], words: Words):
        # Each sub-batch leaves its vectors amid what it frees: on a CPU glibc would keep more and more between them.
        if words.ids.device.type == "cpu":
            release_freed()
        return self._encode(features, words)

    def _encode(self, features: dict[str, Tensor], words: Words) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Of n texts of L tokens (n, D); of their tokens weights, (n, L), and ColBERT vectors, (n, L - 1, D')."""
        ids, mask = features["input_ids"], features["attention_mask"]
        with looked_up(self.model.get_input_embeddings(), words):
            hidden = self.model(**features, return_dict=True).last_hidden_state
        dense, weights, colbert = self._dense_embedding(hidden, mask), None, None
        if self.normalize_embeddings:
            dense = F.normalize(dense, dim=-1)
        if self.unified_finetuning:
            hidden = reach(hidden, self.heads_reach)
            weights = self._sparse_embedding(hidden, ids, return_embedding=False).squeeze(-1)
            weights = weights.masked_fill(self._is_no_word(ids), 0)
            colbert = self._colbert_embedding(hidden, mask)
            if self.normalize_embeddings:
                colbert = F.normalize(colbert, dim=-1)
            if torch.is_autocast_enabled(ids.device.type):
                colbert = colbert.to(torch.get_autocast_dtype(ids.device.type))
        return dense, weights, colbert

    def _is_no_word(self, ids: Tensor) -> Tensor:
        """Where a token has no weight in sparse vectors."""
        tokenizer = self.tokenizer
        special = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
        return torch.isin(ids, torch.tensor(special, device=ids.device))

    # ---- Saving ----

    def save(self, output_dir: str) -> None:
        """As FlagEmbedding does; adapters are in the weights that they adapt."""
        encoder = self.model
        self.model: PreTrainedModel = merged(encoder)
        try:
            super().save(output_dir)
        finally:
            self.model = encoder

    # ---- Other processes ----

    def _gather(self, texts: Texts) -> Texts:
        """Those of all processes, in order; gradients flow into this one's own."""
        dense = self._dist_gather_tensor(texts.dense)
        if not self.unified_finetuning:
            return Texts(dense, [])
        longest = torch.tensor(texts.longest, device=dense.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        of_tokens = map(self._dist_gather_tensor, as_one_part(texts, int(longest))[1:])
        return Texts(dense, [Part(torch.arange(len(dense), device=dense.device), *of_tokens)])
