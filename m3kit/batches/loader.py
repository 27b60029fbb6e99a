"""The batches of one epoch after another, in the order of their numbers, for torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader


class EpochSampler:
    """A batch sampler for torch's DataLoader: the numbers of an epoch's items, one by one."""

    def __init__(self, batches: int) -> None:
        self.batches, self.epoch = batches, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.batches
        return ([number] for number in range(first, first + self.batches))


class EpochLoader(DataLoader):
    """Tells the sampler which epoch it is; accelerate's loader would also deal the batches out over the processes."""

    batch_sampler: EpochSampler

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
