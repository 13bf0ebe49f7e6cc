"""CPU contention: whether other work on the machine makes several slower than one.

Threads that compute together wait for the slowest. Where another program holds a core that is a
thread without one: a convolution was seen to take 4.2 to 8 times as long with two threads as with
one, beside three other programs on two cores.
"""

import time
from statistics import median

import torch

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


def contention_text(device: torch.device) -> str:
    """What to do about other work on the machine, in one line; "" where nothing is lost."""
    n = torch.get_num_threads()
    if device.type != "cpu" or n == 1:
        return ""
    slower = thread_slowdown()
    if slower < _NOTABLE:
        return ""
    return (
        f"other work on this machine makes {n} threads {slower:.1f} times slower than one: "
        "torch.set_num_threads(1) helps"
    )
