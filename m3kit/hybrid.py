"""Search by the score that an evaluation says to serve: hybrid.json in a model's folder.

    from m3kit.hybrid import HybridSearcher

    searcher = HybridSearcher("outputs/mine", passages)
    searcher.search(["a question"], k=10)

For trying it out, and for some ten thousand passages: their vectors are held in memory. Beyond that a search engine
does the same with the weights of hybrid.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from m3kit.encoding.bm25 import Bm25
from m3kit.encoding.encode import Encoder, EncodeSettings
from m3kit.encoding.models import choose_device, choose_precision, find_model
from m3kit.errors import KitError
from m3kit.evaluation.serving import HYBRID
from m3kit.search.engine import Engine
from m3kit.search.kept import encode
from m3kit.search.subject import read_hybrid


class HybridSearcher:
    """Passages, encoded once, and the score by which they are ranked.

    ``folder`` holds hybrid.json; ``device`` and ``precision`` as in ``m3kit evaluate``. Raises ``KitError``.
    """

    def __init__(
        self, folder: str | Path, passages: Sequence[str], device: str = "auto", precision: str = "auto"
    ) -> None:
        file, settings = Path(folder) / HYBRID, read_hybrid(Path(folder))
        if not settings:
            raise KitError(f"there is no {file}; python -m m3kit evaluate writes it where there is retrieval data")
        self.weights, passages = settings.weights, list(passages)
        if not passages:
            raise KitError("there are no passages to search; give one or more")
        model = find_model("model", str(folder) if settings.model == "." else settings.model)
        heads = bool(self.weights["sparse"] or self.weights["colbert"])
        if heads and model.colbert_size is None:
            raise KitError(f"{file} gives the model's heads a weight, but {model.no_heads_reason}")
        device = choose_device(device)[0]
        precision = choose_precision(precision, device)[0]
        encoder = Encoder(model, EncodeSettings(**asdict(settings.encoding), device=device, precision=precision))
        # What has no weight is not computed.
        encoder.has_heads = heads
        # As in the evaluation: found out from these passages, the language might be another.
        bm25 = Bm25(passages, settings.bm25["language"])
        vectors = encode(encoder, passages, colbert=bool(self.weights["colbert"]))
        self.engine = Engine(encoder, passages, bm25, vectors)

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[tuple[int, float]]]:
        """Of each query at most ``k`` pairs of a passage's number, from 0, and its score, best first."""
        found = self.engine.search(queries, self.weights)
        return [list(zip(one.numbers[:k].tolist(), one.values[:k].tolist(), strict=True)) for one in found]
