"""The processes that torchrun starts: each does its part of the shards, and they wait for one another."""

from __future__ import annotations

import os
from datetime import timedelta


class Processes:
    """This process among ``count``; without torchrun it is alone."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            # The first process alone reads the rows, however long that takes.
            distributed.init_process_group("gloo", timeout=timedelta(days=7))
        distributed.barrier()

    def mine(self, shards: int) -> range:
        return range(self.rank, shards, self.count)
