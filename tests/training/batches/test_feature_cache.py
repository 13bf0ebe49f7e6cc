"""Features of a frozen body are computed once, change no result, and are dropped when stale."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.networks.heads import body_and_head, fastai_head
from nbfinetune.runtime import room
from nbfinetune.training.batches.feature_cache import CachedFeatures


class Count:
    """Counts the pictures that go through a learner's body; a hook would be heeded."""

    def __init__(self, learn: Learner) -> None:
        self.n, self._forward = 0, learn.model[0].forward
        learn.model[0].forward = self

    def __call__(self, x: Tensor) -> Tensor:
        self.n += len(x)
        return self._forward(x)


def data(photos, **options) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, **options)


@pytest.fixture
def make(photos, small_net) -> Callable[..., Learner]:
    """Learners of the same network and pictures; 12 to train on and 6 held out, batches of 4."""

    def of(*, aug: bool | Callable = False, bs: int = 4, **options) -> Learner:
        dls = data(photos, aug=aug, bs=bs)
        assert (len(dls.train.dataset), len(dls.valid.dataset)) == (12, 6)
        return vision_learner(dls, small_net(), **({"device": "cpu", "train_bn": False} | options))

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
    plain, view = (learn.features._cached[0].values[v] for v in (0, 1))
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
    views = learn.features._cached[0].values
    assert list(views) == [0, 1, 2]
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[1], views[2])
    plain = make(aug=True)
    plain.fit(1, 1e-2)
    assert torch.equal(views[0], plain.features._cached[0].values[0])


def test_views_do_not_depend_on_what_was_drawn_before(make) -> None:
    plain, searched = (make(aug=True, cache_features=2) for _ in range(2))
    searched.lr_find(num_it=7)
    for learn in (plain, searched):
        learn.fit(2, 1e-2)
    views = [learn.features._cached[0].values for learn in (plain, searched)]
    assert all(torch.equal(views[0][v], views[1][v]) for v in (0, 1))


def test_an_augmentation_of_the_users_own_is_seen_in_four_views(make) -> None:
    calls = []

    def aug(picture: Tensor) -> Tensor:
        calls.append(picture.shape)
        return v2.functional.resize(picture, [32, 32])

    learn = make(aug=aug)
    learn.fit(6, 1e-2)
    assert len(calls) == 3 * 12 + 1  # the first view is not augmented; the run tries one picture


def test_features_that_could_not_be_written_are_not_known(make) -> None:
    kept = CachedFeatures(make().dls.train.dataset)
    kept.put(0, torch.tensor([1]), torch.ones(1, 8))
    with pytest.raises(RuntimeError):
        kept.put(0, torch.tensor([2, 3]), torch.ones(2, 5))
    assert kept.known_of(0).nonzero().tolist() == [[1]]


def test_an_interrupted_run_leaves_its_features_to_the_next(make) -> None:
    class Interrupt(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise KeyboardInterrupt

    learn, plain = make(), make()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 1e-2, cbs=[Interrupt()])
    for one in (learn, plain):
        one.fit(1, 1e-2)
    assert torch.equal(learn.features._cached[0].values[0], plain.features._cached[0].values[0])


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


def test_a_model_that_is_no_sequence_is_not_taken_apart(small_net) -> None:
    net = small_net()
    assert body_and_head(net, [[net.conv, net.norm], [net.classifier]]) is None


@pytest.mark.parametrize("wanted", ["always", -1, 0.5])
def test_a_wrong_choice_is_refused(make, wanted: object) -> None:
    with pytest.raises(ValueError, match=r"cache_features is .*; it must be"):
        make(cache_features=wanted)


def test_features_that_cannot_be_kept_are_refused(make, loaders, mlp, small_net) -> None:
    with pytest.raises(ValueError, match="True needs train_bn=False: statistics of the frozen"):
        make(cache_features=True, train_bn=True)
    with pytest.raises(ValueError, match="3 needs a model in a row that ends with its last"):
        Learner(loaders, small_net(), cache_features=3)
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

    monkeypatch.setattr("nbfinetune.training.batches.feature_cache.allocate", full)
    seen = Count(learn)
    with pytest.warns(UserWarning, match="body runs in each epoch: its features are too large"):
        result = learn.fit(2, 1e-2)
    assert result.stages[0].losses == plain.stages[0].losses
    assert seen.n == 2 * (12 + 6)
    assert learn.fit(1, 1e-2).stages[0].body_epochs is None


@pytest.mark.parametrize(
    "change",
    [
        lambda learn: setattr(learn, "transforms", replace(learn.transforms, std=(1, 1, 1))),
        lambda learn: setattr(learn, "transforms", replace(learn.transforms, aug=lambda x: x)),
        lambda learn: setattr(learn, "amp_inference", "bf16"),
        lambda learn: learn.model[0].norm.running_mean.add_(1),
    ],
    ids=["normalisation", "augmentation", "precision", "statistics"],
)
def test_features_of_another_way_to_see_pictures_are_dropped(make, change: Callable) -> None:
    learn = make(amp="off")
    learn.fit(1, 1e-3)
    seen = Count(learn)
    learn.validate()
    assert seen.n == 0
    change(learn)
    learn.validate()
    assert seen.n == 6


def test_features_of_other_data_are_dropped(make, photos) -> None:
    learn = make()
    learn.fit(1, 1e-3)
    learn.dls = data(photos, aug=False, bs=6)
    learn.fit(1, 1e-3)
    own = [learn.dls.train.dataset, learn.dls.valid.dataset]
    assert [kept.dataset for kept in learn.features._cached] == own


def test_a_body_that_trains_takes_its_features_out_of_memory(make) -> None:
    learn = make()
    learn.fine_tune(1, freeze_epochs=1)
    assert learn.features._cached == []


def test_labels_that_are_corrected_in_memory_count(make) -> None:
    learn = make()
    learn.fit(1, 1e-3)
    targets = learn.dls.valid.dataset.targets
    targets[:] = targets[::-1]
    assert learn.get_preds()[1].tolist() == targets


def test_a_collate_function_of_the_users_own_is_called(make) -> None:
    learn, calls = make(), []

    def collate(items: list) -> tuple[Tensor, Tensor]:
        calls.append(len(items))
        return default_collate(items)

    learn.dls.train.collate_fn = collate
    learn.fit(2, 1e-3)
    assert calls == [4] * 6


def test_a_loader_without_batches_goes_through_the_whole_network(make) -> None:
    learn = make()
    seen = Count(learn)
    pairs = DataLoader(learn.dls.valid.dataset, batch_size=None)
    pairs.collate_fn = lambda item: (item[0][None], torch.tensor([item[1]]))
    for _ in range(2):
        assert len(learn.get_preds(pairs)[0]) == 6
    assert seen.n == 12


def test_hooks_on_a_body_see_each_picture(make) -> None:
    learn, sizes = make(), []
    learn.fit(1, 1e-3)
    hook = learn.model[0].conv.register_forward_hook(lambda m, x, out: sizes.append(len(out)))
    learn.validate()
    assert sum(sizes) == 6
    hook.remove()
    learn.validate()
    assert sum(sizes) == 6


def test_hooks_on_a_model_see_each_picture(make) -> None:
    learn, sizes = make(), []
    learn.model.register_forward_hook(lambda m, x, out: sizes.append(len(out)))
    learn.validate()
    assert sum(sizes) == 6


def test_another_head_is_used_at_once(make) -> None:
    learn = make()
    learn.fit(1, 1e-3)
    with torch.no_grad():
        learn.model[1].bias[2] += 100
    assert learn.get_preds()[0].argmax(1).tolist() == [2] * 6
    learn.model[1] = nn.Linear(8, 3)
    nn.init.zeros_(learn.model[1].weight)
    learn.groups[-1] = [learn.model[1]]
    assert learn.get_preds()[0].std() < 0.2


def test_a_body_that_a_callback_unfreezes_trains(make) -> None:
    class Unfreeze(Callback):
        def before_epoch(self, learn: Learner) -> None:
            if learn.epoch == 1:
                learn.unfreeze()

    learn = make()
    before = learn.model[0].conv.weight.clone()
    learn.fit(1, 1e-2, cbs=[Unfreeze()])
    assert torch.equal(learn.model[0].conv.weight, before)
    learn.fit(2, 1e-2, cbs=[Unfreeze()])
    assert not torch.equal(learn.model[0].conv.weight, before)


def test_a_loader_that_a_callback_replaces_is_used(make, photos) -> None:
    class Swap(Callback):
        def before_epoch(self, learn: Learner) -> None:
            if learn.epoch == 1:
                learn.dls = data(photos, aug=False, bs=12)

    assert len(make().fit(2, 1e-3, cbs=[Swap()]).stages[0].losses) == 3 + 1


def test_a_frozen_parameter_that_is_let_train_is_no_fixed_body(make) -> None:
    learn = make()
    assert learn.body_is_fixed
    learn.model[0].conv.weight.requires_grad_()
    assert not learn.body_is_fixed
    learn.freeze_to(-1, quiet=True)
    learn.train_bn = True
    assert not learn.body_is_fixed


def test_a_layer_in_no_group_is_not_taken_for_the_body() -> None:
    body, head = nn.Linear(2, 2), nn.Linear(2, 2)
    assert body_and_head(nn.Sequential(body, nn.Dropout(), head), [[body], [head]]) is None


def test_a_row_with_a_way_of_its_own_is_not_taken_apart() -> None:
    class Twice(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    body, head = nn.Linear(2, 2), nn.Linear(2, 2)
    assert body_and_head(Twice(body, head), [[body], [head]]) is None


def test_one_view_is_one_with_an_augmentation_of_the_users_own_too(make) -> None:
    learn = make(aug=lambda picture: picture[:, :32, :32], cache_features=1)
    assert learn.fit(3, 1e-3).stages[0].body_epochs == 1


def test_only_views_that_a_run_comes_to_count_as_epochs_of_the_body(make) -> None:
    learn = make(aug=True, cache_features=4)
    assert learn.fit(2, 1e-3).stages[0].body_epochs == 2
    assert learn.fit(2, 1e-3).stages[0].body_epochs == 0


def test_pictures_held_out_that_are_still_to_be_seen_count_too(make) -> None:
    learn = make()
    learn.lr_find(num_it=6)
    assert learn.fit(2, 1e-3).stages[0].body_epochs == 1


def test_sweeps_over_other_batches_share_the_features(make) -> None:
    learn = make(aug=True)
    seen = Count(learn)
    learn.lr_find(num_it=6, seeds=3)
    assert seen.n == 2 * 12


def test_a_learner_without_data_predicts_for_a_loader(make, tmp_path) -> None:
    learn = make()
    loader = learn.dls.valid
    learn.dls = None
    assert learn.get_preds(loader)[0].shape == (6, 3)
