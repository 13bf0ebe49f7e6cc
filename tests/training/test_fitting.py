"""Whole fits against fastai 2.8.12: the same model and batches give its losses and rows."""

import numpy as np
import pytest
import torch

from nbfinetune import Callback, ImageDataLoaders, Learner, accuracy, vision_learner

FITS = {
    "fit": lambda learn: learn.fit(2, 1e-2),
    "fit_one_cycle": lambda learn: learn.fit_one_cycle(2, slice(1e-3, 1e-1)),
    "fit_flat_cos": lambda learn: learn.fit_flat_cos(2, 1e-2),
    "fit_sgdr": lambda learn: learn.fit_sgdr(2, 1, 1e-2),
    "fine_tune": lambda learn: learn.fine_tune(2, 1e-2, recipe="fastai"),
}


@pytest.fixture
def as_fastai(loaders, mlp) -> Learner:
    return Learner(loaders, mlp, groups=[[part] for part in mlp], metrics=accuracy, device="cpu")


@pytest.mark.parametrize("name", FITS)
def test_a_fit_has_the_losses_and_rows_of_fastai(name: str, as_fastai: Learner, golden) -> None:
    result = FITS[name](as_fastai)
    losses = [loss for stage in result.stages for loss in stage.losses]
    assert losses == pytest.approx(golden[name]["losses"], abs=2e-6)
    rows = [[row[n] for n in ("train_loss", "valid_loss", "accuracy")] for row in result.rows]
    for row, expected in zip(rows, golden[name]["rows"], strict=True):
        assert row == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("name", ["fit_one_cycle", "fit_flat_cos", "fit_sgdr"])
def test_the_last_step_has_the_rates_and_momentum_of_fastai(name, as_fastai, golden) -> None:
    run = FITS[name](as_fastai).stages[-1]
    assert [*run.lrs[-1], run.moms[-1]] == pytest.approx(golden[name]["last"], rel=1e-5)


def test_fine_tune_has_the_rates_and_momentum_of_fastai(as_fastai: Learner, golden) -> None:
    result = FITS["fine_tune"](as_fastai)
    steps = [
        [*lrs, mom] for run in result.stages for lrs, mom in zip(run.lrs, run.moms, strict=True)
    ]
    for step, expected in zip(steps, golden["fine_tune"]["lr"], strict=True):
        assert step == pytest.approx(expected, rel=1e-5)


def test_freezing_between_two_fits_forgets_momentum_as_fastai(as_fastai, golden) -> None:
    first = as_fastai.fit_one_cycle(1, 1e-2)
    as_fastai.freeze_to(-2)
    second = as_fastai.fit(1, 1e-2)
    losses = first.stages[0].losses + second.stages[0].losses
    assert losses == pytest.approx(golden["freeze_then_fit"]["losses"], abs=2e-6)


def test_fine_tune_takes_a_slice_for_the_ends_of_the_second_stage(learn: Learner) -> None:
    result = learn.fine_tune(1, slice(1e-5, 1e-3), freeze_epochs=1)  # TypeError in fastai
    peaks = [[max(lrs) for lrs in zip(*stage.lrs, strict=True)] for stage in result.stages]
    assert peaks[0][2] <= 1e-3
    assert peaks[1][2] / peaks[1][0] == pytest.approx(100)
    assert peaks[1][2] <= 5e-4


@pytest.mark.parametrize(("batches", "epochs"), [(5, 10), (3, 17), (50, 1), (80, 1)])
def test_the_head_gets_at_least_50_steps(batches: int, epochs: int, learn: Learner) -> None:
    x, y = learn.dls.train[0]
    learn.dls.train = [(x, y)] * batches
    result = learn.fine_tune(1)
    assert [stage.n_epoch for stage in result.stages] == [epochs, 1]


def test_no_frozen_stage_can_be_asked_for(learn: Learner) -> None:
    result = learn.fine_tune(1, freeze_epochs=0)
    assert [stage.name for stage in result.stages] == ["fine_tune: all layers"]


def test_start_epoch_goes_on_with_the_schedule(learn: Learner) -> None:
    whole = learn.fit_flat_cos(4, 1e-3).stages[0]
    rest = learn.fit_flat_cos(4, 1e-3, start_epoch=3).stages[0]  # ignored by fastai
    assert [row["epoch"] for row in rest.rows] == [3]
    assert rest.lrs == whole.lrs[-5:]


def test_weight_decay_of_a_fit_reaches_the_decayed_parameters_only(learn: Learner) -> None:
    learn.fit(1, 1e-3, wd=0.3)
    assert {g["weight_decay"] for g in learn.opt.param_groups} == {0.3, 0.0}
    learn.fit(1, 1e-3, wd=0.0)
    learn.fit(1, 1e-3, wd=0.2)
    assert {g["weight_decay"] for g in learn.opt.param_groups} == {0.2, 0.0}


def test_a_fit_without_a_rate_uses_that_of_the_learner(learn: Learner) -> None:
    learn.lr = 7e-4
    assert learn.fit(1).stages[0].lrs[0] == [7e-4] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda learn: learn.fit(0), "n_epoch is 0; it must be a whole number from 1 up"),
        (lambda learn: learn.fit(1.5), "n_epoch is 1.5"),
        (lambda learn: learn.fit(2, start_epoch=2), "start_epoch is 2; it must be in 0 to 1"),
        (lambda learn: learn.fit(1, [1e-3, 1e-3]), "lr has 2 values but the model has 3 layer"),
        (lambda learn: learn.fit_one_cycle(1, pct_start=2), r"pct_start is 2; it must lie in"),
        (lambda learn: learn.fit_one_cycle(1, div=0), "div is 0; it must be above 0"),
        (lambda learn: learn.fine_tune(1, -1.0), "base_lr holds -1.0"),
        (lambda learn: learn.fine_tune(1, div=-1), "div is -1; it must be above 0"),
        (lambda learn: learn.fine_tune(1, pct_start=3), "pct_start is 3"),
        (lambda learn: learn.fine_tune(1, lr_mult=0), "lr_mult is 0; it must be above 0"),
        (lambda learn: learn.fine_tune(1, freeze_epochs=-1), "freeze_epochs is -1"),
        (lambda learn: learn.fine_tune(1, wd=-1), "wd is -1; weight decay is a number from 0 up"),
        (lambda learn: learn.fit(1, wd=float("nan")), "wd is nan"),
        (lambda learn: learn.fit_one_cycle(1, moms=(0.9,)), "moms is .*; give three numbers"),
        (lambda learn: learn.fit_one_cycle(1, moms=(1.5, 2, 3)), "moms is .*; give three numbers"),
        (lambda learn: learn.fit_sgdr(1, 0), "cycle_len is 0; it must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_changes(call, message, learn: Learner) -> None:
    learn.freeze_to(-2)
    before = [p.clone() for p in learn.model.parameters()]
    with pytest.raises(ValueError, match=message):
        call(learn)
    assert learn.frozen == 1
    assert learn.recorder.runs == []
    pairs = zip(before, learn.model.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)


class Spoil(Callback):
    """Makes the weights useless at the end of the all-layers stage's epochs."""

    def before_batch(self, learn: Learner) -> None:
        if learn.run_name.endswith("all layers") and not learn.training and learn.iter == 0:
            with torch.no_grad():
                learn.model[2].weight.mul_(-50)


def test_the_second_stage_never_ends_worse_than_the_first(learn: Learner) -> None:
    result = learn.fine_tune(2, freeze_epochs=2, cbs=[Spoil()])
    frozen = [row["valid_loss"] for row in result.stages[0].rows]
    assert result.stages[1].rows[-1]["valid_loss"] > 5 * min(frozen)
    assert learn.validate()[0] == pytest.approx(min(frozen), abs=1e-6)
    assert result.kept["valid_loss"] == min(frozen)
    best = frozen.index(min(frozen))
    text = f"fine_tune finished after 4 epochs, kept epoch {best} of head, body frozen: valid_loss "
    assert result.summary == f"{text}{min(frozen):.4f}"


def test_the_last_weights_can_be_kept_instead(learn: Learner) -> None:
    result = learn.fine_tune(2, freeze_epochs=2, keep_best=False, cbs=[Spoil()])
    assert learn.validate()[0] == pytest.approx(result.rows[-1]["valid_loss"], abs=1e-6)
    assert repr(result).startswith("fine_tune finished after 4 epochs: valid_loss ")


def test_a_metric_of_unknown_direction_does_not_choose_the_best_epoch(loaders, mlp) -> None:
    def brier(preds: torch.Tensor, targets: torch.Tensor) -> float:
        return ((preds[:, 1] - targets) ** 2).mean().item()

    learn = Learner(loaders, mlp, metrics=brier, device="cpu")
    result = learn.fine_tune(3, 1e-1, freeze_epochs=2)
    assert result.kept["valid_loss"] == min(row["valid_loss"] for row in result.rows)


def test_accumulated_steps_are_counted_as_steps(learn: Learner) -> None:
    learn.accumulate = 64  # one step an epoch, however few batches there are
    assert learn.fine_tune(1).stages[0].n_epoch == 50


def test_numpys_numbers_are_numbers(learn: Learner) -> None:
    assert len(learn.fit(np.int64(1), np.float32(1e-3)).rows) == 1


@pytest.mark.parametrize("train_bn", [False, True])
@pytest.mark.parametrize(
    ("aug", "message"),
    [
        (lambda picture: picture[:, :20, :20], r"aug gives a picture of shape \[3, 20, 20\]"),
        (lambda picture: picture[:, :32, :32] / 64 - 2, "aug gives floats outside"),
        (lambda picture: picture.convert("RGB"), "aug fails on a picture"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_refused_before_a_step(
    photos, tiny_net, aug, message: str, train_bn: bool
) -> None:
    """Also where the features of a frozen body are kept, of which the first are not augmented."""
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5, aug=aug)
    learn = vision_learner(dls, tiny_net, device="cpu", train_bn=train_bn)
    learn.freeze_to(-1, quiet=True)
    before = [p.clone() for p in learn.model.parameters()]
    for run in (lambda: learn.fit(2), lambda: learn.lr_find(num_it=8)):
        with pytest.raises(ValueError, match=message):
            run()
    assert all(torch.equal(p, q) for p, q in zip(before, learn.model.parameters(), strict=True))


def test_trying_an_augmentation_takes_no_random_numbers(photos, tiny_net) -> None:
    def aug(picture: torch.Tensor) -> torch.Tensor:
        return (picture[:, :32, :32] / 255 * torch.rand(1)).clamp(0, 1)

    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5, aug=aug)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    vision_learner(dls, tiny_net, device="cpu").check_augmentation()
    assert torch.equal(torch.rand(3), expected)
