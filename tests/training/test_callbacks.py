import pytest
import torch

from nbfinetune import Callback, CancelFit, EarlyStopping, Learner, SaveBest, accuracy


class Losses(Callback):
    """Puts given validation losses in place of the real ones, before the Recorder's row is used."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def after_epoch(self, learn: Learner) -> None:
        learn.recorder.run.rows[-1]["valid_loss"] = self.values.pop(0)


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "epochs"),
    [
        ((3, 2, 1, 0), 1, 0, 4),
        ((3, 2, 2, 0), 1, 0, 3),
        ((3, 4, 2, 5, 6), 2, 0, 5),
        ((3, 2.9, 2.8, 2.7), 1, 0.5, 2),
        ((float("nan"), 1, 2, 3), 2, 0, 4),
    ],
)
def test_early_stopping_waits_this_long(losses, patience, min_delta, epochs, learn) -> None:
    stop = EarlyStopping(patience=patience, min_delta=min_delta)
    result = learn.fit(len(losses), 1e-3, cbs=[Losses(*losses), stop])
    assert len(result.rows) == epochs


def test_early_stopping_starts_anew_with_each_fit(learn: Learner) -> None:
    stop = EarlyStopping()
    for _ in range(2):
        result = learn.fit(3, 1e-3, cbs=[Losses(1, 2, 3), stop])
        assert len(result.rows) == 2


def test_a_metric_without_loss_or_error_in_its_name_should_rise(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, metrics=accuracy, device="cpu")

    class Accuracies(Callback):
        def after_epoch(self, learn: Learner) -> None:
            learn.recorder.run.rows[-1]["accuracy"] = [0.5, 0.6, 0.6, 0.7][learn.epoch]

    result = learn.fit(4, 1e-3, cbs=[Accuracies(), EarlyStopping("accuracy")])
    assert len(result.rows) == 3


def test_save_best_puts_the_best_weights_back(learn: Learner) -> None:
    kept = {}

    class Keep(Callback):
        def after_epoch(self, learn: Learner) -> None:
            kept[learn.epoch] = {k: v.clone() for k, v in learn.model.state_dict().items()}

    result = learn.fit(4, 1e-2, cbs=[Losses(3, 1, 2, 4), Keep(), SaveBest()])
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k, v in kept[1].items())
    assert not torch.equal(kept[1]["0.0.weight"], kept[3]["0.0.weight"])
    assert result.kept["epoch"] == 1


def test_save_best_restores_after_early_stopping(learn: Learner) -> None:
    best = SaveBest()
    learn.fit(9, 1e-2, cbs=[Losses(3, 1, 2, 4), EarlyStopping(patience=2), best])
    assert len(learn.recorder.run.rows) == 4
    assert best.row["epoch"] == 1


def test_an_interrupted_fit_keeps_the_weights_of_its_last_step(learn: Learner) -> None:
    class Interrupt(Callback):
        def before_batch(self, learn: Learner) -> None:
            if learn.epoch == 2 and learn.iter == 3:
                self.weights = learn.model[0][0].weight.clone()
                raise KeyboardInterrupt

    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(4, 1e-2, cbs=[Losses(1, 2), SaveBest(), interrupt])
    assert torch.equal(learn.model[0][0].weight, interrupt.weights)
    assert len(learn.recorder.run.losses) == 13


def test_save_best_restores_when_stopped_within_a_later_epoch(learn: Learner) -> None:
    kept = {}

    class StopLater(Callback):
        def after_epoch(self, learn: Learner) -> None:
            kept.update({k: v.clone() for k, v in learn.model.state_dict().items()})

        def after_batch(self, learn: Learner) -> None:
            if learn.epoch == 1 and learn.iter == 3:
                raise CancelFit

    result = learn.fit(4, 1e-2, cbs=[StopLater(), SaveBest()])
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k, v in kept.items())
    assert result.kept is result.rows[0]
    result = learn.fit(4, 1e-2, cbs=[StopLater()])
    assert result.kept is None  # the weights are those of no epoch's end
    assert repr(result) == "fit stopped after 1 epochs"


def test_the_best_of_an_earlier_fit_is_told_as_such(learn: Learner) -> None:
    best = SaveBest()
    learn.fit(1, 1e-2, cbs=[Losses(1), best])
    result = learn.fit(1, 1e-2, cbs=[Losses(2), best])
    assert result.kept["valid_loss"] == 1
    assert repr(result).startswith("fit finished after 1 epochs, kept epoch 0 of an earlier fit")
    learn.cbs += [Losses(1, 2), SaveBest()]
    assert learn.fit(2, 1e-2).kept["epoch"] == 0


@pytest.mark.parametrize("callback", [EarlyStopping("accuracy"), SaveBest("accuracy")])
def test_what_is_not_recorded_cannot_be_monitored(callback: Callback, learn: Learner) -> None:
    message = "monitor is 'accuracy'; this run records train_loss, valid_loss"
    with pytest.raises(ValueError, match=message):
        learn.fit(1, 1e-3, cbs=[callback])
    assert learn.recorder.run.status == "refused"
    assert learn.recorder.run.losses == []


def test_the_recorder_has_every_step_and_epoch(learn: Learner) -> None:
    learn.fit(2, 1e-3)
    learn.fit_one_cycle(1, slice(1e-5, 1e-3))
    assert [run.name for run in learn.recorder.runs] == ["fit", "fit_one_cycle"]
    first, second = learn.recorder.runs
    assert (len(first.losses), len(first.lrs), len(first.moms)) == (10, 10, 10)
    assert [row["epoch"] for row in first.rows] == [0, 1]
    assert list(first.rows[0]) == ["epoch", "train_loss", "valid_loss", "time"]
    assert second.lrs[0] == pytest.approx([4e-7, 4e-6, 4e-5])


def test_train_loss_is_the_moving_average_over_the_whole_fit(learn: Learner) -> None:
    run = learn.fit(2, 1e-2).stages[0]
    average = 0.0
    for k, loss in enumerate(run.losses, 1):
        average = 0.98 * average + 0.02 * loss
        if k % 5 == 0:
            assert run.rows[k // 5 - 1]["train_loss"] == pytest.approx(average / (1 - 0.98**k))
