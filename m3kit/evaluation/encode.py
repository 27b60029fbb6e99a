"""Texts to vectors, with FlagEmbedding's own BGEM3FlagModel."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m3kit.errors import KitError
from m3kit.evaluation.models import ModelFolder, longest_input
from m3kit.evaluation.vectors import Vectors


@dataclass(frozen=True)
class EncodeSettings:
    """How texts become vectors; lengths in tokens, ``precision`` fp32, fp16 or bf16, ``device`` cpu or cuda:N."""

    query_max_len: int = 512
    passage_max_len: int = 512
    batch_size: int = 32
    pooling_method: str = "cls"
    normalize_embeddings: bool = True
    query_instruction_for_retrieval: str | None = None
    precision: str = "fp32"
    device: str = "cpu"


class Encoder:
    """One model in memory; ``close`` frees it.

    ``notes`` says in whole sentences where the model could not be taken as asked.
    """

    def __init__(self, model: ModelFolder, settings: EncodeSettings) -> None:
        # The import too: a library such as DeepSpeed ties its log to what stdout is when it is imported.
        with _stdout_kept_clean():
            from FlagEmbedding import BGEM3FlagModel

        self.model, self.settings = model, settings
        self.has_heads = model.colbert_size is not None
        try:
            self.notes, query_max_len, passage_max_len = _lengths(model, settings)
            with _stdout_kept_clean():
                self.flag_model = BGEM3FlagModel(
                    str(model.folder),
                    normalize_embeddings=settings.normalize_embeddings,
                    use_fp16=settings.precision == "fp16",
                    use_bf16=settings.precision == "bf16",
                    query_instruction_for_retrieval=settings.query_instruction_for_retrieval or None,
                    # One device in the list keeps FlagEmbedding from starting its pool of processes.
                    devices=[settings.device],
                    pooling_method=settings.pooling_method,
                    colbert_dim=model.colbert_size or -1,
                    batch_size=settings.batch_size,
                    query_max_length=query_max_len,
                    passage_max_length=passage_max_len,
                    return_sparse=self.has_heads,
                    return_colbert_vecs=self.has_heads,
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise KitError(f"{model.name}: the model in {model.folder} cannot be loaded: {error}") from error
        if not self.has_heads:
            self.notes.append(f"{model.name} is scored by dense vectors only: {model.no_heads_reason}.")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @property
    def vocabulary(self) -> int:
        return max(self.flag_model.model.vocab_size, len(self.flag_model.tokenizer))

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._encode(self.flag_model.encode_queries, texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        return self._encode(self.flag_model.encode_corpus, texts)

    def dense(self, texts: Sequence[str]) -> np.ndarray:
        """Dense vectors (texts, size) of texts encoded as passages are; the other two are not computed."""
        return self._encode(self.flag_model.encode_corpus, texts, return_sparse=False, return_colbert_vecs=False).dense

    def _encode(self, encode, texts: Sequence[str], **wanted: bool) -> Vectors:
        with _stdout_kept_clean():
            encoded = encode(list(texts), **wanted)
        vectors = Vectors(encoded["dense_vecs"], encoded["lexical_weights"], encoded["colbert_vecs"])
        # Checked here because FlagEmbedding drops a NaN token weight unseen, and NaN sorts to one end of a ranking.
        if not all(np.isfinite(array).all() for array in [vectors.dense, *(vectors.colbert or [])]):
            advice = "the weights are broken, take an earlier checkpoint"
            if self.settings.precision == "fp16":
                advice = "numbers too large for fp16 do this, try --precision fp32 or bf16; else " + advice
            raise KitError(
                f"{self.model.name}: the model gives vectors that are not numbers (NaN or infinite); {advice}"
            )
        return vectors

    def close(self) -> None:
        # FlagEmbedding does this in __del__, which at the interpreter's exit may find its modules gone.
        self.flag_model.stop_self_pool()
        self.flag_model.model = None


def _lengths(model: ModelFolder, settings: EncodeSettings) -> tuple[list[str], int, int]:
    """Notes and the two lengths, cut to the positions that the model has: longer inputs would crash it."""
    longest = longest_input(model.folder)
    notes, lengths = [], []
    for option in ("query_max_len", "passage_max_len"):
        wanted = getattr(settings, option)
        lengths.append(min(wanted, longest or wanted))
        if lengths[-1] < wanted:
            notes.append(f"{model.name} has positions for {longest} tokens: {option} {wanted} was cut to {longest}.")
    return notes, *lengths


def _stdout_kept_clean():
    """What libraries print goes to stderr: stdout is for the table."""
    return contextlib.redirect_stdout(sys.stderr)
