"""LogTo: the callback that logs losses, rates, metrics and hyperparameters of runs."""

import pickle
from copy import deepcopy
from math import isfinite
from time import monotonic
from warnings import warn

from nbfinetune.arguments import users_line
from nbfinetune.history.runs import Run
from nbfinetune.objectives.losses import loss_name
from nbfinetune.training.logs.targets import Log, Value, log_function
from nbfinetune.training.state import Callback, LearnerState

_INTERVAL = 1.0  # seconds between two blocks: to read losses waits for the device
_OF_STEPS = ("lr", "mom", "seconds")  # a metric may have such a name
_SHARE = 0.01  # of the time, at most, is spent on writing out: a CSV file is written whole
_TRIES = 3  # blocks in a row that fail, after which a run logs no more: some wait for networks


class LogTo(Callback):
    """Logs runs by a function `log(step, values)`, or to what has one in its own way.

    A step is a training step, counted from 1 over all stages and runs that it is passed to, so that
    steps only rise. Names are the same in all of them: each step has `train_loss` (that of its
    batch), `lr` (of the head; with several layer groups `lr/body 0` and so on too) and `mom`; the
    last step of each epoch has `epoch`, `valid_loss`, the metrics and `seconds`; the step before
    the first of each stage has the hyperparameters, as `hyper/epochs`, some of which are texts.

    What fails to log is said once, and never ends a run. Searches are not logged.

    Parameters
    ----------
    target : a function such as `print`; the name of a CSV file, "runs/log.csv"; or what has
        add_scalar(name, value, step), as TensorBoard's SummaryWriter, log_metrics(values, step=),
        as mlflow, or log(values, step=), as wandb and trackio

    Raises
    ------
    ValueError
        For anything else, and for a CSV file that is there and no log.

    Examples
    --------
    >>> learn.fine_tune(3, cbs=LogTo("runs/pets.csv"))  # doctest: +SKIP
    >>> learn.cbs = [LogTo(SummaryWriter()), LogTo(wandb)]  # doctest: +SKIP
    """

    runs_on = "console"

    def __init__(self, target: object) -> None:
        self.log: Log = log_function(target)
        self._target = target
        self._run: Run | None = None
        self._first = 0  # steps that were logged in the runs before
        self._done = 0  # of this one
        self._told = False  # its hyperparameters
        self._failed = 0
        self._said = False
        self._next = self._flush_from = 0.0

    def before_fit(self, learn: LearnerState) -> None:
        self._run, self._done, self._told, self._failed = learn.recorder.run, 0, False, 0
        self._next, self._flush_from = monotonic() + _INTERVAL, 0.0

    def after_batch(self, learn: LearnerState) -> None:
        if learn.training and monotonic() >= self._next:
            self._send(learn)
            self._next = monotonic() + _INTERVAL

    def after_epoch(self, learn: LearnerState) -> None:
        self._send(learn, with_row=True)

    def after_fit(self, learn: LearnerState) -> None:
        if self._run is None:
            return  # refused before it began
        self._send(learn, is_last=True)
        self._first += len(self._run.losses)
        self._run = None

    def _send(self, learn: LearnerState, *, with_row: bool = False, is_last: bool = False) -> None:
        """Log the steps since the last time, and the newest epoch's values."""
        learn.recorder.flush()
        run, first = self._run, self._first
        todo: list[tuple[int, dict[str, Value]]] = []
        if not self._told:
            todo.append((first, hyperparameters(learn, run)))
        n = min(len(run.losses), len(run.lrs))
        todo += [(first + i + 1, _values_of_step(learn, run, i)) for i in range(self._done, n)]
        if with_row:
            row = {
                f"metric/{name}" if name in _OF_STEPS else name: v
                for name, v in run.rows[-1].items()
                if name not in ("train_loss", "time")
            }
            todo.append((first + n, row | {"seconds": run.rows[-1]["time"]}))
        self._done, self._told = n, True
        if self._failed < _TRIES:
            self._log(learn, todo, is_last=is_last)

    def _log(
        self, learn: LearnerState, todo: list[tuple[int, dict[str, Value]]], *, is_last: bool
    ) -> None:
        try:
            for step, values in todo:
                self.log(step, values)
            began = monotonic()
            flush = getattr(self.log, "flush", None)
            if callable(flush) and (is_last or began >= self._flush_from):
                flush()
                self._flush_from = monotonic() + (monotonic() - began) / _SHARE
            self._failed = 0
        except Exception as error:  # of whatever library
            self._failed += 1
            if not self._said:
                self._said = True
                self._say(learn, error)

    def _say(self, learn: LearnerState, error: Exception) -> None:
        text = (str(error).strip() or "no text").splitlines()[0]
        target = getattr(self._target, "__name__", None) or type(self._target).__name__
        said = (
            f"LogTo: logging to {target} failed ({type(error).__name__}: {text}); the run goes on, "
            f"and after {_TRIES} failures in a row it logs no more"
        )
        learn.recorder.run.notes.append(said)
        warn(said, stacklevel=users_line())

    def state_dict(self) -> dict[str, object]:
        return {"first": self._first, "done": self._done, "told": self._told}

    def load_state_dict(self, learn: LearnerState, state: dict[str, object]) -> None:
        self._first, self._done, self._told = state["first"], state["done"], state["told"]
        if callable(resume := getattr(self.log, "resume", None)):
            resume(self._first + self._done)

    def __deepcopy__(self, memo: dict) -> "LogTo":
        """A copy of the counts that logs to the same place: writers cannot be copied."""
        copied = memo[id(self)] = object.__new__(type(self))
        shared = {"log": self.log, "_target": self._target}
        own = {key: value for key, value in vars(self).items() if key not in shared}
        vars(copied).update(deepcopy(own, memo), **shared)
        return copied

    def __getstate__(self) -> dict:
        try:
            pickle.dumps((self.log, self._target))
        except Exception as error:
            raise TypeError(
                f"a learner with {type(self).__name__}({type(self._target).__name__}) cannot be "
                f"pickled ({error}); use learn.save or learn.export, or take it out of learn.cbs"
            ) from None
        return vars(self) | {"_run": None}


def _values_of_step(learn: LearnerState, run: Run, i: int) -> dict[str, Value]:
    lrs, names = run.lrs[i], learn.group_names
    of_groups = {f"lr/{name}": lr for name, lr in zip(names, lrs, strict=False)}
    values = {"train_loss": run.losses[i], "lr": lrs[-1], "mom": run.moms[i]}
    return values | (of_groups if len(lrs) > 1 else {})


def hyperparameters(learn: LearnerState, run: Run) -> dict[str, Value]:
    """What a stage trains with: numbers and texts."""
    dls = learn.dls
    decays = [group["weight_decay"] for group in learn.opt.param_groups]
    n_train = getattr(getattr(dls.train, "dataset", None), "__len__", lambda: None)()
    known = {
        "run": run.name,
        "epochs": run.n_epoch,
        "batches": run.n_iter,
        "wd": max(decays, default=0.0),
        "seed": learn.seed,
        "accumulate": learn.accumulate,
        "clip_grad": learn.clip_grad,
        "bs": getattr(dls, "bs", None),
        "size": getattr(dls, "size", None),
        "train_items": n_train,
        "classes": len(learn.vocab) if learn.vocab else None,
        "arch": learn.config.get("arch") or type(learn.model).__name__,
        "loss": loss_name(learn.loss_func),
        "trains": run.trained,
        "amp": learn.amp,
        "device": str(learn.device),
    }
    there = {name: value for name, value in known.items() if value is not None}
    numbers = {k: v for k, v in there.items() if isinstance(v, str) or isfinite(v)}
    return {f"hyper/{name}": value for name, value in numbers.items()}
