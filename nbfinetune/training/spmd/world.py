"""World: the processes that train one network together, and what they tell each other.

Each runs the same calls; what follows from the same numbers is not sent. Gradients, losses and
predictions are exchanged by `torch.distributed`: gloo on CPUs, NCCL on GPUs. Gradients are summed
when a step has all of them, not in the backward pass as by torch's DDP: it may run in parts, over
the head alone, and layers freeze from one epoch to the next.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.transforms import Part
from nbfinetune.training.batches.part_sizes import sizes
from nbfinetune.training.control import RunControl
from nbfinetune.training.spmd.shares import Share, in_order, picture_shares, share_of

T = TypeVar("T")
ASKED = ("paused", "stopping", "scale", "finish_in")  # of a run's control
_TIMEOUT = 600.0  # s that one waits for the others; who hangs is found sooner, from outside


class World:
    """The place of this process among those that train together; it is `learn.world`.

    Attributes
    ----------
    rank, size : its number, from 0, and how many there are
    at : its share of the batch that is on
    drawn_in : pictures for which augmentation draws random numbers at once, as one process would;
        None = a whole batch
    wanted : on the first, what is asked of the run from outside: paused, stopping, scale, finish_in
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.at = share_of(1, 0, 1)
        self.drawn_in: int | None = None
        self.wanted: dict[str, Any] = {}

    def __reduce__(self) -> tuple:
        return _nowhere, ()

    @classmethod
    def join(
        cls,
        rank: int,
        size: int,
        address: tuple[str, int],
        *,
        device: str | torch.device = "cpu",
        timeout: float = _TIMEOUT,
    ) -> "World":
        """Meet the others; returns when all are there.

        Parameters
        ----------
        address : host and port at which the first one listens
        device : of the network
        timeout : seconds that one waits for the others
        """
        device = torch.device(device)
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address[0]}:{address[1]}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
        )
        return cls(rank, size)

    def leave(self) -> None:
        """Part from the others: whoever waits for this one gets an error."""
        with suppress(Exception):  # of those that are gone
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether it is the one whose callbacks and history count."""
        return self.rank == 0

    def share(self, n: int) -> Share:
        """Its share of a batch of n, from now on the one that is on."""
        self.at = share_of(n, self.rank, self.size)
        return self.at

    def shares(self, loader: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
        """Its share of each batch of a loader, which becomes the one that is on."""
        if gives_pictures(loader):
            for share, batch in picture_shares(loader, self.rank, self.size):
                self.at = share
                yield batch
            return
        for x, y in loader:
            self.same(_sum_of(y), "the batches of this loader")
            places = self.share(len(y)).places
            yield x[places], y[places]

    def part(self) -> Part:
        """Its share of the batch that is on, as augmentation takes it."""
        pieces = sizes(self.at.n, self.drawn_in)
        return Part([piece.stop - piece.start for piece in pieces], self.at.places)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Put in the place of each tensor the sum over all processes.

        Tensors of one type and device go as one.
        """
        for alike in _alike(tensors):
            flat = torch.cat([t.reshape(-1) for t in alike])
            dist.all_reduce(flat)
            parts = flat.split([t.numel() for t in alike])
            torch._foreach_copy_(
                list(alike), [p.view(t.shape) for p, t in zip(parts, alike, strict=True)]
            )

    def sum_gradients(self, model: nn.Module, counted: float | Tensor) -> Tensor:
        """Add up the gradients of all, and what was counted for them; returns the sum of that."""
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        total = torch.as_tensor(counted, dtype=torch.float32, device=grads[0].device).reshape(1)
        self.sum([*grads, total])
        return total[0]

    def mean(self, value: Tensor, weight: Tensor | float) -> Tensor:
        """The mean over all, each by its weight; what weighs nothing does not count."""
        weight = torch.as_tensor(weight, dtype=torch.float32, device=value.device)
        both = torch.stack([torch.where(weight > 0, value.float() * weight, 0.0), weight])
        dist.all_reduce(both)
        return both[0] / both[1]

    def total(self, value: Tensor) -> Tensor:
        """The sum over all."""
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def gather(self, *rows: Tensor) -> list[Tensor]:
        """Of all processes what they have of the batch that is on, in its order.

        Parameters
        ----------
        rows : tensors [k, ...] of the k pictures of the share that is on

        Returns
        -------
        tensors [n, ...] of the batch, the same in all processes
        """
        most = -(-self.at.n // self.size)
        places = self.at.places if self.at.counts else self.at.places[:0]
        mine = torch.full((most,), -1, dtype=torch.int64)
        mine[: len(places)] = places
        where = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(where, mine)
        kept = [each[each >= 0] for each in where]
        found = []
        for part in rows:
            padded = part.new_zeros((most, *part.shape[1:]))
            padded[: len(places)] = part[: len(places)]
            parts = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(parts, padded)
            parts = [rows[: len(own)] for rows, own in zip(parts, kept, strict=True)]
            found.append(in_order(parts, kept))
        return found

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, which alone calls it; all have its errors.

        It goes as a pickle, between processes of the same user.
        """
        held: list[object] = [None, None]
        if self.first:
            try:
                held[0] = make()
            except Exception as error:
                held[1] = error if _travels(error) else RuntimeError(str(error))
        dist.broadcast_object_list(held, src=0)
        if held[1] is not None:
            raise held[1]
        return held[0]

    def put_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values that the first one has in these tensors."""
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            dist.broadcast(sent, src=0)
            if not self.first:
                with torch.no_grad():
                    tensor.copy_(sent)

    def agree(self, control: RunControl) -> None:
        """All take the requests that the first one has by now, to act on them at the same step."""
        asked = torch.zeros(len(ASKED), dtype=torch.float64)
        if self.first:
            while self.wanted:  # another thread may add some meanwhile
                setattr(control, *self.wanted.popitem())
            values = [getattr(control, name) for name in ASKED]
            asked = torch.tensor([-1.0 if v is None else float(v) for v in values]).double()
        dist.broadcast(asked, src=0)
        if not self.first:
            paused, stopping, scale, finish_in = asked.tolist()
            control.paused, control.stopping, control.scale = paused > 0, stopping > 0, scale
            control.finish_in = None if finish_in < 0 else int(finish_in)

    def while_paused(self, control: RunControl) -> None:
        """Look for requests while all of them wait; it is the `poll` of their control."""
        if control.paused:
            self.agree(control)

    def least(self, values: Sequence[float]) -> list[float]:
        """The smallest of all processes at each place."""
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return found.tolist()

    def all(self, holds: bool) -> bool:
        """Whether it holds in all of them."""
        return self.least([holds]) == [1.0]

    def same(self, value: float, what: str) -> None:
        """Raise RuntimeError unless all have the same value; `what` says of what it is."""
        least, minus_most = self.least([value, -value])
        if least != -minus_most:
            raise RuntimeError(f"{what} are not the same in all workers")


def _nowhere() -> None:
    """What a copy has in its place."""


def _sum_of(y: Tensor) -> float:
    """A number that is hardly the same for other targets, or others in number."""
    weights = torch.arange(1, len(y) + 1, dtype=torch.float64, device=y.device)
    return len(y) + (y.reshape(len(y), -1).double().sum(1) @ weights).item()


def _alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple, list[Tensor]] = {}
    for t in tensors:
        groups.setdefault((t.dtype, t.device), []).append(t)
    return list(groups.values())


def _travels(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
