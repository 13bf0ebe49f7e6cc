"""Part sizes: how many pictures fit into memory at once, and pieces of that size."""

from dataclasses import dataclass


@dataclass
class PartSizes:
    """What a run found out about memory.

    Attributes
    ----------
    training, passes : pictures of a training step, and where no gradients are needed; None = any
    at : in a pass, where in its batch the part begins that is on
    """

    training: int | None = None
    passes: int | None = None
    at: int = 0


def sizes(n: int, size: int | None, least: int = 1) -> list[slice]:
    """n items in pieces of even size, of `size` at most, but not below `least`; None = one."""
    k = 1 if size is None else max(min(-(-n // size), n // least), 1)
    return [slice(i * n // k, (i + 1) * n // k) for i in range(k)]
