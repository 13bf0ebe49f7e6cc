"""A batch in parts has the gradient of the whole batch."""

import pytest
import torch
from torch import nn

from nbfinetune import ImageDataLoaders, Learner, vision_learner
from nbfinetune.training.microbatches import microbatch_size, microbatches


@pytest.fixture
def make(photos, small_net, monkeypatch):
    """Learners of 12 pictures in one batch, all layers of which train, with parts of 5 at most."""
    monkeypatch.setattr("nbfinetune.training.microbatches._PICTURES", 5)
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
    [{}, {"label_smoothing": 0.1}, {"class_weights": [1.0, 5.0, 0.5]}, {"accumulate": 2}],
    ids=str,
)
def test_losses_and_weights_are_those_of_whole_batches(make, monkeypatch, options: dict) -> None:
    (taken, sizes), (whole, whole_sizes) = make(**options), make(**options)
    losses = [taken.fit(3, 1e-2).stages[0].losses]
    monkeypatch.setattr("nbfinetune.training.microbatches._PICTURES", 100)
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
