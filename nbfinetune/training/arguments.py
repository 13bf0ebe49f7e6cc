"""Arguments of fits: rates as they are given, and what is refused before anything is changed."""

from math import inf
from numbers import Integral

from nbfinetune.networks.layer_groups import LearningRate, lr_per_group
from nbfinetune.training.state import LearnerState


def rates(learn: LearnerState, lr: LearningRate | None, what: str) -> list[float]:
    """One rate for each layer group; `learn.lr` where none is given."""
    return lr_per_group(learn.lr if lr is None else lr, len(learn.groups), what=what)


def ends(base_lr: float | slice, lr_mult: float) -> tuple[float, float]:
    """The rates of the first group and of the head."""
    if isinstance(base_lr, slice) and base_lr.start is not None:
        return base_lr.start, base_lr.stop
    high = base_lr.stop if isinstance(base_lr, slice) else base_lr
    [high] = lr_per_group(high, 1, what="base_lr")
    if not lr_mult > 0:
        raise ValueError(f"lr_mult is {lr_mult}; it must be above 0, such as 100")
    return high / lr_mult, high


def check_epochs(what: str, n: int, least: int) -> None:
    if not isinstance(n, Integral) or n < least:
        raise ValueError(f"{what} is {n!r}; it must be a whole number from {least} up")


def check_cycle(div: float, div_final: float, pct_start: float) -> None:
    for what, value in (("div", div), ("div_final", div_final)):
        if not value > 0:
            raise ValueError(f"{what} is {value}; it must be above 0")
    if not 0 <= pct_start <= 1:
        raise ValueError(f"pct_start is {pct_start}; it must lie in [0, 1]")


def check_data(learn: LearnerState) -> None:
    if learn.dls is None:
        raise ValueError("this learner has no data to train on; give load_learner dls=")


def check_wd(wd: float | None) -> None:
    if wd is not None and not 0 <= wd < inf:
        raise ValueError(f"wd is {wd}; weight decay is a number from 0 up, such as 0.01")
