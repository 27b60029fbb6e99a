"""How much memory a device has left, the limits of containers included."""

from __future__ import annotations

from pathlib import Path


def free_on_gpus(count: int) -> int:
    """Bytes, of whichever of the first ``count`` GPUs has least."""
    import torch

    return min(torch.cuda.mem_get_info(number)[0] for number in range(min(count, torch.cuda.device_count())))


def free_on_machine(root: Path = Path("/")) -> int:
    """Bytes that processes may still take, of this machine or of the container that this one is in."""
    return min(_of_machine(root / "proc/meminfo"), *_of_containers(root))


def _of_machine(meminfo: Path) -> int:
    (line,) = (line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) << 10


def _of_containers(root: Path) -> list[int]:
    """What is left of the limit of each control group that this process is in, of version 2 or 1."""
    group = root / "sys/fs/cgroup"
    left = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, taken, cache = group, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top = group / "memory"
            limit, taken, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # A container may see its own group at the top, under the name that it has outside.
        inner = top / path.lstrip("/")
        for folder in {top, *(inner, *inner.parents)}:
            if not folder.is_relative_to(top):
                continue
            most, now = _read(folder / limit), _read(folder / taken)
            if most.strip().isdigit() and now:
                left.append(max(0, int(most) - int(now) + _cached(folder / "memory.stat", cache)))
    return left or [1 << 62]


def _cached(stat: Path, name: str) -> int:
    """Bytes of files kept in memory, which make room where it is wanted."""
    numbers = dict(line.split() for line in _read(stat).splitlines())
    return int(numbers.get(name, 0))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
