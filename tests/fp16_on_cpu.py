"""fp16 with autocast and a scaled loss on the CPU, where libraries refuse it: as on one GPU."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedType

from m3kit.training import arguments


def allow(scale: str) -> None:
    """For this process; ``scale``: of the loss, to begin with, or "deepspeed", whose configuration has its own."""
    if scale == "deepspeed":
        # DeepSpeed trains in fp16 only on a CPU with instructions for it (AVX-512); PyTorch computes it without them.
        from deepspeed.accelerator import get_accelerator

        type(get_accelerator()).is_fp16_supported = lambda _: True
    begin = Accelerator.__init__

    def init(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        if self.state.mixed_precision == "fp16" and self.distributed_type is not DistributedType.DEEPSPEED:
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=float(scale))

    Accelerator.__init__ = init
    arguments.settle_precision = lambda *_: ("fp16", "Precision: fp16 on the CPU, for a test")
