"""One contender's run, measured: ``python -m side_by_side.contender SPECIFICATION RESULT``, both JSON files.

Each is run as its own command runs it. Only its runner or trainer is given a callback that looks on.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch

from side_by_side.cases import KIT, LIBRARY, ON_GPU, SENTENCE
from side_by_side.probe import Measured, Probe, resident


def main() -> None:
    specification, result = map(Path, sys.argv[1:])
    spec = json.loads(specification.read_text("utf-8"))
    if spec["settings"]["fp16"] == ON_GPU:
        spec["settings"]["fp16"] = torch.cuda.is_available()
    probe = {LIBRARY: run_library, KIT: run_kit, SENTENCE: run_sentence_transformers}[spec["contender"]](spec)
    figures = probe.figures | {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
    result.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run_library(spec: dict) -> Probe:
    from FlagEmbedding.finetune.embedder.encoder_only.m3 import (
        EncoderOnlyEmbedderM3DataArguments,
        EncoderOnlyEmbedderM3ModelArguments,
        EncoderOnlyEmbedderM3Runner,
        EncoderOnlyEmbedderM3TrainingArguments,
    )

    classes = (
        EncoderOnlyEmbedderM3ModelArguments,
        EncoderOnlyEmbedderM3DataArguments,
        EncoderOnlyEmbedderM3TrainingArguments,
    )
    return _run(EncoderOnlyEmbedderM3Runner, classes, spec, {"save_strategy": "no", "disable_tqdm": True})


def run_kit(spec: dict) -> Probe:
    from transformers.utils import logging as transformers_logging

    from m3kit.batches.arguments import DataArguments
    from m3kit.training.__main__ import WORDY
    from m3kit.training.arguments import ModelArguments, TrainingArguments
    from m3kit.training.runner import Runner

    # As its own main does.
    for name in WORDY:
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    return _run(Runner, (ModelArguments, DataArguments, TrainingArguments), spec, {})


def _run(runner_class, argument_classes, spec: dict, further: dict) -> Probe:
    """FlagEmbedding's runner or the kit's, whose arguments have the same names."""
    from transformers import HfArgumentParser

    settings = {
        **spec["settings"],
        **further,
        "model_name_or_path": spec["base"],
        "train_data": spec["rows"],
        "output_dir": spec["output_dir"],
        "cache_path": spec["cache_dir"],
        # One is enough, but where preparing has merged rows.
        "num_train_epochs": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    before = 0

    class Watched(runner_class):
        def load_tokenizer_and_model(self):
            nonlocal before
            before = resident()
            return super().load_tokenizer_and_model()

    runner = Watched(*HfArgumentParser(argument_classes).parse_args_into_dataclasses(words))
    return _measure(runner.trainer, runner.run, before, spec)


def run_sentence_transformers(spec: dict) -> Probe:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    settings = spec["settings"]
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text("utf-8").split("\n") if line]
    columns = [{"anchor": row["query"], "positive": row["pos"][0], "negative": row["neg"][0]} for row in rows]
    before = resident()
    transformer = Transformer(spec["base"], max_seq_length=settings["passage_max_len"])
    pooling = Pooling(transformer.get_embedding_dimension(), settings["sentence_pooling_method"])
    model = SentenceTransformer(
        modules=[transformer, pooling, Normalize()], device=None if torch.cuda.is_available() else "cpu"
    )
    loss = CachedMultipleNegativesRankingLoss if settings.get("cached") else MultipleNegativesRankingLoss
    passed_on = (
        "learning_rate warmup_steps per_device_train_batch_size gradient_checkpointing dataloader_drop_last bf16"
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=spec["output_dir"],
        num_train_epochs=2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **{name: settings[name] for name in passed_on.split() if name in settings},
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(columns),
        loss=loss(model, scale=1 / settings["temperature"]),
    )
    return _measure(trainer, trainer.train, before, spec)


def _measure(trainer, run, before: int, spec: dict) -> Probe:
    probe = Probe(spec["warm_up"], spec["steps"], before, spec["time_encoder"])
    probe.watch(trainer)
    try:
        run()
    except Measured:
        return probe
    raise SystemExit(f"the run ended after {trainer.state.global_step} steps, before it was measured")


if __name__ == "__main__":
    main()
