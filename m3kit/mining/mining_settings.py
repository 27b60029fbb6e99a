"""The settings of ``m3kit mine``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3kit.errors import KitError


@dataclass(frozen=True)
class MiningSettings:
    """``encoding``: what is given of ``trained_with.Encoding``; the rest is as the model was trained."""

    corpus: Path | None = None
    depth: int = 50
    negatives: int = 8
    max_share: float | None = None
    filter: bool = True
    reranker: str | None = None
    shard_size: int = 20_000
    encoding: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    precision: str = "auto"
    device: str = "auto"
    cache_dir: str | None = None

    def check(self) -> None:
        """Raise ``KitError`` for what no mining can follow."""
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise KitError(f"--max_share {self.max_share:g} is no share; give a number above 0 and up to 1, as in 0.95")
        if self.max_share is not None and not self.filter:
            raise KitError("--max_share is one of the filters that --no_filter switches off; give one of the two")
        if self.depth < self.negatives:
            raise KitError(
                f"--depth {self.depth} is less than --negatives {self.negatives}; look at more candidates than are kept"
            )
