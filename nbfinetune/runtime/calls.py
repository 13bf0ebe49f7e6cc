"""Calls: what a user called to make and to train a learner, for `Learner.to_script` to repeat."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import BoundArguments, Parameter, Signature, signature
from os import PathLike
from threading import get_ident

_MOST = 5_000  # numbers of an array that is kept
_PLAIN = (bool, int, float, str, PathLike, slice, type(None))


@dataclass(frozen=True)
class Call:
    """A call, or the setting of an attribute.

    Parameters
    ----------
    name : of the function, method, class or attribute
    arguments : as they were given, by name; of an attribute its value, under ""
    n_runs : how many runs the history had after it
    """

    name: str
    arguments: dict[str, object]
    n_runs: int = 0


@dataclass(frozen=True)
class Lost:
    """An argument of which only this is kept, as it may be large: a network, pictures.

    Parameters
    ----------
    text : what it is
    """

    text: str


def makes(function: Callable) -> Callable:
    """Let what the function makes know the call that made it, as its attribute `made_by`."""
    known = signature(function)

    @wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        made = function(*args, **kwargs)
        given = _by_name(known, known.bind(*args, **kwargs))
        given.pop("cls", None)
        made.made_by = Call(function.__name__, given)
        if hasattr(made, "calls"):
            made.calls = ()
        return made

    return call


def repeatable(method: Callable) -> Callable:
    """Let a learner know that the method was called, unless another one of its methods did it."""
    known = signature(method)

    @wraps(method)
    def call(learn: object, *args: object, **kwargs: object) -> object:
        if learn.within_call == get_ident():
            return method(learn, *args, **kwargs)
        n_runs, n_calls, ended = len(learn.recorder.runs), len(learn.calls), False
        was, learn.within_call = learn.within_call, get_ident()
        try:
            result = method(learn, *args, **kwargs)
            ended = True
            return result
        finally:
            learn.within_call = was
            if ended or len(learn.recorder.runs) > n_runs:  # else it was refused
                given = _by_name(known, known.bind(learn, *args, **kwargs))
                del given[next(iter(given))]
                set_meanwhile = learn.calls[n_calls:]  # by another thread
                learn.calls = learn.calls[:n_calls]
                _note(learn, method.__name__, given)
                learn.calls += set_meanwhile

    return call


def note_setting(learn: object, name: str, value: object) -> None:
    """An attribute of a learner was set; that does not count while it is made, or in a call."""
    if vars(learn).get("within_call", get_ident()) != get_ident():
        _note(learn, name, {"": _kept(value)})


def _note(learn: object, name: str, given: dict[str, object]) -> None:
    # A new tuple each time: what was before a fit is put back by `undo_fit`.
    learn.calls = (*learn.calls, Call(name, given, len(learn.recorder.runs)))


def _by_name(known: Signature, bound: BoundArguments) -> dict[str, object]:
    """The arguments that were given; options are among them by their own names."""
    given: dict[str, object] = {}
    for name, value in bound.arguments.items():
        if known.parameters[name].kind is Parameter.VAR_KEYWORD:
            given |= value
        else:
            given[name] = value
    return {name: _kept(value) for name, value in given.items()}


def _kept(value: object) -> object:
    """What is kept of an argument: calls live as long as the learner, screens and data need not."""
    if isinstance(made := getattr(value, "made_by", None), Call):
        return made
    if isinstance(value, list | tuple | set):
        plain = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
        return plain(_kept(each) for each in value if not _is_screen(each))
    if isinstance(value, Mapping):
        return {key: _kept(each) for key, each in value.items()}
    if isinstance(value, _PLAIN):
        return value
    kind = type(value)
    if kind.__module__.startswith("nbfinetune.training."):  # a callback
        return Call(kind.__name__, getattr(value, "options", {}))
    if (name := getattr(value, "__qualname__", "")).isidentifier():
        return value  # a function or class that can be imported
    if hasattr(value, "tolist") and not hasattr(value, "to_dict"):  # not of pandas: it has names
        shape = list(getattr(value, "shape", ()))
        few = len(shape) < 2 and math.prod(shape) <= _MOST
        return value.tolist() if few else Lost(f"an array of {shape}")
    return Lost(name or kind.__name__)


def _is_screen(value: object) -> bool:
    return type(value).__module__.startswith("nbfinetune.live.")
