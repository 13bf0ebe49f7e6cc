"""Results: what came of a call, from an engine back to the notebook's own objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nbfinetune.cluster.runs.emitting import OF_LEARNER
from nbfinetune.cluster.travel.by_name import (
    NOT_BACK,
    OF_PROCESS,
    OPTIMIZER,
    REDUCERS,
    digest,
    optimizer_digest,
    parts_of,
    put_streams,
    streams_of,
)
from nbfinetune.cluster.travel.calls import Arrived, Parcel
from nbfinetune.cluster.travel.pickles import Reader, as_bytes, check_pickles
from nbfinetune.history.runs import Run
from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.runtime.rng import fitting_rng
from nbfinetune.training.resuming.run_state import (
    named_tensors,
    optimizer_tree,
    put_optimizer,
    settings_tree,
)
from nbfinetune.training.state import Callback, LearnerState


def pack_result(arrived: Arrived, value: object = None, *, everything: bool = False) -> bytes:
    """What a call gave, and all that it changed of the learner, for `unpack_result`.

    Attributes of callbacks and of the learner that cannot be pickled are left out, which is told.

    Parameters
    ----------
    everything : whether what did not change goes too: for a learner that did not send the call

    Raises
    ------
    ValueError
        If what it gave cannot be pickled.
    """
    learn, left = arrived.learn, []
    runs, first = learn.recorder.runs, 0 if everything else arrived.n_runs
    known = {n: one for n, one in arrived.named.items() if not (everything and ".row." in n)}
    known |= {f"run.{i}": run for i, run in enumerate(runs)}
    own = {n: one for n, one in vars(learn).items() if n not in OF_PROCESS | NOT_BACK}
    callbacks = {n: one for n, one in arrived.named.items() if isinstance(one, Callback)}
    trained = everything or arrived.digests[OPTIMIZER] != optimizer_digest(learn)
    sent = {
        "tensors": {
            name: tensor.detach()
            for name, tensor in named_tensors(learn).items()
            if everything or arrived.digests.get(name) != digest(tensor)
        },
        "optimizer": optimizer_tree(learn) if trained else None,
        "trains": [name for name, p in learn.model.named_parameters() if p.requires_grad],
        "control": settings_tree(learn)["control"],
        "attributes": _that_pickle(own, "the learner", known, left),
        "first_run": first,
        "runs": [vars(run) for run in runs[first:]],
        "average": vars(learn.recorder).get("_average"),
        "callbacks": {
            name: _that_pickle(vars(cb), f"the callback {type(cb).__name__}", known, left)
            for name, cb in callbacks.items()
        },
        "streams": streams_of(learn),
        "value": value,
        "left": left,
    }
    try:
        return as_bytes([sent], known, reducers=REDUCERS)
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(f"what {arrived.method} gave cannot travel back ({text})") from error


def _that_pickle(
    own: Mapping[str, object], of: str, known: Mapping[str, object], left: list[str]
) -> dict[str, object]:
    """Those of some attributes that can travel; the others are named in `left`."""
    found = {}
    for name, value in own.items():
        try:
            check_pickles(value, known, REDUCERS)
        except Exception as error:
            left.append(f"{name.lstrip('_')} of {of} ({' '.join(str(error).split())})")
        else:
            found[name] = value
    return found


@dataclass
class Returned:
    """What came back of a call; nothing of it is the learner's before `put`.

    Attributes
    ----------
    value : what the call gave; its stages have their contents after `put` only
    left : what stays with the worker as it cannot be pickled, in words
    """

    value: object
    left: list[str]
    _learn: LearnerState = field(repr=False)
    _tree: dict[str, object] = field(repr=False)
    _named: "_AtHome" = field(repr=False)

    def put(self) -> None:
        """Give the learner all of it, or nothing; an interrupt acts when that is done.

        Raises
        ------
        ValueError
            If the network is another one by now.
        """
        learn, tree = self._learn, self._tree
        own = named_tensors(learn)
        _check_same(own, tree["tensors"])
        with interrupts_held():
            with torch.no_grad():
                for name, tensor in tree["tensors"].items():
                    own[name].copy_(tensor)
            trains = set(tree["trains"])
            for name, p in learn.model.named_parameters():
                p.requires_grad_(name in trains)
            if tree["optimizer"] is not None:
                put_optimizer(learn, tree["optimizer"])
            vars(learn).update({n: _beside(learn, v) for n, v in tree["attributes"].items()})
            for name in {"loss", *OF_LEARNER} - set(tree["attributes"]):
                vars(learn).pop(name, None)  # a screen was told of it, in a search or pass
            learn._rng = fitting_rng(learn._rng)
            vars(learn.control).update(tree["control"])
            put_streams(learn, tree["streams"])
            self._put_history()
            for name, attributes in tree["callbacks"].items():
                if (cb := self._named[name]) is not None:
                    vars(cb).update(attributes)

    def _put_history(self) -> None:
        recorder, first = self._learn.recorder, self._tree["first_run"]
        runs = [self._named[f"run.{first + i}"] for i in range(len(self._tree["runs"]))]
        for run, contents in zip(runs, self._tree["runs"], strict=True):
            vars(run).update(contents)
        recorder.runs[first:] = runs
        if self._tree["average"] is not None:
            recorder._average, recorder._pending = self._tree["average"], []


def unpack_result(content: bytes, learn: LearnerState, parcel: Parcel | None = None) -> Returned:
    """What `pack_result` gave, in the notebook.

    Stages that the notebook has in the history of the learner by now, as those that a screen
    followed, stay the same objects.

    Parameters
    ----------
    parcel : of the call; None = another process sent it, and `everything` came back
    """
    home = {"learn": learn} | parts_of(learn.dls) if parcel is None else parcel.home
    named = _AtHome(home, learn)
    tree = Reader(content, named, device=learn.device).read()
    return Returned(tree["value"], tree["left"], learn, tree, named)


def _check_same(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless all tensors have a place."""
    for name, tensor in tensors.items():
        there = own.get(name)
        if there is None or there.shape != tensor.shape or there.dtype != tensor.dtype:
            raise ValueError(
                f"the weights that came back do not fit: the network was changed meanwhile ({name})"
            )


class _AtHome(dict):
    """The notebook's objects by name; stages that it does not have are made."""

    def __init__(self, home: Mapping[str, object], learn: LearnerState) -> None:
        super().__init__(home)
        self._runs = learn.recorder.runs

    def __missing__(self, name: str) -> object:
        kind, _, number = name.partition(".")
        if kind == "run":
            there = int(number) < len(self._runs)
            self[name] = self._runs[int(number)] if there else object.__new__(Run)
            return self[name]
        return None  # a callback or data set of the process that sent the call


def _beside(learn: LearnerState, value: object) -> object:
    return value.to(learn.device) if isinstance(value, Tensor) else value
