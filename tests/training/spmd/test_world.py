"""Several processes give what one process gives."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nbfinetune import ImageDataLoaders, Learner
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.runtime.memmap import allocate
from nbfinetune.training.batches import feature_cache
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.spmd.first_worker import in_first_worker
from nbfinetune.training.spmd.world import World
from nbfinetune.training.state import Callback

Together = Callable[..., list]


def draw_photos(root: Path, n: int = 13) -> Path:
    """3 classes of n noisy pictures, each of its own colour."""
    noise = np.random.default_rng(0)
    for k, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for i in range(n):
            pixels = noise.integers(0, 200, (40, 40, 3), dtype=np.uint8)
            pixels[..., 2 - k] += 50
            Image.fromarray(pixels).save(root / name / f"{name}_{i}.png")
    return root


def picture_learner(
    root: Path,
    *,
    bn: bool = False,
    dropout: float = 0.0,
    aug: object = True,
    bs: int = 7,
    **options,
) -> Learner:
    """Two layer groups on 32 pixels; 31 pictures train, in batches of 6 and 7."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8) if bn else nn.Identity()
    conv = nn.Conv2d(3, 8, 3, stride=4, bias=not bn)  # without effect before the norm
    body = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(32, 3))
    dls = ImageDataLoaders.from_folder(root, valid_pct=0.2, size=32, bs=bs, aug=aug)
    half = (0.5, 0.5, 0.5)
    settings = {"train_bn": bn, "transforms": ImageTransforms(32, half, half, aug=aug)}
    model = nn.Sequential(body, head)
    return Learner(
        dls,
        model,
        groups=[[body], [head]],
        device="cpu",
        **settings | {"metrics": "accuracy"} | options,
    )


def list_learner(root: Path, **options) -> Learner:
    """On batches of numbers, of 5, 5, 5, 2 and 1."""
    torch.manual_seed(0)
    x = torch.randn(18, 4)
    y = (x.sum(1) > 0).long()
    y[3] = -100 if options.pop("ignore", False) else y[3]
    y = torch.arange(18) % 2 if options.pop("in_turns", False) else y
    batches = list(zip(x.split([5, 5, 5, 2, 1]), y.split([5, 5, 5, 2, 1]), strict=True))
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    groups = [[model[0]], [model[1], model[2]]]
    dls = _Lists(batches, batches[:3])
    return Learner(dls, model, groups=groups, device="cpu", **options)


class _Lists:
    vocab = ("no", "yes")

    def __init__(self, train: list, valid: list) -> None:
        self.train, self.valid = train, valid


def aug_of_user(picture: Tensor) -> Tensor:
    """Draws random numbers of torch, as many as it likes."""
    if torch.rand(()) < 0.5:
        picture = picture.flip(-1)
    return picture[:, 2:34, 2:34] if torch.rand(()) < 0.5 else picture[:, :32, :32]


def trained(
    world: World | None,
    make: Callable[..., Learner],
    root: Path,
    options: dict,
    calls: list[tuple[str, dict]],
) -> dict:
    """What the calls gave, with what they left."""
    learn = make(root, **options)
    return done(world, learn, calls)


def done(world: World | None, learn: Learner, calls: list[tuple[str, dict]]) -> dict:
    learn.world = world
    found = []
    with learn.quiet():
        for name, given in calls:
            if world is not None and "cbs" in given:
                given = given | {"cbs": in_first_worker(given["cbs"])}
            if name == "set":
                vars(learn.control).update(given)
                continue
            if name.endswith("freeze"):
                getattr(learn, name)()
                continue
            if name == "get_preds":
                found.append(list(learn.get_preds(**given)))
                continue
            result = getattr(learn, name)(**given, **_unwritten(name))
            found.append(result if isinstance(result, list) else None)
            if name == "lr_find":
                found[-1] = (result.losses, result.lr)
    runs = learn.recorder.runs
    return {
        "losses": [run.losses for run in runs],
        "rows": [
            [{k: v for k, v in row.items() if k != "time"} for row in run.rows] for run in runs
        ],
        "lrs": [run.lrs for run in runs],
        "status": vars(learn).get("status"),
        "weights": {name: t.clone() for name, t in learn.model.state_dict().items()},
        "found": found,
    }


def _unwritten(name: str) -> dict:
    return {"checkpoint": "off"} if name.startswith(("fit", "fine")) else {}


class StopsAt(Callback):
    """Ends the run after so many steps, as a user's callback may."""

    def __init__(self, step: int, how: str) -> None:
        self.step, self.how, self.seen = step, how, 0

    def after_batch(self, learn: Learner) -> None:
        self.seen += learn.training
        if not learn.training or self.seen != self.step:
            return
        if self.how == "cancel":
            raise CancelFit
        if self.how == "control":
            learn.control.stop()
        if self.how == "weights":
            with torch.no_grad():
                for p in learn.model.parameters():
                    p.mul_(0.5)
        if self.how == "freeze":
            learn.freeze()
        if self.how == "predictions":
            learn.get_preds(ds="train")
        if self.how == "random numbers":
            np.random.rand(torch.randint(1, 9, ()))
        if self.how == "momentum":
            for state in learn.opt.state.values():
                state["exp_avg"].zero_()
        if self.how == "loss":
            learn.loss_func = nn.CrossEntropyLoss(label_smoothing=0.3)
        if self.how == "smoothing":
            learn.loss_func.label_smoothing = 0.3
        if self.how == "accumulate":
            learn.accumulate, learn.clip_grad = 2, 0.05
        if self.how == "data":
            learn.dls = deepcopy(learn.dls)
        if self.how == "error":
            raise KeyError("a fault of the user's")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("together"))


FIT = [("fit_one_cycle", {"n_epoch": 2, "lr_max": 1e-2})]
SLOW_FIT = [("fit_one_cycle", {"n_epoch": 2, "lr_max": 1e-3})]  # rounding grows less
PICTURES = {
    "of all layers, augmented": ({}, FIT),
    "of a frozen body, whose features are kept": ({}, [("freeze", {}), *FIT]),
    "of a frozen body that is run each time": ({"cache_features": False}, [("freeze", {}), *FIT]),
    "with statistics that move": ({"bn": True}, SLOW_FIT),
    "with an augmentation of the user's": ({"aug": aug_of_user}, FIT),
    "in both stages of fine_tune": ({}, [("fine_tune", {"epochs": 2, "freeze_epochs": 2})]),
    "by fastai's recipe": ({"bn": True}, [("fine_tune", {"epochs": 1, "recipe": "fastai"})]),
    "with batches that add up to a step": ({"accumulate": 2}, FIT),
    "with clipped gradients": ({"clip_grad": 0.05}, FIT),
    "by lr_find": ({}, [("lr_find", {"num_it": 12})]),
    "by lr_find of the head": ({}, [("freeze", {}), ("lr_find", {"num_it": 14, "verify": 2})]),
    "of predictions": ({}, [*FIT, ("get_preds", {"with_loss": True}), ("validate", {})]),
    "of training pictures": ({}, [("get_preds", {"ds": "train"})]),
}
LISTS = {
    "of numbers": ({}, FIT),
    "of classes that weigh more": (
        {"loss_func": nn.CrossEntropyLoss(weight=torch.tensor([0.2, 3.0]))},
        FIT,
    ),
    "of a class that does not count": (
        {"loss_func": nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0])), "in_turns": True},
        FIT,
    ),
    "without what is to be ignored": ({"ignore": True}, FIT),
    "of sums": ({"loss_func": nn.CrossEntropyLoss(reduction="sum")}, FIT),
}
CASES = [(picture_learner, *case) for case in PICTURES.values()]
CASES += [(list_learner, *case) for case in LISTS.values()]


def _same(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            _same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _same(a, b)
    elif isinstance(one, (float, torch.Tensor)):
        both = torch.as_tensor(one).double(), torch.as_tensor(other).double()
        torch.testing.assert_close(*both, rtol=1e-5, atol=2e-6)
    else:
        assert one == other


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("make", "options", "calls"),
    CASES,
    ids=[name.replace(" ", "-") for name in (*PICTURES, *LISTS)],
)
def test_the_losses_do_not_depend_on_the_number_of_processes(
    together: Together, root: Path, size: int, make: object, options: dict, calls: list
) -> None:
    alone = trained(None, make, root, dict(options), calls)
    for one in together(size, trained, make, root, options, calls):
        _same(one, alone)


def test_layers_that_draw_train_too_and_leave_all_with_the_same_weights(
    together: Together, root: Path
) -> None:
    one, two = together(2, trained, picture_learner, root, {"dropout": 0.5}, FIT)
    assert one["losses"] == two["losses"]
    assert all(torch.equal(one["weights"][name], t) for name, t in two["weights"].items())


@pytest.mark.parametrize("how", ["cancel", "control"])
def test_what_a_callback_of_the_user_ends_ends_at_the_same_step_everywhere(
    together: Together, root: Path, how: str
) -> None:
    calls = [("fit", {"n_epoch": 2, "lr": 1e-2, "cbs": [StopsAt(3, how)]})]
    found = together(2, trained, picture_learner, root, {}, calls)
    steps = 3 + (how == "control")  # which is asked for after the third, and told with the fourth
    assert [len(one["losses"][0]) for one in found] == [steps] * 2
    assert {one["status"] for one in found} == {"stopped"}


CHANGES = ("weights", "freeze", "predictions", "random numbers", "momentum")
CHANGES += ("loss", "smoothing", "accumulate")


@pytest.mark.parametrize("how", CHANGES)
def test_what_a_callback_of_the_user_changes_is_changed_everywhere(
    together: Together, root: Path, how: str
) -> None:
    calls = [("fit", {"n_epoch": 2, "lr": 1e-2})]
    calls[0][1]["cbs"] = [StopsAt(3, how)]
    alone = trained(None, picture_learner, root, {}, calls)
    calls[0][1]["cbs"] = [StopsAt(3, how)]
    for one in together(2, trained, picture_learner, root, {}, calls):
        _same(one, alone)


def test_data_that_a_callback_puts_in_is_refused(together: Together, root: Path) -> None:
    calls = [("fit", {"n_epoch": 1, "lr": 1e-2, "cbs": [StopsAt(2, "data")]})]
    with pytest.raises(AssertionError, match=r"the callback StopsAt has set learn\.dls"):
        together(2, trained, list_learner, root, {}, calls)


def test_a_callback_that_is_last_is_so_in_workers_too() -> None:
    class Telling(Callback):
        is_last = True

    [there] = in_first_worker([Telling()])
    assert there.is_last


@pytest.mark.parametrize("room", [True, False])
def test_features_that_one_process_has_or_has_no_room_for_do_not_matter(
    together: Together, root: Path, room: bool
) -> None:
    alone = _of_unlike(None, root, room)
    for one in together(2, _of_unlike, root, room):
        _same(one, alone)


def _of_unlike(world: World | None, root: Path, room: bool) -> dict:
    learn = picture_learner(root, train_bn=False)
    learn.freeze()
    if world is not None and world.first and room:
        learn.validate()
        learn.get_preds(ds="train", show=False)
    elif not room and (world is None or world.first):
        feature_cache.allocate = _full
    try:
        return done(world, learn, FIT)
    finally:
        feature_cache.allocate = allocate


def _full(*shape: object) -> None:
    raise OSError("larger than the room there is")


def test_an_error_of_a_callback_is_that_of_all(together: Together, root: Path) -> None:
    calls = [("fit", {"n_epoch": 1, "lr": 1e-2, "cbs": [StopsAt(2, "error")]})]
    with pytest.raises(AssertionError, match="a fault of the user's"):
        together(2, trained, picture_learner, root, {}, calls)


def test_loaders_that_give_each_process_other_batches_are_refused(together: Together) -> None:
    with pytest.raises(AssertionError, match="the batches of this loader are not the same"):
        together(2, _with_own_batches)


def _with_own_batches(world: object) -> None:
    learn = list_learner(Path())
    if world.rank:
        learn.dls.train.reverse()
    learn.world = world
    learn.fit(1, 1e-2, checkpoint="off", show=False)
