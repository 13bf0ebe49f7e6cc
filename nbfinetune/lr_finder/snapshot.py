"""Snapshot: all of a learner that a trial run changes, put back in memory, whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nbfinetune.runtime.interrupts import interrupts_held
from nbfinetune.training.state import LearnerState
from nbfinetune.training.streams import generators, loaders


@contextmanager
def unchanged(learn: LearnerState) -> Iterator[None]:
    """Run the body, then put the learner back, bit for bit, on errors and interrupts too.

    Put back are weights and buffers, those of the loss too, gradients, train and eval modes,
    `requires_grad`, the optimizer's state and settings, the gradient scaler, the history, the
    loaders' generators and all plain attributes, the state of the learner's random numbers among
    them. Costs a copy of the parameters that train, of their optimizer state and of the buffers;
    nothing is written to disk.
    """
    model, opt, loss_func = learn.model, learn.opt, learn.loss_func
    of_loss = [loss_func] if isinstance(loss_func, nn.Module) else []
    modes = [(m, m.training) for root in (model, *of_loss) for m in root.modules()]
    params = [(p, p.requires_grad, _copy(p.grad)) for p in model.parameters()]
    # Parameters that do not train cannot change; copying them would double a frozen body.
    changing = [*_training(learn), *model.buffers()]
    changing += [t for loss in of_loss for t in (*loss.parameters(), *loss.buffers())]
    tensors = [(t, t.detach().clone()) for t in changing]
    states = {p: {k: _copy(v) for k, v in state.items()} for p, state in opt.state.items()}
    settings = [{k: v for k, v in g.items() if k != "params"} for g in opt.param_groups]
    scale = learn.scaler.state_dict()
    streams = [(g, g.get_state()) for g in generators(learn)]
    workers = [(loader, loader._iterator) for loader in loaders(learn)]
    recorder = vars(learn.recorder) | {"runs": list(learn.recorder.runs)}
    attributes = dict(vars(learn))
    try:
        for loader, _ in workers:  # workers that live on have random numbers of their own
            loader._iterator = None
        yield
    finally:
        with interrupts_held():  # a second interrupt must not leave it half put back
            with torch.no_grad():
                for tensor, value in tensors:
                    tensor.copy_(value)
            for p, requires_grad, grad in params:
                p.requires_grad_(requires_grad)
                p.grad = grad
            for module, training in modes:
                module.training = training
            opt.state.clear()
            opt.state.update(states)
            for group, values in zip(opt.param_groups, settings, strict=True):
                group.update(values)
            for generator, state in streams:
                generator.set_state(state)
            for loader, iterator in workers:
                loader._iterator = iterator
            _replace(vars(learn.recorder), recorder)
            _replace(vars(learn), attributes)
            learn.scaler = learn.new_scaler()  # one interrupted between step and update is unusable
            learn.scaler.load_state_dict(scale)


def _copy(value: Tensor | None) -> Tensor | None:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _training(learn: LearnerState) -> list[Tensor]:
    return [p for p in learn.model.parameters() if p.requires_grad]


def _replace(old: dict, new: dict) -> None:
    old.clear()
    old.update(new)
