"""Texts to vectors, with FlagEmbedding's own BGEM3FlagModel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from m3kit.encoding.models import ModelFolder, longest_input
from m3kit.encoding.trained_with import Encoding
from m3kit.encoding.vectors import Vectors
from m3kit.errors import KitError
from m3kit.hub import check_tokenizer, loading
from m3kit.progress import bar, say

# Hears how many more texts are done.
Watch = Callable[[int], object] | None


@dataclass(frozen=True)
class EncodeSettings(Encoding):
    """How texts become vectors; ``precision`` fp32, fp16 or bf16, ``device`` cpu or cuda:N."""

    batch_size: int = 32
    precision: str = "fp32"
    device: str = "cpu"


class Encoder:
    """One model, loaded when the first text is encoded; ``close`` frees it.

    ``notes`` says in whole sentences where the model could not be taken as asked. Without ``colbert`` no ColBERT
    vectors are computed.
    """

    def __init__(self, model: ModelFolder, settings: EncodeSettings, colbert: bool = True) -> None:
        self.model, self.settings, self._colbert = model, settings, colbert
        self.has_heads = model.colbert_size is not None
        with self._loading():
            self.notes, self._query_max_len, self._passage_max_len = _lengths(model, settings)
        if not self.has_heads:
            self.notes.append(f"{model.name} is scored by dense vectors only: {model.no_heads_reason}.")

    @cached_property
    def flag_model(self):
        # The import too: a library such as DeepSpeed ties its log to what stdout is when it is imported.
        with _stdout_kept_clean(), self._loading(), bar(None, f"{self.model.name}: loading", ""):
            from FlagEmbedding import BGEM3FlagModel
            from transformers.utils.logging import disable_progress_bar

            from m3kit.device import without_cudnn_attention

            disable_progress_bar()
            without_cudnn_attention()
            flag_model = BGEM3FlagModel(
                str(self.model.folder),
                normalize_embeddings=self.settings.normalize_embeddings,
                use_fp16=self.settings.precision == "fp16",
                use_bf16=self.settings.precision == "bf16",
                query_instruction_for_retrieval=self.settings.query_instruction_for_retrieval or None,
                # One device in the list keeps FlagEmbedding from starting its pool of processes.
                devices=[self.settings.device],
                pooling_method=self.settings.pooling_method,
                colbert_dim=self.model.colbert_size or -1,
                batch_size=self.settings.batch_size,
                query_max_length=self._query_max_len,
                passage_max_length=self._passage_max_len,
                return_sparse=self.has_heads,
                return_colbert_vecs=self.has_heads and self._colbert,
            )
        check_tokenizer(flag_model.tokenizer, self.model.folder)
        flag_model.model = probed_once(flag_model.model, self.model.name)
        return flag_model

    def _loading(self):
        return loading(f"{self.model.name}: the model in {self.model.folder}")

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model.folder)

    @contextlib.contextmanager
    def progress(self, count: int, what: str) -> Iterator[Watch]:
        """Tell that so many texts of a kind are encoded, and give what hears how many are done."""
        name = self.model.name
        say(f"{name}: encoding {count} {what} with {self.model.given}")
        with bar(count, f"{name}: {what}", what) as shown:
            yield shown.update

    def queries(self, texts: Sequence[str], watch: Watch = None) -> Vectors:
        return self._encode("encode_queries", texts, watch)

    def passages(self, texts: Sequence[str], watch: Watch = None) -> Vectors:
        return self._encode("encode_corpus", texts, watch)

    def dense(self, texts: Sequence[str], watch: Watch = None) -> np.ndarray:
        """Dense vectors (texts, size) of texts encoded as passages are; the other two are not computed."""
        return self._encode("encode_corpus", texts, watch, return_sparse=False, return_colbert_vecs=False).dense

    def _encode(self, method: str, texts: Sequence[str], watch: Watch, **wanted: bool) -> Vectors:
        """By a method of FlagEmbedding's."""
        self.flag_model.model.watch = watch
        with _stdout_kept_clean(), _bars_kept_off(), _explained(self.model.name, f"on {self.settings.device}"):
            encoded = getattr(self.flag_model, method)(list(texts), **wanted)
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
        if loaded := self.__dict__.pop("flag_model", None):
            loaded.stop_self_pool()
            loaded.model = None


def probed_once(model, name: str):
    """FlagEmbedding's model, without most of the batches that FlagEmbedding runs to find out whether they fit.

    It runs the longest batch of each call twice, the first time for that alone, which with a chunk a call takes a tenth
    of the time. Here that is done only for a batch larger than all before. ``watch`` hears how many texts were encoded.

    After any error FlagEmbedding tries three quarters of the texts, and with none left it fails at something else (E1).
    Here it does so only where memory ran out with more than one text; any other error is a ``KitError`` at once.
    """
    from torch import nn

    from m3kit.device import is_out_of_memory

    class ProbedOnce(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.largest, self.watch = model, 0, None

        def forward(self, batch, **wanted):
            # What only tries says nothing of the size of the vectors.
            tries = "truncate_dim" not in wanted
            texts, tokens = batch["input_ids"].shape
            if tries and texts * tokens <= self.largest:
                return None
            try:
                output = self.model(batch, **wanted)
            except RuntimeError as error:
                if tries and texts > 1 and is_out_of_memory(error):
                    raise
                at = f"at {texts} text{'s' * (texts > 1)} of {tokens} tokens on {batch['input_ids'].device}"
                cure = "a smaller --batch_size" if texts > 1 else "a smaller --query_max_len and --passage_max_len"
                raise _explanation(name, at, error, cure) from error
            self.largest = max(self.largest, texts * tokens)
            if self.watch and not tries:
                self.watch(texts)
            return output

    return ProbedOnce()


@contextlib.contextmanager
def _explained(name: str, at: str) -> Iterator[None]:
    """Memory that runs out elsewhere, as where the model is moved to its device, is told alike."""
    try:
        yield
    except RuntimeError as error:
        from m3kit.device import is_out_of_memory

        if is_out_of_memory(error):
            raise _explanation(name, at, error, "--device cpu") from error
        raise


def _explanation(name: str, at: str, error: RuntimeError, cure: str) -> KitError:
    from m3kit.device import is_out_of_memory

    said = str(error).partition("\n")[0]
    if not is_out_of_memory(error):
        return KitError(f"{name}: cannot encode {at}: {type(error).__name__}: {said}")
    return KitError(f"{name}: out of memory {at} ({said}); end what else takes memory there, or give {cure}")


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


@contextlib.contextmanager
def _bars_kept_off() -> Iterator[None]:
    """FlagEmbedding's bars, one a chunk, say nothing about the whole."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
