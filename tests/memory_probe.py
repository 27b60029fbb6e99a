"""Measure what training steps really take: ``python memory_probe.py JSON`` prints bytes, of this process alone.

JSON holds ``config``, a model's, and the fields of ``footprint.Step``. The model is the trainer's, with random weights;
the tokens are random too, and one text is a token shorter, so that attention needs its mask.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model
from transformers import AutoConfig, AutoModel

from m3kit.training.model import M3Model

TOKENIZER = SimpleNamespace(cls_token_id=0, eos_token_id=2, pad_token_id=1, unk_token_id=3, padding_side="right")
STEPS = 2  # the optimizer has its moments from the first one on


def main(wanted: dict) -> None:
    # What torch sets up once is not the model's.
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100)
    train(wanted | {"config": wanted["config"] | small, "query_max_len": 16, "passage_max_len": 16})
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("RssAnon")
    train(wanted)
    # Without the code of libraries, of which a machine short of memory drops pages and reads them again.
    print(memory("VmHWM") - memory("RssFile") - before)


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def train(wanted: dict) -> None:
    model = make_model(wanted)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    vocabulary = model.config.vocab_size
    for _ in range(STEPS):
        queries = texts(wanted["batch_size"], wanted["query_max_len"], vocabulary, wanted)
        passages = texts(wanted["batch_size"] * wanted["group_size"], wanted["passage_max_len"], vocabulary, wanted)
        sixteen = wanted["precision"] != "fp32"
        with torch.autocast("cpu", dtype=torch.bfloat16) if sixteen else contextlib.nullcontext():
            loss = model(queries=queries, passages=passages).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        del loss


def make_model(wanted: dict) -> EncoderOnlyEmbedderM3Model:
    settings = dict(wanted["config"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    hidden = config.hidden_size
    model = EncoderOnlyEmbedderM3Model(
        {
            "model": AutoModel.from_config(config),
            "colbert_linear": torch.nn.Linear(hidden, hidden),
            "sparse_linear": torch.nn.Linear(hidden, 1),
        },
        tokenizer=TOKENIZER,
        temperature=0.02,
        normalize_embeddings=True,
        unified_finetuning=wanted["unified_finetuning"],
        use_self_distill=True,
        self_distill_start_step=0,
    )
    if not wanted.get("untouched"):
        model.__class__ = M3Model
        model.sub_batch_tokens = wanted["sub_batch_tokens"]
        model.model.pooler.requires_grad_(False)
    if wanted["gradient_checkpointing"]:
        model.enable_input_require_grads()
        model.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def texts(count: int, length: int, vocabulary: int, wanted: dict):
    ids = torch.randint(4, vocabulary, (count, length))
    mask = torch.ones(count, length, dtype=torch.long)
    ids[-1, -1], mask[-1, -1] = TOKENIZER.pad_token_id, 0
    if wanted.get("untouched"):
        return {"input_ids": ids, "attention_mask": mask}
    most = max(1, wanted["sub_batch_tokens"] // length)
    places = torch.arange(count)
    whole = {"input_ids": ids, "attention_mask": mask, "places": places}
    return [{name: values[start : start + most] for name, values in whole.items()} for start in range(0, count, most)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
