"""Smaller parts: a batch that memory has no room for is taken again in parts, and the run goes on.

A part is halved until it fits, which is remembered for the rest of the run. The parts of a training
batch have the inputs of the whole, augmented once, and together its gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nbfinetune.arguments import users_line
from nbfinetune.objectives.losses import Loss
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.out_of_memory import OutOfMemory, is_out_of_memory, let_go
from nbfinetune.runtime.rng import get_rng_state, set_rng_state
from nbfinetune.training.batches.part_sizes import sizes
from nbfinetune.training.state import LearnerState


def in_parts(
    learn: LearnerState,
    parts: Sequence[slice],
    compute: Callable[[slice], Tensor],
    on_part: Callable[[], None],
) -> Tensor:
    """What `compute` gives of the parts of a batch, without gradients, [n, ...].

    Parameters
    ----------
    parts : begins and ends, one after the other; those that do not fit are made smaller
    on_part : called between the parts
    """
    todo, done, too_many, outside = list(parts), [], None, learn.memory.at
    while todo:
        if done:
            on_part()
        learn.memory.at = start = todo[0].start
        try:
            done.append(compute(todo[0]))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            let_go(error)
        else:
            del todo[0]
            if too_many:
                _say(learn, too_many, f"{learn.memory.passes}")
                too_many = None
            continue
        n = max(part.stop - part.start for part in todo)
        too_many = too_many or n
        learn.memory.passes = _halved(n, 1, "in a pass without gradients")
        pieces = sizes(todo[-1].stop - start, learn.memory.passes)
        todo = [slice(start + piece.start, start + piece.stop) for piece in pieces]
    learn.memory.at = outside
    return torch.cat(done) if len(done) > 1 else done[0]


class StepInMemory:
    """The batches of one optimizer step: where memory ends all are taken again, in smaller parts.

    Gradients that were added up cannot be told apart: so those of earlier batches are made anew.

    Parameters
    ----------
    begin : makes the step one without batches, also in what is counted of it
    pictures : whether batches are augmented, by functions that may draw any random numbers; else
        only those of torch are drawn, whose state costs 2 us to take, not 40
    """

    def __init__(self, learn: LearnerState, begin: Callable[[], None], *, pictures: bool) -> None:
        self._learn, self._begin = learn, begin
        self._rng = (torch.get_rng_state, torch.set_rng_state)
        if pictures:
            self._rng = (get_rng_state, set_rng_state)
        self._taken: list[tuple[object, Tensor, Tensor]] = []

    def take(
        self, x: Tensor, y: Tensor, n: int, backward: Callable[[Tensor, Tensor], list[Tensor]]
    ) -> list[Tensor]:
        """What `backward` gives of a batch, whose gradients are added to those that there are.

        Parameters
        ----------
        n : pictures that it takes at once
        """
        get_state, set_state = self._rng
        self._taken.append((get_state(), x, y))
        todo, too_many = self._taken[-1:], None
        while True:
            try:
                for rng, *batch in todo:
                    if too_many:
                        set_state(rng)
                    losses = backward(*batch)
            except Exception as error:
                if not is_out_of_memory(error) or _in_step_with_others(self._learn):
                    raise
                let_go(error)
            else:
                if too_many:
                    _say(self._learn, too_many, self._how())
                return losses
            n = min(n, self._learn.memory.training or n)
            too_many = too_many or n
            self._learn.memory.training = _halved(
                n, _least(self._learn.model), "in a training step"
            )
            self._learn.opt.zero_grad()
            self._begin()
            todo = self._taken

    def _how(self) -> str:
        learn = self._learn
        how = "with the same gradient"
        if any(isinstance(m, _BatchNorm) and m.training for m in learn.model.modules()):
            how = "whose BatchNorm statistics differ from those of a whole batch"
        elif not _is_known(learn.loss_func):
            how = "whose losses are averaged"
        return f"parts of {learn.memory.training}, {how}"

    def end(self) -> None:
        """The optimizer step was made."""
        self._taken.clear()


def smaller_parts(
    learn: LearnerState,
    inputs: Tensor,
    y: Tensor,
    weights: Callable[[Tensor], Tensor] | None,
    most: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, float | Tensor]]:
    """Inputs and targets of the parts that fit, and the share of each in the loss of all.

    Parameters
    ----------
    weights : what each target counts in the mean that the loss is; None if it is a sum
    most : pictures in a part at most
    """
    size = min((n for n in (most, learn.memory.training) if n is not None), default=None)
    if size is None or len(y) <= size:
        yield inputs, y, 1.0
        return
    counts = None if weights is None else weights(y)
    for part in sizes(len(y), size, _least(learn.model)):
        share = 1.0 if counts is None else counts[part].sum() / counts.sum()
        if share:
            yield inputs[part], y[part], share


def optimizer_step(step: Callable[[], object]) -> None:
    """Make an optimizer step, once more where memory ends; its states are made before a weight is.

    Raises
    ------
    OutOfMemory
        If it ends again; the weights are those of the step before.
    """
    for last in (False, True):
        try:
            step()
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            let_go(error)
        if last:
            raise OutOfMemory(
                "out of memory in the optimizer's step, which needs twice the room of the weights "
                "that train; the weights are those of the step before: learn.freeze() trains fewer"
            )


def _halved(n: int, least: int, where: str) -> int:
    if n <= least:
        raise OutOfMemory(
            f"out of memory with {counted(n, 'picture')} {where}; the weights are those of the "
            "last whole step: free memory that others use, or make smaller pictures (size=)"
        )
    return max(n // 2, least)


def _least(model: nn.Module) -> int:
    """Pictures in a part at least: BatchNorm of vectors takes no statistics of one."""
    return 1 + any(isinstance(m, nn.BatchNorm1d) and m.training for m in model.modules())


def _in_step_with_others(learn: LearnerState) -> bool:
    """Whether other processes wait within the forward pass, for statistics of the whole batch."""
    moving = (m.training for m in learn.model.modules() if isinstance(m, _BatchNorm))
    return learn.world is not None and any(moving)


def _is_known(loss_func: Loss) -> bool:
    """Whether a loss is surely a mean or a sum over pictures: one of torch's or ours."""
    inner = getattr(loss_func, "func", loss_func)
    home = inner.__module__ if hasattr(inner, "__name__") else type(inner).__module__
    return home.startswith(("torch.nn.", "nbfinetune."))


def _say(learn: LearnerState, n: int, how: str) -> None:
    """Warn, in the user's line, and note it in the run that is on."""
    text = f"out of memory with {counted(n, 'picture')} at once: going on with {how}"
    runs = learn.recorder.runs
    if runs and runs[-1].status == "running":
        runs[-1].notes.append(text)
    warn(text, stacklevel=users_line())
