"""What some steps of a trainer cost: it looks on through transformers' callbacks, and ends the run."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from transformers import TrainerCallback


class Measured(Exception):
    """Raised in the last step, so that nothing is saved."""


class Probe(TrainerCallback):
    """``before``: bytes in memory before the model was loaded. ``figures`` are there once ``Measured`` was raised."""

    def __init__(self, warm_up: int, steps: int, before: int, time_encoder: bool = False) -> None:
        self.warm_up, self.steps, self.before = warm_up, steps, before
        self.clock = EncoderClock() if time_encoder else None
        self.figures: dict[str, Any] = {}
        self._batches: list[list[tuple[str, torch.Tensor, torch.Tensor]]] = []
        self._losses: list[torch.Tensor] = []

    def watch(self, trainer) -> None:
        self.trainer = trainer
        trainer.add_callback(self)
        step = trainer.training_step

        def training_step(model, inputs, *args, **kwargs):
            self._batches.append(list(_texts(inputs)))
            loss = step(model, inputs, *args, **kwargs)
            self._losses.append(loss.detach())
            return loss

        if self.clock:
            training_step = self.clock.around(training_step, trainer.model)
        trainer.training_step = training_step

    def on_train_begin(self, args, state, control, **kwargs):
        # Loading may take more than a step; that peak is not asked for.
        reset_peak()

    def on_step_end(self, args, state, control, **kwargs):
        synchronize()
        if state.global_step == self.warm_up:
            self._batches.clear()
            self._losses.clear()
            if self.clock:
                self.clock.reset()
            self._started = time.perf_counter(), cpu_seconds()
        elif state.global_step == self.warm_up + self.steps:
            ended = time.perf_counter(), cpu_seconds()
            seconds, cpu = (end - start for start, end in zip(self._started, ended, strict=True))
            self.figures = {
                "steps": self.steps,
                "seconds": seconds,
                "cpu_seconds": cpu,
                **self._counts(),
                **self._memory(),
            }
            if self.clock:
                self.figures |= self.clock.figures()
            raise Measured

    def _counts(self) -> dict[str, Any]:
        texts = [[(side, ids[mask.bool()].tolist()) for side, ids, mask in _singles(batch)] for batch in self._batches]
        pairs = 0
        for batch in texts:
            queries, passages = ({tuple(ids) for side, ids in batch if (side == "query") == q} for q in (True, False))
            pairs += len(queries) * len(passages)
        return {
            "rows": sum(side == "query" for batch in texts for side, _ in batch),
            "texts": sum(map(len, texts)),
            "tokens": sum(len(ids) for batch in texts for _, ids in batch),
            "positions": sum(mask.numel() for batch in self._batches for _, _, mask in batch),
            "pairs": pairs,
            "loss": float(torch.stack([loss.float().cpu() for loss in self._losses]).mean()),
        }

    def _memory(self) -> dict[str, int]:
        model, optimizer = self.trainer.model, self.trainer.optimizer
        parameters = list(model.parameters())
        # Those without a state never had a gradient, such as an unused pooler.
        learned = [parameter for parameter, state in optimizer.state.items() if state]
        states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        workers = psutil.Process().children(recursive=True)
        words = _encoder(model).get_input_embeddings()
        figures = {
            "before_bytes": self.before,
            "peak_bytes": peak(),
            "weights_bytes": sum(map(_bytes, [*parameters, *model.buffers()])),
            "gradients_bytes": sum(map(_bytes, learned)),
            "optimizer_bytes": sum(map(_bytes, states)),
            "workers_bytes": sum(worker.memory_full_info().uss for worker in workers),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "parameters_but_words": sum(parameter.numel() for parameter in parameters) - words.weight.numel(),
        }
        own = sum(figures[f"{name}_bytes"] for name in ("before", "weights", "gradients", "optimizer"))
        return figures | {"above_bytes": figures["peak_bytes"] - own}


class EncoderClock:
    """Seconds in the encoder's layers and in all of forward and backward, what is computed again included."""

    def around(self, training_step, model):
        layers = _encoder(model).encoder
        layers.register_forward_pre_hook(self._begins, with_kwargs=True)
        layers.register_forward_hook(self._ends)
        self.reset()

        def timed(*args, **kwargs):
            started = self._now()
            try:
                return training_step(*args, **kwargs)
            finally:
                self.whole += self._now() - started

        return timed

    def reset(self) -> None:
        self.whole = self.forward = self.backward = 0.0
        self._forward_since = self._backward_since = None

    def figures(self) -> dict[str, float]:
        inside = self.forward + self.backward
        return {
            "encoder_seconds": inside,
            "outside_encoder_seconds": self.whole - inside,
            "outside_encoder_share": (self.whole - inside) / inside,
        }

    @staticmethod
    def _now() -> float:
        synchronize()
        return time.perf_counter()

    def _begins(self, module, args, kwargs) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad:
            hidden.register_hook(self._backward_ends)
        self._forward_since = self._now()

    def _ends(self, module, args, output) -> None:
        # Computed again in the midst of the backward pass it is in that one's time.
        if self._backward_since is None:
            self.forward += self._now() - self._forward_since
        hidden = output[0]
        if hidden.requires_grad:
            hidden.register_hook(self._backward_begins)

    def _backward_begins(self, gradient) -> None:
        self._backward_since = self._now()

    def _backward_ends(self, gradient) -> None:
        self.backward += self._now() - self._backward_since
        self._backward_since = None


def cpu_seconds() -> float:
    """User and system time of this process, and of those it started, ended or not."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.ru_utime + each.ru_stime for each in used) + sum(each.user + each.system for each in alive)


def resident() -> int:
    """Bytes in memory now: of this process, or on the GPU as PyTorch allotted it."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with open(f"/proc/{os.getpid()}/clear_refs", "w") as file:
            file.write("5")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _encoder(model) -> torch.nn.Module:
    """transformers' model in FlagEmbedding's or the kit's, or in sentence-transformers' first module."""
    return model.model if hasattr(model, "model") else model[0].model


def _texts(inputs: dict, side: str = "") -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(query or passage, ids, mask) of each padded tensor, however a trainer calls and nests them."""
    for name, value in inputs.items():
        inner = side or ("query" if name.startswith(("quer", "anchor")) else "passage")
        if isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    yield from _texts(part, inner)
        elif hasattr(value, "items"):
            yield from _texts(value, inner)
        elif name.endswith("input_ids"):
            yield inner, value, inputs[name.removesuffix("input_ids") + "attention_mask"]


def _singles(batch) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    for side, ids, mask in batch:
        for one, one_mask in zip(ids, mask, strict=True):
            yield side, one, one_mask


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
