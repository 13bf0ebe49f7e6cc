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


def test_accuracy_should_rise(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, metrics=accuracy, device="cpu")

    class Accuracies(Callback):
        def after_epoch(self, learn: Learner) -> None:
            learn.recorder.run.rows[-1]["accuracy"] = [0.5, 0.6, 0.6, 0.7][learn.epoch]

    result = learn.fit(4, 1e-3, cbs=[Accuracies(), EarlyStopping("accuracy")])
    assert len(result.rows) == 3


class Scripted:
    """A metric of a name, with given values."""

    def __init__(self, name: str, *values: float, **attributes: bool) -> None:
        self.__name__, self.values = name, list(values)
        vars(self).update(attributes)

    def __call__(self, preds, targets) -> float:
        return self.values.pop(0)


def scripted_errors(loaders, mlp, *values: float) -> Learner:
    """A learner whose error_rate has given values; 10 pictures are held out."""
    metric = Scripted("error_rate", *values)
    return Learner(loaders, mlp, groups=[[part] for part in mlp], metrics=metric, device="cpu")


@pytest.mark.parametrize(
    ("errors", "kept", "why"),
    [
        # One standard error of 2 of 10 is 0.126, so 3 are as good and 4 are not.
        ((0.5, 0.2, 0.3, 0.4), 2, "3 errors of 10 (± 2), valid_loss 1.000; the last epoch with"),
        ((0.5, 0.2, 0.4, 0.4), 1, "2 errors of 10 (± 2), the fewest"),
        ((0.4, 0.5, 0.2, 0.1), 3, "1 error of 10 (± 1), the fewest"),
        ((0.2, 0.3, 0.1, 0.3), 2, "1 error of 10 (± 1), the fewest"),  # 0.095: not even 2
        ((0.0, 0.1, 0.1, 0.1), 0, "no error of 10, the fewest"),  # without a standard error
    ],
)
def test_the_last_epoch_within_one_standard_error_of_the_lowest_is_kept(
    errors, kept: int, why: str, loaders, mlp
) -> None:
    learn = scripted_errors(loaders, mlp, *errors)
    result = learn.fit(4, 1e-3, cbs=[Losses(1, 1, 1, 1), SaveBest("error_rate")])
    assert result.kept["epoch"] == kept
    assert learn.recorder.run.kept_why.startswith(f"kept epoch {kept}: {why}")


def test_the_same_holds_for_a_share_that_rises(loaders, mlp) -> None:
    metric = Scripted("accuracy", 0.5, 0.8, 0.7, 0.6)
    learn = Learner(loaders, mlp, metrics=metric, device="cpu")
    cbs = [Losses(1, 1, 1, 1), SaveBest("accuracy")]
    assert learn.fit(4, 1e-3, cbs=cbs).kept["epoch"] == 2
    assert learn.recorder.run.kept_why == (
        "kept epoch 2: 3 errors of 10 (± 2), valid_loss 1.000; the last epoch with both within one "
        "standard error of the best (2 errors)"
    )


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        # One standard error of a loss of 10 pictures is 0.316 of it.
        ((2.0, 1.0, 1.31, 1.31), 3),
        ((2.0, 1.0, 1.32, 1.32), 1),
        ((2.0, 1.61, 1.61, 0.49), 3),
        ((0.1, 1.0, 1.0, 1.0), 3),  # that of an epoch with more errors is of no account
    ],
)
def test_an_epoch_whose_loss_is_higher_by_more_than_that_is_not_kept(
    losses, kept: int, loaders, mlp
) -> None:
    learn = scripted_errors(loaders, mlp, 0.5, 0.2, 0.3, 0.3)
    best = SaveBest("error_rate")
    assert learn.fit(4, 1e-3, cbs=[Losses(*losses), best]).kept["epoch"] == kept


def test_the_epoch_with_fewest_errors_is_kept_where_the_kept_one_has_clearly_more(
    loaders, mlp
) -> None:
    learn = scripted_errors(loaders, mlp, 0.5, 0.1)
    assert learn.fit(2, 1e-3, cbs=[Losses(0.5, 3.0), SaveBest("error_rate")]).kept["epoch"] == 1


def test_a_metric_that_counts_no_pictures_is_kept_by_its_value(loaders, mlp) -> None:
    metric = Scripted("f1", 0.5, 0.8, 0.79, 0.79)
    learn = Learner(loaders, mlp, metrics=metric, device="cpu")
    assert learn.fit(4, 1e-3, keep_best=True).kept["epoch"] == 1
    assert learn.recorder.run.kept_why == "kept epoch 1: best f1, 0.8000"


def test_fine_tune_never_ends_worse_than_its_head_by_more_than_a_standard_error(
    loaders, mlp
) -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        errors = (torch.randint(0, 11, (5,), generator=rng) / 10).tolist()
        kept = scripted_errors(loaders, mlp, *errors).fine_tune(3, freeze_epochs=2).kept
        head = errors[1]
        assert kept["error_rate"] <= head + (head * (1 - head) / 10) ** 0.5 + 1e-9


@pytest.mark.parametrize(
    "fit",
    [
        lambda learn: learn.fit(3, 1e-3, keep_best=True),
        lambda learn: learn.fit_one_cycle(3, 1e-3, keep_best=True),
        lambda learn: learn.fit_flat_cos(3, 1e-3, keep_best=True),
        lambda learn: learn.fit_sgdr(3, 1, 1e-3, cycle_mult=1, keep_best=True),
    ],
)
def test_each_fit_can_keep_its_best_epoch(fit, loaders, mlp) -> None:
    learn = scripted_errors(loaders, mlp, 0.9, 0.1, 0.9)
    weights = []

    class Watch(Callback):
        def after_epoch(self, learn: Learner) -> None:
            weights.append(learn.model[0][0].weight.clone())

    learn.cbs = [Watch()]
    assert fit(learn).kept["epoch"] == 1
    assert torch.equal(learn.model[0][0].weight, weights[1])


def test_what_ended_a_fit_early_is_told(learn: Learner, capsys) -> None:
    stop = [Losses(3, 1, 2, 2), EarlyStopping(patience=2)]
    result = learn.fit(9, 1e-3, cbs=stop)
    assert result.status == "stopped"
    assert learn.recorder.run.ended == "valid_loss did not improve for 2 epochs"
    assert "stopped in epoch 4 of 9 after 20 steps; valid_loss did not" in capsys.readouterr().out
    assert "fit ended early: valid_loss did not improve for 2 epochs" in repr(learn.recorder)


RISING, FALLING = (0.2, 0.5, 0.9), (0.9, 0.5, 0.2)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        (Scripted("ErrorRate", *FALLING), None),
        (Scripted("F1Score", *RISING), None),
        (Scripted("Accuracy", *RISING), None),
        (Scripted("LOG_LIKELIHOOD", *RISING), None),
        (Scripted("perplexity", *FALLING), None),
        (Scripted("mse", *FALLING), None),
        (Scripted("error_rate_at_5", *FALLING), "min"),
        (Scripted("lossless_share", *RISING), "max"),
        (Scripted("mine", *RISING, higher_is_better=True), None),
        (Scripted("mine", *FALLING, higher_is_better=False), None),
        (Scripted("accuracy", *FALLING), "min"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_metric_that_gets_better_stops_nothing_and_its_last_epoch_is_kept(
    metric, mode, loaders, mlp
) -> None:
    learn = Learner(loaders, mlp, metrics=metric, device="cpu")
    best = SaveBest(metric.__name__, mode=mode)
    learn.fit(3, 1e-3, cbs=[EarlyStopping(metric.__name__, mode=mode), best])
    assert len(learn.recorder.run.rows) == 3
    assert best.row["epoch"] == 2


@pytest.mark.parametrize("name", ["error_rate_at_5", "Lossless", "fraction", "inaccuracy"])
@pytest.mark.parametrize("callback", [EarlyStopping, SaveBest])
def test_a_metric_of_unknown_direction_is_refused_with_what_to_type(
    name: str, callback, loaders, mlp
) -> None:
    learn = Learner(loaders, mlp, metrics=Scripted(name, 0.5), device="cpu")
    message = rf'write {callback.__name__}\("{name}", mode="max"\) or mode="min"'
    for fit in (learn.fit, learn.fine_tune):
        with pytest.raises(ValueError, match=message):
            fit(1, cbs=[callback(name)])
    assert all(not run.losses for run in learn.recorder.runs)
    assert learn.frozen == 0


def test_a_mode_that_is_none_is_refused() -> None:
    for callback in (EarlyStopping, SaveBest):
        with pytest.raises(ValueError, match='mode is \'up\'; it must be "min", "max" or None'):
            callback("accuracy", mode="up")


def test_fine_tune_keeps_the_best_by_a_metric_that_says_how(loaders, mlp) -> None:
    metric = Scripted("mine", 0.1, 0.9, 0.5, higher_is_better=True)
    learn = Learner(loaders, mlp, groups=[[part] for part in mlp], metrics=metric, device="cpu")
    assert learn.fine_tune(2, freeze_epochs=1).kept["mine"] == 0.9


def test_fine_tune_says_that_it_goes_by_the_validation_loss(loaders, mlp) -> None:
    metric = Scripted("mine", 0.1, 0.9, 0.5)
    learn = Learner(loaders, mlp, groups=[[part] for part in mlp], metrics=metric, device="cpu")
    with pytest.warns(
        UserWarning, match="keep_best goes by valid_loss: whether mine should"
    ) as said:
        result = learn.fine_tune(2, freeze_epochs=1)
    assert said[0].filename == __file__
    assert result.kept["valid_loss"] == min(row["valid_loss"] for row in result.rows)


def test_save_best_puts_the_best_weights_back(learn: Learner) -> None:
    kept = {}

    class Keep(Callback):
        def after_epoch(self, learn: Learner) -> None:
            kept[learn.epoch] = {k: v.clone() for k, v in learn.model.state_dict().items()}

    result = learn.fit(4, 1e-2, cbs=[Losses(3, 1, 2, 4), Keep(), SaveBest()])
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k, v in kept[1].items())
    assert not torch.equal(kept[1]["0.0.weight"], kept[3]["0.0.weight"])
    assert result.kept["epoch"] == 1


def test_weights_that_are_kept_again_and_again_are_those_of_the_last_time(
    learn: Learner, loaders
) -> None:
    kept = []

    class Keep(Callback):
        def after_epoch(self, learn: Learner) -> None:
            kept.append({k: v.clone() for k, v in learn.model.state_dict().items()})

    best = SaveBest()
    learn.fit(4, 1e-2, cbs=[Losses(4, 3, 2, 5), Keep(), best])
    weights = learn.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in kept[2].items())
    other = Learner(loaders, torch.nn.Linear(4, 2), device="cpu")
    other.fit(1, 1e-2, cbs=[Losses(1), Keep(), best])
    assert torch.equal(other.model.weight, kept[-1]["weight"])


def test_save_best_restores_after_early_stopping(learn: Learner) -> None:
    best = SaveBest()
    learn.fit(9, 1e-2, cbs=[Losses(3, 1, 2, 4), EarlyStopping(patience=2), best])
    assert len(learn.recorder.run.rows) == 4
    assert best.row["epoch"] == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_an_interrupted_fit_ends_with_its_best_epoch_or_else_its_last_step(
    learn: Learner, keeps: bool
) -> None:
    class Interrupt(Callback):
        def before_batch(self, learn: Learner) -> None:
            if learn.epoch == 2 and learn.iter == 3:
                self.last = learn.model[0][0].weight.clone()
                raise KeyboardInterrupt

        def after_epoch(self, learn: Learner) -> None:
            if learn.epoch == 0:
                self.best = learn.model[0][0].weight.clone()

    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(4, 1e-2, cbs=[Losses(1, 2), *[SaveBest()] * keeps, interrupt])
    kept = interrupt.best if keeps else interrupt.last
    assert torch.equal(learn.model[0][0].weight, kept)
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
    assert repr(result) == "fit stopped after 1 epoch"


def test_the_best_of_an_earlier_fit_is_told_as_such(learn: Learner) -> None:
    best = SaveBest()
    learn.fit(1, 1e-2, cbs=[Losses(1), best])
    result = learn.fit(1, 1e-2, cbs=[Losses(2), best])
    assert result.kept["valid_loss"] == 1
    assert repr(result).startswith("fit finished after 1 epoch, kept epoch 0 of an earlier fit")
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


def test_a_run_has_the_weakest_classes_of_each_epoch(loaders, mlp, monkeypatch) -> None:
    seen = []

    def weakest(preds: torch.Tensor, targets: torch.Tensor, vocab: list[str]) -> str:
        seen.append((preds.shape, targets.shape, vocab))
        assert preds.sum(1) == pytest.approx(torch.ones(10))
        return f"weakest, time {len(seen)}"

    monkeypatch.setattr("nbfinetune.training.loop.weakest_classes", weakest)
    learn = Learner(loaders, mlp, metrics=Scripted("error_rate", 0.1, 0.5, 0.5), device="cpu")
    result = learn.fit(3, 1e-3, keep_best=True)
    assert seen == [((10, 2), (10,), ["no", "yes"])] * 3
    assert learn.recorder.run.weakest == ["weakest, time 1", "weakest, time 2", "weakest, time 3"]
    assert result.verdict.endswith("Weakest, time 1")  # of the epoch whose weights are kept
    assert (learn.recorder.run.n_valid, learn.recorder.run.shares) == (10, {"error_rate": False})


def test_targets_that_are_no_classes_have_no_weakest_ones(loaders, mlp) -> None:
    loaders.train, loaders.valid = (
        [(x, torch.stack([y, 1 - y], 1).float()) for x, y in loader]
        for loader in (loaders.train, loaders.valid)
    )
    learn = Learner(loaders, mlp, loss_func=torch.nn.BCEWithLogitsLoss(), device="cpu")
    learn.fit(1, 1e-3)
    assert learn.recorder.run.weakest == [""]


def test_train_loss_is_the_moving_average_over_the_whole_fit(learn: Learner) -> None:
    run = learn.fit(2, 1e-2).stages[0]
    average = 0.0
    for k, loss in enumerate(run.losses, 1):
        average = 0.98 * average + 0.02 * loss
        if k % 5 == 0:
            assert run.rows[k // 5 - 1]["train_loss"] == pytest.approx(average / (1 - 0.98**k))
