"""Features of a frozen body are computed once, change no result, and are dropped when stale."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from nbfinetune import Callback, ImageDataLoaders, Learner, room, vision_learner
from nbfinetune.features import body_and_head
from nbfinetune.heads import fastai_head


class Net(nn.Module):
    """A small network with a classifier at its end, which counts the pictures it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.conv(x)).relu().mean((2, 3)))


class Count:
    """Counts the pictures that go through a learner's body."""

    def __init__(self, learn: Learner) -> None:
        self.n, self.sizes = 0, []
        learn.model[0].register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.n += len(inputs[0])
        self.sizes.append(len(inputs[0]))


def data(photos, **options) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, **options)


def learner(dls: ImageDataLoaders, **options) -> Learner:
    torch.manual_seed(0)
    net = Net()
    return vision_learner(dls, net, **({"device": "cpu", "train_bn": False} | options))


@pytest.fixture
def make(photos) -> Callable[..., Learner]:
    """Learners of the same network and pictures; 12 to train on and 6 held out, batches of 4."""

    def of(*, aug: bool | Callable = False, bs: int = 4, **options) -> Learner:
        learn = learner(data(photos, aug=aug, bs=bs), **options)
        assert (len(learn.dls.train.dataset), len(learn.dls.valid.dataset)) == (12, 6)
        return learn

    return of


def test_each_picture_goes_through_a_frozen_body_once(make) -> None:
    learn = make()
    seen = Count(learn)
    learn.fit_one_cycle(3, 1e-2)
    assert seen.n == 12 + 6
    learn.lr_find(num_it=10)  # not augmented
    learn.fit(2, 1e-2)
    learn.validate()
    learn.validate("train")
    assert seen.n == 12 + 6


def test_a_search_leaves_its_features_to_the_run(make) -> None:
    learn = make()
    seen = Count(learn)
    learn.lr_find(num_it=6)  # two epochs of three batches
    assert seen.n == 12
    learn.fit(1, 1e-2)
    assert seen.n == 12 + 6  # those held out


@pytest.mark.parametrize("head", ["linear", "fastai"])
def test_losses_are_those_of_whole_networks(make, head: str) -> None:
    kept, whole = (make(cache_features=c, amp="off", head=head) for c in ("auto", False))
    results = [learn.fit_one_cycle(4, 1e-2) for learn in (kept, whole)]
    assert results[0].stages[0].body_epochs == 1
    assert results[1].stages[0].body_epochs is None
    losses = [result.stages[0].losses for result in results]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    valid = [[row["valid_loss"] for row in result.rows] for result in results]
    assert valid[0] == pytest.approx(valid[1], abs=1e-5)


def test_training_after_a_search_is_bit_equal_to_training_without(make) -> None:
    plain, searched = make(aug=True), make(aug=True)
    searched.lr_find(num_it=7, seeds=2)
    losses = [learn.fit(2, 1e-2).stages[0].losses for learn in (plain, searched)]
    assert losses[0] == losses[1]


def test_a_search_changes_pictures_that_come_again_as_augmentation_changed_others(make) -> None:
    learn, got = make(aug=True, amp="off"), []
    seen = Count(learn)
    learn.model[1].register_forward_pre_hook(lambda module, inputs: got.append(inputs[0]))
    learn.lr_find(num_it=6)
    assert seen.n == 12 + 12  # one view more
    plain, view = (learn.features._kept[0].values[v] for v in (0, 1))
    first, again = torch.cat(got[:3]), torch.cat(got[3:])
    assert sorted(first.tolist()) == sorted(plain.tolist())
    changes = 1.5 * (view - plain)
    for features in again:
        combinations = (plain[:, None] + changes[None]).flatten(0, 1)
        assert (combinations - features).abs().amax(1).min() < 1e-5


def test_validation_gives_the_row_of_the_last_epoch(make) -> None:
    learn = make()
    row = learn.fit(2, 1e-2).rows[-1]
    assert learn.validate() == [row["valid_loss"], row["error_rate"]]


def test_features_of_other_weights_are_dropped(make) -> None:
    learn = make()
    learn.fit(1, 1e-2)
    seen = Count(learn)
    with torch.no_grad():
        next(learn.model[0].parameters()).data.mul_(1.5)  # torch counts no change of .data
    result = learn.fit(1, 1e-2)
    assert seen.n == 12 + 6
    assert result.stages[0].body_epochs == 1


def test_a_body_that_trains_or_moves_is_always_run(make) -> None:
    learn = make()
    learn.unfreeze()
    seen = Count(learn)
    learn.fit(2, 1e-3)
    assert seen.n == 2 * (12 + 6)
    moving = make(train_bn=True)
    moving.freeze()
    seen = Count(moving)
    moving.fit(2, 1e-3)
    assert seen.n == 2 * (12 + 6)


def test_without_caching_the_frozen_body_is_always_run(make) -> None:
    learn = make(cache_features=False)
    seen = Count(learn)
    learn.fit(2, 1e-3)
    assert seen.n == 2 * (12 + 6)


def test_epochs_take_turns_with_the_views_of_a_picture(make) -> None:
    learn = make(aug=True, cache_features=3)
    seen = Count(learn)
    result = learn.fit(4, 1e-2)
    assert result.stages[0].body_epochs == 3
    assert seen.n == 3 * 12 + 6
    views = learn.features._kept[0].values
    assert list(views) == [0, 1, 2]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])
    plain = make(aug=True)
    plain.fit(1, 1e-2)
    assert torch.equal(views[0], plain.features._kept[0].values[0])


def test_views_do_not_depend_on_what_was_drawn_before(make) -> None:
    plain, searched = (make(aug=True, cache_features=2) for _ in range(2))
    searched.lr_find(num_it=7)
    for learn in (plain, searched):
        learn.fit(2, 1e-2)
    views = [learn.features._kept[0].values for learn in (plain, searched)]
    assert all(torch.equal(views[0][v], views[1][v]) for v in (0, 1))


def test_an_augmentation_of_the_users_own_is_seen_in_four_views(make) -> None:
    calls = []

    def aug(picture: Tensor) -> Tensor:
        calls.append(picture.shape)
        return v2.functional.resize(picture, [32, 32])

    learn = make(aug=aug)
    learn.fit(6, 1e-2)
    assert len(calls) == 3 * 12  # the first view is not augmented


def test_an_interrupt_leaves_no_wrong_features(make) -> None:
    class Interrupt(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise KeyboardInterrupt

    learn, plain = make(), make()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 1e-2, cbs=[Interrupt()])
    for one in (learn, plain):
        one.fit(1, 1e-2)
    assert torch.equal(learn.features._kept[0].values[0], plain.features._kept[0].values[0])


def test_a_head_gets_more_steps_where_they_are_cheap(make) -> None:
    n = {c: make(cache_features=c).fine_tune(1).stages[0].n_epoch for c in ("auto", False)}
    assert n == {"auto": 34, False: 17}  # of 3 batches: 100 and 50 steps


def test_pooling_at_the_start_of_a_head_counts_as_body() -> None:
    body, head = nn.Conv2d(3, 7, 1), fastai_head(7, 2)
    parts = body_and_head(nn.Sequential(body, head), [[body], [head]])
    assert [type(m).__name__ for m in parts[0]] == ["Conv2d", "ConcatPool"]
    assert [type(m).__name__ for m in parts[1]][:2] == ["BatchNorm1d", "Dropout"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_model_is_in_two_only_where_it_ends_with_the_last_group(order: tuple[int, int]) -> None:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    model = nn.Sequential(*(layers[i] for i in order))
    assert (body_and_head(model, [[layers[0]], [layers[1]]]) is not None) == (order == (0, 1))


def test_a_model_that_is_no_sequence_is_not_taken_apart() -> None:
    net = Net()
    assert body_and_head(net, [[net.conv, net.norm], [net.classifier]]) is None


@pytest.mark.parametrize("wanted", ["always", -1, 0.5])
def test_a_wrong_choice_is_refused(make, wanted: object) -> None:
    with pytest.raises(ValueError, match=r"cache_features is .*; it must be"):
        make(cache_features=wanted)


def test_features_that_cannot_be_kept_are_refused(make, loaders, mlp) -> None:
    with pytest.raises(ValueError, match="True needs train_bn=False: statistics of the frozen"):
        make(cache_features=True, train_bn=True)
    with pytest.raises(ValueError, match="3 needs a model in a row that ends with its last"):
        Learner(loaders, Net(), cache_features=3)
    with pytest.raises(ValueError, match="True needs pictures, from ImageDataLoaders"):
        Learner(loaders, mlp, groups=[[m] for m in mlp], train_bn=False, cache_features=True)


def test_features_that_do_not_fit_into_memory_are_kept_in_a_file(
    make, tmp_path, monkeypatch
) -> None:
    plain = make().fit(2, 1e-2)
    monkeypatch.setattr(room, "_MEMORY", 0)
    monkeypatch.setenv("NBFINETUNE_CACHE", str(tmp_path / "cache"))
    learn = make()
    seen = Count(learn)
    in_file = learn.fit(2, 1e-2)
    assert (tmp_path / "cache").is_dir()
    assert in_file.stages[0].losses == plain.stages[0].losses
    assert seen.n == 12 + 6


def test_without_room_the_body_runs_in_each_epoch_and_that_is_said(make, monkeypatch) -> None:
    plain, learn = make().fit(2, 1e-2), make()

    def full(shape: tuple, dtype: torch.dtype) -> None:
        raise OSError("too large")

    monkeypatch.setattr("nbfinetune.features.room_for", full)
    seen = Count(learn)
    with pytest.warns(UserWarning, match="body runs in each epoch: its features are too large"):
        result = learn.fit(2, 1e-2)
    assert result.stages[0].losses == plain.stages[0].losses
    assert seen.n == 2 * (12 + 6)
