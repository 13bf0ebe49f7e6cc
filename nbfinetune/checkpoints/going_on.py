"""Going on: what a file says of a run that goes on from it, beside weights and optimizer."""

from dataclasses import asdict

from nbfinetune.runtime.rng import rng_as_json, rng_from_json
from nbfinetune.training.fine_tuning.second_stage import read_second_stage
from nbfinetune.training.state import LearnerState


def going_on_header(learn: LearnerState) -> dict[str, object]:
    """The learner's random numbers, once it has drawn some, and what its second stage was told."""
    header: dict[str, object] = {}
    if learn._rng is not None:
        header["rng"] = rng_as_json(learn._rng)
    if learn.second_stage is not None:
        header["second_stage"] = asdict(learn.second_stage)
    return header


def read_going_on(header: dict, name: str) -> dict[str, object]:
    """The same as attributes of a learner; those that a file does not have are left as they are.

    Raises
    ------
    ValueError
        If they are damaged; the message names the file.
    """
    found: dict[str, object] = {}
    try:
        if "rng" in header:
            found["_rng"] = rng_from_json(header["rng"])
        if "second_stage" in header:
            found["second_stage"] = read_second_stage(header["second_stage"])
    except ValueError as error:
        raise ValueError(f"{name} does not fit: in its header {error}") from None
    return found
