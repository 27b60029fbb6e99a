"""FlagEmbedding's M3 trainer that can be stopped and go on, says what it does, and keeps the best checkpoint."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, send_to_device
from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Trainer
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerControl
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINER_STATE_NAME

from m3kit.device import release_freed
from m3kit.run_folder import checkpoints
from m3kit.run_folder.saving import write_model_extras
from m3kit.run_folder.stopping import StopRequest, ignore_signals
from m3kit.run_folder.train_log import Meter, TrainLog
from m3kit.training.evaluation import HeldOut
from m3kit.training.fit import fit
from m3kit.training.guards import Guard, tell_empty
from m3kit.training.lora import load_adapters, save_adapters

# Steps that teach nothing are told after so many, and once more at the end.
FIRST_STEPS = 100
# Fewer queries in a step are told, with what to give instead.
FEW_QUERIES = 8


class Trainer(EncoderOnlyEmbedderM3Trainer):
    """``held_out``: what to evaluate with, or None; ``base_folder``: where the weights came from."""

    def __init__(self, *, held_out: HeldOut | None, base_folder: Path, stop: StopRequest, **kwargs) -> None:
        super().__init__(**kwargs)
        # What to do with the figures of the model as it is before training, which are measured once a run.
        self.tell_base: Callable[[dict[str, float]], None] = lambda figures: None
        self.held_out, self.base_folder, self.stop = held_out, base_folder, stop
        self.meter = Meter(self.args.device)
        self.guard = Guard(self.model, mixed_fp16=self.args.fp16)
        # The log writes what TensorBoard shows: transformers' callback adds curves of no use, and a run at each resume.
        has_curves = self.pop_callback(TensorBoardCallback) is not None
        self.train_log = TrainLog(Path(self.args.output_dir), has_curves) if self.is_world_process_zero() else None
        if self.train_log and held_out:
            self.train_log.headline = self.args.metric_for_best_model
        self.fitted = False  # whether the heaviest batches have been tried, or need not be
        self.gradient_norm: float | None = None
        self.skipped_steps = 0  # since the last line of the log: fp16 overflowed, and nothing was learned
        self._loss_scale = 1.0
        self.stopped = 0  # the signal's number, once the step is done and to be the last
        self.remove_callback(PrinterCallback)
        self.add_callback(Steps(self))

    # ---- Batches ----

    def get_train_dataloader(self) -> DataLoader:
        """Batches made ahead by other processes; which ones, the data set knows by their number alone (S2, D8).

        Not accelerate's loader, which would deal them out over the processes once more.
        """
        args = self.args
        return DataLoader(
            self.train_dataset,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            worker_init_fn=ignore_signals,
            # Of its own, so that starting an epoch draws nothing from the generator of dropout.
            generator=torch.Generator().manual_seed(args.seed),
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """On the device, while the processor goes on; transformers waits for each tensor's copy."""
        return send_to_device(inputs, self.args.device, non_blocking=self.args.device.type == "cuda")

    # ---- A step ----

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        self.meter.add(inputs, loss, outputs.parts)
        # In fp16 without ZeRO, DeepSpeed divides gradients by a scale that it has not multiplied the loss by (S7).
        self._loss_scale = model.optimizer.loss_scale if self._lacks_scale(model) else 1.0
        if self._loss_scale != 1 and loss.requires_grad:
            loss.register_hook(lambda gradient, scale=self._loss_scale: gradient * scale)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """The true norm: of DeepSpeed's two optimizers in fp16 one gives it multiplied by the loss scale."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.gradient_norm = None if norm is None else float(norm)
        if norm is not None and self._lacks_scale(model) and "Unfused" in type(model.optimizer).__name__:
            self.gradient_norm = float(norm) / self._loss_scale
        return self.gradient_norm

    def _lacks_scale(self, model) -> bool:
        names = ("FP16_Optimizer", "FP16_UnfusedOptimizer")
        return self.args.fp16 and type(getattr(model, "optimizer", None)).__name__ in names

    def stop_now(self) -> None:
        """Make this step the last, and save it."""
        self.control.should_training_stop = self.control.should_save = True
        self.control.should_evaluate = False
        # The signal may have come to another process only.
        self.stopped = self.stop.number or signal.SIGTERM

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self.meter.mark()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """transformers' figures and the meter's together, to the terminal, the two files and TensorBoard."""
        if "loss" in logs:
            logs |= self.meter.figures(self.state.max_steps - self.state.global_step)
            logs["skipped_steps"], self.skipped_steps = self.skipped_steps, 0
        super().log(logs, start_time)
        if self.train_log:
            self.train_log.add(self.state, logs)
            if "loss" in logs and self.state.global_step == FIRST_STEPS and (told := self.tell_empty_steps()):
                self.train_log.say(f"warning: {told}")

    def tell_empty_steps(self) -> str | None:
        return tell_empty(self.state.log_history, self.queries_per_step)

    @property
    def queries_per_step(self) -> int:
        """Of all processes. They are one another's in-batch negatives; gradient accumulation adds none."""
        return self.args.per_device_train_batch_size * self.args.world_size

    # ---- Evaluating ----

    def evaluate(self, *_, **__) -> dict[str, float]:
        """Figures of the model as it is, under transformers' names (``eval_…``); by one process, for all.

        Empty where a signal came: the run ends, and makes this evaluation when it goes on.
        """
        assert self.held_out  # nothing is evaluated without
        started = time.monotonic()
        figures: list[dict[str, float] | None] = [None]
        with self.stop.at_once():
            # It may have come after the step.
            if self.is_world_process_zero() and not self.stop.number:
                found = self.held_out.measure(self.model, self.processing_class, self.accelerator.autocast)
                figures = [{f"eval_{name}": value for name, value in found.items()}]
        if self.args.world_size > 1:
            broadcast_object_list(figures)
        (measured,) = figures
        if measured is None:
            self.stop_now()
            return {}
        self.log({**measured, "eval_seconds": time.monotonic() - started})
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured

    def _determine_best_metric(self, metrics, trial) -> bool:
        if self.stopped:
            return False
        is_best = super()._determine_best_metric(metrics, trial)
        # The best must be there at the end, whenever that is.
        self.control.should_save = self.control.should_save or is_best
        return is_best

    # ---- Saving ----

    def _get_output_dir(self, trial) -> str:
        """Where transformers writes a checkpoint."""
        return str(Path(self.args.output_dir) / checkpoints.SCRATCH)

    def _save_checkpoint(self, model, trial) -> None:
        """As transformers does, but beside, sealed, and renamed when all of it is there."""
        output_dir = Path(self.args.output_dir)
        with checkpoints.full_disk_explained(output_dir, "a checkpoint", self._checkpoint_bytes()):
            # Each has looked at the disk's room before the first one writes.
            self.accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)
            # It would be the path where the best was being written; the runner knows the best by its step.
            self.state.best_model_checkpoint = None
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                written = output_dir / checkpoints.SCRATCH / f"checkpoint-{self.state.global_step}"
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                checkpoints.seal(written)
                checkpoints.put_in_place(written, output_dir)
                keep = {self.state.best_global_step} - {None}
                checkpoints.rotate(output_dir, self.args.save_total_limit, keep)
            self.accelerator.wait_for_everyone()

    def _checkpoint_bytes(self) -> int:
        """The weights once, and two moments of Adam for each that is trained, in 32 bits."""
        # DeepSpeed writes the weights a second time, in a form of its own.
        copies = 2 if self.is_deepspeed_enabled else 1
        return sum(4 * weight.numel() * (copies + 2 * weight.requires_grad) for weight in self.model.parameters())

    def _save(self, output_dir: str | None = None, state_dict=None):
        # Called in every process, which FlagEmbedding does not know (S6).
        if not self.args.should_save:
            return
        super()._save(output_dir, state_dict)
        write_model_extras(
            Path(output_dir or self.args.output_dir),
            base_folder=None if self.args.unified_finetuning else self.base_folder,
            dimension=self.model.config.hidden_size,
            pooling=self.args.sentence_pooling_method,
            normalize=self.args.normalize_embeddings,
            max_length=min(self.processing_class.model_max_length, self.model.config.max_position_embeddings),
        )
        if self.args.lora_rank:
            save_adapters(self.model.model, Path(output_dir or self.args.output_dir))

    # ---- Going on ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """All weights or an error: transformers loads none of the encoder's, whose names differ, and warns (S1)."""
        folder = Path(resume_from_checkpoint)
        if self.args.lora_rank:
            load_adapters(self.model.model, folder)
        else:
            self.model.model.load_state_dict(load_file(folder / "model.safetensors"))
        if self.args.unified_finetuning:
            for name in ("colbert_linear", "sparse_linear"):
                weights = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
                getattr(self.model, name).load_state_dict(weights)

    def _load_scaler(self, checkpoint: str | None) -> None:
        # Who goes on in bf16 because fp16 overflowed has a scale saved, and none to load it into.
        if getattr(self.accelerator, "scaler", None) is not None:
            super()._load_scaler(checkpoint)

    def restore_step(self) -> None:
        """FlagEmbedding's own counter of micro-batches, which it neither saves nor restores (T6)."""
        epochs, steps = divmod(self.state.global_step, self.steps_per_epoch)
        self.model.step = epochs * len(self.train_dataset) + steps * self.args.gradient_accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_dataset) / self.args.gradient_accumulation_steps)


class Steps(TrainerCallback):
    """What the trainer does at each point of transformers' training loop."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.begun_at = 0  # the step that this process goes on from

    def on_train_begin(self, args, state, control, **kwargs):
        self.begun_at = state.global_step
        # A resumed state brings the intervals it was saved with, and would go by these.
        state.compute_steps(args, state.max_steps)
        trainer = self.trainer
        told = fit(trainer)
        trainer.fitted = True
        if trainer.train_log:
            if told:
                trainer.train_log.tell(told)
            if (queries := trainer.queries_per_step) < FEW_QUERIES:
                trainer.train_log.say(
                    f"A step has {queries} queries, and few negatives for each: more learn better, at no more memory. "
                    "Give --per_device_train_batch_size 32, or --recipe best."
                )
        trainer.restore_step()
        if trainer.held_out and state.global_step == 0:
            trainer.tell_base(trainer.evaluate())
        # A run that was stopped at a step with an evaluation makes that evaluation now.
        evaluated = any(entry["step"] == state.global_step and "eval_seconds" in entry for entry in state.log_history)
        if state.global_step and self._evaluates(state) and not evaluated:
            trainer._determine_best_metric(trainer.evaluate(), trial=None)
        trainer.stop.patient = True
        trainer.meter.mark()

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The processes that make the batches are forked now, and would keep all that this one has freed and frees.
        if args.device.type == "cpu":
            release_freed()
        self.trainer.train_dataset.epoch = state.global_step // self.trainer.steps_per_epoch

    def on_optimizer_step(self, args, state, control, **kwargs):
        """A fused optimizer skips an overflow by itself, unnoticed, and the schedule would go on."""
        trainer = self.trainer
        has_scaler = getattr(trainer.accelerator, "scaler", None) is not None
        if has_scaler and not math.isfinite(trainer.gradient_norm or 0.0):
            trainer.optimizer._is_overflow = True
        trainer.skipped_steps += trainer.accelerator.optimizer_step_was_skipped

    def on_step_end(self, args, state, control, **kwargs):
        """Is it still learning, and was it asked to stop? All processes decide alike."""
        control.should_evaluate = self._evaluates(state)
        control.should_save = control.should_save or state.global_step >= state.max_steps
        trainer = self.trainer
        own = trainer.guard.take_gradients()
        step, (stopped, *gradients) = trainer.meter.reduce([trainer.stop.number, *own])
        trainer.stop.seconds = max(trainer.meter.durations)
        skipped, loss = trainer.accelerator.optimizer_step_was_skipped, step["loss"] / step["micro_batches"]
        trainer.guard.check(state.global_step, loss, trainer.gradient_norm, gradients, skipped)
        if stopped:
            trainer.stop_now()

    def _evaluates(self, state) -> bool:
        due = state.global_step >= state.max_steps or state.global_step % state.eval_steps == 0
        return bool(self.trainer.held_out) and due

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.trainer.train_log and state.global_step % self.trainer.steps_per_epoch == 0:
            queries = self.trainer.meter.take_queries()
            began_before = self.begun_at > state.global_step - self.trainer.steps_per_epoch
            since = f" after step {self.begun_at}" if began_before else ""
            self.trainer.train_log.tell(f"epoch {round(state.epoch)} is over: {queries:,} rows trained{since}")

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.stop.patient = False
