"""Arguments of searches: what is refused before anything is touched, and what a search costs."""

import math

from nbfinetune.lr_finder.suggestions import NAMES
from nbfinetune.lr_finder.sweeps import trial_steps
from nbfinetune.lr_finder.trials import MOST_RUNS
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted
from nbfinetune.training.arguments import check_trains
from nbfinetune.training.state import LearnerState

_LEAST_IT = 6  # fastai's


def search_cost(learn: LearnerState, given: dict) -> tuple[int, str]:
    """Training steps that a search takes at most, and what they are for; "" for a plain one.

    Parameters
    ----------
    given : the arguments of `lr_find` by name
    """
    num_it, verify, steps = given["num_it"], given["verify"], trial_steps(learn)
    sweeps = given["seeds"] * (len(learn.groups) if given["groups"] else 1)
    swept = f"{counted(sweeps, 'sweep')} of {num_it} steps" if sweeps > 1 else ""
    if verify:
        runs = f"{verify} short runs of {steps} steps, each with a validation"
        text = f"{swept or f'a sweep of {num_it} steps'}, then {runs}"
        return sweeps * num_it + verify * steps, text
    if verify == 0 or given["groups"]:
        return sweeps * num_it, swept
    runs = f", then up to {MOST_RUNS} short runs of {steps} where the loss gives no sure rate"
    return sweeps * num_it + MOST_RUNS * steps, swept and swept + runs


def asked_for(*given: object) -> tuple[str, ...]:
    """The names of the suggestions asked for; empty if none were.

    Raises
    ------
    ValueError
        For a suggestion that there is not.
    """
    asked: list[str] = []
    for names in given:
        if names is None:
            continue
        alone = isinstance(names, str) or not isinstance(names, (list, tuple))
        listed = [names] if alone else names
        if not listed:
            raise ValueError(f"suggest names none of {', '.join(NAMES)}")
        for name in listed:
            name = getattr(name, "__name__", name) if callable(name) else name
            if not isinstance(name, str) or name not in NAMES:
                raise ValueError(f"no suggestion {shown(name)}; there are {', '.join(NAMES)}")
            asked.append(name)
    return tuple(asked)


def check_search(learn: LearnerState, given: dict) -> None:
    """Raise ValueError for arguments of `lr_find`, by name, that it refuses."""
    asked_for(given["suggest"], given["suggest_funcs"])
    check_range(learn, given["start_lr"], given["end_lr"], given["num_it"])
    check_repeats(learn, given["seeds"], given["groups"], given["verify"])


def check_range(learn: LearnerState, start_lr: float, end_lr: float, num_it: int) -> None:
    if not 0 < start_lr < end_lr < math.inf:
        raise ValueError(f"start_lr {start_lr} must be positive and below end_lr {end_lr}")
    if not isinstance(num_it, int) or num_it < _LEAST_IT:
        raise ValueError(
            f"num_it is {shown(num_it)}; it must be a whole number from {_LEAST_IT} up"
        )
    if learn.dls is None or not len(learn.dls.train):
        raise ValueError("this learner has no data to train on")
    check_trains(learn)


def check_repeats(learn: LearnerState, seeds: int, groups: bool, verify: int | None) -> None:
    if not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds is {shown(seeds)}; it must be a whole number of sweeps from 1 up")
    if verify is not None and (not isinstance(verify, int) or verify < 0 or verify == 1):
        raise ValueError(
            f"verify is {shown(verify)}; it must be 0, or a number of rates from 2 up, or None: "
            "short runs where the loss gives no sure rate"
        )
    if groups and (learn.frozen or len(learn.groups) == 1):
        raise ValueError(
            f"groups=True needs several layer groups, all of which train, but {learn.frozen} of "
            f"{len(learn.groups)} are frozen; call learn.unfreeze(), or leave groups out"
        )
    if groups and verify:
        raise ValueError("verify tries one rate for all layer groups; leave verify or groups out")
