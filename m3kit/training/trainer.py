"""FlagEmbedding's M3 trainer, which also writes what sentence-transformers needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Trainer

from m3kit.training.saving import write_sentence_transformers_files


class Trainer(EncoderOnlyEmbedderM3Trainer):
    def _save(self, output_dir: str | None = None, state_dict=None):
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        # The weights are written for their owner alone: a server under another user could not read them.
        shutil.copymode(folder / "config.json", folder / "model.safetensors")
        # Without these SentenceTransformer(path) falls back to mean pooling without a word (S5).
        write_sentence_transformers_files(
            folder,
            dimension=self.model.config.hidden_size,
            pooling=self.args.sentence_pooling_method,
            normalize=self.args.normalize_embeddings,
            max_length=min(self.processing_class.model_max_length, self.model.config.max_position_embeddings),
        )
