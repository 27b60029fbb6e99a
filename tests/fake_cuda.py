"""The training step on tensors that say they are on a GPU and hold nothing: python fake_cuda.py MODEL.

MODEL is a model's folder; fake_cuda.cpp, compiled, is in LD_PRELOAD. Prints a line of JSON a variant: its name,
``error``, and ``syncs``: how often, and where, the host would wait for the GPU, forward and backward together. It
patches torch, and so is a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.cuda.amp.common
from equivalence import Rows, make_rows
from FlagEmbedding.abc.finetune.embedder import AbsEmbedderSameDatasetCollator
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel, AutoTokenizer, masking_utils

from m3kit.batches.collator import Collator
from m3kit.encoding.encode import EncodeSettings
from m3kit.training.evaluation import LiveEmbedder
from m3kit.training.lora import add_adapters
from m3kit.training.model import M3Model

DEVICE = "cuda:0"
aten = torch.ops.aten
TEACHER = {"rows": make_rows(4, 3, teacher=True)}
OWN = {"alone": True}
# Settings are the model's, but for: autocast and weights (dtypes), checkpointing, rows, alone, lora_rank, frozen,
# collator (FlagEmbedding's) and spoiled.
VARIANTS: dict[str, dict] = {
    "fp16": {},
    "bf16": {"autocast": torch.bfloat16},
    "fp32": {"autocast": None},
    "half weights": {"weights": torch.float16},
    "no gradient checkpointing": {"checkpointing": False},
    "mean": {"sentence_pooling_method": "mean"},
    "last_token": {"sentence_pooling_method": "last_token"},
    "half weights, last_token": {"weights": torch.float16, "sentence_pooling_method": "last_token"},
    "own group": OWN,
    "half weights, own group": {"weights": torch.float16} | OWN,
    "teacher, kl_div": {"kd_loss_type": "kl_div", "teacher_normalisation": "zscore"} | TEACHER,
    "teacher, m3_kd_loss": TEACHER,
    "teacher, m3_kd_loss, own group": TEACHER | OWN,
    "sub-batches": {"sub_batch_tokens": 100},
    "sub-batches, no gradient checkpointing": {"sub_batch_tokens": 100, "checkpointing": False},
    "graded pairs": {"rows": make_rows(6, 1, teacher=True)},
    "dense only": {"unified_finetuning": False},
    "heads_reach 0": {"heads_reach": 0.0},
    "heads_reach 0.5": {"heads_reach": 0.5},
    "dense_temperature": {"dense_temperature": 0.05},
    "lora": {"lora_rank": 2},
    "frozen word embeddings": {"frozen": True},
    # What shows that a mismatch is found, and a wait counted.
    "spoiled": {"spoiled": True},
    "FlagEmbedding's collator": {"collator": AbsEmbedderSameDatasetCollator},
}


class Syncs(TorchDispatchMode):
    """Counts what would wait for a GPU, and gives something of some size where its contents would be needed."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def count(self, what: str) -> None:
        lines = [f for f in traceback.extract_stack() if "/m3kit/" in f.filename or "/transformers/" in f.filename]
        place = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else "elsewhere"
        self.counted[f"{what} in {place}"] += 1

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = args[0] if args else None
        if getattr(first, "is_cuda", False):
            if operation is aten._unique2.default:
                self.count("unique")
                return first.new_empty(first.numel()), first.new_empty(0), first.new_empty(0)
            if operation is aten.nonzero.default:
                self.count("nonzero")
                return first.new_empty(first.numel(), first.dim(), dtype=torch.long)
            if operation is aten.index.Tensor and args[1][0] is not None and args[1][0].dtype == torch.bool:
                self.count("boolean index")
                return first.new_empty(args[1][0].numel(), *first.shape[args[1][0].dim() :])
            if operation is aten._local_scalar_dense.default:
                self.count("item")
                return False if first.dtype == torch.bool else 1
        if operation in (aten._to_copy.default, aten.copy_.default):
            source, target = (first, kwargs.get("device")) if operation is aten._to_copy.default else (args[1], first)
            target = torch.device(getattr(target, "device", target) or source.device)
            waits = target.type == "cpu" or not (kwargs.get("non_blocking") or args[2:] == (True,))
            if target.type != source.device.type and waits:
                self.count("copy")
        return operation(*args, **kwargs)


def prepare_torch() -> None:
    """Beside what fake_cuda.cpp does: mixed precision without a driver, and all that waits for a GPU seen."""
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    masking_utils.is_tracing = lambda *_, **__: False
    # Numbers out of a list go to the GPU while the host waits; no operation of torch shows it.
    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        setattr(owner, name, _counting(getattr(owner, name), name))


syncs = Syncs()


def _counting(make: Callable, name: str) -> Callable:
    def counting(*args, device=None, **kwargs):
        device = torch.device(device or (args[0].device if name == "new_tensor" else "cpu"))
        values = args[-1]
        if device.type != "cuda" or isinstance(values, torch.Tensor):
            return make(*args, **kwargs) if device.type == "cpu" else make(*args, device=device, **kwargs)
        syncs.count(name)
        return make_tensor(values, **kwargs).to(device, non_blocking=True)

    return counting


make_tensor = torch.tensor


def make_model(folder: Path, wanted: dict, tokenizer) -> M3Model:
    own = ("autocast", "weights", "checkpointing", "rows", "alone", "lora_rank", "frozen", "collator", "spoiled")
    settings = {name: value for name, value in wanted.items() if name not in own}
    encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder, num_hidden_layers=1))
    size = encoder.config.hidden_size
    model = M3Model(
        {"model": encoder, "colbert_linear": nn.Linear(size, size), "sparse_linear": nn.Linear(size, 1)},
        tokenizer=tokenizer,
        **{"temperature": 0.02, "normalize_embeddings": True, "use_self_distill": True} | settings,
    )
    encoder.pooler.requires_grad_(False)
    if wanted.get("frozen"):
        encoder.get_input_embeddings().requires_grad_(False)
    if wanted.get("lora_rank"):
        add_adapters(encoder, wanted["lora_rank"])
    if wanted.get("checkpointing", True):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def to_gpu(model: M3Model, dtype: torch.dtype | None) -> None:
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                values = torch.empty(weight.shape, dtype=dtype or weight.dtype, device=DEVICE)
                module._parameters[name] = nn.Parameter(values, requires_grad=weight.requires_grad)
        for name, values in list(module._buffers.items()):
            if values is not None:
                module._buffers[name] = torch.empty(values.shape, dtype=values.dtype, device=DEVICE)


def make_batch(wanted: dict, tokenizer) -> dict:
    rows: Rows = wanted.get("rows") or make_rows(4, 3)
    collator = wanted.get("collator", Collator)(tokenizer, query_max_len=32, passage_max_len=32, sub_batch_size=-1)
    # Few sub-batches, but where the model divides the batch too: each takes a while.
    collator.sub_batch_tokens = wanted.get("sub_batch_tokens", 1000)
    collator.worthwhile_tokens = collator.sub_batch_tokens
    return collator([(*rows, wanted.get("alone", False))])


def on_gpu(values):
    """As transformers' trainer moves a batch."""
    if isinstance(values, torch.Tensor):
        return torch.empty(values.shape, dtype=values.dtype, device=DEVICE)
    if hasattr(values, "items"):
        return {name: on_gpu(value) for name, value in values.items()}
    return [on_gpu(value) for value in values] if isinstance(values, list) else values


def step(model: M3Model, batch: dict, autocast: torch.dtype | None) -> None:
    with torch.autocast("cuda", autocast) if autocast else contextlib.nullcontext():
        loss = model(**batch).loss
    assert (loss.dtype, str(loss.device)) == (torch.float32, DEVICE), loss
    try:
        loss.backward()
    except RuntimeError as error:  # after the last gradient: there are no streams to wait for
        if not any(words in str(error) for words in ("Unknown device", "Event device type")):
            raise
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.dtype == weight.dtype and weight.grad.is_cuda, name


def evaluate(model: M3Model, batch: dict) -> None:
    embedder = LiveEmbedder(model, model.tokenizer, EncodeSettings(device=DEVICE))
    part = {name: batch["passages"][0][name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), torch.autocast("cuda", torch.float16):
        vectors = embedder.model(part, return_dense=True, return_sparse=True, return_colbert_vecs=True)
    assert {str(values.device) for values in vectors.values()} == {DEVICE}


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    error = None
    syncs.counted.clear()
    try:
        with syncs:
            yield
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised} {traceback.format_exc(limit=-3)}"
    print(json.dumps({"name": name, "error": error, "syncs": dict(syncs.counted)}), flush=True)


def main(folder: Path) -> None:
    prepare_torch()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, wanted in VARIANTS.items():
        model, made = make_model(folder, wanted, tokenizer), make_batch(wanted, tokenizer)
        with FakeTensorMode(allow_non_fake_inputs=True):
            to_gpu(model, wanted.get("weights"))
            batch = on_gpu(made)
            if wanted.get("spoiled"):
                batch["queries"][0]["tokens"] = made["queries"][0]["tokens"]
            model.step = 1
            with reported(name):
                step(model, batch, None if "weights" in wanted else wanted.get("autocast", torch.float16))
            if not wanted:
                with reported("evaluation"):
                    evaluate(model, batch)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # autograd's thread of the made-up GPU can outlive the interpreter, and then it ends the process by SIGABRT.
    os._exit(0)
