"""Shares: which pictures of a batch are those of one of several processes."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nbfinetune.data.datasets import with_batches
from nbfinetune.data.lost_files import those_there


@dataclass(frozen=True)
class Share:
    """Of a batch of n pictures, the places in it of those that one process has.

    Parameters
    ----------
    n : pictures of the batch
    places : of the share, int64 [k]
    counts : False where there are fewer pictures than processes: this one then has the first
        picture too, as it has to take part, and nothing of it counts
    """

    n: int
    places: Tensor
    counts: bool = True


def share_of(n: int, rank: int, size: int) -> Share:
    """Every `size`-th picture, from number `rank` on."""
    if rank < n:
        return Share(n, torch.arange(rank, n, size))
    return Share(n, torch.zeros(1, dtype=torch.int64), counts=False)


class _SharedBatches(Sampler[list[int]]):
    """Of each batch of a sampler the numbers of the share; `planned` tells which these are."""

    def __init__(self, batches: Sampler, rank: int, size: int) -> None:
        self._batches, self._of = batches, (rank, size)
        self.planned: deque[tuple[Share, list[int]]] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for numbers in self._batches:
            share = share_of(len(numbers), *self._of)
            mine = [numbers[i] for i in share.places.tolist()]
            self.planned.append((share, mine))
            yield mine


def picture_shares(
    loader: DataLoader, rank: int, size: int
) -> Iterator[tuple[Share, tuple[Tensor, Tensor]]]:
    """Of each batch of a loader that gives pictures the share, the only part that is decoded."""
    batches = _SharedBatches(loader.batch_sampler, rank, size)
    for x, y in with_batches(loader, batches):
        share, numbers = batches.planned.popleft()
        if len(y) < len(numbers):  # files were lost
            there = set(those_there(loader.dataset, torch.tensor(numbers)).tolist())
            kept = [i for i, number in enumerate(numbers) if number in there]
            share = Share(share.n, share.places[kept], share.counts)
        yield share, (x, y)


def in_order(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Rows of several shares, in the order of their places in the batch."""
    order = torch.cat(list(places)).argsort()
    rows = torch.cat(list(parts))
    return rows[order.to(rows.device)]
