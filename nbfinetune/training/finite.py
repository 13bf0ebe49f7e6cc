"""Finite: a run ends at the first loss or gradient that is NaN or infinite, before a weight is.

The step of such a loss is not made: torch's fused optimizers leave it out where their `found_inf`,
a number on the device, is 1, as they do for a gradient scaler. So nothing waits for the device; on
a GPU the run ends when the recorder reads the losses, and no step is made in between. Looking at
the gradients of efficientnet_b0 takes 1.5 ms of a step of 570 ms (16 pictures of 96 px, 1 thread).
"""

from collections.abc import Sequence
from functools import partial
from math import isfinite
from warnings import warn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nbfinetune.arguments import users_line
from nbfinetune.networks.layer_groups import LearningRate, lr_per_group
from nbfinetune.rendering.names import first_few
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.training.batches.microbatches import target_weights
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.state import Callback, LearnerState

_HIGH = 1.0  # rates above are hardly ever meant
_LEAST_SCALE = 1.0  # of a gradient scaler, which begins at 2^16: it fell 16 times more than it rose


class StopNotFinite(Callback):
    """Ends a run whose loss or gradients are no longer finite, with the last weights that are.

    With a gradient scaler, which leaves out such steps by itself, it waits until the scale has
    fallen below 1. A held-out loss that is not finite ends the run too. `run.ended` says why, and
    so does a warning; where a call keeps the best epoch it ends with that one.
    """

    runs_on = "all"

    def before_fit(self, learn: LearnerState) -> None:
        self._scaled = learn.scaler.is_enabled()
        self._on_cpu = learn.device.type == "cpu"  # where a number is read at no cost
        self._found = torch.zeros((), device=learn.device)  # 1 from the first such step on
        self._one = torch.ones((), device=learn.device)
        self._read = 0  # losses that were looked at
        self._params: list[nn.Parameter] = []
        self._buffers: list[Tensor] = []
        self._hook = None
        if not self._scaled:
            self._hook = learn.opt.register_step_pre_hook(partial(self._look, learn))

    def before_batch(self, learn: LearnerState) -> None:
        if not learn.training:
            return
        if learn.iter == 0:
            modules = [m for m in learn.model.modules() if m.training]
            self._params = [p for p in learn.model.parameters() if p.requires_grad]
            self._buffers = [b for m in modules for b in m.buffers(recurse=False)]
            self._kept = [b.clone() for b in self._buffers]
        elif self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    def _look(self, learn: LearnerState, opt: Optimizer, *_: object) -> None:
        """Before each step: it is left out if the loss or a gradient is not finite."""
        grads = [p.grad for p in self._params if p.grad is not None]
        self._take(learn)
        if grads:  # a gradient scaler looks at them by the same function
            torch._amp_foreach_non_finite_check_and_unscale_(grads, self._found, self._one)
        if not self._on_cpu or self._found.item():
            opt.found_inf = self._found
            if not all(group.get("fused") for group in opt.param_groups) and self._found.item():
                opt.zero_grad()  # others take no notice of `found_inf`

    def _take(self, learn: LearnerState) -> None:
        """Take in the loss; that of a batch of which nothing counts is no number, and no harm."""
        if self._on_cpu and isfinite(learn.loss.item()):
            return
        counts = target_weights(learn.loss_func, learn.targets).sum() > 0
        torch.maximum(self._found, (~learn.loss.isfinite() & counts).float(), out=self._found)

    def after_batch(self, learn: LearnerState) -> None:
        if not learn.training:
            return
        if self._scaled:
            self._found.zero_()
        self._take(learn)  # of batches whose step comes later, too
        if self._buffers:
            _put_back(self._buffers, self._kept, self._found)
        read, self._read = self._read, len(learn.recorder.run.losses)
        if self._on_cpu or self._read > read:  # else to look now would wait for the device
            self._check(learn)

    def after_train(self, learn: LearnerState) -> None:
        self._check(learn)

    def _check(self, learn: LearnerState) -> None:
        ended = learn.scaler.get_scale() < _LEAST_SCALE if self._scaled else self._found.item()
        if ended:
            self._end(learn, *_first(learn, late=not (self._on_cpu or self._scaled)))

    def after_epoch(self, learn: LearnerState) -> None:
        if not isfinite(learn.values[0]):
            step = len(learn.recorder.run.lrs)
            self._end(learn, f"the held-out loss is {learn.values[0]}", step, step)

    def _end(self, learn: LearnerState, what: str, step: int, whole: int) -> None:
        run = learn.recorder.run
        rate = max(run.lrs[step - 1])
        weights = f"those after step {whole}" if whole else "those from before the run"
        if run.kept is not None:
            weights = f"those of epoch {run.kept['epoch']}, the best"
        advice = "try a tenth of it" + ("" if learn.amp == "off" else ', or amp="off"')
        if not whole:  # before any step no rate can be why
            advice = "look at the loss, its weights and the inputs"
        run.diverged = True
        run.ended = (
            f"{what} at step {step}, rate {rate_text(rate)}: {advice}; the weights are {weights}"
        )
        warn(f"{run.name} was ended: {run.ended}", stacklevel=users_line())
        raise CancelFit

    def after_fit(self, learn: LearnerState) -> None:
        if getattr(self, "_hook", None):
            self._hook.remove()
            vars(learn.opt).pop("found_inf", None)


def _put_back(tensors: Sequence[Tensor], kept: Sequence[Tensor], found: Tensor) -> None:
    """Statistics of before the batch, where its loss is not finite."""
    if found.device.type == "cpu":
        if found.item():
            torch._foreach_copy_(list(tensors), list(kept))
        return
    for tensor, before in zip(tensors, kept, strict=True):
        tensor.copy_(torch.where(found > 0, before, tensor))


def _first(learn: LearnerState, *, late: bool) -> tuple[str, int, int]:
    """What is not finite, at which step, and the last whole step before it.

    late : whether it may be some steps ago
    """
    learn.recorder.flush()
    losses = learn.recorder.run.losses
    at = [i for i, loss in enumerate(losses) if not isfinite(loss)]
    if not late:
        at = [i for i in at[-1:] if i == len(losses) - 1]
    if not at:
        return "the gradients are not finite", len(losses), _whole(len(losses) - 1, learn)
    return f"the training loss is {losses[at[0]]}", at[0] + 1, _whole(at[0], learn)


def _whole(n: int, learn: LearnerState) -> int:
    """The last of n training batches after which an optimizer step was made."""
    in_epoch = n % learn.n_iter
    return n - in_epoch % learn.accumulate


def check_finite(learn: LearnerState, what: str) -> None:
    """Raise ValueError if a weight or a statistic of the model is NaN or infinite.

    Parameters
    ----------
    what : what would be of no use
    """
    tensors = _floats(learn.model)
    if not tensors or torch.stack([t.sum() for t in tensors.values()]).isfinite().all():
        return
    params = {name for name, _ in learn.model.named_parameters()}
    wrong = [
        name
        for name, t in tensors.items()
        if not t.isfinite().all()
        and (name in params or "running_" in name or t.isnan().any())  # masks may be infinite
    ]
    if wrong:  # a sum may be too large alone
        raise ValueError(
            f"{len(wrong)} of {len(tensors)} weights of the model are NaN or infinite "
            f"({first_few(wrong)}): {what} is of no use; load weights that are finite "
            "(learn.load), or make a new learner"
        )


def _floats(model: nn.Module) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach() for name, t in named if t.is_floating_point() and t.numel()}


def check_start(learn: LearnerState, lr: LearningRate | None) -> None:
    """Raise ValueError for weights that are not finite; warn of a rate above 1 given by hand."""
    check_finite(learn, "training it on")
    if lr is None and learn.chosen is None:
        lr = learn.lr
    try:
        highest = max(lr_per_group(lr, len(learn.groups)))
    except (TypeError, ValueError):
        return  # which is said where it is used
    if highest > _HIGH:
        warn(
            f"a learning rate of {highest:g} is above 1: few networks train at it; the "
            "run ends where its loss is no longer finite",
            stacklevel=users_line(),
        )
