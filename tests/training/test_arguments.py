"""Models and loaders that were changed are followed, or a run is refused before a step."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from nbfinetune import ImageDataLoaders, Learner, vision_learner


def put(learn: Learner, name: str, module: nn.Module) -> None:
    learn.model.set_submodule(name, module)


CHANGES = {
    "another head": (lambda learn: put(learn, "2", nn.Linear(5, 2)), "'2.weight' is in no layer"),
    "another layer": (lambda learn: put(learn, "0.0", nn.Linear(4, 5)), None),
    "a layer more": (
        lambda learn: learn.model.append(nn.Linear(2, 2)),
        "parameter '3.weight' is in no layer group; the model was changed: make a new learner",
    ),
    "a parameter more": (
        lambda learn: learn.model.register_parameter("scale", nn.Parameter(torch.ones(1))),
        "parameter 'scale' is in no layer group",
    ),
    "a parameter more in a layer": (
        lambda learn: learn.model[2].register_parameter("scale", nn.Parameter(torch.ones(1))),
        "learn.opt is not the optimizer of this model's parameters that the learner made",
    ),
    "another model": (
        lambda learn: setattr(learn, "model", deepcopy(learn.model)),
        "parameter '0.0.weight' is in no layer group",
    ),
    "a layer less": (
        lambda learn: put(learn, "1", nn.Identity()),
        r"a parameter of shape \[5, 5\] is in a layer group, but no longer in the model",
    ),
    "weights tied over groups": (
        lambda learn: setattr(learn.model[1][0], "weight", learn.model[0][0].weight),
        None,
    ),
    "weights tied": (lambda learn: setattr(learn.model[1][0], "bias", learn.model[2].bias), None),
    "another optimizer": (
        lambda learn: setattr(learn, "opt", torch.optim.SGD(learn.model.parameters(), 0.1)),
        "learn.opt is not the optimizer",
    ),
    "another device": (lambda learn: learn.model[2].to("meta"), None),
}
RUNS = {
    "fit": lambda learn: learn.fit(1, 1e-1),
    "fit_one_cycle": lambda learn: learn.fit_one_cycle(1, 1e-1),
    "fine_tune": lambda learn: learn.fine_tune(1),
    "lr_find": lambda learn: learn.lr_find(),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_model_is_refused_before_a_step(case: str, run: str, learn) -> None:
    change, message = CHANGES[case]
    change(learn)
    before = {k: v.clone() for k, v in learn.model.state_dict().items() if not v.is_meta}
    with pytest.raises(ValueError, match=message or "group|learn.opt|device") as caught:
        RUNS[run](learn)
    assert "\n" not in str(caught.value)
    after = learn.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not learn.recorder.runs


@pytest.mark.parametrize("write", ["save", "export"])
def test_a_changed_model_is_not_written_either(write: str, learn, tmp_path) -> None:
    put(learn, "2", nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"'2.weight' is in no layer group; the model was changed"):
        getattr(learn, write)(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_layers_without_parameters_may_be_changed(learn) -> None:
    put(learn, "1.1", nn.GELU())
    assert learn.fit(1, 1e-3).status == "finished"


def test_requires_grad_set_by_hand_is_followed(learn) -> None:
    learn.model[1].requires_grad_(False)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    learn.fit(1, 1e-1)
    after = learn.model.state_dict()
    assert torch.equal(before["1.0.weight"], after["1.0.weight"])
    assert not torch.equal(before["2.weight"], after["2.weight"])


def test_freezing_says_what_it_undoes_of_requires_grad_set_by_hand(learn) -> None:
    learn.model[1].requires_grad_(False)
    with pytest.warns(UserWarning, match="requires_grad of 2 parameters was set by hand: 1.0.weig"):
        learn.fine_tune(1, freeze_epochs=0)


def test_a_run_in_which_nothing_trains_is_refused(learn) -> None:
    learn.model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model is trainable; call"):
        learn.fit(1, 1e-3)


def loaders_of(sizes: list[int], kind: str) -> SimpleNamespace:
    batches = [(torch.randn(n, 4), torch.arange(n) % 2) for n in sizes]
    train = batches
    if kind == "loader":
        items = [(x, y) for batch in batches for x, y in zip(*batch, strict=True)]
        train = DataLoader(items, sizes[0])
    return SimpleNamespace(train=train, valid=batches[:1], vocab=["no", "yes"])


@pytest.mark.parametrize(
    ("sizes", "kind", "which"),
    [
        ([4, 1, 4], "list", "training batch 1"),
        ([4, 4, 1], "loader", "the last training batch"),
        ([1, 1], "loader", "each training batch"),
    ],
)
def test_a_batch_of_one_is_refused_where_batchnorm_trains(sizes, kind, which, mlp) -> None:
    learn = Learner(loaders_of(sizes, kind), mlp, groups=[[part] for part in mlp], device="cpu")
    before = {k: v.clone() for k, v in mlp.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"{which} holds one item, of which BatchNorm.*\(bs\), or"
    ):
        learn.fit(1, 1e-3)
    assert all(torch.equal(v, before[k]) for k, v in mlp.state_dict().items())
    learn.train_bn = False  # the body's statistics stay
    assert learn.fit(1, 1e-3).status == "finished"


@pytest.mark.parametrize(("bs", "n_train"), [(1, 12), (2, 3)])
def test_a_batch_of_one_picture_is_refused_with_the_head_of_fastai(bs, n_train, photos) -> None:
    files = sorted(photos.rglob("*.png"))[:: 18 // (n_train + 3)][: n_train + 3]
    labels = [f.parent.name for f in files]
    held_out = [labels[:i].count(label) == 0 for i, label in enumerate(labels)]
    dls = ImageDataLoaders.from_lists(photos, files, labels, is_valid=held_out, size=32, bs=bs)
    assert len(dls.train.dataset) == n_train
    learn = vision_learner(dls, "resnet18", weights=None, head="fastai", device="cpu")
    with pytest.raises(ValueError, match=r"a training batch holds one item.*a larger bs="):
        learn.fine_tune(1, freeze_epochs=1)


def test_one_picture_has_statistics_where_its_map_is_large(photos, tiny_net) -> None:
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.5, size=32, bs=1)
    learn = vision_learner(dls, tiny_net, train_bn=True, device="cpu")
    assert learn.fit(1, 1e-3).status == "finished"


@pytest.mark.parametrize("name", ["div", "div_final", "pct_start"])
@pytest.mark.parametrize("value", ["x", None, float("nan")])
def test_numbers_of_a_cycle_that_are_none_are_refused(name: str, value: object, learn) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must"):
        learn.fit_one_cycle(1, 1e-3, **{name: value})


@pytest.mark.parametrize("aug", [False, lambda picture: picture[:, :32, :32]])
def test_new_loaders_bring_their_augmentation(aug: object, dls, photos, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    learn.dls = ImageDataLoaders.from_folder(photos, size=32, bs=5, aug=aug)
    assert learn.transforms.aug is aug
    learn.dls.aug = True
    learn.fit(1, 1e-3)
    assert learn.transforms.aug is True


def test_new_loaders_bring_their_size(dls, photos, tiny_net, tmp_path) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    seen = []
    learn.model[0].conv.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape))
    learn.dls = ImageDataLoaders.from_folder(photos, size=48, bs=5)
    seen.clear()
    learn.fit(1, 1e-3)
    learn.predict(learn.dls.train.dataset.image(0))
    assert {shape[-1] for shape in seen} == {48}


def test_a_size_that_the_model_does_not_take_is_refused(dls, photos) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4), nn.ReLU(), nn.Linear(4, 9))
    learn = vision_learner(dls, net, device="cpu")
    with pytest.raises(ValueError, match="gives pictures of 48 px, which the model does not take"):
        learn.dls = ImageDataLoaders.from_folder(photos, size=48, bs=5)
    assert learn.dls is dls
    assert learn.transforms.size == 32
    assert learn.fit(1, 1e-3).status == "finished"


def test_loaders_of_other_classes_are_refused(learn) -> None:
    old = learn.dls
    for vocab, message in (
        (["no", "oh"], "class 1 is 'oh' there but 'yes' here; make a new learner"),
        (["yes", "no"], "class 0 is 'yes' there but 'no' here"),
        (["a", "b", "c"], "it has 3 classes, this learner 2"),
    ):
        other = SimpleNamespace(train=old.train, valid=old.valid, vocab=vocab)
        with pytest.raises(ValueError, match=f"dls does not fit: {message}"):
            learn.dls = other
    with pytest.raises(ValueError, match="dls is a list; it must have train and valid"):
        learn.dls = old.train
    assert learn.dls is old
    learn.dls = SimpleNamespace(train=old.train, valid=old.valid, vocab=("no", "yes"))
    assert learn.fit(1, 1e-3).status == "finished"


def test_classes_that_are_renamed_in_the_loaders_have_their_new_names(learn) -> None:
    learn.dls.vocab = ["nein", "ja"]
    learn.fit(1, 1e-3)
    assert learn.vocab == ["nein", "ja"]
    learn.dls.vocab = ["a", "b", "c"]
    with pytest.raises(ValueError, match="it has 3 classes, this learner 2"):
        learn.fit(1, 1e-3)


def test_names_that_the_user_gave_the_learner_stay(learn) -> None:
    learn.vocab = ["nein", "ja"]
    learn.fit(1, 1e-3)
    learn.dls = SimpleNamespace(**vars(learn.dls))
    assert learn.vocab == ["nein", "ja"]
