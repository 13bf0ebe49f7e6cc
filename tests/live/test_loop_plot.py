"""The training screen of a loop of the user's own."""

import pytest
import torch
from torch import nn

import nbfinetune
from nbfinetune.history.report import TrainingReport
from nbfinetune.live import loop_plot
from nbfinetune.live.loop_plot import LoopPlot


@pytest.fixture
def shown(shown: list, monkeypatch) -> list:
    """As in a notebook with widgets."""
    monkeypatch.setattr(loop_plot, "shows_widgets", lambda no_widgets: True)
    return shown


def test_any_loop_has_the_screen_in_three_calls(shown: list) -> None:
    model, losses, accuracies = nn.Linear(2, 2), [], [0.25, 0.75]
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with LoopPlot(n_epoch=2, n_iter=3, metrics=["accuracy"]) as plot:
        for epoch in range(2):
            for _ in range(3):
                loss = model(torch.ones(4, 2)).square().mean()
                loss.backward()
                opt.step()
                opt.zero_grad()
                losses.append(loss.item())
                plot.step(loss, opt)
            plot.epoch(0.5 - 0.1 * epoch, accuracies[epoch])
        assert shown == [plot.plot]
        assert plot.plot.figure._raw.y.tolist() == pytest.approx(losses)
        assert plot.plot.figure._valid.x.tolist() == [3, 6]
        assert plot.plot.status.text.startswith("epoch 2 of 2: train_loss ")
        assert not plot.plot.buttons.finishes
        assert len(plot.plot.children[0].children) == 1  # no slider for rates
    run = plot.recorder.run
    assert (run.status, run.lrs) == ("finished", [[0.1]] * 6)
    assert [row["accuracy"] for row in run.rows] == accuracies
    assert isinstance(shown[-1], TrainingReport)
    assert shown[-1].text == ""
    assert plot.plot.comm is None
    assert "valid_loss" in repr(plot.recorder)


def test_stop_ends_the_loop_quietly_at_the_next_step(shown: list) -> None:
    with LoopPlot(5, 2) as plot:
        for i in range(10):
            if i == 3:
                plot.plot._ask("stop")
            plot.step(1.0, 1e-3)
    assert i == 3
    assert plot.recorder.run.status == "stopped"
    assert shown[-1].text == "stopped after 4 steps"
    assert "by hand: after step 4: stopped" in repr(shown[-1])


def test_pause_waits_until_it_goes_on(shown: list, monkeypatch) -> None:
    naps = []

    def nap(seconds: float) -> None:
        naps.append(plot.plot.paused)
        plot.plot._ask("resume")

    monkeypatch.setattr(loop_plot.time, "sleep", nap)
    with LoopPlot(1, 2) as plot:
        plot.plot._ask("pause")
        plot.step(1.0)
        plot.step(1.0)
    assert naps == [True]
    assert plot.recorder.run.events == [(1, "paused")]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")]
)
def test_an_interrupt_or_error_ends_the_screen_and_goes_on(error, status: str, shown: list) -> None:
    plot = LoopPlot(1, 2)

    def loop() -> None:
        with plot:
            plot.step(1.0)
            raise error

    with pytest.raises(error):
        loop()
    assert plot.recorder.run.status == status
    assert shown[-1].text == f"{status} after 1 step"
    assert plot.recorder.run.losses == [1.0]


def test_a_screen_that_was_closed_ends_no_loop(shown: list) -> None:
    with LoopPlot(2, 1) as plot:
        plot.step(1.0)
        plot.plot.close()
        plot.epoch(0.5)
        plot.step(1.0)
        plot.epoch(0.4)
    assert plot.recorder.run.status == "finished"


def test_without_widgets_the_epochs_are_printed(capsys) -> None:
    with nbfinetune.LoopPlot(1, 1, "f1") as plot:
        plot.step(torch.tensor([2.0]), 1e-3)
        plot.epoch(torch.tensor(1.0), 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["epoch", "train_loss", "valid_loss", "f1"],
        ["0", "2.000000", "1.000000", "0.500000"],
    ]
    assert "training curves over 1 steps" in plot.recorder._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LoopPlot(0, 1), "n_epoch is 0; it must be a whole number from 1 up"),
        (lambda: LoopPlot(1, 1.5), "n_iter is 1.5"),
        (lambda: LoopPlot(1, 1, ["time"]), "metrics has 'time'; give names, each once and none"),
        (lambda: LoopPlot(1, 1, ["a", "a"]), "metrics has 'a'"),
        (lambda: LoopPlot(1, 1, [len]), "metrics has <built-in function len>"),
        (lambda: LoopPlot(1, 1).step(torch.ones(3)), r"loss has the shape \[3\]; give one number"),
        (lambda: LoopPlot(1, 1, ["a"]).epoch(1.0), "epoch got 0 metrics, but 1 were named: a"),
        (lambda: LoopPlot(1, 1).epoch(1.0, 2.0), "epoch got 1 metric, but 0 were named: none"),
    ],
)
def test_what_cannot_be_shown_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
