"""A second opinion: a cross-encoder reads query and candidate together."""

from __future__ import annotations

import contextlib
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from m3kit.errors import KitError
from m3kit.mining.false_negatives import BY_RERANKER, limit

if TYPE_CHECKING:
    from m3kit.mining.mined_rows import Choice, Tally


class Reranker:
    """A sentence-transformers CrossEncoder, which FlagEmbedding's rerankers of the encoder kind load as, too.

    Scores are put between 0 and 1 by a sigmoid, so that a share of them means something.
    """

    def __init__(self, given: str):
        self._given = given

    @cached_property
    def _model(self):
        with contextlib.redirect_stdout(sys.stderr):
            from sentence_transformers import CrossEncoder
            from torch import nn

            try:
                return CrossEncoder(self._given, activation_fn=nn.Sigmoid(), num_labels=1)
            except (OSError, ValueError, RuntimeError, KeyError) as error:
                raise KitError(f"--reranker {self._given} cannot be loaded as a cross-encoder: {error}") from error

    def drop(self, choices: list[Choice], share: float, tally: Tally) -> None:
        """Take out of these rows' negatives what scores above the share of their positive's score."""
        pairs = [
            (choice.query, text)
            for choice in choices
            for text in [choice.positive, *(text for text, _, _ in choice.negatives)]
        ]
        scores = iter(self._model.predict(pairs, show_progress_bar=False).tolist() if pairs else [])
        for choice in choices:
            most = limit(share, next(scores))
            kept = []
            for negative in choice.negatives:
                if next(scores) > most:
                    (tally.thrown_away if negative[2] else tally.given_thrown_away)[BY_RERANKER] += 1
                else:
                    kept.append(negative)
            choice.negatives[:] = kept
