import pytest
import torch

from nbfinetune import Callback, Learner, vision_learner
from nbfinetune.runtime.rng import rng_as_json
from nbfinetune.training.resuming import undo
from nbfinetune.training.resuming.runs_root import sweep


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


def fits_with_room_for_two(learn: Learner, monkeypatch) -> list[list[torch.Tensor]]:
    """Five fits of which two are kept in memory; returns the weights before each."""
    weights = []
    for k in range(5):
        weights.append([p.detach().clone() for p in learn.model.parameters()])
        learn.fit(1, show=False)
        if k == 1:  # the first optimizer had no state yet
            monkeypatch.setattr(undo, "MOST_BYTES", 2 * learn.undoable.fits[-1][1].n_bytes)
    assert len(learn.undoable.fits) == 2
    return weights


def test_older_fits_are_taken_back_from_the_disk(learn: Learner, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path / "runs"))
    weights = fits_with_room_for_two(learn, monkeypatch)
    assert len(learn.undoable.on_disk) == 3
    for before in reversed(weights):
        learn.undo_fit()
        assert all(map(torch.equal, before, learn.model.parameters()))
    assert learn.recorder.runs == []
    assert not learn.opt.state


def test_without_files_older_fits_are_forgotten(learn: Learner, monkeypatch) -> None:
    monkeypatch.setenv("NBFINETUNE_RUNS", "off")
    weights = fits_with_room_for_two(learn, monkeypatch)
    learn.undo_fit()
    learn.undo_fit()
    assert all(map(torch.equal, weights[-2], learn.model.parameters()))
    with pytest.raises(ValueError, match="what was before the last one is kept no longer"):
        learn.undo_fit()


def test_files_of_a_process_that_is_gone_are_swept(learn: Learner, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NBFINETUNE_RUNS", str(tmp_path))
    fits_with_room_for_two(learn, monkeypatch)
    folder = learn.undoable._folder
    sweep(tmp_path)
    assert folder.path.exists()
    folder.release()
    sweep(tmp_path)
    assert not folder.path.exists()
    learn.undo_fit()
    learn.undo_fit()
    with pytest.raises(ValueError, match="what was before the last one is kept no longer"):
        learn.undo_fit()


def test_the_oldest_of_many_fits_are_forgotten(learn: Learner, monkeypatch) -> None:
    monkeypatch.setattr(undo, "MOST_FITS", 2)
    weights = []
    for _ in range(4):
        weights.append([p.detach().clone() for p in learn.model.parameters()])
        learn.fit(1, show=False)
    learn.undo_fit()
    learn.undo_fit()
    assert all(map(torch.equal, weights[2], learn.model.parameters()))
    with pytest.raises(ValueError, match="what was before the last one is kept no longer"):
        learn.undo_fit()
