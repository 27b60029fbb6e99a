"""How much memory is free on a device, and how much something took at most."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch

from m3kit.errors import KitError
from m3kit.free_memory import free_on_gpus, free_on_machine

PROCESS = Path("/proc/self")
# Of malloc.h.
M_MMAP_THRESHOLD = -3
# So much does glibc keep of what a training step has freed, measured from 1,500 to 10,000 tokens.
IN_PIECES = 2**29


def memory_of(device: torch.device, processes: int) -> GpuMemory | CpuMemory:
    """Raises ``KitError`` where it cannot be measured."""
    if device.type == "cuda":
        return GpuMemory(processes)
    if device.type == "cpu" and PROCESS.exists():
        return CpuMemory(processes)
    raise KitError(
        f"per_device_train_batch_size is auto, and the memory of this device ({device.type}) cannot be measured: only "
        "an NVIDIA GPU's and, under Linux, the CPU's; give a number"
    )


def release_freed() -> None:
    """Give back to the system what glibc keeps of a CPU's freed memory, between pieces that are still in use."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class GpuMemory:
    def __init__(self, processes: int) -> None:
        self._processes = processes

    def free(self) -> int:
        """Of the GPU that has least, for all must do alike."""
        return free_on_gpus(self._processes)

    def begin(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def taken(self) -> int:
        """Bytes, at most, since ``begin``."""
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - self._before


class CpuMemory:
    def __init__(self, processes: int) -> None:
        self._processes = processes
        # As it comes, glibc keeps what was freed in pieces, by chance more or less; with a limit it gives it back.
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)

    def free(self) -> int:
        """For each of the processes: they share it, and each needs first what this one has taken already."""
        return (free_on_machine() - (self._processes - 1) * self._status("VmRSS:")) // self._processes - IN_PIECES

    def begin(self) -> None:
        # What takes again what was freed and kept would not show.
        release_freed()
        try:
            (PROCESS / "clear_refs").write_text("5")  # the peak begins anew
        except OSError as error:
            raise KitError(
                f"per_device_train_batch_size is auto, and this machine does not let memory be measured "
                f"(/proc/self/clear_refs: {error.strerror}); give a number"
            ) from error
        self._before = self._status("VmRSS:")

    def taken(self) -> int:
        """Bytes, at most, since ``begin``."""
        return max(0, self._status("VmHWM:") - self._before)

    @staticmethod
    def _status(name: str) -> int:
        lines = (PROCESS / "status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
