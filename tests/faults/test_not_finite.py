"""The first loss or gradient that is NaN or infinite ends a run, and no weight ever is."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nbfinetune import Callback, Learner

NAN, INF = math.nan, math.inf


class Spoilt(nn.CrossEntropyLoss):
    """A loss whose k-th training value is `value`."""

    def __init__(self, k: int, value: float) -> None:
        super().__init__()
        self.k, self.value, self.n = k, value, 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.n += x.requires_grad
        loss = super().forward(x, y)
        return loss * self.value if x.requires_grad and self.n == self.k else loss


class _InfiniteSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad * INF


class SpoiltGradient(Spoilt):
    """A loss that is finite, and whose k-th gradient is not."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.n += x.requires_grad
        spoilt = x.requires_grad and self.n == self.k
        return nn.functional.cross_entropy(_InfiniteSlope.apply(x) if spoilt else x, y)


class Weights(Callback):
    """Keeps the state of the model after each step."""

    def before_fit(self, learn: Learner) -> None:
        self.states = [copied(learn)]

    def after_batch(self, learn: Learner) -> None:
        if learn.training:
            self.states.append(copied(learn))


def copied(learn: Learner) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in learn.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def batches(n: int = 6, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(n, size, 4, generator=numbers)
    return [(part, (part[:, 0] > 0).long()) for part in x]


class Data:
    def __init__(self) -> None:
        self.vocab = ["no", "yes"]
        self.train, self.valid = batches(), batches(2)


def make(loss: nn.Module | None = None, **options) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    groups = [[model[0], model[1]], [model[3]]]
    return Learner(Data(), model, groups=groups, loss_func=loss, device="cpu", **options)


FITS: dict[str, Callable[[Learner], object]] = {
    "fit": lambda learn: learn.fit(3, 1e-2, show=False),
    "fit_one_cycle": lambda learn: learn.fit_one_cycle(3, 1e-2, show=False),
    "fine_tune": lambda learn: learn.fine_tune(2, 1e-2, freeze_epochs=1, show=False),
    "keep_best": lambda learn: learn.fit(3, 1e-2, keep_best=True, show=False),
}


@pytest.mark.fault(
    "a loss of NaN or infinity at a step, in each kind of fit",
    "the run ends there, with the weights of the step before, and says step and rate",
)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_the_first_loss_that_is_not_finite_ends_the_run(fit, value: float, record_property) -> None:
    learn, weights = make(Spoilt(4, value)), Weights()
    learn.cbs = weights
    with pytest.warns(match=r"was ended: the training loss is -?(nan|inf) at step 4, rate") as said:
        result = fit(learn)
    assert "try a tenth of it; the weights are those after step 3" in str(said[0].message)
    assert (result.status, result.rows, result.kept) == ("stopped", [], None)
    assert same(copied(learn), weights.states[3])
    assert not hasattr(learn.opt, "found_inf")
    record_property("seen", str(said[0].message))


@pytest.mark.fault(
    "gradients that are infinite although the loss is finite",
    "the step is not made and the run ends",
)
def test_gradients_that_are_not_finite_end_the_run() -> None:
    learn, weights = make(SpoiltGradient(4, INF)), Weights()
    with pytest.warns(match="the gradients are not finite at step 4"):
        learn.fit(2, 1e-2, cbs=weights, show=False)
    assert same(copied(learn), weights.states[3])


@pytest.mark.fault(
    "a loss of NaN in the second epoch, the best epoch being kept",
    "the weights are those of the first epoch",
)
def test_the_best_epoch_is_what_a_run_that_keeps_it_ends_with() -> None:
    learn, weights = make(Spoilt(9, NAN)), Weights()
    with pytest.warns(match="the weights are those of epoch 0, the best"):
        result = learn.fit(3, 1e-2, keep_best=True, cbs=weights, show=False)
    assert result.kept["epoch"] == 0
    assert same(copied(learn), weights.states[6])


@pytest.mark.fault(
    "a loss of NaN at the first step", "the weights are untouched, and the rate is not blamed"
)
def test_at_the_first_step_the_rate_is_not_why() -> None:
    learn = make(Spoilt(1, NAN))
    before = copied(learn)
    with pytest.warns(match="look at the loss, its weights and the inputs; .* from before the run"):
        learn.fit(1, 1e-2, show=False)
    assert same(copied(learn), before)


@pytest.mark.fault("a loss of NaN within an accumulated step", "the whole step is left out")
def test_a_step_of_several_batches_is_left_out_as_a_whole() -> None:
    learn, weights = make(Spoilt(5, NAN), accumulate=3), Weights()
    with pytest.warns(match="at step 5, .* after step 3"):
        learn.fit(1, 1e-2, cbs=weights, show=False)
    state, expected = copied(learn), weights.states[3]
    assert all(torch.equal(state[n], expected[n]) for n, _ in learn.model.named_parameters())


@pytest.mark.fault(
    "a batch of NaN inputs, which BatchNorm takes into its statistics",
    "statistics are those of the step before",
)
def test_statistics_of_a_spoilt_batch_are_put_back() -> None:
    learn, weights = make(), Weights()
    learn.dls.train[2] = (torch.full((8, 4), NAN), torch.zeros(8, dtype=torch.long))
    with pytest.warns(match="at step 3"):
        learn.fit(1, 1e-2, cbs=weights, show=False)
    assert same(copied(learn), weights.states[2])


@pytest.mark.fault("a rate of 1e30", "one warning before, the stop, finite weights")
def test_a_rate_far_too_high_ends_with_finite_weights() -> None:
    learn = make()
    with pytest.warns() as said:
        learn.fit(3, 1e30, show=False)
    texts = [str(w.message) for w in said]
    assert texts[0].startswith("a learning rate of 1e+30 is above 1")
    assert len(texts) == 2
    assert "was ended: " in texts[1]
    assert all(t.isfinite().all() for t in learn.model.state_dict().values())


@pytest.mark.fault("a held-out loss of NaN", "the run ends, the epoch is not kept as the best")
def test_a_held_out_loss_that_is_not_finite_ends_the_run() -> None:
    learn = make()
    learn.dls.valid = [(torch.full((8, 4), NAN), torch.zeros(8, dtype=torch.long))]
    with pytest.warns(match="the held-out loss is nan at step 6"):
        result = learn.fit(3, 1e-2, keep_best=True, show=False)
    assert (result.status, len(result.rows), result.kept) == ("stopped", 1, None)


@pytest.mark.fault(
    "one overflow with a gradient scaler", "the step is left out, the run goes on, as ever"
)
def test_a_gradient_scaler_has_its_patience() -> None:
    learn = make(SpoiltGradient(4, INF), amp="fp16")
    result = learn.fit(2, 1e-3, show=False)
    assert (result.status, learn.scaler.get_scale()) == ("finished", 2.0**15)


@pytest.mark.fault(
    "overflow at each step with a gradient scaler", "the run ends when it is below 1"
)
def test_the_patience_of_a_gradient_scaler_ends() -> None:
    class Always(SpoiltGradient):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            self.k = self.n + 1
            return super().forward(x, y)

    learn = make(Always(1, INF), amp="fp16")
    before = copied(learn)
    with pytest.warns(match='was ended: .* or amp="off"'):
        result = learn.fit(9, 1e-3, show=False)
    assert len(result.stages[0].losses) == 17
    assert all(torch.equal(before[n], p) for n, p in learn.model.named_parameters())


@pytest.mark.fault("a batch whose targets are all ignored", "its loss is none; the run goes on")
def test_a_batch_of_which_nothing_counts_ends_no_run() -> None:
    learn = make(nn.CrossEntropyLoss(ignore_index=1))
    x, _ = learn.dls.train[2]
    learn.dls.train[2] = (x, torch.ones(8, dtype=torch.long))
    result = learn.fit(2, 1e-3, show=False)
    assert (result.status, math.isnan(result.stages[0].losses[2])) == ("finished", True)


@pytest.mark.fault("a loss of NaN in the head's stage of fine_tune", "no second stage follows")
def test_no_second_stage_follows() -> None:
    learn = make(Spoilt(3, NAN))
    with pytest.warns(match="head, body frozen was ended"):
        result = learn.fine_tune(2, 1e-2, freeze_epochs=2, show=False)
    assert [run.stage for run in result.stages] == ["head, body frozen"]


@pytest.mark.fault("a training loss of NaN", "what was shown says so once, in one line")
def test_the_text_of_the_run_says_it_once(capsys) -> None:
    with pytest.warns(match="was ended"):
        result = make(Spoilt(9, NAN)).fit(3, 1e-2)
    shown = capsys.readouterr().out
    assert shown.count("the training loss is nan") == 1
    assert "stopped in epoch 2 of 3 after 9 steps; the training loss is nan at step 9" in shown
    assert "rate is too high" not in result.verdict


USES: dict[str, Callable[[Learner, Path], object]] = {
    "get_preds": lambda learn, folder: learn.get_preds(),
    "validate": lambda learn, folder: learn.validate(),
    "save": lambda learn, folder: learn.save(folder / "a.safetensors"),
    "export": lambda learn, folder: learn.export(folder / "a.safetensors"),
    "fit": lambda learn, folder: learn.fit(1, 1e-3),
    "fine_tune": lambda learn, folder: learn.fine_tune(1),
}


@pytest.mark.fault("a weight of NaN", "predictions, files and runs of it are refused")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("name", ["3.weight", "1.running_var"])
def test_weights_that_are_not_finite_are_refused(use, name: str, tmp_path: Path) -> None:
    learn = make()
    learn.model.state_dict()[name].flatten()[0] = NAN
    with pytest.raises(ValueError, match=rf"1 of \d+ weights of the model are NaN .*\({name}\)"):
        use(learn, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("losses that can only be NaN", "refused when they are given")
@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (nn.CrossEntropyLoss(torch.zeros(2)), "all weights of loss_func are 0"),
        (nn.CrossEntropyLoss(torch.tensor([1e-50, 0.0])), "all weights of loss_func are 0"),
        (nn.CrossEntropyLoss(torch.tensor([NAN, 1.0])), "all must be from 0 up"),
        (nn.CrossEntropyLoss(label_smoothing=NAN), "label_smoothing nan; it must be in"),
        (nn.CrossEntropyLoss(label_smoothing=-1.0), "label_smoothing -1.0; it must be in"),
    ],
)
def test_losses_that_can_only_be_nan_are_refused(loss: nn.Module, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(loss)


@pytest.mark.bulk
@pytest.mark.fault("600 runs spoilt at a random step in a random way", "no weight is ever NaN")
def test_no_weight_is_ever_nan(record_property) -> None:
    numbers, ended = torch.Generator().manual_seed(1), 0
    for k in range(600):
        kind, step = (int(torch.randint(n, (1,), generator=numbers)) for n in (2, 18))
        loss = (Spoilt, SpoiltGradient)[kind](step + 1, (NAN, INF, -INF)[k % 3])
        learn, weights = make(loss, accumulate=1 + k % 3), Weights()
        with pytest.warns(match=f"at step {step + 1}|not finite"):
            learn.fit(3, 1e-2, cbs=weights, keep_best=bool(k % 2), show=False)
        ended += learn.status == "stopped"
        assert all(t.isfinite().all() for t in learn.model.state_dict().values())
    assert ended == 600
    record_property("seen", f"{ended} runs ended, 0 with a weight of NaN")
