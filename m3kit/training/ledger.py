"""Who holds how much memory when: every tensor of a step, noted as it is made and freed."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

KINDS = ("parameters", "gradients", "optimizer", "activations", "heads")
aten = torch.ops.aten


class Ledger(TorchDispatchMode):
    """Notes every tensor that is made, under its kind, until it is freed; of each moment the worst."""

    def __init__(self, vocabulary: int, trained: list[Tensor]) -> None:
        super().__init__()
        self.kind, self.moment = "heads", "heads"
        self.held: Counter[str] = Counter()
        self.peaks: dict[str, Counter[str]] = defaultdict(Counter)
        self._vocabulary, self._passes = vocabulary, 0
        self._kinds: dict[int, str] = {}
        # A gradient comes as it is or turned, and first of all in the precision of its product.
        self._shapes = {shape for weight in trained for shape in (weight.shape, weight.shape[::-1]) if weight.dim() > 1}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = self._worst_case(function, args)
        if result is None:
            result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                is_gradient = "backward" in self.moment and tensor.shape in self._shapes
                self.add(tensor, "gradients" if is_gradient else self.kind)
        return result

    def _worst_case(self, function, args) -> Any:
        """What depends on contents, which there are none of: no word stands twice, and no position is padding."""
        if function is aten._unique2.default:
            values = args[0].new_empty(min(args[0].numel(), self._vocabulary))
            return values, values.new_empty(0), values.new_empty(0)
        mask = args[1][0] if function is aten.index.Tensor else None
        if mask is not None and mask.dtype == torch.bool:
            return args[0].new_empty(mask.numel(), *args[0].shape[mask.dim() :])
        return None

    def add(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._kinds:
            return
        self._kinds[key] = kind
        self.held[kind] += size
        weakref.finalize(storage, self._free, key, size)
        if self.held.total() > self.peaks[self.moment].total():
            self.peaks[self.moment] = self.held.copy()

    def _free(self, key: int, size: int) -> None:
        self.held[self._kinds.pop(key)] -= size

    def follow(self, encoder: PreTrainedModel) -> None:
        """Learn when the encoder works, and on which of its layers: what is made then are activations.

        Moments bear the number of the encoder's pass, for later ones find gradients there already.
        """
        layers = next(
            module
            for module in encoder.modules()
            if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers
        )

        def enter(*_):
            self._passes += 1
            self.kind, self.moment = "activations", f"{self._again()}encoder, pass {self._passes}"

        def leave(*_):
            self.kind, self.moment = "heads", f"{self._again()}heads after pass {self._passes}"

        def follow_back(moment: str):
            def at_gradient(_):
                self.kind, self.moment = "activations", f"backward of {moment} after pass {self._passes}"

            def at_output(_, __, output):
                output = output if isinstance(output, Tensor) else output[0]
                if output.requires_grad:
                    output.register_hook(at_gradient)

            return at_output

        encoder.register_forward_pre_hook(enter)
        for number, layer in enumerate(layers):
            name = "the last layer" if number == len(layers) - 1 else "the first layer" if number == 0 else "layers"
            layer.register_forward_hook(follow_back(name))
        encoder.register_forward_hook(leave)

    def _again(self) -> str:
        return "backward: " if "backward" in self.moment else ""
