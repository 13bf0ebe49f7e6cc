"""Random generators of Python, NumPy and torch: their states taken, seeded and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

RngState = dict[str, object]


def get_rng_state() -> RngState:
    """The states of all global generators, CUDA's and MPS's too where they are in use."""
    state: RngState = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: RngState) -> None:
    """Put back what `get_rng_state` took."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def seeded_rng(start: int | RngState) -> Iterator[None]:
    """All generators at a seed or a state inside, and as they were outside again afterwards."""
    outside = get_rng_state()
    try:
        if isinstance(start, int):
            random.seed(start)
            np.random.seed(start % 2**32)
            # Not torch.manual_seed: it would seed devices whose state could not be put back.
            torch.default_generator.manual_seed(start)
            if "cuda" in outside:
                torch.cuda.manual_seed_all(start)
            if "mps" in outside:
                torch.mps.manual_seed(start)
        else:
            set_rng_state(start)
        yield
    finally:
        set_rng_state(outside)
