"""What a learner is made of is refused in one line when it is set."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from nbfinetune import Callback, EarlyStopping, Learner, SaveBest, accuracy

NAN = float("nan")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lr", "1e-3", "lr holds '1e-3', which is no number"),
        ("lr", 0, "lr holds 0; a learning rate is positive"),
        ("lr", NAN, "lr holds nan; a learning rate is positive"),
        ("lr", [1e-3, 1e-3], "lr has 2 values but the model has 3 layer groups"),
        ("wd", -1, "wd is -1; it must be a number from 0 up, such as 0.01"),
        ("wd", NAN, "wd is nan; it must be a number from 0 up"),
        ("wd", "0.1", "wd is '0.1'; it must be a number from 0 up"),
        ("moms", 5, "moms is 5; give three numbers in"),
        ("moms", (0.9, 0.8), r"moms is \(0.9, 0.8\); give three numbers in"),
        ("moms", (0.9, 0.8, 1), "give three numbers in"),
        ("moms", (0.9, 0.8, NAN), "give three numbers in"),
        ("train_bn", "yes", "train_bn is 'yes'; it must be True or False"),
        ("accumulate", 1.5, "accumulate is 1.5; it must be a whole number from 1 up"),
        ("accumulate", NAN, "accumulate is nan; it must be a whole number from 1 up"),
        ("accumulate", True, "accumulate is True; it must be a whole number"),
        ("clip_grad", -1, "clip_grad is -1; it must be None, or a norm above 0, such as 1.0"),
        ("clip_grad", 0, "clip_grad is 0; it must be None, or a norm"),
        ("clip_grad", NAN, "clip_grad is nan; it must be None, or a norm"),
        ("clip_grad", "1", "clip_grad is '1'; it must be None, or a norm"),
        ("seed", None, "seed is None; it must be a whole number from 0"),
        ("seed", 1.0, "seed is 1.0; it must be a whole number"),
        ("seed", 2**70, "it must be a whole number"),
        ("amp", True, "amp is True; it must be one of auto, bf16, fp16, off"),
        ("amp", ["off"], r"amp is \['off'\]; it must be one of"),
        (
            "device",
            "gpu",
            r"device is 'gpu', which cannot be used .*; it must be \"cuda\", \"mps\"",
        ),
        ("device", "meta", 'device is "meta", which holds no values'),
        ("device", 1.5, "device is 1.5, which cannot be used"),
        ("transforms", v2.RandomHorizontalFlip(), "transforms is a RandomHorizontalFlip; it must"),
        ("transforms", lambda x: x, "transforms is a function; it must be ImageTransforms"),
        ("config", {"size": {1}}, "config cannot be exported, as JSON"),
        ("config", {"mean": [NAN]}, "config cannot be exported, as JSON"),
        ("config", ["arch"], "config is a list; it must be a dict"),
        ("groups", [[nn.Parameter(torch.zeros(1))]], "a layer group holds a Parameter; groups"),
        ("groups", 3, "groups is a int; it must be a list of layer groups"),
        (
            "loss_func",
            nn.CrossEntropyLoss,
            "loss_func is the class CrossEntropyLoss; pass an instance",
        ),
        ("loss_func", "cross_entropy", "loss_func is 'cross_entropy'; it must be a function"),
        ("cbs", EarlyStopping, r"cbs holds the class EarlyStopping; pass EarlyStopping\(\)"),
        ("cbs", [SaveBest(), EarlyStopping], "cbs holds the class EarlyStopping; pass"),
        ("cbs", [print], "cbs holds <built-in function print>, which is no callback"),
        ("cbs", 3, "cbs holds 3, which is no callback"),
        (
            "cbs",
            "log.csv",
            r"cbs holds .log.csv., which is no callback; .* LogTo\(.log.csv.\) logs to a f",
        ),
    ],
)
def test_options_of_no_use_are_refused_when_the_learner_is_made(
    option: str, value: object, message: str, loaders, mlp
) -> None:
    options = {"device": "cpu", "groups": [[part] for part in mlp]} | {option: value}
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        Learner(loaders, mlp, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", -1e-3),
        ("moms", 0.9),
        ("accumulate", 0),
        ("clip_grad", -1.0),
        ("seed", "42"),
        ("cbs", EarlyStopping),
        ("loss_func", 3),
        ("metrics", [accuracy, accuracy]),
    ],
)
def test_options_that_are_set_later_are_refused_too(option: str, value: object, learn) -> None:
    before = getattr(learn, option)
    with pytest.raises((ValueError, TypeError)):
        setattr(learn, option, value)
    assert getattr(learn, option) is before


def test_numbers_of_numpy_are_numbers(loaders, mlp) -> None:
    learn = Learner(
        loaders, mlp, accumulate=np.int64(2), seed=np.int32(3), clip_grad=np.float32(1),
        lr=np.float64(1e-3), moms=[np.float64(0.9)] * 3, train_bn=np.True_, device="cpu",
    )  # fmt: skip
    assert learn.fit_one_cycle(1).status == "finished"
    assert (learn.accumulate, learn.seed) == (2, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18", "model is 'resnet18'; it must be an nn.Module"),
        (nn.ReLU, "model is the class ReLU; it must be an nn.Module"),
        (nn.ReLU(), "ReLU has no parameters, so nothing can train"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), r"has lazy layers without a size \(1\)"),
        (nn.LazyBatchNorm1d(), "has lazy layers without a size"),
        (nn.Linear(4, 2, device="meta"), "Linear has no values for weight"),
    ],
)
def test_what_is_no_model_is_refused(model: object, message: str, loaders) -> None:
    with pytest.raises(ValueError, match=message):
        Learner(loaders, model, device="cpu")


@pytest.mark.parametrize("dls", [[1, 2], "photos", torch.utils.data.DataLoader([1]), (1, 2)])
def test_what_is_no_pair_of_loaders_is_refused(dls: object, mlp) -> None:
    with pytest.raises(ValueError, match=r"dls is a \w+; it must have train and valid, each a"):
        Learner(dls, mlp, device="cpu")


def test_none_is_no_callback_and_no_metric(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, cbs=None, metrics=None, device="cpu")
    assert (learn.cbs, learn.metrics) == ([], [])
    assert learn.fit(1, 1e-3, cbs=None).status == "finished"


def test_a_module_is_a_layer_group_of_its_own(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, groups=list(mlp), device="cpu")
    assert learn.groups == [[part] for part in mlp]
    assert learn.fit(1, 1e-3).status == "finished"


class Counting(Callback):
    epochs = 0

    def after_epoch(self, learn: Learner) -> None:
        self.epochs += 1


CALLS = {
    "fit": lambda learn, cbs: learn.fit(1, 1e-3, cbs=cbs),
    "fit_one_cycle": lambda learn, cbs: learn.fit_one_cycle(1, 1e-3, cbs=cbs),
    "fit_flat_cos": lambda learn, cbs: learn.fit_flat_cos(1, 1e-3, cbs=cbs),
    "fit_sgdr": lambda learn, cbs: learn.fit_sgdr(1, 1, 1e-3, cbs=cbs),
    "fine_tune": lambda learn, cbs: learn.fine_tune(1, freeze_epochs=0, cbs=cbs),
}


@pytest.mark.parametrize("call", CALLS)
def test_one_callback_need_not_be_in_a_list(call: str, learn) -> None:
    cb = Counting()
    CALLS[call](learn, cb)
    assert cb.epochs == 1
    learn.cbs = cb
    CALLS[call](learn, (c for c in [Counting()]))
    assert cb.epochs == 2


@pytest.mark.parametrize("call", [*CALLS, "lr_find"])
@pytest.mark.parametrize(("cbs", "message"), [(Counting, "the class Counting"), (3, "holds 3")])
def test_what_is_no_callback_is_refused_before_a_run(call, cbs, message, learn) -> None:
    run = CALLS.get(call, lambda learn, cbs: learn.lr_find(cbs=cbs))
    with pytest.raises(ValueError, match=message):
        run(learn, cbs)
    assert not learn.recorder.runs


@pytest.mark.parametrize(
    ("loss_func", "message"),
    [
        (nn.CrossEntropyLoss(torch.ones(3)), "loss_func has 3 weights, but the data 2 classes"),
        (nn.NLLLoss(torch.ones(1)), "loss_func has 1 weights, but the data 2 classes"),
        (nn.CrossEntropyLoss(torch.tensor([1.0, NAN])), "the weights .*; all must be from 0 up"),
        (nn.CrossEntropyLoss(torch.tensor([1.0, -1])), "the weights .*; all must be from 0 up"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(loss_func, message, loaders, mlp) -> None:
    with pytest.raises(ValueError, match=message):
        Learner(loaders, mlp, loss_func=loss_func, device="cpu")
    learn = Learner(loaders, mlp, device="cpu")
    with pytest.raises(ValueError, match=message):
        learn.loss_func = loss_func


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", ["module", "partial"])
def test_weights_of_float64_count_as_those_of_float32(kind, later, loaders, mlp) -> None:
    runs = []
    for dtype in (torch.float32, torch.float64):
        weight = torch.tensor([1.0, 3.0], dtype=dtype)
        loss = nn.CrossEntropyLoss(weight)
        if kind == "partial":
            loss = partial(nn.functional.cross_entropy, weight=weight)
        mlp.load_state_dict({k: v.clone() for k, v in mlp.state_dict().items()})
        learn = Learner(loaders, mlp, loss_func=None if later else loss, device="cpu")
        if later:
            learn.loss_func = loss
        runs.append(learn.validate()[0])
    assert runs[0] == runs[1]
    assert runs[0] != Learner(loaders, mlp, device="cpu").validate()[0]


@pytest.mark.parametrize(("n_out", "n_classes"), [(2, 3), (10, 3)])
@pytest.mark.parametrize("call", ["fit", "validate", "get_preds", "lr_find"])
def test_other_outputs_than_classes_are_refused_before_a_step(call, n_out, n_classes) -> None:
    batch = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    names = [f"class {k}" for k in range(n_classes)]
    learn = Learner(
        SimpleNamespace(train=[batch] * 8, valid=[batch], vocab=names),
        nn.Linear(5, n_out),
        device="cpu",
    )
    before = learn.model.weight.clone()
    arguments = {"fit": (1, 1e-1)}.get(call, ())
    with pytest.raises(ValueError, match=f"has 3 classes, but the model {n_out} outputs; give its"):
        getattr(learn, call)(*arguments)
    assert torch.equal(learn.model.weight, before)


class Wrapped(nn.Linear):
    def forward(self, x: torch.Tensor) -> object:
        return self.wrap(super().forward(x))


WRAPS = {
    "a dict": (lambda x: {"logits": x, "aux": x.sum()}, None),
    "an object": (lambda x: SimpleNamespace(logits=x), None),
    "a tuple": (lambda x: (x, x.mean()), r"Wrapped gives a tuple of 2, not logits \[n, c\]; let"),
    "another dict": (lambda x: {"out": x}, "Wrapped gives a dict of out, not logits"),
    "nothing": (lambda x: None, "Wrapped gives a NoneType, not logits"),
    "a vector": (lambda x: x[:, 0], r"the model gives \[4\], not logits \[n, c\]"),
    "a map": (lambda x: x[:, :, None, None], r"the model gives \[4, 2, 1, 1\], not logits"),
}


@pytest.mark.parametrize("case", WRAPS)
def test_logits_are_taken_from_what_a_model_gives_or_refused(case: str, loaders) -> None:
    wrap, message = WRAPS[case]
    model = Wrapped(4, 2)
    model.wrap = wrap
    learn = Learner(loaders, model, device="cpu")
    if message is None:
        learn.fit(1, 1e-3)
        assert learn.get_preds()[0].shape == (10, 2)
        return
    for call in (lambda: learn.fit(1, 1e-3), learn.get_preds):
        with pytest.raises(ValueError, match=message):
            call()


def test_pictures_without_transforms_are_refused_in_our_words(dls, tiny_net) -> None:
    learn = Learner(dls, tiny_net, device="cpu")
    with pytest.raises(ValueError, match=r"batches of torch.uint8 .*; of pictures pass transforms"):
        learn.fit(1, 1e-3)
