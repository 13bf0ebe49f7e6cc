"""Random generators of Python, NumPy and torch: states taken, seeded, written and put back."""

import base64
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


def rng_as_json(state: RngState) -> dict[str, object]:
    """A state as plain values that JSON takes."""
    version, words, gauss = state["python"]
    kind, numbers, *rest = state["numpy"]
    written: dict[str, object] = {
        "python": [version, _text(np.array(words, dtype="<u4")), gauss],
        "numpy": [kind, _text(numbers.astype("<u4")), *rest],
        "torch": _text(state["torch"].numpy()),
    }
    if "cuda" in state:
        written["cuda"] = [_text(one.numpy()) for one in state["cuda"]]
    if "mps" in state:
        written["mps"] = _text(state["mps"].numpy())
    return written


def rng_from_json(written: dict[str, object]) -> RngState:
    """What `rng_as_json` wrote; states of devices that are not in use are left out.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        version, words, gauss = written["python"]
        kind, numbers, *rest = written["numpy"]
        state: RngState = {
            "python": (version, tuple(_numbers(words, "<u4").tolist()), gauss),
            "numpy": (kind, _numbers(numbers, "<u4").astype(np.uint32), *rest),
            "torch": torch.from_numpy(_numbers(written["torch"], "u1")),
        }
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(state["numpy"])
        torch.Generator().set_state(state["torch"])
        now = get_rng_state()
        if len(written.get("cuda", ())) == len(now.get("cuda", ())) > 0:
            state["cuda"] = [torch.from_numpy(_numbers(one, "u1")) for one in written["cuda"]]
        if "mps" in written and "mps" in now:
            state["mps"] = torch.from_numpy(_numbers(written["mps"], "u1"))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"there is no state of random numbers ({error})") from None
    return state


def _text(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=kind).copy()
