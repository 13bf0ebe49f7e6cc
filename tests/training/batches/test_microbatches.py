"""A batch in parts has the gradient of the whole batch."""

import pytest
import torch
from torch import nn

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.training.batches.microbatches import microbatch_size, microbatches


@pytest.fixture
def make(photos, small_net, monkeypatch):
    """Learners of 12 pictures in one batch, all layers of which train, with parts of 5 at most."""
    monkeypatch.setattr("nbfinetune.training.batches.microbatches.PICTURES", 5)
    dls = ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, bs=12, aug=False)

    def of(**options) -> tuple[Learner, list[int]]:
        defaults = {"device": "cpu", "train_bn": False, "amp": "off"}
        learn = vision_learner(dls, small_net(), **(defaults | options))
        learn.unfreeze()
        sizes: list[int] = []
        learn.model[0].register_forward_pre_hook(
            lambda module, inputs: sizes.append(len(inputs[0])) if learn.training else None
        )
        return learn, sizes

    return of


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1},
        {"class_weights": [1.0, 5.0, 0.5]},
        {"accumulate": 2},
        {"logit_adjustment": True, "label_smoothing": 0.1},
    ],
    ids=str,
)
def test_losses_and_weights_are_those_of_whole_batches(make, monkeypatch, options: dict) -> None:
    (taken, sizes), (whole, whole_sizes) = make(**options), make(**options)
    losses = [taken.fit(3, 1e-2).stages[0].losses]
    monkeypatch.setattr("nbfinetune.training.batches.microbatches.PICTURES", 100)
    losses.append(whole.fit(3, 1e-2).stages[0].losses)
    assert (sizes, whole_sizes) == ([4] * 9, [12] * 3)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for a, b in zip(taken.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-4)  # Adam divides by small gradients


def test_batches_whose_pictures_share_more_than_the_loss_stay_whole(make) -> None:
    learn, sizes = make(train_bn=True)  # statistics of a batch
    learn.fit(1, 1e-2)
    head, head_sizes = make(head="fastai")  # BatchNorm in the head
    head.fit(1, 1e-2)
    assert sizes == head_sizes == [12]


@pytest.mark.parametrize("loss_func", [nn.CrossEntropyLoss(reduction="sum"), nn.MultiMarginLoss()])
def test_losses_that_are_no_mean_of_cross_entropy_stay_whole(make, loss_func: nn.Module) -> None:
    learn, sizes = make(loss_func=loss_func)
    learn.fit(1, 1e-3)
    assert sizes == [12]


def test_only_pictures_on_a_cpu_come_in_parts(make, loaders, mlp) -> None:
    assert microbatch_size(Learner(loaders, mlp, device="cpu")) is None
    learn, _ = make()
    assert microbatch_size(learn) == 5
    learn.device = torch.device("cuda")
    assert microbatch_size(learn) is None


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (5, [5]), (6, [3, 3]), (11, [3, 4, 4])])
def test_parts_are_even_and_their_shares_are_the_whole(n: int, sizes: list[int]) -> None:
    y = torch.arange(n)
    found = list(microbatches(y, 5, nn.CrossEntropyLoss()))
    assert [len(y[part]) for part, _ in found] == sizes
    assert torch.equal(torch.cat([y[part] for part, _ in found]), y)
    assert sum(share for _, share in found) == pytest.approx(1)


def test_the_share_of_a_part_is_that_of_its_class_weights() -> None:
    y, loss = torch.tensor([1, 1, 0, 0]), nn.CrossEntropyLoss(torch.tensor([1.0, 3.0]))
    assert [float(share) for _, share in microbatches(y, 2, loss)] == [0.75, 0.25]


def test_targets_that_do_not_count_have_no_share(make) -> None:
    """A part of them alone would have a loss of 0/0."""
    y, size = torch.tensor([0, 0, 1, 2, 1, 2]), 2
    ignoring = nn.CrossEntropyLoss(ignore_index=0)
    weighted = nn.CrossEntropyLoss(torch.tensor([0.0, 1.0, 1.0]))
    for loss in (ignoring, weighted):
        assert [float(share) for _, share in microbatches(y, size, loss)] == [0.5, 0.5]
    x = torch.randn(6, 3)
    for loss in (ignoring, weighted, nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))):
        total = sum(share * loss(x[part], y[part]) for part, share in microbatches(y, size, loss))
        assert total == pytest.approx(float(loss(x, y)), rel=1e-5)


def test_soft_targets_stay_whole() -> None:
    assert len(list(microbatches(torch.rand(6, 3), 2, nn.CrossEntropyLoss()))) == 1


class AfterPart(Callback):
    """Calls `request(learn)` when the k-th part of training step number `step` is done."""

    def __init__(self, step: int, k: int, request) -> None:
        self.at, self.request = (step, k), request

    def before_batch(self, learn: Learner) -> None:
        self.parts = 0

    def after_part(self, learn: Learner) -> None:
        self.parts += 1
        if learn.training and (len(learn.recorder.run.lrs) + 1, self.parts) == self.at:
            self.request(learn)


class Weights(Callback):
    """Those after each training step, and the state of the random numbers."""

    def __init__(self) -> None:
        self.after: list[list[torch.Tensor]] = []

    def after_batch(self, learn: Learner) -> None:
        if learn.training:
            self.after.append([v.clone() for v in learn.model.state_dict().values()])
            self.rng = torch.get_rng_state()


def stop(learn: Learner) -> None:
    learn.control.stop()


@pytest.fixture
def in_four(photos, small_net) -> Learner:
    """An epoch is 3 batches of 64 augmented pictures, in 4 parts of 16 each."""
    dls = ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, bs=64)
    x, y = dls.train.dataset.batch([i % 12 for i in range(64)])
    learn = vision_learner(dls, small_net(), device="cpu", train_bn=False, amp="off")
    learn.unfreeze()
    learn.dls.train = [(x, y)] * 3
    return learn


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("k", [1, 2])  # seen at the next
def test_a_step_that_is_stopped_between_its_parts_is_dropped_whole(
    in_four: Learner, k: int, accumulate: int
) -> None:
    in_four.accumulate, weights = accumulate, Weights()
    result = in_four.fit(2, 1e-2, cbs=[weights, AfterPart(5, k, stop)])
    [run] = result.stages
    assert result.status == "stopped"
    assert len(run.losses) == len(run.lrs) == len(run.moms) == 4  # whole steps
    assert run.events == [(4, "stopped")]
    for now, then in zip(in_four.model.state_dict().values(), weights.after[-1], strict=True):
        assert torch.equal(now, then)
    assert torch.equal(in_four._rng["torch"], weights.rng)
    assert all(p.grad is None for p in in_four.model.parameters())
    assert in_four.fit(1, 1e-2).status == "finished"


def test_a_pause_between_parts_changes_no_result(in_four: Learner) -> None:
    waited = []

    def poll() -> None:
        if in_four.control.paused:
            waited.append(in_four.model.training)
            if len(waited) == 3:
                in_four.control.resume()

    start = {name: value.clone() for name, value in in_four.model.state_dict().items()}
    run = in_four.fit(1, 1e-2).stages[0]
    in_four.model.load_state_dict(start)
    in_four.opt.state.clear()
    in_four._rng = None
    in_four.control.poll = poll
    pause = AfterPart(2, 2, lambda learn: learn.control.pause())
    paused = in_four.fit(1, 1e-2, cbs=[pause]).stages[0]
    assert waited == [True] * 3
    assert paused.events == [(1, "paused")]
    assert paused.losses == run.losses


def test_an_error_between_parts_leaves_the_step_before(in_four: Learner) -> None:
    def fail(learn: Learner) -> None:
        raise OSError("disk")

    weights = Weights()
    with pytest.raises(OSError, match="disk"):
        in_four.fit(1, 1e-2, cbs=[weights, AfterPart(3, 2, fail)])
    assert len(in_four.recorder.run.losses) == 2
    for now, then in zip(in_four.model.state_dict().values(), weights.after[-1], strict=True):
        assert torch.equal(now, then)


def test_a_validation_is_in_parts_too_and_can_be_stopped_between_them(in_four: Learner) -> None:
    in_four.dls.valid = in_four.dls.train[:1]
    seen = []

    class InValidation(Callback):
        def after_part(self, learn: Learner) -> None:
            seen.append(learn.training)
            if not learn.training:
                learn.control.stop()

    result = in_four.fit(1, 1e-2, cbs=[InValidation()])
    assert seen == [True] * 9 + [False] * 2  # asked for after the first, acted on after the second
    assert result.rows == []
    assert len(result.stages[0].losses) == 3


def test_features_are_computed_in_parts_and_what_is_known_when_stopped_is_kept(
    photos, small_net, monkeypatch
) -> None:
    monkeypatch.setattr("nbfinetune.training.batches.microbatches.PICTURES", 5)
    dls = ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, bs=12, aug=False)
    learn = vision_learner(dls, small_net(), device="cpu", train_bn=False)
    known = []

    class Stop(Callback):
        def after_part(self, learn: Learner) -> None:
            known.append(learn.features.computing)
            learn.control.stop()

    result = learn.fit(1, 1e-2, cbs=[Stop()])
    assert known == [(4, 12), (8, 12)]
    assert (result.status, result.stages[0].losses) == ("stopped", [])
    assert learn.features.computing is None
    seen = []

    class Look(Callback):
        def after_batch(self, learn: Learner) -> None:
            seen.append((learn.training, learn.features.computing))

    learn.fit(2, 1e-2, cbs=[Look()])  # the last part alone is missing
    assert seen == [(True, (12, 12)), (False, (6, 6)), (True, None), (False, None)]


def test_a_search_that_is_stopped_in_its_first_step_changes_nothing(in_four: Learner) -> None:
    before = [v.clone() for v in in_four.model.state_dict().values()]
    found = in_four.lr_find(cbs=[AfterPart(1, 2, stop)])
    assert (found.losses, found.lr) == ([], None)
    for now, then in zip(in_four.model.state_dict().values(), before, strict=True):
        assert torch.equal(now, then)
