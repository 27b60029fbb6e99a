"""The memory of a training step, by running the step on tensors that have a shape and no contents.

torch's FakeTensorMode does so in a second for a model of any size: no weight is read or made. What is held when is
torch's own doing, so checkpointing, mixed precision and the kit's sub-batches need no formulas. It is the worst case:
all texts are as long as they may be, and no two tokens are the same word.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from m3kit.training import scores
from m3kit.training.ledger import KINDS, Ledger
from m3kit.training.model import M3Model

# Layers hold alike, so two runs of few layers tell what all of them hold.
FEW_LAYERS = (2, 3)
TOKENIZER = SimpleNamespace(cls_token_id=0, eos_token_id=2, pad_token_id=1, unk_token_id=3, padding_side="right")


@dataclass(frozen=True)
class Step:
    """What a step is made of. ``untouched``: with FlagEmbedding's own model, which has no ``sub_batch_tokens``."""

    batch_size: int
    group_size: int
    query_max_len: int
    passage_max_len: int
    precision: str  # fp32, fp16 or bf16
    device: str  # cpu or cuda
    gradient_checkpointing: bool
    unified_finetuning: bool
    sub_batch_tokens: int
    deepspeed: bool = False
    processes: int = 1
    unified_negatives_cross_device: bool = False
    fix_encoder: bool = False
    untouched: bool = False


def footprint(config: PreTrainedConfig, step: Step) -> dict[str, int]:
    """Bytes of each of ``KINDS`` at the moment when they are most together."""
    layers = config.num_hidden_layers
    # Layers of several types, one after another, are no straight line.
    if layers <= max(FEW_LAYERS) or getattr(config, "layer_types", None):
        return _most(peaks(config, step))
    few, more = (peaks(_with_layers(config, count), step) for count in FEW_LAYERS)
    return _most(
        {
            moment: {
                kind: few[moment][kind] + (more[moment][kind] - few[moment][kind]) * (layers - 2) for kind in KINDS
            }
            for moment in few
        }
    )


def peaks(config: PreTrainedConfig, step: Step) -> dict[str, Counter[str]]:
    """Bytes by kind at the worst of each part of a step, such as the backward pass of the first layer."""
    with FakeTensorMode():
        model = _make_model(config, step)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        kept = {
            "parameters": [*model.parameters(), *model.buffers()],
            "gradients": _buckets(trained, step),
            "optimizer": _optimizer_states(trained),
        }
        ledger = Ledger(config.vocab_size, trained)
        for kind, tensors in kept.items():
            for tensor in tensors:
                ledger.add(tensor, kind)
        ledger.follow(model.model)
        with ledger:
            queries = _texts(step.batch_size, step.query_max_len, step)
            passages = _texts(step.batch_size * step.group_size, step.passage_max_len, step)
            if not step.untouched:
                _encode_few(model.model, [*queries, *passages])
            with _autocast(step), _score_few():
                loss = model(queries=queries, passages=passages).loss
            ledger.moment = "backward of the heads"
            loss.backward()
        ledger.moment = "optimizer's step"
        for kind, tensors in _made_by_optimizer(trained, step).items():
            for tensor in tensors:
                ledger.add(tensor, kind)
    return ledger.peaks


def _most(peaks: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {kind: worst[kind] for worst in [max(peaks.values(), key=lambda held: sum(held.values()))] for kind in KINDS}


def _with_layers(config: PreTrainedConfig, count: int) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = count
    return config


# ---- The step ----


def _make_model(config: PreTrainedConfig, step: Step) -> EncoderOnlyEmbedderM3Model:
    config = copy.deepcopy(config)
    if step.device != "cpu":
        # A GPU's kernels draw again which attention they drop, a CPU's keep it.
        config.attention_probs_dropout_prob = 0.0
    # Parameters are of 16 bits with DeepSpeed only; otherwise autocast makes copies of them.
    dtype = torch.bfloat16 if step.deepspeed and step.precision != "fp32" else torch.float32
    encoder = AutoModel.from_config(config, dtype=dtype)
    colbert, sparse = (nn.Linear(config.hidden_size, size, dtype=dtype) for size in (config.hidden_size, 1))
    model = EncoderOnlyEmbedderM3Model(
        {"model": encoder, "colbert_linear": colbert, "sparse_linear": sparse},
        tokenizer=TOKENIZER,
        temperature=0.02,
        normalize_embeddings=True,
        unified_finetuning=step.unified_finetuning,
        use_self_distill=True,
        self_distill_start_step=-1,
    )
    if not step.untouched:
        model.__class__ = M3ModelOfMany
        model.sub_batch_tokens = step.sub_batch_tokens
        model.unified_negatives_cross_device = model.negatives_cross_device = step.unified_negatives_cross_device
        model.world_size = step.processes
    # No loss uses the pooler, so it gets neither gradients nor an optimizer state.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler.requires_grad_(False)
    if step.fix_encoder:
        encoder.requires_grad_(False)
    if step.gradient_checkpointing:
        model.enable_input_require_grads()
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    if step.device != "cpu":
        for module in [module for module in model.modules() if type(module) is nn.Dropout]:
            module.__class__ = GpuDropout
    return model.train()


class M3ModelOfMany(M3Model):
    """One whose other processes have as many vectors, and no process group."""

    def _gather(self, texts: scores.Texts) -> scores.Texts:
        dense, *of_tokens = map(self._dist_gather_tensor, (texts.dense, *scores.as_one_part(texts, texts.longest)[1:]))
        return scores.Texts(dense, [scores.Part(torch.arange(len(dense)), *of_tokens)])

    def _dist_gather_tensor(self, values: Tensor | None) -> Any:
        if values is None:
            return None
        return torch.cat([values, *(torch.empty_like(values) for _ in range(1, self.world_size))])


class GpuDropout(nn.Dropout):
    """Keeps a byte of each number for the backward pass, as a GPU does; a CPU keeps as much as the number itself."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.native_dropout(values, self.p, self.training)[0]


def _texts(count: int, length: int, step: Step) -> Any:
    """As the collator gives them: sub-batches of as many texts as the tokens allow."""
    most = count if step.untouched else max(1, step.sub_batch_tokens // length)
    parts = [range(count)[start : start + most] for start in range(0, count, most)]
    made = [
        {
            "input_ids": torch.zeros(len(places), length, dtype=torch.long),
            "attention_mask": torch.ones(len(places), length, dtype=torch.long),
            "places": torch.arange(places.start, places.stop),
        }
        for places in parts
    ]
    if step.untouched:
        del made[0]["places"]
        return made[0]
    return made


def _encode_few(encoder: PreTrainedModel, parts: list[dict[str, Tensor]]) -> None:
    """Let it work on the last two of the sub-batches that are alike, for time; the others' tokens only pass through.

    Their backward passes are the first: then most vectors are held, and with the second the gradients too.
    """
    shapes = [part["input_ids"].shape for part in parts]
    worked_on = {
        id(part["input_ids"])
        for number, (part, shape) in enumerate(zip(parts, shapes, strict=True))
        if shapes[number:].count(shape) <= 2
    }
    forward = encoder.forward

    def forward_of_few(input_ids, **others):
        if id(input_ids) in worked_on:
            return forward(input_ids=input_ids, **others)
        return SimpleNamespace(last_hidden_state=encoder.get_input_embeddings()(input_ids))

    encoder.forward = forward_of_few


@contextlib.contextmanager
def _score_few() -> Iterator[None]:
    """Of the ColBERT scores compute those of the first tokens only, for time: what is made of others is freed again."""
    again = scores._again

    def again_for_first(function: Callable, *arguments: Tensor) -> Tensor:
        tokens, *others = arguments
        if function is scores._best_of_all and tokens.storage_offset() > 0:
            return torch.zeros(len(tokens), len(others[0]))
        return again(function, *arguments)

    scores._again = again_for_first
    try:
        yield
    finally:
        scores._again = again


def _autocast(step: Step) -> contextlib.AbstractContextManager:
    # DeepSpeed's model is of 16 bits as it is. Which 16 bits makes no difference.
    if step.precision == "fp32" or step.deepspeed:
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)


# ---- Beside the step ----


def _optimizer_states(trained: list[Tensor]) -> list[Tensor]:
    """AdamW's two moments of each parameter; and for one of 16 bits the copy in 32 that is really trained."""
    copies = 2 if trained[0].dtype == torch.float32 else 3
    return [state for _ in range(copies) for state in _like(trained)]


def _buckets(trained: list[Tensor], step: Step) -> list[Tensor]:
    """DDP keeps a second copy of all gradients to send them in."""
    return [] if step.processes == 1 or step.deepspeed else _like(trained)


def _made_by_optimizer(trained: list[Tensor], step: Step) -> dict[str, list[Tensor]]:
    """transformers' AdamW is fused and makes nothing. DeepSpeed's ZeRO-0 gives it all gradients once more in 32 bits
    where parameters are of 16 (``FP16_UnfusedOptimizer.step``). With ``torch_adam`` it is not fused: on a GPU it makes
    a tensor for each parameter (``torch.optim.adam._multi_tensor_adam``), elsewhere two at a time.
    """
    if not step.deepspeed:
        return {}
    largest = max(trained, key=Tensor.numel)
    return {
        "gradients": _like(trained) if trained[0].dtype != torch.float32 else [],
        "optimizer": _like([largest, largest] if step.device == "cpu" else trained),
    }


def _like(parameters: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(parameter, dtype=torch.float32) for parameter in parameters]
