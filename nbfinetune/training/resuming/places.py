"""Places: where in its first epoch a run goes on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a run goes on that was ended within an epoch.

    Parameters
    ----------
    batch : training batches that were done
    over : whether no other training batch comes in this epoch
    trained : whether `after_train` is over too, and validation comes next
    put_streams : lets the random numbers go on from where they were
    """

    batch: int
    over: bool
    trained: bool
    put_streams: Callable[[], None]

    def left(self, batches: Iterator) -> Iterator:
        """Those of the epoch's batches that were not done.

        The others are drawn again, from the random numbers at the begin of the epoch.
        """
        if not self.over:
            for _ in range(self.batch):
                next(batches)
        self.put_streams()
        return iter(()) if self.over else batches
