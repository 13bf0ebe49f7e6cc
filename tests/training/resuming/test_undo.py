import pytest
import torch

from nbfinetune import Callback, Learner, vision_learner
from nbfinetune.runtime.rng import rng_as_json
from nbfinetune.training.resuming import undo


def state(learn: Learner) -> list:
    """All that a fit changes, as values that can be compared."""
    tensors = [*learn.model.state_dict().values()]
    tensors += [v for s in learn.opt.state_dict()["state"].values() for v in s.values()]
    settings = [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups]
    trains = [p.requires_grad for p in learn.model.parameters()]
    return [
        [t.tolist() for t in tensors],
        *(settings, trains, learn.frozen, learn.lr, learn._rng and rng_as_json(learn._rng)),
        [(run.name, run.losses, run.status) for run in learn.recorder.runs],
    ]


@pytest.mark.parametrize("what", ["fit", "fit_one_cycle", "fine_tune"])
def test_the_last_fit_is_taken_back_bit_for_bit(learn: Learner, what: str) -> None:
    learn.fit(1, show=False)
    before = state(learn)
    getattr(learn, what)(2, show=False)
    assert state(learn)[0] != before[0]
    text = learn.undo_fit()
    assert state(learn) == before
    assert text.startswith(f"{what} of ")
    assert text.endswith("is taken back; 1 fit before it can be taken back too")


def test_a_fit_that_was_taken_back_is_the_same_again(learn: Learner) -> None:
    learn.fit(1, show=False)
    first = learn.fit_one_cycle(2, 1e-2, show=False)
    learn.undo_fit()
    again = learn.fit_one_cycle(2, 1e-2, show=False)
    assert again.stages[0].losses == first.stages[0].losses
    assert len(learn.recorder.runs) == 2


def test_kept_features_do_not_hinder(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu", train_bn=False)
    weights = [p.detach().clone() for p in learn.model.parameters()]
    first = learn.fine_tune(1, show=False)
    learn.undo_fit()
    assert all(map(torch.equal, weights, learn.model.parameters()))
    again = learn.fine_tune(1, show=False)
    assert [s.losses for s in again.stages] == [s.losses for s in first.stages]


def test_fits_are_taken_back_one_after_the_other(learn: Learner) -> None:
    weights = [[p.detach().clone() for p in learn.model.parameters()]]
    for _ in range(3):
        learn.fit(1, show=False)
        weights.append([p.detach().clone() for p in learn.model.parameters()])
    for before in reversed(weights[:-1]):
        learn.undo_fit()
        assert all(map(torch.equal, before, learn.model.parameters()))
    assert learn.recorder.runs == []
    with pytest.raises(ValueError, match="there is no fit to take back: no fit was done"):
        learn.undo_fit()


def test_a_fit_that_failed_can_be_taken_back(learn: Learner) -> None:
    class Broken(Callback):
        def after_epoch(self, learn: Learner) -> None:
            raise RuntimeError("broken")

    weights = [p.detach().clone() for p in learn.model.parameters()]
    with pytest.raises(RuntimeError, match="broken"):
        learn.fit(2, cbs=[Broken()], show=False)
    learn.undo_fit()
    assert all(map(torch.equal, weights, learn.model.parameters()))


def test_a_fit_that_was_refused_is_none(learn: Learner) -> None:
    with pytest.raises(ValueError, match="n_epoch"):
        learn.fit(0, show=False)
    with pytest.raises(ValueError, match="there is no fit to take back"):
        learn.undo_fit()


def test_settings_that_were_changed_since_stay(learn: Learner) -> None:
    learn.freeze()
    learn.fit(1, show=False)
    learn.unfreeze()
    learn.accumulate, learn.wd = 3, 5
    learn.undo_fit()
    assert (learn.accumulate, learn.wd) == (3, 5)
    assert learn.frozen == 2  # with the weights goes what trains
    assert [p.requires_grad for p in learn.groups[1][0].parameters()] == [False] * 2


def test_memory_is_bounded_and_the_oldest_fits_go_first(learn: Learner, monkeypatch) -> None:
    learn.fit(1, show=False)
    learn.fit(1, show=False)
    newest = learn.undoable.fits[-1][1]
    monkeypatch.setattr(undo, "MOST_BYTES", 2 * newest.n_bytes)
    learn.fit(1, show=False)
    assert len(learn.undoable.fits) == 2
    while learn.undoable.fits:
        learn.undo_fit()
    with pytest.raises(ValueError, match="is not in memory"):
        learn.undo_fit()
