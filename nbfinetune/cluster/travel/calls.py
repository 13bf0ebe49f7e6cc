"""Calls: a learner, and the call of one of its methods, from a notebook to an engine.

Data, screens and features stay where they are: they go by name, so that what comes back refers to
the notebook's own objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from nbfinetune.cluster.data import kept
from nbfinetune.cluster.travel.by_name import (
    OF_PROCESS,
    OPTIMIZER,
    REDUCERS,
    digest,
    history_of,
    optimizer_digest,
    parts_of,
    put_streams,
    streams_of,
)
from nbfinetune.cluster.travel.pickles import Reader, as_bytes, check_pickles
from nbfinetune.cluster.travel.refusals import refusal
from nbfinetune.data.datasets import ImageDataset
from nbfinetune.runtime.rng import fitting_rng
from nbfinetune.training.batches.part_sizes import PartSizes
from nbfinetune.training.control import RunControl
from nbfinetune.training.resuming.run_state import named_tensors, optimizer_tree, put_optimizer
from nbfinetune.training.state import Callback, LearnerState


@dataclass(frozen=True)
class Parcel:
    """A call that is to travel.

    Attributes
    ----------
    content : what each engine gets, for `unpack`
    data : loaders and data sets that it needs, by name: see `giving.give_all`
    home : the notebook's objects that results may refer to, by name
    """

    content: bytes
    data: dict[str, object]
    home: dict[str, object] = field(repr=False)


@dataclass
class Arrived:
    """A call in an engine: `getattr(learn, method)(**arguments)`.

    Attributes
    ----------
    named : objects that go by name
    digests : of the weights as they came, and of the optimizer
    n_runs : stages in the history that came
    """

    learn: LearnerState
    method: str
    arguments: dict[str, object]
    named: dict[str, object] = field(repr=False)
    digests: dict[str, bytes] = field(repr=False)
    n_runs: int


def pack_call(learn: LearnerState, method: str, arguments: Mapping[str, object]) -> Parcel:
    """A call of a learner's method, to be done elsewhere. The learner is not changed.

    Callbacks of the screen (`runs_on` is "console") stay here.

    Raises
    ------
    ValueError
        For the first part that cannot be pickled: which it is, why, and what to do.
    """
    given = {name: _that_travel(value) for name, value in arguments.items()}
    data = {} if learn.dls is None else {"dls": learn.dls}
    stays = {"learn": learn} | parts_of(learn.dls)
    further: dict[str, object] = {}

    def names_data(value: object) -> str | None:
        """Data sets that are in no loaders of the learner go by name too."""
        if type(value) is not ImageDataset:
            return None
        known = next((name for name, one in further.items() if one is value), None)
        name = known or f"data.{len(further)}"
        further[name] = value
        return name

    def pickled(*parts: object) -> bytes:
        return as_bytes(parts, stays, reducers=REDUCERS, stays=names_data)

    with learn.control.held():
        moves = _callbacks_of(learn, given) | history_of(learn)
        sent = {
            "state": _state_of(learn),
            "features": (learn.features.wanted, learn.features.seed),
            "scaler": learn.scaler.state_dict(),
            "streams": streams_of(learn),
            "moves": moves,
            "method": method,
            "arguments": given,
        }
        try:
            content = pickled(type(learn), sent)
            check_pickles(learn.dls, {}, {ImageDataset: _nothing})  # before anything starts
        except Exception as error:
            raise refusal(learn, given, lambda part: _why_not(part, learn), error) from error
    return Parcel(content, data | further, stays | further | moves)


def _why_not(part: object, learn: LearnerState) -> Exception | None:
    """What goes wrong with an object alone."""
    try:
        check_pickles(part, {"learn": learn}, REDUCERS | {ImageDataset: _nothing})
    except Exception as error:
        return error
    return None


def _nothing(value: object) -> tuple:
    return type(None), ()


def _that_travel(value: object) -> object:
    """An argument without the callbacks that stay."""
    if isinstance(value, list | tuple) and any(isinstance(one, Callback) for one in value):
        return [one for one in value if not _stays(one)]
    return [] if _stays(value) else value


def _stays(value: object) -> bool:
    console = getattr(value, "runs_on", "first") == "console"
    return isinstance(value, Callback) and console


def _callbacks_of(learn: LearnerState, given: Mapping[str, object]) -> dict[str, object]:
    listed = [*learn.cbs]
    for value in given.values():
        listed += value if isinstance(value, list | tuple) else [value]
    found = {id(cb): cb for cb in listed if isinstance(cb, Callback) and not _stays(cb)}
    return {f"cb.{i}": cb for i, cb in enumerate(found.values())}


def _state_of(learn: LearnerState) -> dict[str, object]:
    own = {k: v for k, v in learn.__getstate__().items() if k not in (*OF_PROCESS, "scaler")}
    return own | {"_cbs": [cb for cb in learn.cbs if not _stays(cb)]}


def unpack(content: bytes, keys: Mapping[str, str], *, device: torch.device | str) -> Arrived:
    """The call that `pack_call` gave, in an engine.

    Parameters
    ----------
    keys : of its data, as `giving.give_all` gave them
    device : of the engine

    Raises
    ------
    ValueError
        If the data is not here, or a module that something of it is from.
    """
    device = torch.device(device)
    named = {name: kept.data_of(key) for name, key in keys.items()}
    named |= parts_of(named.get("dls"))
    reader = Reader(content, named, device=device)
    kind = reader.read()
    learn = named["learn"] = object.__new__(kind)
    sent = reader.read()
    vars(learn).update(sent["state"], **dict.fromkeys(OF_PROCESS))
    vars(learn).update(run_cbs=(), calls=(), control=RunControl(), memory=PartSizes())
    learn.device = device
    learn.features = kept.features_of(keys.get("dls"), *sent["features"])
    learn._rng = fitting_rng(learn._rng)
    named |= sent["moves"]
    digests = {name: digest(tensor) for name, tensor in named_tensors(learn).items()}
    _to_device(learn, sent["scaler"])
    digests[OPTIMIZER] = optimizer_digest(learn)
    put_streams(learn, sent["streams"])
    n_runs = len(learn.recorder.runs)
    return Arrived(learn, sent["method"], sent["arguments"], named, digests, n_runs)


def _to_device(learn: LearnerState, scaler: dict) -> None:
    """Network, loss and the optimizer's states to the learner's device, in their layouts."""
    learn.scaler = learn.new_scaler()
    if scaler:
        learn.scaler.load_state_dict(scaler)
    states = optimizer_tree(learn)
    for module in (learn.model, learn.loss_func, *learn.metrics):
        if isinstance(module, nn.Module):
            module.to(learn.device)
    put_optimizer(learn, states)
