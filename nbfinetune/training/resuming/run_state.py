"""Run state: all that a run changes of a learner, taken for a checkpoint and put back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from nbfinetune.history.runs import Run
from nbfinetune.runtime.rng import rng_as_json, rng_from_json
from nbfinetune.training.batches.feature_batches import feature_batches, features_usable
from nbfinetune.training.batches.streams import Streams
from nbfinetune.training.chosen_rates import ChosenRate
from nbfinetune.training.fine_tuning.second_stage import SecondStage
from nbfinetune.training.resuming.packing import Same, Unchanging
from nbfinetune.training.resuming.run_folder import RunFolder
from nbfinetune.training.state import Callback, LearnerState

ROOT = "run"  # of the names of packed tensors
_CONTROL = ("scale", "scale_used", "finish_in", "finishing", "finished")
_MOST_FEATURES = 2**28  # bytes; larger ones are computed anew, which rounding may change
_FLOATS = ("losses", "smooth", "lrs", "moms", "seconds")  # of a run, one for each step

Tree = dict[str, object]


def stream_tree(streams: Streams) -> Tree:
    state, of_loaders = streams
    return {"process": rng_as_json(state), "loaders": of_loaders}


def streams_from(tree: Tree) -> Streams:
    return rng_from_json(tree["process"]), tree["loaders"]


def named_tensors(learn: LearnerState) -> dict[str, Tensor]:
    """Parameters and buffers of network and loss, by name."""
    found = {}
    for prefix, module in (("model", learn.model), ("loss", learn.loss_func)):
        if isinstance(module, nn.Module):
            both = [*module.named_parameters(), *module.named_buffers()]
            found |= {f"{prefix}.{name}": tensor for name, tensor in both}
    return found


def weights_tree(learn: LearnerState) -> Tree:
    """All of them; parameters that do not train as unchanging.

    Of all others it is not trusted that changes are counted: fused optimizers and BatchNorm do not.
    """
    parameters = {id(p) for p in learn.model.parameters() if not p.requires_grad}
    return {
        name: Unchanging(tensor) if id(tensor) in parameters else tensor.detach()
        for name, tensor in named_tensors(learn).items()
    }


def put_weights(learn: LearnerState, tree: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in named_tensors(learn).items():
            tensor.copy_(tree[name])


def check_weights(learn: LearnerState, tree: object) -> None:
    """Raise ValueError unless there are the tensors of this learner, of the same shapes."""
    own = named_tensors(learn)
    if not isinstance(tree, dict) or set(tree) != set(own):
        raise ValueError("the names of its weights are others")
    for name, tensor in own.items():
        there = tree[name]
        if there.shape != tensor.shape or there.dtype != tensor.dtype:
            raise ValueError(f"{name} is {list(there.shape)} there, {list(tensor.shape)} here")


def optimizer_tree(learn: LearnerState) -> Tree:
    settings = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    return {
        "states": learn.opt.state_dict()["state"],
        "groups": settings,
        "scaler": learn.scaler.state_dict(),
    }


def put_optimizer(learn: LearnerState, tree: Tree) -> None:
    """The groups stay the same objects, as callbacks look at them."""
    opt = learn.opt
    params = [(p, group) for group in opt.param_groups for p in group["params"]]
    opt.state.clear()
    for i, state in tree["states"].items():
        opt.state[params[i][0]] = {key: _fitting(key, v, *params[i]) for key, v in state.items()}
    for group, settings in zip(opt.param_groups, tree["groups"], strict=True):
        group.update(settings)
    learn.scaler.load_state_dict(tree["scaler"])


def _fitting(key: str, value: object, p: Tensor, group: Mapping[str, object]) -> object:
    """A part of a weight's state, where and in the layout in which the optimizer takes it."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":  # fused kernels take it from the device, others from the CPU
        return value.to(p.device if group.get("fused") or group.get("capturable") else "cpu")
    # Fused kernels go through weight and state by address.
    return torch.empty_like(p).copy_(value) if value.shape == p.shape else value.to(p.device)


def settings_tree(learn: LearnerState) -> Tree:
    """What trains, the rate of the next run, and what was asked of this one."""
    names = [name for name, p in learn.model.named_parameters() if p.requires_grad]
    return {
        "trains": names,
        "frozen": learn.frozen,
        "lr": learn.lr,
        "chosen": None if learn.chosen is None else asdict(learn.chosen),
        "second_stage": None if learn.second_stage is None else asdict(learn.second_stage),
        "control": {name: getattr(learn.control, name) for name in _CONTROL},
    }


def put_settings(learn: LearnerState, tree: Tree) -> None:
    trains = set(tree["trains"])
    for name, p in learn.model.named_parameters():
        p.requires_grad_(name in trains)
    learn.frozen, learn.lr = tree["frozen"], tree["lr"]
    learn.chosen = None if tree["chosen"] is None else ChosenRate(**tree["chosen"])
    stage = tree["second_stage"]
    learn.second_stage = None if stage is None else SecondStage(**stage)
    vars(learn.control).update(tree["control"])


def feature_trees(learn: LearnerState) -> Tree:
    """The features of the frozen body that are known, of each view."""
    found: Tree = {}
    for side, cached in learn.features.kept(learn.dls).items():
        for view, values in cached.values.items():
            if values.nbytes <= _MOST_FEATURES:
                known = cached.known_of(view)
                found[f"{side} {view}"] = {"values": Unchanging(values), "known": known}
    return found


def put_features(learn: LearnerState, tree: Tree) -> None:
    for key, view in tree.items():
        side, _, number = key.partition(" ")
        loader = getattr(learn.dls, side)
        if not features_usable(learn, loader):
            continue
        batches = feature_batches(learn, loader, training=side == "train")
        known = torch.nonzero(view["known"])[:, 0]
        batches.cached.put(int(number), known, view["values"][known])


def run_tree(run: Run) -> Tree:
    arrays = {name: torch.tensor(getattr(run, name), dtype=torch.float64) for name in _FLOATS}
    return vars(run) | arrays


def run_from(tree: Tree) -> Run:
    return Run(**(tree | {name: tree[name].tolist() for name in _FLOATS}))


def runs_from(trees: Sequence[Tree]) -> list[Run]:
    """Runs, in which rows that are kept are those of the tables again."""
    runs = [run_from(tree) for tree in trees]
    for run in runs:
        run.kept = same_row(runs, run.kept)
        run.events = [tuple(event) for event in run.events]
    return runs


def same_row(runs: Sequence[Run], row: dict | None) -> dict | None:
    """The row of these runs that has the same values."""
    rows = (known for run in reversed(runs) for known in reversed(run.rows))
    return None if row is None else next((r for r in rows if repr(r) == repr(row)), row)


def callback_trees(cbs: Sequence[Callback], learn: LearnerState) -> list[Tree]:
    """The states of the callbacks that have one, in their order."""
    fixed = {name: p for name, p in learn.model.named_parameters() if not p.requires_grad}
    found = []
    for cb in (each.itself for each in cbs):
        if type(cb).state_dict is not Callback.state_dict:
            state = dict(cb.state_dict())
            if isinstance(state.get("weights"), dict):
                state["weights"] = {
                    name: _as_before(name, value, fixed) for name, value in state["weights"].items()
                }
            found.append({"of": type(cb).__qualname__, "state": state, "runs_on": cb.runs_on})
    return found


def _as_before(name: str, value: object, fixed: Mapping[str, Tensor]) -> object:
    """A weight that is kept: that of the network where it does not train, and is the same."""
    if not isinstance(value, Tensor):
        return value
    if name in fixed and torch.equal(fixed[name], value):
        return Same(f"{ROOT}.weights.model.{name}")
    return Unchanging(value)


def put_callbacks(learn: LearnerState, cbs: Sequence[Callback], trees: Sequence[Tree]) -> None:
    """Give the callbacks their states, those of a class in their order: ours come last again."""
    left = list(trees)
    for cb in (each.itself for each in cbs):
        if type(cb).state_dict is Callback.state_dict:
            continue
        kind = type(cb).__qualname__
        own = next((tree for tree in left if tree["of"] == kind), None)
        if own is None and cb.runs_on == "console":  # it was not where the run was
            continue
        if own is None:
            raise ValueError(f"the run had no callback {kind} with a state; pass the same ones")
        left.remove(own)
        cb.load_state_dict(learn, own["state"])
    if left:
        raise ValueError(f"the run had the callback {left[0]['of']}; pass the same ones")


@dataclass
class Resumed:
    """A call, as its newest checkpoint has it.

    Parameters
    ----------
    folder, record : of the run
    tree : the checkpoint, None where none was written yet: the call begins anew
    runs_before : its stages that are over
    run : the stage that goes on
    """

    folder: RunFolder
    record: dict
    tree: dict | None = None
    runs_before: list[Run] = field(default_factory=list)
    run: Run | None = None

    @property
    def stage(self) -> int:
        """The number of the stage that goes on, from 0."""
        return 0 if self.tree is None else self.tree["stage"]
