"""Steering: a run does what its control is asked for, and only one thread runs a learner."""

import time
from collections.abc import Callable
from functools import wraps
from math import ceil

from nbfinetune.runtime.interrupts import act_on_interrupt, interrupts_deferred
from nbfinetune.runtime.rng import generators_given_up
from nbfinetune.training.arguments import check_run
from nbfinetune.training.callbacks import CancelFit, CancelTrain
from nbfinetune.training.schedules import cos
from nbfinetune.training.state import Callback, LearnerState, as_callbacks

_NAP = 0.02  # seconds between two looks at a paused run
_NOTABLE = 0.005  # a slider gives back 1.0 as 0.9999
_ONE_DRAG = 25  # steps: changes of the scale that are nearer than this are one
_FINISH = 0.1  # share of the run's steps in which "finish" anneals, when not told how many
_LEAST_FINISH = 10  # steps
_DIV_FINAL = 1e5  # the rate ends at this fraction, as that of a cycle (fastai's)


class Steering(Callback):
    """Acts on the requests of `learn.control` after each batch and part, in runs and in passes."""

    runs_on = "all"

    def __init__(self) -> None:
        self._scaled_at = -_ONE_DRAG

    def before_fit(self, learn: LearnerState) -> None:
        learn.control.begin_stage()

    def before_batch(self, learn: LearnerState) -> None:
        control = learn.control
        if not learn.training or not control.scales_rates:
            return
        step = len(learn.recorder.run.lrs)
        if abs(control.scale - control.scale_used) > _NOTABLE * control.scale_used:
            self._note_scale(learn, step)
        if control.finish_in is not None:
            _begin_to_finish(learn, step)
        for i, group in enumerate(learn.opt.param_groups):
            if control.finishing:
                first, n_steps, lrs = control.finishing
                group["lr"] = cos(lrs[i], lrs[i] / _DIV_FINAL)((step - first) / n_steps)
            group["lr"] *= control.scale_used

    def _note_scale(self, learn: LearnerState, step: int) -> None:
        control, events = learn.control, learn.recorder.run.events
        text = f"learning rate times {control.scale:.3g}"
        if events and step - self._scaled_at < _ONE_DRAG and "times" in events[-1][1]:
            events[-1] = (events[-1][0], text)
        else:
            _note(learn, text)
        control.scale_used, self._scaled_at = control.scale, step

    def after_part(self, learn: LearnerState) -> None:
        _take_requests(learn)

    def after_batch(self, learn: LearnerState) -> None:
        _take_requests(learn)
        if learn.training and annealed(learn):
            raise CancelTrain

    def after_epoch(self, learn: LearnerState) -> None:
        if annealed(learn):
            learn.control.finished = True
            raise CancelFit


def _take_requests(learn: LearnerState) -> None:
    control = learn.control
    control.poll()
    if control.paused and not control.stopping:
        _wait(learn)
    if control.stopping:
        _note(learn, "stopped")
        raise CancelFit


def _begin_to_finish(learn: LearnerState, step: int) -> None:
    control = learn.control
    if control.finishing is None:
        left = learn.n_epoch * learn.n_iter - (learn.epoch * learn.n_iter + learn.iter)
        share = max(round(_FINISH * learn.n_epoch * learn.n_iter), _LEAST_FINISH)
        wanted = ceil((control.finish_in or share) / learn.accumulate) * learn.accumulate
        n_steps = min(wanted, left)
        control.finishing = (step, n_steps, [group["lr"] for group in learn.opt.param_groups])
        _note(learn, f"finishing in {n_steps} steps")
    control.finish_in = None


def annealed(learn: LearnerState) -> bool:
    """Whether the steps of `control.finish` are done."""
    if learn.control.finishing is None:
        return False
    first, n_steps, _ = learn.control.finishing
    return len(learn.recorder.run.lrs) >= first + n_steps


def _wait(learn: LearnerState) -> None:
    control = learn.control
    _note(learn, "paused")
    started = time.monotonic()
    control.on_pause(True)
    with generators_given_up():
        while control.paused and not control.stopping:
            time.sleep(_NAP)
            control.poll()
            act_on_interrupt()
    control.on_pause(False)
    control.waited += time.monotonic() - started


def _note(learn: LearnerState, what: str) -> None:
    runs = learn.recorder.runs
    if runs and runs[-1].status == "running":  # else a validation alone is on
        runs[-1].events.append((len(runs[-1].lrs), what))


def rates_to_come(learn: LearnerState, most: int) -> tuple[list[int], list[float]]:
    """Steps from now on, and the rate that the last layer group will have there.

    Parameters
    ----------
    most : points at most, about
    """
    run, control = learn.recorder.run, learn.control
    done = len(run.lrs)
    if control.finishing:
        first, n_steps, lrs = control.finishing
        rate, end = cos(lrs[-1], lrs[-1] / _DIV_FINAL), first + n_steps
        ahead = range(max(end - done, 0))
        rates = [rate((done + i - first) / n_steps) for i in ahead]
    else:
        total = run.n_epoch * run.n_iter
        position = run.first_epoch * run.n_iter + done
        ahead = range(0, max(total - position, 0), max((total - position) // most, 1))
        rates = [learn.lr_schedules[-1]((position + i) / total) for i in ahead]
    return [i + 1 for i in ahead], [control.scale_used * lr for lr in rates]


def exclusive_run(*, scales_rates: bool) -> Callable:
    """Makes a method of the learner one call, which is refused while another thread is in one.

    It is refused too where the run would fail or leave a part of the model out, see `check_run`.

    Parameters
    ----------
    scales_rates : whether `learn.control` may scale and anneal its rates
    """

    def decorate(method: Callable) -> Callable:
        @wraps(method)
        def call(learn: LearnerState, *args, **kwargs) -> object:
            learn.check_idle()
            if "cbs" in kwargs:
                kwargs["cbs"] = as_callbacks(kwargs["cbs"])
            with interrupts_deferred():
                check_run(learn)
                if not learn.control.running:
                    learn.rate_note = ""
                with learn.control.claim(scales_rates=scales_rates):
                    return method(learn, *args, **kwargs)

        return call

    return decorate
