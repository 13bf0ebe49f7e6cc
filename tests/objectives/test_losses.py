"""What outputs mean to a loss, and that the loss of all pictures is no mean of batches."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from nbfinetune import ClassificationInterpretation, Learner, accuracy, vision_learner
from nbfinetune.objectives.logit_adjustment import LogitAdjustedLoss

BATCH_SIZES = (1, 3, 4, 12)
X = torch.sin(torch.arange(48.0) * 1.7).view(12, 4)
INDICES = torch.tensor([0, 2, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0])
LABELS = (torch.cos(torch.arange(36.0)) > 0).float().view(12, 3)
SOFT = torch.sin(torch.arange(36.0)).view(12, 3).softmax(1)
WEIGHTS = torch.tensor([1.0, 5.0, 20.0])


def loaders(targets: torch.Tensor, bs: int = 4) -> SimpleNamespace:
    batches = list(zip(X.split(bs), targets.split(bs), strict=True))
    return SimpleNamespace(train=batches, valid=batches, vocab=["wet", "red", "old"])


def learner(loss_func, targets=INDICES, bs: int = 4, fill=None, **options) -> Learner:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return Learner(loaders(targets, bs), model, loss_func=loss_func, device="cpu", **options)


def of_pictures(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none") * (1 + targets)


def rows_of_double(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.double().log_softmax(1)


def nll(weights=(1.0, 1.0, 1.0), ignored: int = -100, smoothing: float = 0.0):
    """Cross entropy of all pictures, written out in float64."""

    def loss(outputs: torch.Tensor) -> float:
        total = count = 0.0
        for row, y in zip(rows_of_double(outputs).tolist(), INDICES.tolist(), strict=True):
            if y != ignored:
                spread = sum(w * v for w, v in zip(weights, row, strict=True)) * smoothing / 3
                total -= weights[y] * row[y] * (1 - smoothing) + spread
                count += weights[y]
        return total / count

    return loss


@pytest.mark.parametrize("bs", BATCH_SIZES)
@pytest.mark.parametrize(
    ("loss_func", "targets", "expected"),
    [
        (nn.CrossEntropyLoss(), INDICES, nll()),
        (
            LogitAdjustedLoss([5, 2, 1]),
            INDICES,
            lambda out: nll()(out.double() + torch.tensor([5.0, 2.0, 1.0]).log()),
        ),
        (nn.CrossEntropyLoss(WEIGHTS), INDICES, nll(WEIGHTS.tolist())),
        (partial(F.cross_entropy, weight=WEIGHTS), INDICES, nll(WEIGHTS.tolist())),
        (
            nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.1),
            INDICES,
            nll(WEIGHTS.tolist(), smoothing=0.1),
        ),
        (nn.CrossEntropyLoss(ignore_index=0), INDICES, nll(ignored=0)),
        (nn.CrossEntropyLoss(reduction="sum"), INDICES, lambda out: 12 * nll()(out)),
        (
            of_pictures,
            INDICES,
            lambda out: -(rows_of_double(out)[range(12), INDICES] * (1 + INDICES)).mean().item(),
        ),
        (nn.CrossEntropyLoss(), SOFT, lambda out: -(rows_of_double(out) * SOFT).sum().item() / 12),
        (
            nn.BCEWithLogitsLoss(reduction="none"),
            LABELS,
            lambda out: (
                -(
                    LABELS * out.double().sigmoid().log()
                    + (1 - LABELS) * (-out.double()).sigmoid().log()
                )
                .mean()
                .item()
            ),
        ),
    ],
    ids=[
        "mean",
        "adjusted",
        "weights",
        "partial",
        "smoothing",
        "ignored",
        "sum",
        "vector",
        "soft",
        "labels",
    ],
)
def test_the_validation_loss_is_that_of_all_pictures_whatever_the_batches(
    loss_func, targets, expected, bs: int
) -> None:
    if bs == 1 and getattr(loss_func, "ignore_index", -100) == 0:
        pytest.skip("a batch of nothing that counts has no loss")
    learn = learner(loss_func, targets, bs)
    with torch.no_grad():
        assert learn.validate()[0] == pytest.approx(expected(learn.model(X)), abs=1e-5)
    row = learn.fit(1, 1e-12).rows[0]
    assert row["valid_loss"] == pytest.approx(expected(learn.model(X).detach()), abs=1e-5)


@pytest.mark.parametrize(
    ("loss_func", "targets"),
    [
        (nn.CrossEntropyLoss(), INDICES),
        (LogitAdjustedLoss([5, 2, 1]), INDICES),
        (nn.CrossEntropyLoss(WEIGHTS), INDICES),
        (nn.NLLLoss(WEIGHTS), INDICES),
        (nn.CrossEntropyLoss(WEIGHTS, ignore_index=255), INDICES.where(INDICES != 2, 255)),
        (nn.CrossEntropyLoss(reduction="sum"), INDICES),
        (of_pictures, INDICES),
        (nn.BCEWithLogitsLoss(), LABELS),
    ],
    ids=["mean", "adjusted", "weights", "nll", "ignored", "sum", "vector", "labels"],
)
def test_accumulated_batches_have_the_gradient_of_one(loss_func, targets) -> None:
    gradients = []

    class Spy(torch.optim.SGD):
        def step(self, *args) -> None:
            gradients.append(torch.cat([p.grad.flatten() for p in learn.model.parameters()]))

    for bs, accumulate in ((12, 1), (5, 3)):  # batches of 5, 5 and 2
        learn = learner(loss_func, targets, bs, accumulate=accumulate)
        if isinstance(loss_func, nn.NLLLoss):
            learn.model = nn.Sequential(learn.model, nn.LogSoftmax(1))
        learn.opt.__class__ = Spy
        learn.fit(1, 1e-3)
    assert len(gradients) == 2
    assert torch.allclose(*gradients, atol=1e-6)


class OneHot(nn.Module):
    """Sigmoid over class indices; `activation` says so."""

    activation = torch.sigmoid

    def forward(self, outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, F.one_hot(targets, 3).float())


class Holds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.BCEWithLogitsLoss()

    def forward(self, outputs, targets):
        return self.loss(outputs, targets) * 2


def focal(outputs, targets):
    one_hot = F.one_hot(targets, 3).float()
    return sigmoid_focal_loss(outputs, one_hot, reduction="mean")


def stated(function, activation):
    def loss(outputs, targets):
        return function(outputs, targets)

    loss.activation = activation
    return loss


@pytest.mark.parametrize(
    ("loss_func", "targets", "activation"),
    [
        (nn.CrossEntropyLoss(), INDICES, lambda x: x.softmax(1)),
        (of_pictures, INDICES, lambda x: x.softmax(1)),
        (nn.BCEWithLogitsLoss(), LABELS, torch.sigmoid),
        (nn.MultiLabelSoftMarginLoss(), LABELS, torch.sigmoid),
        (F.binary_cross_entropy_with_logits, LABELS, torch.sigmoid),
        (sigmoid_focal_loss, LABELS, torch.sigmoid),
        (partial(sigmoid_focal_loss, reduction="mean"), LABELS, torch.sigmoid),
        (Holds(), LABELS, torch.sigmoid),
        (OneHot(), INDICES, torch.sigmoid),
        (stated(focal, torch.sigmoid), INDICES, torch.sigmoid),
    ],
    ids=str,
)
def test_probabilities_and_metrics_are_those_of_the_loss(loss_func, targets, activation) -> None:
    seen = []

    def metric(preds, targets) -> float:
        seen.append(preds)
        return 0.0

    learn = learner(loss_func, targets, metrics=metric)
    with torch.no_grad():
        expected = activation(learn.model(X))
    preds, _, losses = learn.get_preds(with_loss=True)
    assert torch.allclose(preds, expected, atol=1e-6)
    assert torch.equal(seen[-1], preds)
    assert losses.shape == (12,)
    assert losses.mean() == pytest.approx(learn.validate()[0], rel=1e-4)
    if targets is INDICES:
        interp = ClassificationInterpretation.from_learner(learn)
        assert torch.allclose(interp.target_probs, expected[range(12), targets], atol=1e-6)
    learn.fit(1, 1e-3)
    assert torch.equal(seen[-1], learn.get_preds()[0])


@pytest.mark.parametrize(
    ("loss_func", "last", "targets"),
    [
        (nn.NLLLoss(), nn.LogSoftmax(1), INDICES),
        (F.nll_loss, nn.LogSoftmax(1), INDICES),
        (nn.BCELoss(), nn.Sigmoid(), LABELS),
    ],
    ids=str,
)
def test_logarithms_and_probabilities_of_a_model_are_taken_as_such(
    loss_func, last, targets
) -> None:
    model = nn.Sequential(nn.Linear(4, 3), last)
    learn = Learner(loaders(targets), model, loss_func=loss_func, device="cpu")
    learn.fit(1, 1e-3)
    with torch.no_grad():
        outputs = model[0](X)
    expected = outputs.sigmoid() if targets is LABELS else outputs.softmax(1)
    assert torch.allclose(learn.get_preds()[0], expected, atol=1e-6)


def test_a_picture_is_predicted_as_its_loss_says(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, loss_func=OneHot(), device="cpu")
    learn.fit(1, 1e-1)
    preds, _ = learn.get_preds()
    probs = learn.predict(dls.valid.dataset.path(0))[2]
    assert torch.allclose(probs, preds[0], atol=1e-5)
    assert probs.sum() != pytest.approx(1, abs=1e-3)


def of_another_kind(outputs, targets):
    return -outputs[range(len(outputs)), targets].mean()


def a_tuple(outputs, targets):
    return F.cross_entropy(outputs, targets), {"parts": 1}


def a_float(outputs, targets):
    return F.cross_entropy(outputs, targets).item()


def detached(outputs, targets):
    return F.cross_entropy(outputs.detach(), targets)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()])


named = stated(F.cross_entropy, "sigmoid")


@pytest.mark.parametrize(
    ("loss_func", "message"),
    [
        (nn.CrossEntropyLoss, "loss_func is the class CrossEntropyLoss; pass an instance of it"),
        (
            "cross_entropy",
            r"loss_func is 'cross_entropy'; it must be a function \(outputs, targets",
        ),
        (
            nn.MSELoss(),
            "what loss_func MSELoss takes is not known; say how .*activation = torch.si",
        ),
        (nn.MultiLabelMarginLoss(), "what loss_func MultiLabelMarginLoss takes is not known"),
        (partial(F.l1_loss, reduction="mean"), "what loss_func l1_loss takes is not known"),
        (Both(), "what loss_func Both takes is not known; say how"),
        (focal, "focal is no loss of softmax: it changes when all outputs of a picture grow alike"),
        (of_another_kind, "of_another_kind is no loss of softmax: .*torch.exp for logarithms"),
        (named, "loss_func.activation is 'sigmoid'; give a function: torch.sigmoid"),
        (stated(focal, nn.Sigmoid), "loss_func.activation is <class .*; give a function"),
    ],
    ids=str,
)
def test_a_loss_whose_outputs_are_not_known_is_refused_with_what_to_type(
    loss_func, message
) -> None:
    with pytest.raises(ValueError, match=message):
        learner(loss_func)
    learn = learner(None)
    with pytest.raises(ValueError, match=message):
        learn.loss_func = loss_func
    assert isinstance(learn.loss_func, nn.CrossEntropyLoss)


@pytest.mark.parametrize(
    ("loss_func", "message"),
    [
        (
            nn.BCEWithLogitsLoss(),
            r"BCEWithLogitsLoss does not take outputs \[2, 3\] with targets \[2\]",
        ),
        (nn.CrossEntropyLoss(torch.ones(2)), "loss_func has 2 weights, but the data 3 classes"),
        (a_tuple, "loss_func a_tuple gives a tuple; it has to give one tensor"),
        (a_float, "loss_func a_float gives a float; it has to give one tensor"),
        (detached, "loss_func detached gives a loss without gradients"),
    ],
    ids=str,
)
def test_a_loss_that_cannot_train_pictures_is_refused_at_once(
    loss_func, message, dls, tiny_net
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        vision_learner(dls, tiny_net, loss_func=loss_func, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss_func", "targets", "message"),
    [
        (None, LABELS, "targets of row . sum to [023]; for several labels use loss_func=nn.BCEWi"),
        (
            None,
            INDICES.float(),
            r"does not take outputs \[4, 3\] with targets \[4\] of torch.float",
        ),
        (None, INDICES + 1, "does not take outputs .*: Target 3 is out of bounds"),
        (
            nn.NLLLoss(),
            INDICES,
            "the model gives none: their exponentials do not sum to 1; end the",
        ),
        (nn.BCELoss(), LABELS, r"the model gives numbers outside \[0, 1\]; end it with nn.Sigmoid"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused_before_a_step(loss_func, targets, message) -> None:
    learn = learner(loss_func, targets)
    before = learn.model.weight.clone()
    for act in (lambda: learn.fit(1, 1e-1), learn.validate):
        with pytest.raises(ValueError, match=message):
            act()
    assert torch.equal(learn.model.weight, before)
    assert learn.recorder.run.losses == []


def test_a_loss_is_tried_at_once_where_batches_in_lists_have_class_indices() -> None:
    with pytest.raises(ValueError, match="loss_func a_tuple gives a tuple"):
        learner(a_tuple, INDICES)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()], ids=str)
def test_a_softmax_at_the_models_end_is_warned_of(last: nn.Module) -> None:
    message = f"the model ends with {type(last).__name__}, but its loss"
    with pytest.warns(UserWarning, match=message) as said:
        Learner(loaders(INDICES), nn.Sequential(nn.Linear(4, 3), last), device="cpu")
    assert said[0].filename == __file__


def test_a_softmax_within_the_model_is_warned_of_after_a_validation() -> None:
    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x).softmax(1)

    learn = Learner(loaders(INDICES), Net(4, 3), device="cpu")
    message = "the model gives probabilities, but its loss takes logits"
    with pytest.warns(UserWarning, match=message) as said:
        learn.validate()
    assert said[0].filename == __file__


def test_a_new_head_of_zeros_gives_no_warning(dls, tiny_net, recwarn) -> None:
    vision_learner(dls, tiny_net, device="cpu").validate()
    assert [w for w in recwarn if "probabilities" in str(w.message)] == []


def test_class_metrics_of_several_labels_are_refused_when_the_learner_is_made() -> None:
    with pytest.raises(ValueError, match=r"metric accuracy fails on .*; of several labels there"):
        learner(nn.BCEWithLogitsLoss(), LABELS, metrics=[accuracy])
