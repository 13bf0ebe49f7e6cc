"""By name: what stays where it is, or is known on both sides, and attributes of one process."""

from hashlib import blake2b

from torch import Tensor

from nbfinetune.cluster.travel.pickles import bytes_of
from nbfinetune.interpretation.activation_map import NetworkOf
from nbfinetune.training.batches.streams import generators
from nbfinetune.training.resuming.run_state import optimizer_tree
from nbfinetune.training.state import LearnerState

OPTIMIZER = "the optimizer"  # no name of a tensor
# Attributes of a learner that are of the process that it is in.
OF_PROCESS = {"keeper", "resumed", "place", "undoable", "within_call", "run_cbs", "lr_schedules"}
OF_PROCESS |= {"world", "calls", "made_by", "control", "features", "memory", "device"}
# Those that no run changes, or that are put back part by part.
NOT_BACK = {"model", "opt", "scaler", "groups", "recorder", "config", "_taken", "_dls", "_cbs"}
NOT_BACK |= {"_metrics", "_loss_func", "_transforms", "_amp", "_amp_inference", "vocab"}


def parts_of(dls: object) -> dict[str, object]:
    """The objects of loaders that go by name, here and there."""
    if dls is None:
        return {}
    found = {"dls": dls, "dls.vocab": getattr(dls, "vocab", None)}
    for side in ("train", "valid"):
        loader = found[f"dls.{side}"] = getattr(dls, side)
        found[f"dls.{side}.dataset"] = getattr(loader, "dataset", None)
    return {name: value for name, value in found.items() if value is not None}


def history_of(learn: LearnerState) -> dict[str, object]:
    """Stages and rows, which results refer to."""
    found: dict[str, object] = {}
    for i, run in enumerate(learn.recorder.runs):
        found[f"run.{i}"] = run
        found |= {f"run.{i}.row.{j}": row for j, row in enumerate(run.rows)}
    return found


def streams_of(learn: LearnerState) -> list[Tensor]:
    """Where the random numbers of the loaders' own are."""
    return [] if learn.dls is None else [g.get_state() for g in generators(learn)]


def put_streams(learn: LearnerState, states: list[Tensor]) -> None:
    """Go on from there."""
    own = [] if learn.dls is None else generators(learn)
    for generator, state in zip(own, states, strict=True):
        generator.set_state(state)


def digest(tensor: Tensor) -> bytes:
    """A digest of the bytes of a tensor."""
    return blake2b(bytes_of(tensor), digest_size=16).digest()


def optimizer_digest(learn: LearnerState) -> bytes:
    """A digest of the optimizer's states and settings."""
    tree = optimizer_tree(learn)
    states = [(i, k, v) for i, state in tree["states"].items() for k, v in state.items()]
    plain = [(i, k, digest(v) if isinstance(v, Tensor) else v) for i, k, v in states]
    return blake2b(repr((plain, tree["groups"], tree["scaler"])).encode(), digest_size=16).digest()


def _network_of(network: NetworkOf) -> tuple:
    """A weak reference goes as what it refers to."""
    return _made_network, (network._learn(), network._digest)


def _made_network(learn: LearnerState | None, digest: bytes | None) -> NetworkOf:
    if learn is not None:
        return NetworkOf(learn, digest)
    made = object.__new__(NetworkOf)
    vars(made).update(_learn=type(None), _digest=digest)
    return made


REDUCERS = {NetworkOf: _network_of}
