"""Spread: calls of the learner that several workers do together, if they are asked to."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Protocol

from nbfinetune.arguments import as_whole_number, check_text
from nbfinetune.training.state import LearnerState


class Runner(Protocol):
    """Does a call of a learner in workers."""

    def __call__(
        self,
        learn: LearnerState,
        function: Callable,
        given: dict[str, object],
        workers: int | None,
        cluster: str | None,
    ) -> object:
        """Do it, put what it changed into the learner, and return what it gives.

        Parameters
        ----------
        function : what is called, known by its module and its name there; it takes a learner
        given : its other arguments, by name
        workers : how many; None = as many as the cluster has
        cluster : an ipyparallel profile; None = processes of this machine
        """


runner: Runner | None = None  # put in from outside: this knows no cluster


def spread(method: Callable) -> Callable:
    """Makes a function one that workers do, where it is given `workers` or `cluster`; see `fit`."""
    known = signature(method)

    @wraps(method)
    def call(
        learn: LearnerState,
        *args,
        workers: int | None = None,
        cluster: str | None = None,
        **kwargs,
    ) -> object:
        if learn.world is not None or workers is cluster is None:
            return method(learn, *args, **kwargs)
        if workers is not None:
            workers = as_whole_number("workers", workers, 1)
        if cluster is not None:
            check_text(cluster=cluster)
        given = dict(known.bind(learn, *args, **kwargs).arguments)
        given.pop(next(iter(known.parameters)))
        return runner(learn, method, given, workers, cluster)

    return call
