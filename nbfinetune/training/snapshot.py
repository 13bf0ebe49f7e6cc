"""Snapshot: all of a learner that a trial run changes, put back in memory, whatever happens."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.training.batches.streams import generators, loaders
from nbfinetune.training.state import LearnerState


class Snapshot:
    """All of a learner that a run changes, copied, to be put back once.

    It has weights and buffers, those of the loss too, gradients, train and eval modes,
    `requires_grad`, the optimizer's state and settings, the gradient scaler, the history, the
    loaders' generators and all plain attributes, the state of the learner's random numbers among
    them. Costs a copy of the parameters that train, of their optimizer state and of the buffers.

    Parameters
    ----------
    everything : whether parameters are copied that do not train now
    device : of the copies; None = as the originals
    """

    def __init__(
        self, learn: LearnerState, *, everything: bool = False, device: str | None = None
    ) -> None:
        model, opt, loss_func = learn.model, learn.opt, learn.loss_func
        of_loss = [loss_func] if isinstance(loss_func, nn.Module) else []
        self._modes = [(m, m.training) for root in (model, *of_loss) for m in root.modules()]
        self._params = [(p, p.requires_grad, _copy(p.grad)) for p in model.parameters()]
        # Parameters that do not train cannot change; copying them would double a frozen body.
        parameters = model.parameters()
        changing = [*(p for p in parameters if everything or p.requires_grad), *model.buffers()]
        changing += [t for loss in of_loss for t in (*loss.parameters(), *loss.buffers())]
        self.tensors = [(t, _copy(t, device)) for t in changing]
        self.states = {
            p: {k: _copy(v, None if k == "step" else device) for k, v in state.items()}
            for p, state in opt.state.items()
        }
        self._settings = [{k: v for k, v in g.items() if k != "params"} for g in opt.param_groups]
        self._scale = learn.scaler.state_dict()
        self._streams = [(g, g.get_state()) for g in generators(learn)]
        self._workers = [(loader, loader._iterator) for loader in loaders(learn)]
        self._recorder = vars(learn.recorder) | {"runs": list(learn.recorder.runs)}
        self.attributes, self._all_attributes = dict(vars(learn)), True

    def copies(self) -> dict[str, Tensor]:
        """All copies in memory, each under a name of its own."""
        found = {f"tensor {i}": copy for i, (_, copy) in enumerate(self.tensors)}
        for i, state in enumerate(self.states.values()):
            found |= {f"state {i} {k}": v for k, v in state.items() if isinstance(v, Tensor)}
        return found

    def take_copies(self, copies: Mapping[str, Tensor]) -> None:
        """Have these in the place of the copies of the same names."""
        self.tensors = [(t, copies[f"tensor {i}"]) for i, (t, _) in enumerate(self.tensors)]
        for i, state in enumerate(self.states.values()):
            state.update({k: copies.get(f"state {i} {k}", v) for k, v in state.items()})

    @property
    def n_bytes(self) -> int:
        """Of the copies."""
        return sum(t.nbytes for t in self.copies().values())

    def part_from_workers(self) -> None:
        """Loaders start processes anew: those that live on have random numbers of their own."""
        for loader, _ in self._workers:
            loader._iterator = None

    def keep_changed(self, learn: LearnerState, *, always: Sequence[str], never: set[str]) -> None:
        """Of the attributes put back those alone that the learner has others of now.

        Parameters
        ----------
        always, never : names of those that are put back in any case, and in none
        """
        now = vars(learn)
        others = {n for n, value in now.items() if value is not self.attributes.get(n)}
        names = {n for n in {*others, *always} - never if n in self.attributes}
        self.attributes = {n: self.attributes[n] for n in names}
        self._all_attributes = False

    def put_back(self, learn: LearnerState) -> None:
        """Put all of it back; an interrupt acts when that is done."""
        with interrupts_held():  # it must not be left half put back
            self._put_tensors()
            opt = learn.opt
            opt.state.clear()
            opt.state.update({p: _beside(p, state) for p, state in self.states.items()})
            for group, values in zip(opt.param_groups, self._settings, strict=True):
                group.update(values)
            for generator, state in self._streams:
                generator.set_state(state)
            for loader, iterator in self._workers:
                loader._iterator = iterator
            _replace(vars(learn.recorder), self._recorder)
            if self._all_attributes:
                vars(learn).clear()
            vars(learn).update(self.attributes)
            learn.scaler = learn.new_scaler()  # one interrupted between step and update is unusable
            learn.scaler.load_state_dict(self._scale)

    def _put_tensors(self) -> None:
        with torch.no_grad():
            for tensor, value in self.tensors:
                tensor.copy_(value)
        for p, requires_grad, grad in self._params:
            p.requires_grad_(requires_grad)
            p.grad = grad
        for module, training in self._modes:
            module.training = training


@contextmanager
def unchanged(learn: LearnerState) -> Iterator[None]:
    """Run the body, then put the learner back, bit for bit, on errors and interrupts too.

    See `Snapshot` for what is put back; nothing is written to disk.
    """
    before = Snapshot(learn)
    try:
        before.part_from_workers()
        yield
    finally:
        before.put_back(learn)


def _beside(p: Tensor, state: dict[str, object]) -> dict[str, object]:
    """A state on the device of its weight, but for the steps, which may be counted on the CPU."""
    return {
        k: v.to(p.device) if k != "step" and isinstance(v, Tensor) else v for k, v in state.items()
    }


def _copy(value: Tensor | None, device: str | None = None) -> Tensor | None:
    if not isinstance(value, Tensor):
        return value
    copy = value.detach().clone() if device in (None, value.device.type) else None
    return value.detach().to(device) if copy is None else copy


def _replace(old: dict, new: dict) -> None:
    old.clear()
    old.update(new)
