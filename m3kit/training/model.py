"""FlagEmbedding's M3 model with its losses put right, and told apart, at a fraction of the memory."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from FlagEmbedding.abc.finetune.embedder import EmbedderOutput
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from m3kit.batches.collator import with_contents
from m3kit.device import release_freed
from m3kit.training.lora import merged
from m3kit.training.losses import candidate_loss, cosent_loss, reach, self_distill_loss, teacher_targets, total_loss
from m3kit.training.scores import Part, Texts, colbert_scores, joined, make_texts, products, sparse_scores

# Encoders in which every token attends to every other that is no padding: they take a mask that says so, or none.
PLAIN_ATTENTION = ("bert", "roberta", "xlm-roberta")
# A CPU gives memory back after so much work, tokens × width² of a layer: 12 layers 384 wide do it with 8,192 tokens.
WORK = 8192 * 12 * 384**2
# Arguments of the model that are arguments of training too.
MODEL_SETTINGS = (
    *("negatives_cross_device", "temperature", "sub_batch_size", "kd_loss_type", "use_mrl", "mrl_dims"),
    *("sentence_pooling_method", "normalize_embeddings", "unified_finetuning", "use_self_distill"),
    *("self_distill_start_step", "unified_negatives_cross_device", "dense_temperature"),
    *("heads_reach", "teacher_temperature", "teacher_normalisation"),
)


@dataclass
class M3Output(EmbedderOutput):
    """``parts``: the losses by name, before they are weighted and without gradients, for the log.

    They are dense, sparse, colbert and ensemble, each contrastive or a teacher's, and self_distill: all that there are.
    """

    parts: dict[str, Tensor] | None = None


class M3Model(EncoderOnlyEmbedderM3Model):
    """The losses and gradients of FlagEmbedding where those are right, and right ones where it has a defect.

    Those are T1 and T4 (see ``scores``), T2 and m3_kd_loss without in-batch negatives (``losses``), T3 (``encode``), T5
    (``unified_negatives_cross_device``), and that its scores are of 16 bits in mixed precision, which at temperature
    0.02 are off by a tenth and more. docs/flagembedding.md has each.

    B queries have a group of G passages each; ``losses`` tells what scores look like. Groups of one passage that come
    with scores are graded pairs (STS), which FlagEmbedding does not know: see ``_graded_losses``.

    The arguments are FlagEmbedding's, by name, and these:

    - ``unified_negatives_cross_device``: sparse, ColBERT and ensemble scores too are of the texts of all processes: the
      loss of each is that of one process with all rows.
    - ``sub_batch_tokens``: of a batch with more tokens, padding included, what exceeds them is computed again for its
      gradients, a sub-batch at a time. Looked at in every step.
    - ``dense_temperature``: of the dense loss alone, where it is not ``temperature``.
    - ``heads_reach``: the share of the gradients of all losses but the dense one that reaches the encoder.
    - ``teacher_temperature``, ``teacher_normalisation``: see ``teacher_targets``.
    """

    def __init__(
        self,
        base_model: dict[str, nn.Module],
        *,
        unified_negatives_cross_device: bool = False,
        sub_batch_tokens: int = 16384,
        dense_temperature: float | None = None,
        heads_reach: float = 1.0,
        teacher_temperature: float = 1.0,
        teacher_normalisation: str = "none",
        **settings,
    ) -> None:
        super().__init__(base_model, **settings)
        self.unified_negatives_cross_device = unified_negatives_cross_device
        self.sub_batch_tokens = sub_batch_tokens
        self.dense_temperature = dense_temperature
        self.heads_reach = heads_reach
        self.teacher_temperature, self.teacher_normalisation = teacher_temperature, teacher_normalisation
        self._work = 0
        for layer in self.model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.register_forward_hook(self._after_layer)

    def activation_checkpointing_enable(self, **kwargs) -> None:
        """transformers' name for what FlagEmbedding has as ``gradient_checkpointing_enable``."""
        self.model.activation_checkpointing_enable(**kwargs)

    def forward(
        self, queries=None, passages=None, teacher_scores=None, no_in_batch_neg_flag=False, words=None
    ) -> M3Output:
        """The loss of a batch; none outside of training. ``teacher_scores`` is a flat list of B·G numbers, or grades.

        The batch is as ``Collator`` makes it, or as FlagEmbedding's does. Nothing here waits for a GPU but the second.
        """
        if not self.training:
            return M3Output()
        q, p = self.encode(queries, passages, words)
        raw = teacher_scores
        if raw is not None:
            raw = torch.as_tensor(raw).to(q.dense.device, non_blocking=True).view(len(q.dense), -1)
        with torch.autocast(q.dense.device.type, enabled=False):
            graded = raw is not None and len(p.dense) == len(q.dense)
            losses = self._graded_losses(q, p, raw) if graded else self._losses(q, p, raw, no_in_batch_neg_flag)
        self.step += 1
        return M3Output(loss=total_loss(losses), parts={name: loss.detach() for name, loss in losses.items()})

    def _losses(self, q: Texts, p: Texts, raw: Tensor | None, own_group: bool) -> dict[str, Tensor]:
        """The losses of B rows by name; ``raw`` are a teacher's scores, (B, G)."""
        teacher = None if raw is None else teacher_targets(raw, self.teacher_temperature, self.teacher_normalisation)
        crossed = self.negatives_cross_device and not own_group
        if crossed and self.unified_negatives_cross_device:
            q, p, teacher = self._gather(q), self._gather(p), self._dist_gather_tensor(teacher)
            crossed = False  # from here on it is a larger batch and no more

        def loss(scores: Tensor) -> Tensor:
            return candidate_loss(scores, len(p.dense) // len(q.dense), teacher, self.kd_loss_type)

        temperature, losses = self.dense_temperature or self.temperature, {}
        if crossed:
            dense, losses["dense"] = self._crossed_dense(q.dense, p.dense, teacher, temperature)
        else:
            dense = products(q.dense, p.dense, own_group)
            losses["dense"] = loss(dense / temperature)
        if not self.unified_finetuning:
            return losses
        scores = {
            "dense": reach(dense / self.temperature, self.heads_reach),
            "sparse": sparse_scores(q, p, own_group) / self.temperature,
            "colbert": colbert_scores(q, p, own_group) / self.temperature,
        }
        scores["ensemble"] = self.ensemble_score(None, None, *scores.values())
        losses |= {name: loss(scores[name]) for name in ("sparse", "colbert", "ensemble")}
        if self.use_self_distill and self.step > self.self_distill_start_step:
            losses["self_distill"] = self_distill_loss(scores)
        return losses

    def _graded_losses(self, q: Texts, p: Texts, grades: Tensor) -> dict[str, Tensor]:
        """CoSENT losses of B pairs, graded (B, 1); of this process's pairs alone.

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
        return {name: cosent_loss(of_pairs, grades.squeeze(1)) for name, of_pairs in scores.items()}

    def _crossed_dense(self, q: Tensor, p: Tensor, teacher: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
        """(B, B·G) of this process's texts, for the ensemble, and the loss of (W·B, W·B·G); as in FlagEmbedding."""

        def score(queries: Tensor, passages: Tensor) -> Tensor:
            return products(queries, passages, own_group=False) / temperature

        scores, loss = self._compute_cross_device_neg_loss(q, p, teacher, score)
        rows, columns = (slice(size * self.process_rank, size * (self.process_rank + 1)) for size in (len(q), len(p)))
        return scores[rows, columns] * temperature, loss

    # ---- Vectors ----

    def encode(self, queries, passages, words: list[Tensor] | None = None) -> tuple[Texts, Texts]:
        """The vectors of queries and of passages: of each side's sub-batches, or the one that it is.

        What the gradients need is kept of the last sub-batches, up to ``sub_batch_tokens``; of the others only the
        vectors are, and each is encoded once more. Of all, where sub-batches of at most ``sub_batch_size`` texts are
        asked for. FlagEmbedding keeps what the gradients of all need, and cannot put ColBERT vectors of different
        lengths together. The vectors, and so the losses, are those of the undivided batch. (Only where the tokenizer
        pads on the left: FlagEmbedding leaves out the first position, which is a token in the longest texts of a
        sub-batch.)

        Word embeddings are looked up once a batch. Each sub-batch's backward would otherwise write a gradient of the
        size of the whole table, for bge-m3 of 1 GB.
        """
        if words is None:
            (queries, passages), words = with_contents((queries, passages), self.tokenizer)
        ids, of_queries, of_passages = words
        vectors = self.model.get_input_embeddings()(ids)
        encoded = self._encode_parts((*queries, *passages), ids, vectors)
        return make_texts(encoded[: len(queries)], of_queries), make_texts(encoded[len(queries) :], of_passages)

    def _encode_parts(self, parts: Sequence[dict[str, Any]], ids: Tensor, vectors: Tensor) -> list[Part]:
        """The vectors of each part. Those kept for the gradients are the last: backward begins there and frees them."""
        room = 0 if (self.sub_batch_size or -1) > 0 else self.sub_batch_tokens
        tokens = itertools.accumulate(part["input_ids"].numel() for part in reversed(parts))
        kept = [so_far <= room for so_far in tokens][::-1]
        again = functools.partial(checkpoint, self._encode, use_reentrant=False)
        self._work = 0
        return [(self._encode if keep else again)(part, ids, vectors) for part, keep in zip(parts, kept, strict=True)]

    def _after_layer(self, _layer: nn.Module, _inputs: tuple, hidden: Tensor) -> None:
        if self.training and hidden.device.type == "cpu":
            self._give_back(hidden)
            if hidden.requires_grad:  # its gradient comes before the layer's own
                hidden.register_hook(self._give_back)

    def _give_back(self, hidden: Tensor) -> None:
        # What a layer frees lies between vectors that stay, and glibc keeps it. To give it back often takes time.
        self._work += hidden.numel() * hidden.shape[-1]
        if self._work >= min(WORK, self.sub_batch_tokens * self.model.config.num_hidden_layers * hidden.shape[-1] ** 2):
            release_freed()
            self._work = 0

    def _encode(self, part: dict[str, Any], ids: Tensor, vectors: Tensor) -> Part:
        """The vectors of a sub-batch; ``ids`` and ``vectors`` are the batch's words and their embeddings."""
        mask = part["attention_mask"]
        features = {name: values for name, values in part.items() if name not in ("places", "padded", "tokens")}
        features["attention_mask"] = self._attention(mask, part["padded"])
        with _looked_up(self.model.get_input_embeddings(), ids, vectors):
            hidden = self.model(**features, return_dict=True).last_hidden_state
        dense, weights, colbert = self._dense_embedding(hidden, mask), None, None
        if self.normalize_embeddings:
            dense = F.normalize(dense, dim=-1)
        if self.unified_finetuning:
            device = hidden.device.type
            bits = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
            hidden = reach(hidden, self.heads_reach)
            weights = self._sparse_embedding(hidden, part["input_ids"], return_embedding=False).squeeze(-1)
            colbert = self._colbert_embedding(hidden, mask)
            if self.normalize_embeddings:
                colbert = F.normalize(colbert, dim=-1)
            colbert = colbert.to(bits)
        return Part(part["places"], part["input_ids"], mask, part["tokens"], dense, weights, colbert)

    def _attention(self, mask: Tensor, padded: bool) -> Tensor | None:
        """The mask as the encoder needs it: transformers would look whether there is padding, and wait for the GPU."""
        config = self.model.config
        if config.model_type not in PLAIN_ATTENTION:
            return mask
        if not padded:
            return None
        return mask[:, None, None].bool() if config._attn_implementation == "sdpa" else mask

    def _dense_embedding(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, D) of (n, L, D); FlagEmbedding looks on which side the padding is, and waits for the GPU."""
        if self.sentence_pooling_method != "last_token":
            return super()._dense_embedding(last_hidden_state, attention_mask)
        rows, columns = (torch.arange(size, device=attention_mask.device) for size in attention_mask.shape)
        return last_hidden_state[rows, (attention_mask * (columns + 1)).argmax(1)]

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
            return texts._replace(dense=dense)
        longest = torch.tensor(texts.longest, device=dense.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        ids, mask, weights, colbert = (
            self._dist_gather_tensor(joined(texts, name, int(longest) - (name == "colbert")))
            for name in ("ids", "mask", "weights", "colbert")
        )
        ((part,),), (_, words) = with_contents([{"input_ids": ids, "attention_mask": mask}], self.tokenizer)
        return Texts(dense, [Part(part["places"], ids, mask, part["tokens"], dense, weights, colbert)], words)


@contextlib.contextmanager
def _looked_up(embedding: nn.Module, ids: Tensor, vectors: Tensor) -> Iterator[None]:
    """Within it ``embedding`` gives the ``vectors`` (U, D) of the ``ids`` (U,), which are all that it is asked for."""
    # The instance's own: before the class's, and gone afterwards. The parameter stays where DDP and optimizers know it.
    embedding.__dict__["forward"] = lambda asked: F.embedding(torch.searchsorted(ids, asked), vectors)
    try:
        yield
    finally:
        del embedding.__dict__["forward"]
