"""A card with little memory, on the CPU: what tensors take is counted, and too much raises torch.OutOfMemoryError."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from m3kit.training import fit


class FakeCard(TorchDispatchMode):
    """``size``: megabytes, a number for each process, or a file that holds them and may change while training runs."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size, self.held = size, 0
        self._known: set[int] = set()
        fit._can_run_out = lambda device: True
        fit._memory_of = lambda device: int(self.room)

    @property
    def room(self) -> float:
        sizes = Path(self.size).read_text() if self.size.startswith("/") else self.size
        return 1e6 * float(sizes.split()[int(os.environ.get("RANK", "0"))])

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # A view of the weights, which were there before, is nothing new.
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            if (storage := tensor.untyped_storage())._cdata not in given:
                self._count(storage)
        if self.held > self.room:
            raise torch.OutOfMemoryError(f"{self.held / 1e6:.1f} of {self.room / 1e6:.1f} MB are taken")
        return result

    def _count(self, storage) -> None:
        if (key := storage._cdata) not in self._known:
            self._known.add(key)
            self.held += storage.nbytes()
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _tensors(values) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
