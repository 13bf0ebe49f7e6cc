from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    get_scorer,
    roc_auc_score,
)

from nbfinetune import Learner, accuracy, balanced_accuracy, error_rate, top_k_accuracy
from nbfinetune.objectives.metrics import higher_is_better, is_share_of_pictures, metric_name

PREDS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
TARGETS = torch.tensor([0, 2, 2, 2])


def test_two_of_four_are_right() -> None:
    assert accuracy(PREDS, TARGETS) == 0.5
    assert error_rate(PREDS, TARGETS) == 0.5


@pytest.mark.parametrize(
    ("predicted", "targets", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 1], 1 / 2),  # all of one class, none of the other
        ([0, 1, 1, 2], [0, 1, 0, 2], (1 / 2 + 1 + 1) / 3),
        ([0, 2, 2, 2], [0, 0, 0, 0], 1 / 4),  # a class that no target has does not count
        ([2, 2, 0], [0, 0, 2], 0),
        ([0, 1, 2], [0, 1, 2], 1),
    ],
)
def test_balanced_accuracy_is_the_mean_share_of_the_classes_that_there_are(
    predicted: list, targets: list, expected: float
) -> None:
    preds = torch.eye(3)[predicted]
    assert balanced_accuracy(preds, torch.tensor(targets)) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_balanced_accuracy_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 10, 200):
        preds, targets = rng.random((n, 5)).astype("float32"), rng.integers(0, 4, n)
        expected = balanced_accuracy_score(targets, preds.argmax(1))
        found = balanced_accuracy(torch.tensor(preds), torch.tensor(targets))
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.5), (2, 0.75), (3, 1.0), (99, 1.0)])
def test_top_k_accuracy_counts_the_k_best(k: int, expected: float) -> None:
    assert top_k_accuracy(PREDS, TARGETS, k=k) == expected


def test_a_partial_metric_is_named_with_its_arguments() -> None:
    assert metric_name(partial(top_k_accuracy, k=3)) == "top_k_accuracy_3"


def test_an_object_that_is_called_is_named_by_its_class() -> None:
    class Brier:
        def __call__(self, preds, targets) -> float:
            return 0.0

    assert metric_name(Brier()) == "Brier"


class Named:
    """A metric of another name, which may say what is better."""

    def __init__(self, name: str, higher_is_better: bool | None = None) -> None:
        self.__name__, self.higher_is_better = name, higher_is_better

    def __call__(self, preds, targets) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("metric", "rises"),
    [
        (accuracy, True),
        (balanced_accuracy, True),
        (error_rate, False),
        (partial(top_k_accuracy, k=3), True),
        (Named("ErrorRate"), False),
        (Named("F1Score"), True),
        (Named("LOG_LIKELIHOOD"), True),
        (Named("perplexity"), False),
        (Named("mse"), False),
        (Named("error_rate_at_5"), None),
        (Named("lossless"), None),
        (Named("inaccuracy"), None),
        (Named("accuracy", higher_is_better=False), False),
        (Named("mine", higher_is_better=True), True),
        (partial(Named("mine", higher_is_better=False)), False),
    ],
    ids=lambda value: metric_name(value) if callable(value) else str(value),
)
def test_whether_a_metric_rises_is_stated_or_known_but_not_guessed(metric, rises) -> None:
    assert higher_is_better(metric) is rises


def one_argument(preds) -> float:
    return 0.5


def several(preds, targets) -> torch.Tensor:
    return torch.zeros(3)


def nothing(preds, targets) -> None:
    pass


def text(preds, targets) -> str:
    return "0.5"


def complex_number(preds, targets) -> complex:
    return 1j


def spoils(preds, targets) -> float:
    preds.mul_(0)
    return 0.5


def sorts(preds, targets) -> float:
    preds.numpy().sort()
    return 0.5


def looks_up(preds, targets) -> float:
    return {}["a"]


def time(preds, targets) -> float:
    return 0.5


def train_loss(preds, targets) -> float:
    return 0.5


epoch, valid_loss = Named("epoch"), Named("valid_loss")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("accuracey", "no metric is called 'accuracey'; did you mean accuracy"),
        (["balanced acc"], "did you mean balanced_accuracy"),
        (["auc"], r"no metric is called 'auc'; did you mean roc_auc\? There are accuracy, "),
        (["zzz"], r"no metric is called 'zzz'; There are accuracy, error_rate, "),
        ("top_0_accuracy", "no metric is called 'top_0_accuracy'"),
        ("classification_report", "no metric is called 'classification_report'"),
        ({"accuracy": accuracy, "x": None}, "metrics holds None, a NoneType"),
        ({3: accuracy}, "metrics has the key 3; keys are names"),
        ([[accuracy]], "metrics holds .*, a list; a metric is a function"),
        ([None], "metrics holds None, a NoneType"),
        (5, "metrics holds 5, a int"),
        (Named, "metric Named is a class; pass an instance of it"),
        (one_argument, "metric one_argument fails on .*: TypeError: "),
        (several, r"metric several gives values of the shape \[3\], not one number"),
        (nothing, "metric nothing gives None, not one number"),
        (text, "metric text gives '0.5', not one number"),
        (complex_number, "metric complex_number gives 1j, not one number"),
        (spoils, "metric spoils changes the predictions or targets .* such as preds.clone"),
        (sorts, "metric sorts changes the predictions"),
        (looks_up, "metric looks_up fails on .*: KeyError: 'a'"),
        (time, "a metric is called time, as a column that each run has"),
        ([accuracy, train_loss], "a metric is called train_loss, as a column"),
        (epoch, "a metric is called epoch, as a column"),
        (valid_loss, "a metric is called valid_loss, as a column"),
        ([accuracy, accuracy], "two metrics have the same name: accuracy, accuracy; name them"),
        (get_scorer("f1_macro"), "metric .* give the name of a metric, such as .f1_macro"),
    ],
    ids=str,
)
def test_what_is_no_metric_is_refused_when_the_learner_is_made(
    metrics, message: str, loaders, mlp
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Learner(loaders, mlp, metrics=metrics, device="cpu")
    assert "\n" not in str(caught.value)


def tensor_of_one(preds, targets) -> torch.Tensor:
    return torch.tensor([0.5])


def numpy_number(preds, targets) -> np.float32:
    return np.float32(0.5)


def roc_auc(preds, targets) -> float:
    """Refuses data in which a class is missing."""
    return 0 * roc_auc_score(targets, preds[:, 1]) + 0.5


@pytest.mark.parametrize(
    "metrics", [tensor_of_one, numpy_number, roc_auc, (m for m in [Named("mine")])], ids=str
)
def test_what_gives_one_number_is_a_metric(metrics, loaders, mlp) -> None:
    assert Learner(loaders, mlp, metrics=metrics, device="cpu").validate()[1] == 0.5


def test_no_metrics_can_be_none(loaders, mlp) -> None:
    assert Learner(loaders, mlp, metrics=None, device="cpu").metrics == []


def test_a_trial_leaves_a_metric_that_counts_as_it_was(loaders, mlp) -> None:
    class Counts:
        n = 0

        def __call__(self, preds, targets) -> int:
            self.n += 1
            return self.n

    state = torch.random.get_rng_state()
    learn = Learner(loaders, mlp, metrics=Counts(), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert learn.validate()[1] == 1


@pytest.mark.parametrize("metric", [accuracy, balanced_accuracy, error_rate, top_k_accuracy])
def test_targets_that_would_be_broadcast_are_refused(metric) -> None:
    name = metric.__name__
    for targets in (torch.eye(4)[:, :3], TARGETS[:, None]):
        with pytest.raises(ValueError, match=f"{name} compares preds .* with class indices"):
            metric(PREDS, targets)
    with pytest.raises(ValueError, match=f"{name} got class indices up to 2, but .* of 1 classes"):
        metric(PREDS[:, :1], TARGETS)


def test_shares_of_pictures_are_known_by_their_whole_names() -> None:
    def macro_f1(preds, targets) -> float:
        return 0.5

    def balanced_accuracy(preds, targets) -> float:
        return 0.5

    for metric in (accuracy, error_rate, top_k_accuracy, partial(top_k_accuracy, k=2)):
        assert is_share_of_pictures(metric)
    for metric in (macro_f1, balanced_accuracy, partial(f1_score, average="macro")):
        assert not is_share_of_pictures(metric)
