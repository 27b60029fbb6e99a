"""FlagEmbedding's M3 runner with the kit's model, data set and trainer in it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from FlagEmbedding.abc.finetune.embedder import EmbedderTrainerCallbackForDataRefresh
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Runner

from m3kit.errors import KitError
from m3kit.hub import find_model_folder, missing_heads
from m3kit.training.arguments import DataArguments, ModelArguments, TrainingArguments
from m3kit.training.dataset import SameDatasetTrainDataset
from m3kit.training.model import M3Model
from m3kit.training.run_record import RunRecord, claim_output_dir
from m3kit.training.trainer import Trainer

logger = logging.getLogger(__name__)


class Runner(EncoderOnlyEmbedderM3Runner):
    def __init__(self, model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments):
        # FlagEmbedding turns a whole batch into one item and sets the batch size to 1: the record keeps what was asked.
        self._settings = {
            **dataclasses.asdict(data_args),
            **dataclasses.asdict(model_args),
            **training_args.to_dict(),
        }
        self._settings.pop("token")
        self._batch_size = training_args.per_device_train_batch_size
        if training_args.process_index == 0:
            claim_output_dir(Path(training_args.output_dir), training_args.overwrite_output_dir)
        super().__init__(model_args, data_args, training_args)

    def load_tokenizer_and_model(self):
        name, cache_dir = self.model_args.model_name_or_path, self.model_args.cache_dir
        self.model_args.model_name_or_path = str(find_model_folder(name, cache_dir, self.model_args.token))
        if self.training_args.unified_finetuning:
            _tell_heads(self.model_args.model_name_or_path)
        tokenizer, model = super().load_tokenizer_and_model()
        # FlagEmbedding names its class in the middle of this method; the subclass has methods only, no state.
        model.__class__ = M3Model
        # No loss ever uses the pooler: frozen, it costs no optimizer state, and DDP does not wait for its gradient.
        if getattr(model.model, "pooler", None) is not None:
            model.model.pooler.requires_grad_(False)
        return tokenizer, model

    def load_train_dataset(self):
        if not self.data_args.same_dataset_within_batch:
            logger.warning("same_dataset_within_batch is off: `no_in_batch_neg` in folder names is ignored (D4)")
            return super().load_train_dataset()
        train_dataset = SameDatasetTrainDataset(
            args=self.data_args,
            default_batch_size=self._batch_size,
            seed=self.training_args.seed,
            tokenizer=self.tokenizer,
            process_index=self.training_args.process_index,
            num_processes=self.training_args.world_size,
        )
        # An item is a whole batch, made by a counter in the main process (D8).
        self.training_args.per_device_train_batch_size = 1
        self.training_args.dataloader_num_workers = 0
        return train_dataset

    def load_trainer(self) -> Trainer:
        trainer = Trainer(
            model=self.model,
            args=self.training_args,
            train_dataset=self.train_dataset,
            data_collator=self.data_collator,
            processing_class=self.tokenizer,
        )
        if self.data_args.same_dataset_within_batch:
            trainer.add_callback(EmbedderTrainerCallbackForDataRefresh(self.train_dataset))
        return trainer

    def run(self):
        if self.training_args.process_index != 0:
            return super().run()
        data = self._describe_data()
        for entry in data:
            logger.info("Data set: %s", ", ".join(f"{name} {value}" for name, value in entry.items()))
        record = RunRecord(Path(self.training_args.output_dir), self._settings, data, self.training_args.world_size)
        super().run()
        losses = [entry["train_loss"] for entry in self.trainer.state.log_history if "train_loss" in entry]
        record.finish(self.trainer.state.global_step, losses[-1])

    def _describe_data(self) -> list[dict[str, Any]]:
        """For each file: rows, batch, batches an epoch, and the rows that an epoch leaves over (others each time)."""
        if not self.data_args.same_dataset_within_batch:
            return [{"rows": len(self.train_dataset)}]
        described = []
        data = self.train_dataset
        for (path, rows), batch, alone in zip(
            data.file_sizes, data.batch_size_idxs, data.no_in_batch_neg_flags, strict=True
        ):
            described.append(
                {
                    "path": path,
                    "rows": rows,
                    "batch_size_per_device": batch,
                    "batches_per_epoch": rows // (batch * data.num_processes),
                    "rows_left_over_per_epoch": rows % (batch * data.num_processes),
                    "in_batch_negatives": not alone,
                }
            )
        return described


def _tell_heads(folder: str) -> None:
    missing = missing_heads(Path(folder))
    if len(missing) == 1:
        raise KitError(f"{folder} has no {missing[0]}, so the other head would be lost too (S4); put the file back")
    if missing:
        logger.warning("%s has no M3 heads: sparse and ColBERT start from random weights", folder)
