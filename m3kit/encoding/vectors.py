"""What a model makes of texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Vectors:
    """Vectors of some texts, as FlagEmbedding's ``encode`` gives them.

    ``dense`` is (texts, size); ``lexical`` one {token id as text: weight} a text; ``colbert`` one (tokens, size) array
    a text. The last two are None for a model without M3's heads.
    """

    dense: np.ndarray
    lexical: list[dict[str, float]] | None = None
    colbert: list[np.ndarray] | None = None

    @property
    def heads(self) -> tuple[list[dict[str, float]], list[np.ndarray]] | None:
        """(lexical, colbert), where there are both."""
        return None if self.lexical is None or self.colbert is None else (self.lexical, self.colbert)
