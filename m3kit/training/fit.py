"""Find how many padded tokens can be encoded at once: the heaviest batches are tried before the first step."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
import torch.distributed as dist

from m3kit.device import is_out_of_memory
from m3kit.errors import KitError

# What sub_batch_tokens=auto begins with. More at once is not faster.
MOST = 16384
# On a CPU, to save memory: what all layers give for auto's tokens (6144 in bge-m3's shape), and one layer for a part's.
KEPT_ON_CPU, PART_ON_CPU = 6144 * 24 * 1024, 1536 * 1024
# With fewer, any text is encoded by itself.
FEWEST = 16
# Of a GPU's memory, left for what changes from step to step.
MARGIN = 0.05
# In a run's folder: what a later run begins with, where one ran out of memory on the way.
NOTE = ".sub_batch_tokens"
CURES = (
    "give --gradient_checkpointing True, a shorter --passage_max_len, a smaller --per_device_train_batch_size, "
    "--precision bf16 or fp16, or --lora_rank 16"
)


def fit(trainer) -> str | None:
    """Set ``sub_batch_tokens`` of the model and the collator; return what was found by trial, for the log.

    ``auto`` on a GPU: each data set's heaviest batch goes forward and backward, its gradients are thrown away, and on
    out-of-memory the number is halved. All processes take the smallest number that any of them finds.
    Raises ``KitError``, in all of them, where a batch does not fit even when its texts are encoded one by one.
    """
    args = trainer.args
    is_auto = args.sub_batch_tokens == "auto"
    tokens = (_noted(Path(args.output_dir)) or MOST) if is_auto else int(args.sub_batch_tokens)
    if not _can_run_out(args.device):
        shape = trainer.model.model.config
        if is_auto:
            tokens = min(tokens, KEPT_ON_CPU // (shape.num_hidden_layers * shape.hidden_size))
        _use(trainer, tokens)
        trainer.data_collator.sub_batch_tokens = min(tokens, PART_ON_CPU // shape.hidden_size)
        return None
    if not is_auto:
        _use(trainer, tokens)
        return None
    tokens = _largest_that_fits(trainer, tokens)
    if args.world_size > 1:
        agreed = torch.tensor(tokens, device=args.device)
        dist.all_reduce(agreed, dist.ReduceOp.MIN)
        tokens = int(agreed)
    if not tokens:
        raise KitError(f"out of memory: a batch does not fit, even encoded text by text; {CURES}")
    _use(trainer, tokens)
    return f"Memory: sub_batch_tokens {tokens} (auto): the heaviest batches fit"


def ran_out(trainer) -> str:
    """Return what to tell when memory ran out after the trial, and note a smaller number for the next run."""
    if not trainer.fitted:
        return (
            "out of memory before the first batch: there is no room for weights and gradients; end what else takes "
            "memory there, or give --lora_rank 16"
        )
    tokens = trainer.model.sub_batch_tokens
    told = f"step {trainer.state.global_step + 1}: out of memory with sub_batch_tokens {tokens}"
    if trainer.args.sub_batch_tokens != "auto":
        return f"{told}; give --sub_batch_tokens auto, or {tokens // 2}, to go on from the last checkpoint"
    if not trainer.meter.durations:
        # The batch fits, so it is the optimizer's step that does not: smaller parts of a batch would not help.
        return f"{told}, in the first step; {CURES}"
    (Path(trainer.args.output_dir) / NOTE).write_text(f"{tokens // 2}\n", "utf-8")
    return (
        f"{told}, which fitted before training: another program may use the device. Run the same command again: it "
        f"goes on from the last checkpoint with {tokens // 2}"
    )


def _can_run_out(device: torch.device) -> bool:
    """Whether the device says so when its memory is full; a CPU's process is killed instead."""
    return device.type != "cpu"


def _memory_of(device: torch.device) -> int:
    """Bytes, free or not."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def _noted(output_dir: Path) -> int | None:
    try:
        return int((output_dir / NOTE).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _use(trainer, tokens: int) -> None:
    trainer.model.sub_batch_tokens = trainer.data_collator.sub_batch_tokens = tokens


def _largest_that_fits(trainer, tokens: int) -> int:
    """0 where none fits."""
    items = trainer.train_dataset.heaviest()
    while tokens >= FEWEST:
        _use(trainer, tokens)
        if _fits(trainer, items):
            return tokens
        # Here the error is gone, and with it the frames that held the tensors. What autograd had still to do goes with
        # the next backward of this thread.
        (torch.zeros(1, requires_grad=True) * 1).backward()
        gc.collect()
        if trainer.args.device.type == "cuda":
            torch.cuda.empty_cache()
        tokens //= 2
    return 0


def _fits(trainer, items: list) -> bool:
    """Whether the batches go forward and backward with all else that training holds."""
    try:
        reserve = _reserve(trainer)
        for item in items:
            _try(trainer, item)
        del reserve
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _reserve(trainer) -> torch.Tensor:
    """Take the memory that training will need beside the batch: Adam's moments, if not there yet, and a margin."""
    device = trainer.args.device
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    states = trainer.optimizer.state.values() if trainer.optimizer else ()
    there = sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))
    moments = 8 * trained
    if trainer.is_deepspeed_enabled:
        zero = trainer.accelerator.state.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
        if zero.get("stage", 0) > 0:  # shared out among the processes, or not on this device at all
            offloads = zero.get("offload_optimizer", {}).get("device", "none") != "none"
            moments = 0 if offloads else moments // trainer.args.world_size
    size = max(0, moments - there) + int(MARGIN * _memory_of(device))
    return torch.empty(size, dtype=torch.uint8, device=device)


def _try(trainer, item) -> None:
    """Forward and backward of a batch by this process alone; the model stays as it is."""
    model, device = trainer.model, trainer.args.device
    inputs = trainer._prepare_inputs(trainer.data_collator([item]))
    crossed, step = model.negatives_cross_device, model.step
    # Another process may have run out already, and would never answer.
    model.negatives_cross_device = False
    model.step = model.self_distill_start_step + 1
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), trainer.compute_loss_context_manager():
            loss = model(**inputs).loss
            # Not backward: hooks of DDP and DeepSpeed would send the gradients.
            torch.autograd.grad(loss, trained, allow_unused=True)
    finally:
        model.negatives_cross_device, model.step = crossed, step
        trainer.guard.take_gradients()  # they are no step's
