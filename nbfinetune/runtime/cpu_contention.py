"""CPU contention: whether other work on the machine makes several slower than one.

Threads that compute together wait for the slowest. Where another program holds a core that is a
thread without one: a convolution was seen to take 4.2 to 8 times as long with two threads as with
one, beside three other programs on two cores.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch

from nbfinetune.runtime import openmp

_ROUNDS = 3
_NOTABLE = 1.5  # times slower; without other work several threads are faster than one


def thread_slowdown() -> float:
    """Time of a convolution with all threads over that with one; takes some 50 ms."""
    n = torch.get_num_threads()
    x, weight = torch.ones(4, 32, 56, 56), torch.ones(32, 32, 3, 3)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        torch.conv2d(x, weight)  # threads that slept wake up
        started = time.perf_counter()
        torch.conv2d(x, weight)
        return time.perf_counter() - started

    try:
        rounds = [(seconds(n), seconds(1)) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(n)
    return median(several for several, _ in rounds) / median(one for _, one in rounds)


@contextmanager
def one_thread_if_busy(device: torch.device) -> Iterator[str]:
    """Computes with one thread inside, where other work makes several slower than one.

    Only where torch came before `openmp.spin_briefly` could act, and the user has not said how
    threads compute. Gives what to tell of it, in one line; "" where nothing changed.
    """
    n = torch.get_num_threads()
    slower = None if openmp.is_set() else _notable_slowdown(device)
    if slower is None:
        yield ""
        return
    torch.set_num_threads(1)
    try:
        yield (
            f"other work on this machine makes {n} threads {slower:.1f} times slower than one: "
            "this run takes one; import nbfinetune before torch, and more do not slow each other"
        )
    finally:
        torch.set_num_threads(n)


def contention_text(device: torch.device) -> str:
    """What to do about other work on the machine, in one line; "" where nothing is lost."""
    slower = _notable_slowdown(device)
    if slower is None:
        return ""
    return (
        f"other work on this machine makes {torch.get_num_threads()} threads {slower:.1f} times "
        "slower than one: torch.set_num_threads(1) helps"
    )


def _notable_slowdown(device: torch.device) -> float | None:
    """`thread_slowdown` where something is lost by several threads."""
    if device.type != "cpu" or torch.get_num_threads() == 1:
        return None
    slower = thread_slowdown()
    return slower if slower >= _NOTABLE else None
