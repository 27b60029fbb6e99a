"""Is it getting better? The model in memory, measured on test data between two steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from FlagEmbedding.abc.inference import AbsEmbedder
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3ModelForInference
from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

from m3kit.batches.rows import CHARACTERS_PER_TOKEN
from m3kit.encoding.encode import Encoder, EncodeSettings, probed_once
from m3kit.encoding.models import ModelFolder
from m3kit.encoding.vectors import Vectors
from m3kit.evaluation.retrieval import retrieve
from m3kit.evaluation.task_metrics import first_figure
from m3kit.records import HEADLINE
from m3kit.test_data.folder import read_eval_folder
from m3kit.test_data.sample import choosing_half, sample, told
from m3kit.training.model import M3Model

# Of the training's cost, what evaluations may cost; and the share of the test data below which nothing more is saved.
COST, LEAST = 0.2, 0.05


class HeldOut:
    """Of test data the half that chooses, a sample of it where it is large, and the one figure to choose by.

    ``chosen_on``: "half" of the test data's queries, or "all" where they are too few for two halves.
    """

    def __init__(self, folder: str, settings: EncodeSettings, seed: int) -> None:
        self.settings, self.seed, self._whole, self._limits = settings, seed, read_eval_folder(Path(folder)), ""
        self._chooses, _ = choosing_half(self._whole)
        self.chosen_on = "all" if self._chooses is self._whole else "half"
        self.data = sample(self._chooses, seed)

    @property
    def says(self) -> str:
        """In a line, what is measured with."""
        return f"Evaluation while training: {told(self.data, self._whole)} of {self._whole.folder}{self._limits}"

    def limit(self, step: float, steps: int, eval_steps: int, further: int) -> int:
        """Take fewer texts, then fewer times, until evaluations cost at most a fifth of the training; the new interval.

        ``step``: what a step costs, in characters that go through the model once. ``further``: evaluations beside those
        of every ``eval_steps``, the end and the base. It goes by texts and no clock: equal runs evaluate alike, and so
        does one that goes on.
        """
        budget, share, every = COST * step * steps, 1.0, eval_steps

        def cost() -> float:
            return self._characters() * (1 + math.ceil(steps / every) + further)

        while cost() > budget and share > LEAST:
            share = max(LEAST, share * min(0.9, budget / cost()))
            self.data = sample(self._chooses, self.seed, share)
        if cost() > budget:
            every = max(every, math.ceil(steps / max(1, int(budget / self._characters()) - 1 - further)))
            if every > eval_steps:
                self._limits = f", every {every:,} steps instead of {eval_steps:,}"
        if share < 1:
            aim = "to keep it below a fifth of the training time"
            self._limits += f", {aim}" if cost() <= budget else ", the least, though more than a fifth of the training"
        if self.chosen_on == "half" and (every < steps or further > 1):
            self._limits += "; half of the queries choose the best checkpoint, the others judge it"
        return every

    def _characters(self) -> int:
        """Of an evaluation's texts, cut as those of the training are."""
        texts = [(text, self.settings.passage_max_len) for task in self.data.tasks.values() for text in task.texts]
        if retrieval := self.data.retrieval:
            texts += [(text, self.settings.passage_max_len) for text in retrieval.passages.values()]
            texts += [(text, self.settings.query_max_len) for text in retrieval.queries.values()]
        return sum(min(len(text), CHARACTERS_PER_TOKEN * length) for text, length in texts)

    def measure(self, model: M3Model, tokenizer, autocast) -> dict[str, float]:
        """nDCG@10 of each score and the figure of each task, by names such as ``hybrid_nDCG@10``."""
        was_training = model.training
        encoder = LiveEncoder(model, tokenizer, self.settings, autocast)
        figures: dict[str, float] = {}
        with torch.no_grad():
            if self.data.retrieval:
                found = retrieve(encoder, self.data.retrieval)
                figures = {
                    f"{score}_{HEADLINE}": float(values[HEADLINE].mean())
                    for score, values in found.outcomes([HEADLINE]).items()
                }
            for name, task in self.data.tasks.items():
                first = first_figure(task, encoder.dense(task.texts))
                figures |= {f"{name}_{metric}": value for metric, value in first.items()}
        model.train(was_training)
        return figures

    def headline(self, unified: bool) -> str:
        """The figure to choose by: hybrid, or dense where there are no heads, or the first task's."""
        if self.data.retrieval:
            return f"{'hybrid' if unified else 'dense'}_{HEADLINE}"
        return {"sts": "sts_Spearman", "classification": "classification_nearest label"}.get(
            next(iter(self.data.tasks)), "clustering_V-measure"
        )


class LiveEncoder(Encoder):
    """The model that is being trained, encoded with as a saved one would be: by FlagEmbedding's own inference."""

    def __init__(self, model: M3Model, tokenizer, settings: EncodeSettings, autocast) -> None:
        head = model.colbert_linear
        self.model = ModelFolder("tuned", "memory", Path(), head and head.out_features, None if head else "dense only")
        self.settings, self.has_heads, self.notes = settings, head is not None, []
        self.flag_model, self.autocast = LiveEmbedder(model, tokenizer, settings), autocast

    def _encode(self, *args, **kwargs) -> Vectors:
        # This alone: what ranks the vectors computes in 32 bits.
        with self.autocast():
            return super()._encode(*args, **kwargs)

    @contextmanager
    def progress(self, count: int, what: str) -> Iterator[None]:
        """Nothing: the log of the training has a line of its own for an evaluation."""
        yield None


class LiveEmbedder(M3Embedder):
    """FlagEmbedding's inference over modules that are in memory already."""

    def __init__(self, model: M3Model, tokenizer, settings: EncodeSettings) -> None:
        unified = model.colbert_linear is not None
        AbsEmbedder.__init__(
            self,
            "memory",
            normalize_embeddings=settings.normalize_embeddings,
            use_fp16=False,
            query_instruction_for_retrieval=settings.query_instruction_for_retrieval or None,
            devices=[settings.device],
            batch_size=settings.batch_size,
            query_max_length=settings.query_max_len,
            passage_max_length=settings.passage_max_len,
            return_dense=True,
            return_sparse=unified,
            return_colbert_vecs=unified,
        )
        self.pooling_method, self.tokenizer = settings.pooling_method, tokenizer
        self.model = probed_once(
            EncoderOnlyEmbedderM3ModelForInference(
                {"model": model.model, "colbert_linear": model.colbert_linear, "sparse_linear": model.sparse_linear},
                tokenizer=tokenizer,
                sentence_pooling_method=settings.pooling_method,
                normalize_embeddings=settings.normalize_embeddings,
            ),
            "the model in training",
        )

    def _convert_to_numpy(self, embeddings: torch.Tensor, device: str | None = None) -> np.ndarray:
        # NumPy has no bfloat16, of which FlagEmbedding thinks only where it was itself asked for it.
        return super()._convert_to_numpy(embeddings.float() if embeddings.is_floating_point() else embeddings, device)

    def stop_self_pool(self):
        """FlagEmbedding moves the model to the CPU when the embedder goes: this one is still being trained."""
