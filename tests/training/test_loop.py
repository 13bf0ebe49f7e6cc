"""The order of the events, as a literal list, however a run ends."""

from contextlib import suppress

import pytest
import torch
from torch import nn

from nbfinetune import Callback, CancelFit, Learner

EPOCH = [
    "before_epoch",
    *["before_batch train", "after_batch train"] * 5,
    *["before_batch valid", "after_batch valid"] * 3,
    "after_epoch",
]


class Log(Callback):
    """Writes the events down; raises `error` at event number `at`."""

    def __init__(self, at: int | None = None, error: type[BaseException] | None = None) -> None:
        self.events, self.at, self.error = [], at, error

    def _log(self, name: str) -> None:
        self.events.append(name)
        if len(self.events) == self.at:
            raise self.error

    def before_fit(self, learn: Learner) -> None:
        self._log("before_fit")

    def before_epoch(self, learn: Learner) -> None:
        self._log("before_epoch")

    def before_batch(self, learn: Learner) -> None:
        self._log("before_batch " + ("train" if learn.training else "valid"))

    def after_batch(self, learn: Learner) -> None:
        self._log("after_batch " + ("train" if learn.training else "valid"))

    def after_epoch(self, learn: Learner) -> None:
        self._log("after_epoch")

    def after_fit(self, learn: Learner) -> None:
        self._log(f"after_fit {learn.status}")


def test_events_come_in_this_order(learn: Learner) -> None:
    log = Log()
    learn.fit(2, 1e-3, cbs=[log])
    assert log.events == ["before_fit", *EPOCH, *EPOCH, "after_fit finished"]


@pytest.mark.parametrize("at", [1, 2, 3, 4, 13, 18, 19])
@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (OSError, "failed")]
)
def test_after_fit_comes_after_an_error_too(at: int, error, status: str, learn: Learner) -> None:
    log, behind = Log(at, error), Log()
    with pytest.raises(error):
        learn.fit(2, 1e-3, cbs=[log, behind])
    if at == 1 and error is OSError:
        status = "refused"  # nothing was trained
    before = ["before_fit", *EPOCH, *EPOCH][:at]
    assert log.events == [*before, f"after_fit {status}"]
    assert behind.events == [*before[:-1], f"after_fit {status}"]
    assert learn.recorder.run.status == status


@pytest.mark.parametrize("at", [1, 2, 4, 18, 19])
def test_cancel_fit_ends_quietly_once_all_have_seen_the_event(at: int, learn: Learner) -> None:
    log, behind = Log(at, CancelFit), Log()
    result = learn.fit(2, 1e-3, cbs=[log, behind])
    assert log.events == [*["before_fit", *EPOCH, *EPOCH][:at], "after_fit stopped"]
    assert behind.events == log.events
    assert result.status == "stopped"
    assert len(result.rows) == int(at == 19)


def test_an_error_in_after_fit_leaves_out_no_other_callback(learn: Learner) -> None:
    at = 1 + 2 * len(EPOCH) + 1
    log, behind = Log(at, RuntimeError), Log()
    with pytest.raises(RuntimeError):
        learn.fit(2, 1e-3, cbs=[log, behind])
    assert behind.events[-1] == "after_fit finished"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, CancelFit, None])
def test_after_a_run_the_model_is_in_eval_mode_without_gradients(error, learn: Learner) -> None:
    with suppress(KeyboardInterrupt, OSError):
        learn.fit(1, 1e-3, cbs=[Log(4, error)] if error else [])
    assert not any(m.training for m in learn.model.modules())
    assert all(p.grad is None for p in learn.model.parameters())
    assert not learn.training


def test_callbacks_of_the_learner_come_before_those_of_the_fit(learn: Learner) -> None:
    order = []

    class Named(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def before_fit(self, learn: Learner) -> None:
            order.append((self.name, len(learn.recorder.runs)))

    learn.cbs.append(Named("learner's"))
    learn.fit(1, 1e-3, cbs=[Named("fit's")])
    assert order == [("learner's", 1), ("fit's", 1)]  # the Recorder was first


def test_gradients_of_accumulated_batches_are_averaged(loaders, mlp) -> None:
    """Three batches in one step, then the last two: as two steps of their mean losses."""
    model = nn.Linear(4, 2)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    loaders.valid = loaders.valid[:1]
    Learner(loaders, model, accumulate=3, device="cpu").fit(1, 1e-2)
    got = model.weight.clone()
    model.load_state_dict(start)
    opt = torch.optim.AdamW(
        [{"params": [model.weight], "weight_decay": 0.01}, {"params": [model.bias]}],
        lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.0,
    )  # fmt: skip
    for group in (loaders.train[:3], loaders.train[3:]):
        losses = [nn.functional.cross_entropy(model(x), y) for x, y in group]
        (sum(losses) / len(losses)).backward()
        opt.step()
        opt.zero_grad()
    assert torch.allclose(got, model.weight, atol=1e-7)


def test_gradients_are_clipped_to_a_norm(learn: Learner) -> None:
    norms = []

    class Norm(Callback):
        def before_batch(self, learn: Learner) -> None:
            learn.opt.step = lambda *a: norms.append(
                torch.stack([p.grad.norm() for p in learn.model.parameters()]).norm().item()
            )

    learn.clip_grad = 0.01
    learn.fit(1, 1e-3, cbs=[Norm()])
    assert norms == pytest.approx([0.01] * 5, rel=1e-3)


def test_validation_loss_is_a_mean_over_pictures_not_batches(learn: Learner) -> None:
    x = torch.cat([x for x, _ in learn.dls.valid])
    y = torch.cat([y for _, y in learn.dls.valid])
    with torch.no_grad():
        expected = nn.functional.cross_entropy(learn.model(x), y).item()
    assert learn.validate() == pytest.approx([expected])
