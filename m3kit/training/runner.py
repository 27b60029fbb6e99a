"""FlagEmbedding's M3 runner with the kit's model, data set and trainer in it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Runner
from transformers import AutoTokenizer
from transformers.trainer import TRAINER_STATE_NAME

from m3kit.batches.arguments import DataArguments
from m3kit.batches.collator import Collator
from m3kit.batches.dataset import SameDatasetTrainDataset
from m3kit.device import is_out_of_memory
from m3kit.encoding.encode import EncodeSettings
from m3kit.errors import KitError
from m3kit.hub import check_tokenizer, find_model_folder, loading, missing_heads
from m3kit.merge import POOLER
from m3kit.progress import cpu_seconds
from m3kit.run_folder import checkpoints
from m3kit.run_folder.run_record import RunRecord, claim_output_dir
from m3kit.run_folder.stopping import Stopped, StopRequest
from m3kit.run_folder.train_log import tell_best
from m3kit.training.arguments import ModelArguments, TrainingArguments
from m3kit.training.device import set_attention
from m3kit.training.evaluation import HeldOut
from m3kit.training.fit import ran_out
from m3kit.training.lora import add_adapters, tell_adapters
from m3kit.training.merging import Mixture
from m3kit.training.model import MODEL_SETTINGS, M3Model
from m3kit.training.trainer import Trainer

logger = logging.getLogger(__name__)

# Sub-batches of fewer tokens take hardly less time: a GPU has to be told what to compute, and for the matrix units of a
# CPU, which are those of 16 bits, weights are rearranged each time.
WORTHWHILE_TOKENS = {"cuda": 2048, "cpu": 1024}


class Runner(EncoderOnlyEmbedderM3Runner):
    def __init__(self, model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments):
        self._settings = {
            **dataclasses.asdict(data_args),
            **dataclasses.asdict(model_args),
            **training_args.to_dict(),
        }
        self._settings.pop("token")
        # FlagEmbedding would refuse any folder with something in it: the kit looks at what that is.
        training_args.do_train = False
        self.stop = StopRequest()
        self.output_dir = Path(training_args.output_dir)
        self.is_first = training_args.process_index == 0
        if self.is_first:
            claim_output_dir(self.output_dir, training_args.overwrite_output_dir)
        else:  # what the first says of the data is enough
            logging.getLogger("m3kit.batches").setLevel(logging.CRITICAL)
        super().__init__(model_args, data_args, training_args)

    def load_tokenizer_and_model(self):
        """As FlagEmbedding does, with the kit's model and what is frozen in it. Raises ``KitError`` without a model."""
        model_args, args = self.model_args, self.training_args
        folder = str(find_model_folder(model_args.model_name_or_path, model_args.cache_dir, model_args.token))
        model_args.model_name_or_path, remote_code = folder, model_args.trust_remote_code
        if args.unified_finetuning:
            _tell_heads(folder)
        with loading(f"the model in {folder}"):
            tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=model_args.use_fast_tokenizer, trust_remote_code=remote_code
            )
            loaded = self.get_model(folder, remote_code, model_args.colbert_dim)
        check_tokenizer(tokenizer, folder)
        settings = {name: getattr(args, name) for name in MODEL_SETTINGS}
        model = M3Model(loaded, tokenizer=tokenizer, **settings)
        if args.gradient_checkpointing:
            model.enable_input_require_grads()
        if args.freeze_word_embeddings:
            model.model.get_input_embeddings().requires_grad_(False)
        for name, parameter in model.model.named_parameters():
            fixed = args.fix_encoder or (args.fix_position_embedding and "position_embeddings" in name)
            # No loss ever uses the pooler: frozen, it costs no optimizer state, and DDP does not wait for its gradient.
            if fixed or name.startswith(POOLER):
                parameter.requires_grad_(False)
        # A base that was saved in 16 bits is loaded in 16, in which small steps are lost and fp16 cannot be unscaled.
        if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
            logger.info("The model was saved in 16 bits; it is trained in 32")
            model.float()
        attention = set_attention(model.model, args.attn_implementation, args.device.type, args.precision)
        told = [args.precision_told, attention]
        if args.lora_rank:
            add_adapters(model.model, args.lora_rank)
            told.append(tell_adapters(model, args.lora_rank, args.learning_rate))
        for sentence in told if self.is_first else ():
            logger.info(sentence)
        return tokenizer, model

    def load_train_dataset(self):
        args = self.training_args
        return SameDatasetTrainDataset(
            args=self.data_args,
            default_batch_size=args.per_device_train_batch_size,
            seed=args.seed,
            process_index=args.process_index,
            num_processes=args.world_size,
            teacher_as_is=(args.teacher_temperature, args.teacher_normalisation) == (1.0, "none"),
        )

    def load_data_collator(self) -> Collator:
        data_args, args = self.data_args, self.training_args
        device = args.device.type
        return Collator(
            tokenizer=self.tokenizer,
            query_max_len=data_args.query_max_len,
            passage_max_len=data_args.passage_max_len,
            pad_to_multiple_of=data_args.pad_to_multiple_of,
            sub_batch_size=args.sub_batch_size,
            worthwhile_tokens=0 if (device, args.precision) == ("cpu", "fp32") else WORTHWHILE_TOKENS.get(device, 0),
        )

    def load_trainer(self) -> Trainer:
        args = self.training_args
        steps = self._settle_intervals()
        held_out = self._load_held_out(steps) if args.eval_data else None
        if held_out:
            args.metric_for_best_model = held_out.headline(args.unified_finetuning)
            args.greater_is_better = True
        return Trainer(
            model=self.model,
            args=args,
            train_dataset=self.train_dataset,
            data_collator=self.data_collator,
            processing_class=self.tokenizer,
            held_out=held_out,
            base_folder=Path(self.model_args.model_name_or_path),
            stop=self.stop,
        )

    def _settle_intervals(self) -> int:
        """How many steps there are. Intervals that are parts of them become numbers, before transformers compares."""
        args = self.training_args
        updates = math.ceil(len(self.train_dataset) / args.gradient_accumulation_steps)
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates)
        for name in ("eval_steps", "save_steps", "logging_steps"):
            interval = getattr(args, name)
            setattr(args, name, max(1, math.ceil(steps * interval) if interval < 1 else int(interval)))
        return steps

    def _load_held_out(self, steps: int) -> HeldOut:
        args, data_args = self.training_args, self.data_args
        settings = EncodeSettings(
            query_max_len=data_args.query_max_len,
            passage_max_len=data_args.passage_max_len,
            pooling_method=args.sentence_pooling_method,
            normalize_embeddings=args.normalize_embeddings,
            query_instruction_for_retrieval=data_args.query_instruction_for_retrieval,
            device=str(args.device),
        )
        held_out = HeldOut(args.eval_data, settings, args.seed)
        # Forward; backward, which takes twice that, of the weights and of what they are given; and forward once more.
        passes = 1 + (not args.fix_encoder) * (1 + (not args.lora_rank) + args.gradient_checkpointing)
        step = passes * self.train_dataset.characters() * args.gradient_accumulation_steps
        args.eval_steps = held_out.limit(step, steps, args.eval_steps, further=len(args.merge_shares or ()))
        logger.info(held_out.says)
        return held_out

    def run(self) -> None:
        """Train from the start, or from the newest intact checkpoint, and put the best model into ``output_dir``.

        Raises ``KitError`` where the run can come to nothing, and ``Stopped`` after the checkpoint of a signal.
        """
        record, checkpoint = self._open_record() if self.is_first else (None, None)
        if self.training_args.world_size > 1:
            (checkpoint,) = broadcast_object_list([checkpoint])
        trainer, cpu_before = self.trainer, cpu_seconds()
        if record:
            trainer.tell_base = lambda figures: record.update(base=figures)
            trainer.train_log.before = (record.run.base or {}).get(f"eval_{trainer.train_log.headline}")
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
            if trainer.stopped:
                raise Stopped(trainer.stopped)
            if record:
                record.update(cpu_seconds=round(cpu_seconds() - cpu_before, 1))
                self._finish(record)
        except BaseException as error:
            reason = str(error) or type(error).__name__
            try:
                if is_out_of_memory(error):
                    reason = ran_out(trainer)
                    raise KitError(reason) from error
                raise
            finally:
                if record:
                    record.stop(reason)

    def _open_record(self) -> tuple[RunRecord, str | None]:
        """The run's record, and the checkpoint to go on from. Raises ``KitError`` when it may not go on."""
        args, log, data = self.training_args, self.trainer.train_log, self.train_dataset.describe()
        for entry in data:
            logger.info("Data set: %s", ", ".join(f"{name} {value}" for name, value in entry.items()))
        checkpoint, passed_over = checkpoints.newest_intact(self.output_dir)
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        for sentence in passed_over:
            log.say(f"warning: {sentence}")
        # A run that was stopped before its first checkpoint is begun anew, with whatever settings.
        goes_on = bool(checkpoint or passed_over)
        record = RunRecord(self.output_dir, self._settings, data, args.world_size, step if goes_on else None)
        for change in record.changed:
            log.say(f"other than before: {change}")
        if goes_on:
            log.say(f"Going on from step {step}.")
        log.begin(step)
        if not checkpoint:
            return record, None
        # What a smaller save_total_limit no longer keeps makes room for the next checkpoint.
        best = json.loads((checkpoint / TRAINER_STATE_NAME).read_bytes())["best_global_step"]
        checkpoints.rotate(self.output_dir, args.save_total_limit, {best} - {None})
        return record, str(checkpoint)

    def _finish(self, record: RunRecord) -> None:
        """Put the best checkpoint's model into ``output_dir``, and say in the last lines whether it is worth it."""
        state, log = self.trainer.state, self.trainer.train_log
        base = record.run.base if self.trainer.held_out else None
        best = state.best_global_step if base else state.global_step
        checkpoint = self.output_dir / f"checkpoint-{best}"
        checkpoints.publish(checkpoint, self.output_dir)
        if told := self.trainer.tell_empty_steps():
            log.say(f"warning: {told}")
        if base:
            name = f"eval_{log.headline}"
            record.update(best={"step": best, name: state.best_metric})
            log.say(tell_best(log.headline.replace("_", " "), base[name], state.best_metric, best, state))
        else:
            log.say(f"{self.output_dir} holds the model of step {best}, the last; if it is better was not measured.")
        if shares := self.training_args.merge_shares or ():
            self._merge(record)
        measured = {entry["step"] for entry in state.log_history if "eval_seconds" in entry} - {0}
        if self.trainer.held_out and (len(measured) > 1 or len(shares) > 1):
            record.update(chosen_on=self.trainer.held_out.chosen_on)
        record.update(status="finished", steps=state.global_step, empty_steps=told)

    def _merge(self, record: RunRecord) -> None:
        """Mix the base into the model in ``output_dir``, by the share that is best on the evaluation data."""
        args, trainer = self.training_args, self.trainer
        mixture = Mixture(
            Path(self.model_args.model_name_or_path),
            self.output_dir,
            self.tokenizer,
            args.device,
            sentence_pooling_method=args.sentence_pooling_method,
            normalize_embeddings=args.normalize_embeddings,
            unified_finetuning=args.unified_finetuning,
        )
        measured: dict[float, float] = {}
        share, why = args.merge_shares[0], "as merge_shares says"
        if trainer.held_out:
            figure = args.metric_for_best_model
            for one in args.merge_shares:
                mixture.set(one)
                found = trainer.held_out.measure(mixture.model, self.tokenizer, trainer.accelerator.autocast)
                measured[one] = found[figure]
            share = max(sorted(measured), key=measured.__getitem__)  # of equals the one with most of the base
            shown = ", ".join(f"{value:.3f} with {one:g} of it" for one, value in measured.items())
            why = f"{figure.replace('_', ' ')}: {shown}"
        mixture.set(share)
        mixture.save(self.output_dir)
        record.update(merge={"share": share, "measured": {f"{one:g}": value for one, value in measured.items()}})
        trainer.train_log.say(f"The model is {share:g} of the tuned one and {1 - share:g} of the base ({why}).")


def _tell_heads(folder: str) -> None:
    missing = missing_heads(Path(folder))
    if len(missing) == 1:
        raise KitError(f"{folder} has no {missing[0]}, so the other head would be lost too (S4); put the file back")
    if missing:
        logger.warning("%s has no M3 heads: sparse and ColBERT start from random weights", folder)
