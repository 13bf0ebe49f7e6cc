"""Streams: where the random numbers of a run are, those of the process and of the loaders."""

import torch

from nbfinetune.runtime.rng import RngState, get_rng_state, set_rng_state
from nbfinetune.training.state import LearnerState

Streams = tuple[RngState, list[torch.Tensor]]


def loaders(learn: LearnerState) -> list:
    """The loaders whose worker processes may live on from epoch to epoch."""
    both = (learn.dls.train, learn.dls.valid)
    return [loader for loader in both if hasattr(loader, "_iterator")]


def generators(learn: LearnerState) -> list[torch.Generator]:
    """The loaders' own."""
    owners = [o for loader in loaders(learn) for o in (loader, loader.sampler)]
    return [g for o in owners if (g := getattr(o, "generator", None)) is not None]


def streams_of(learn: LearnerState) -> Streams:
    """Where all of them are now."""
    return get_rng_state(), [generator.get_state() for generator in generators(learn)]


def same_streams(learn: LearnerState) -> None:
    """Go on from where the first of several processes is."""
    put_streams(learn, learn.world.of_first(lambda: streams_of(learn)))


def put_streams(learn: LearnerState, streams: Streams) -> None:
    """Go on from there."""
    state, of_loaders = streams
    set_rng_state(state)
    for generator, own in zip(generators(learn), of_loaders, strict=True):
        generator.set_state(own)
