"""Random generators of Python, NumPy and torch: states taken, seeded, written and put back."""

import base64
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from nbfinetune.runtime.interrupts import act_on_interrupt, interrupts_deferred

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


def fitting_rng(state: RngState | None) -> RngState | None:
    """A state of another process without the devices that this one has not, or has more of."""
    if state is None:
        return None
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    fits = {"cuda": len(state.get("cuda", ())) == n_cuda, "mps": torch.backends.mps.is_available()}
    return {name: value for name, value in state.items() if fits.get(name, True)}


# The global generators are the process's: one thread at a time draws its own numbers from them. The
# threads that want to, in the order in which they asked; the first one does.
_asking: list[int] = []
_changed = threading.Condition()
_outside: RngState = {}  # what is to be there again when the first one ends or lets others
_LOOK = 0.05  # seconds between two looks for an interrupt while another thread draws


def _take_generators(*, again: bool = False) -> None:
    """Wait for them; `again` is not interrupted, as what is around has numbers to put back."""
    global _outside
    me = threading.get_ident()
    with _changed:
        _asking.append(me)
        try:
            while _asking[0] != me:
                _changed.wait(_LOOK)
                if not again:
                    act_on_interrupt()
        except BaseException:
            _asking.remove(me)
            raise
    _outside = get_rng_state()


def _give_generators() -> None:
    set_rng_state(_outside)
    with _changed:
        _asking.pop(0)
        _changed.notify_all()


@contextmanager
def seeded_rng(start: int | RngState) -> Iterator[None]:
    """All generators at a seed or a state inside, and as they were outside again afterwards.

    Other threads wait for theirs, until this one ends or lets them: see `let_others_draw`.
    Interrupts are deferred inside.
    """
    with interrupts_deferred():
        inner = threading.get_ident() in _asking
        if inner:
            before = get_rng_state()
        else:
            _take_generators()
        try:
            _seed(start)
            yield
        finally:
            if inner:
                set_rng_state(before)
            else:
                _give_generators()


@contextmanager
def generators_given_up() -> Iterator[None]:
    """Other threads may draw from their generators inside; afterwards this one goes on."""
    if threading.get_ident() not in _asking:
        yield
        return
    state = get_rng_state()
    _give_generators()
    try:
        yield
    finally:
        _take_generators(again=True)
        set_rng_state(state)


def let_others_draw() -> None:
    """Let other threads that wait for their generators go first; between two batches, say."""
    if len(_asking) > 1 and threading.get_ident() == _asking[0]:
        with generators_given_up():
            pass


def _seed(start: int | RngState) -> None:
    if not isinstance(start, int):
        set_rng_state(start)
        return
    random.seed(start)
    np.random.seed(start % 2**32)
    # Not torch.manual_seed: it would seed devices whose state could not be put back.
    torch.default_generator.manual_seed(start)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(start)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(start)


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
