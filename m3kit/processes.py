"""The group of the processes that torchrun starts: one of its threads that outlives the interpreter may abort it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def before_group() -> None:
    """Call where a group of several processes is about to be made.

    Other libraries import DeepSpeed sooner or later. The group that is there by then becomes the default of arguments
    (of ``deepspeed.comm.torch``), and so would stay to the end.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with contextlib.redirect_stdout(sys.stderr):  # what it says is no result
            import deepspeed  # noqa: F401


def leave_group() -> None:
    """End the threads that talk to other processes. Nothing of the group may be in use any more."""
    torch, deepspeed = sys.modules.get("torch"), sys.modules.get("deepspeed")
    if not torch or not torch.distributed.is_initialized():
        return
    gc.collect()  # the model, which holds on to them
    if deepspeed and deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()  # torch's, and what DeepSpeed made of it
    else:
        torch.distributed.destroy_process_group()
    gc.collect()  # what only the group still held
