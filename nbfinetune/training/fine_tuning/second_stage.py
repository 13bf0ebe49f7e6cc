"""Second stage: what the recipe of `fine_tune` found for it, to be kept with a learner."""

from dataclasses import dataclass
from math import inf

from nbfinetune.arguments import is_number


@dataclass(frozen=True)
class SecondStage:
    """How all layers train after the head.

    Parameters
    ----------
    rate : of the body
    scale : of the head's weights before
    why : in words
    """

    rate: float
    scale: float
    why: str


def read_second_stage(written: object) -> SecondStage:
    """What was written of one, as a dict.

    Raises
    ------
    ValueError
        If it is none.
    """
    if isinstance(written, dict) and set(written) == {"rate", "scale", "why"}:
        numbers = written["rate"], written["scale"]
        if all(is_number(n) and 0 < n < inf for n in numbers) and isinstance(written["why"], str):
            return SecondStage(**written)
    raise ValueError("the second stage of fine_tune has no rate, scale and reason")
