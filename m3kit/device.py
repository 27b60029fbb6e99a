"""What holds for a device whatever runs on it: how many there are, which attention is slow, what is out of memory."""

from __future__ import annotations

import contextlib
import ctypes

import torch


def too_few_devices(processes: int) -> str:
    """What is wrong where each process cannot have a CUDA device of its own; otherwise empty."""
    count = torch.cuda.device_count()
    if processes <= count:
        return ""
    cure = f"give --num_gpus {count}" if count > 1 else "use ./run_flagembedding_training_single_gpu.sh"
    return (
        f"asked for {processes} processes, and CUDA shows {count} device{'s' * (count != 1)} "
        f"(of several MIG instances it shows a process one only); {cure}"
    )


def without_cudnn_attention() -> None:
    """Leave PyTorch's own attention its flash and its memory-efficient kernels, in training and in evaluation.

    cuDNN's plans its work anew for every shape, which takes longer than the work; here nearly every batch has another.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help; libraries under PyTorch say so in words of their own."""
    from accelerate.utils.memory import should_reduce_batch_size

    if not isinstance(error, RuntimeError):
        return False
    lacking = isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
    return lacking or "STATUS_ALLOC_FAILED" in str(error)


def release_freed() -> None:
    """Give back to the system what glibc keeps of a CPU's freed memory, to have it again sooner."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
