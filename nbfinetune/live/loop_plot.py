"""LoopPlot: the training screen for a training loop of the user's own, in three calls."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from nbfinetune.arguments import as_whole_number
from nbfinetune.history.recorder import Recorder
from nbfinetune.history.report import TrainingReport, epoch_table, format_value
from nbfinetune.history.runs import Run
from nbfinetune.live.displayed import Displayed
from nbfinetune.live.event_pump import EventPump
from nbfinetune.live.screens import Throttle, unless_closed
from nbfinetune.live.training_runs import shows_widgets
from nbfinetune.rendering.names import shown
from nbfinetune.rendering.numbers import counted, rate_text
from nbfinetune.training.callbacks import CancelFit

_NAP = 0.02  # seconds between two looks at a paused loop
_WIDTH = 10  # of a printed column, at least


class LoopPlot:
    """Shows a training loop as `TrainingPlot` shows a fit: curves, epochs, Pause and Stop.

    Three calls: make it with `with`, call `step` after each batch and `epoch` after each epoch.
    **Stop** ends the body of the `with` at the next `step`, quietly; an interrupt or an error ends
    the screen and goes on. Without widgets the epochs are printed. In the end the picture and the
    table stay; `plot.recorder` shows them again, as `learn.recorder` does.

    Parameters
    ----------
    n_epoch : epochs planned
    n_iter : training batches in one
    metrics : names of the metrics
    name : of the run

    Attributes
    ----------
    recorder : the history
    plot : the `TrainingPlot`, None where no widgets are shown

    Examples
    --------
    >>> with LoopPlot(1, 2, ["accuracy"]) as plot:
    ...     for loss in (0.7, 0.5):
    ...         plot.step(loss, 1e-3)
    ...     plot.epoch(0.6, 0.9)  # doctest: +ELLIPSIS
         epoch  train_loss  valid_loss    accuracy        time
             0    0.598...    0.600000    0.900000       00:00
    """

    def __init__(
        self, n_epoch: int, n_iter: int, metrics: Sequence[str] = (), *, name: str = "fit"
    ) -> None:
        n_epoch = as_whole_number("n_epoch", n_epoch, 1)
        n_iter = as_whole_number("n_iter", n_iter, 1)
        names = ["epoch", "train_loss", "valid_loss", "time"]
        listed = [metrics] if isinstance(metrics, str) else list(metrics)
        wrong = [
            m for i, m in enumerate(listed) if not isinstance(m, str) or m in names + listed[:i]
        ]
        if wrong:
            raise ValueError(
                f"metrics has {shown(wrong[0])}; give names, each once and none of "
                f"{', '.join(names)}"
            )
        self._run = Run(name, n_epoch, n_iter, [*names[:3], *listed, "time"], when=time.time())
        self.recorder, self.plot = Recorder(), None
        self._clock, self._stack = Throttle(), ExitStack()
        self._paused = self._stopping = False
        self._waited = 0.0

    def __enter__(self) -> "LoopPlot":
        self.recorder.begin(self._run)
        self._begun = self._epoch_begun = time.monotonic()
        if shows_widgets(False):
            self._open()
        else:
            self._print(self._run.names)
        return self

    def _open(self) -> None:
        from nbfinetune.widgets.training_plot import TrainingPlot  # brings bqplot, that pandas

        self._pump = self._stack.enter_context(EventPump())
        self.plot = TrainingPlot(self._run.names[3:-1], steers_rates=False)
        self.plot.observe(lambda change: self._obey(change["new"]), "request")
        self.plot.words = "training; the curves and the table stay when it ends"
        self._displayed = Displayed(self.plot)
        self.plot.begin()

    def _obey(self, request: str) -> None:
        """Take a request of a button, in whatever thread."""
        self._paused = request == "pause" or (self._paused and request == "")
        self._stopping = self._stopping or request == "stop"

    def step(self, loss: Tensor | float, lr: object = 0.0) -> None:
        """A training batch is done.

        Parameters
        ----------
        loss : its loss, a scalar; a tensor is read later, with others, as each read waits for the
            device
        lr : its learning rate, or the optimizer, whose last group's rate is taken

        Raises
        ------
        CancelFit
            If Stop was pressed; `with` takes it.
        ValueError
            If the loss is no scalar.
        """
        loss = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
        if loss.numel() != 1:
            raise ValueError(f"loss has the shape {list(loss.shape)}; give one number, loss.mean()")
        groups = getattr(lr, "param_groups", None)
        rate = float(groups[-1]["lr"] if groups else lr)
        seconds = time.monotonic() - self._begun - self._waited
        self.recorder.add_step(loss.reshape(()).float(), [rate], 0.0, seconds)
        if self.plot is None:
            return
        self._pump.poll()
        if self._paused and not self._stopping:
            self._wait()
        if self._stopping:
            self._run.events.append((len(self._run.lrs), "stopped"))
            raise CancelFit
        if self._clock.due:
            self._draw()

    def _wait(self) -> None:
        self._run.events.append((len(self._run.lrs), "paused"))
        started = time.monotonic()
        self._show_paused(True)
        while self._paused and not self._stopping:
            time.sleep(_NAP)
            self._pump.poll()
        self._show_paused(False)
        self._waited += time.monotonic() - started

    @unless_closed
    def _show_paused(self, paused: bool) -> None:
        self.plot.show_paused(paused)

    def epoch(self, valid_loss: float, *metrics: float) -> None:
        """An epoch is done: its validation loss, and the metrics in the order of their names."""
        names = self._run.names[3:-1]
        if len(metrics) != len(names):
            raise ValueError(
                f"epoch got {counted(len(metrics), 'metric')}, but {len(names)} were named: "
                f"{', '.join(names) or 'none'}"
            )
        now = time.monotonic() - self._waited
        values = [float(value) for value in (valid_loss, *metrics)]
        self.recorder.add_epoch(len(self._run.rows), values, now - self._epoch_begun)
        self._epoch_begun = now
        if self.plot is None:
            row = self._run.rows[-1]
            self._print([format_value(name, row[name]) for name in self._run.names])
        else:
            self._draw()

    def _print(self, row: Sequence[str]) -> None:
        widths = [max(_WIDTH, len(name)) for name in self._run.names]
        print("  ".join(map(str.rjust, row, widths)), flush=True)

    @unless_closed
    def _draw(self) -> None:
        with self._clock.drawing(lambda: self.plot.n_bytes):
            self.recorder.flush()
            run = self._run
            self.plot.draw([run])
            table, n = epoch_table([run]), len(run.rows)
            text = ""
            if run.rows:
                values = [f"{name} {run.rows[-1][name]:.4f}" for name in run.names[1:-1]]
                text = f"epoch {n} of {run.n_epoch}: {', '.join(values)}"
            self.plot.rows(table, text, run.n_epoch)
            done = min(len(run.lrs) / (run.n_epoch * run.n_iter), 1.0)
            where = f"epoch {min(n + 1, run.n_epoch)} of {run.n_epoch}, {done:.0%}"
            if run.losses:
                where += f"; train_loss {self.recorder.train_loss:.4f}"
                where += f", lr {rate_text(run.lrs[-1][-1])}"
            self.plot.progress(done, where)

    def __exit__(self, kind: type | None, error: object, trace: object) -> bool:
        stopped = isinstance(error, CancelFit)
        status = "finished" if kind is None else "stopped" if stopped else "failed"
        if isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        self.recorder.end(status)
        text = "" if kind is None else f"{status} after {counted(len(self._run.lrs), 'step')}"
        with self._stack:
            if self.plot is not None:
                self._draw()
                self._displayed.end(TrainingReport([self._run], text))
            elif stopped:
                print(text, flush=True)
        return stopped
