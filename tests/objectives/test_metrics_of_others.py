"""Metrics of scikit-learn and torchmetrics, and by name: values are these libraries' own."""

import pickle
import subprocess
import sys
from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torchmetrics
from sklearn import metrics as skm
from torch import nn

from nbfinetune import EarlyStopping, Learner, SaveBest, accuracy
from nbfinetune.objectives.metric_list import metric_list
from nbfinetune.objectives.metrics import higher_is_better, is_share_of_pictures, metric_name
from nbfinetune.objectives.metrics_by_name import NAMES

G = torch.Generator().manual_seed(0)
PREDS = torch.randn(60, 4, generator=G).softmax(1)
TARGETS = torch.randint(0, 4, (60,), generator=G)
TWO, OF_TWO = torch.randn(60, 2, generator=G).softmax(1), torch.randint(0, 2, (60,), generator=G)
LABEL_PREDS = torch.rand(60, 3, generator=G)
LABELS = torch.randint(0, 2, (60, 3), generator=G).float()


def value(metric, preds=PREDS, targets=TARGETS) -> float:
    [function] = metric_list(metric)
    return float(function(preds, targets))


T, P, L = TARGETS.numpy(), PREDS.argmax(1).numpy(), LABELS.numpy().astype(int)
ROWS = (PREDS.double() / PREDS.double().sum(1, keepdim=True)).numpy()  # sums to 1
LP = (LABEL_PREDS > 0.5).long().numpy()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", skm.accuracy_score(T, P)),
        ("error_rate", 1 - skm.accuracy_score(T, P)),
        ("balanced_accuracy", skm.balanced_accuracy_score(T, P)),
        ("top_3_accuracy", skm.top_k_accuracy_score(T, PREDS.numpy(), k=3)),
        ("f1_macro", skm.f1_score(T, P, average="macro")),
        ("f1_micro", skm.f1_score(T, P, average="micro")),
        ("f1_weighted", skm.f1_score(T, P, average="weighted")),
        ("precision_macro", skm.precision_score(T, P, average="macro")),
        ("recall_weighted", skm.recall_score(T, P, average="weighted")),
        ("jaccard_macro", skm.jaccard_score(T, P, average="macro")),
        ("roc_auc", skm.roc_auc_score(T, ROWS, multi_class="ovr")),
        ("average_precision", skm.average_precision_score(T, PREDS.numpy())),
        ("cohen_kappa", skm.cohen_kappa_score(T, P)),
        ("matthews_corrcoef", skm.matthews_corrcoef(T, P)),
        (
            "log_loss",
            skm.log_loss(T, ROWS),
        ),
        ("hamming_loss", skm.hamming_loss(T, P)),
        ("zero_one_loss", skm.zero_one_loss(T, P)),
    ],
)
def test_a_metric_by_name_has_scikit_learns_value(name: str, expected: float) -> None:
    assert value(name) == pytest.approx(expected, abs=1e-6)
    assert metric_name(metric_list(name)[0]) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f1", skm.f1_score(OF_TWO, TWO.argmax(1))),
        ("precision", skm.precision_score(OF_TWO, TWO.argmax(1))),
        ("roc_auc", skm.roc_auc_score(OF_TWO, TWO[:, 1])),
        ("roc_auc_score", skm.roc_auc_score(OF_TWO, TWO[:, 1])),
        ("average_precision", skm.average_precision_score(OF_TWO, TWO[:, 1])),
        ("brier_score_loss", skm.brier_score_loss(OF_TWO, TWO[:, 1])),
    ],
)
def test_of_two_classes_the_second_is_the_positive_one(name: str, expected: float) -> None:
    assert value(name, TWO, OF_TWO) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy_multi", (LP == L).mean()),  # fastai's
        ("exact_match", skm.accuracy_score(L, LP)),
        ("hamming_loss", skm.hamming_loss(L, LP)),
        ("f1_macro", skm.f1_score(L, LP, average="macro")),
        ("f1_samples", skm.f1_score(L, LP, average="samples")),
        ("jaccard_samples", skm.jaccard_score(L, LP, average="samples")),
        ("roc_auc", skm.roc_auc_score(L, LABEL_PREDS, average="macro")),
        ("roc_auc_micro", skm.roc_auc_score(L, LABEL_PREDS, average="micro")),
        ("average_precision", skm.average_precision_score(L, LABEL_PREDS, average="macro")),
    ],
)
def test_of_several_labels_it_is_the_value_over_labels(name: str, expected: float) -> None:
    assert value(name, LABEL_PREDS, LABELS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "error_rate", "balanced_accuracy", "top_3_accuracy"])
def test_a_metric_of_classes_is_refused_where_there_are_several_labels(name: str) -> None:
    loaders = SimpleNamespace(
        train=[(torch.zeros(4, 5), torch.eye(4)[:, :3])], vocab=["wet", "red", "old"]
    )
    loaders.valid = loaders.train
    how = {"loss_func": nn.BCEWithLogitsLoss(), "device": "cpu"}
    with pytest.raises(ValueError, match="of several labels there are 'accuracy_multi'"):
        Learner(loaders, nn.Linear(5, 3), metrics=name, **how)
    learn = Learner(loaders, nn.Linear(5, 3), metrics=["f1_macro", "accuracy_multi"], **how)
    assert len(learn.validate()) == 3


def test_labels_are_refused_where_there_are_classes(loaders, mlp) -> None:
    for name in ("accuracy_multi", "exact_match"):
        with pytest.raises(ValueError, match=f"{name} is of several labels a picture"):
            Learner(loaders, mlp, metrics=name, device="cpu")


def test_a_class_that_no_picture_has_does_not_count_in_the_area() -> None:
    three = TARGETS.clamp(max=2)
    expected = skm.roc_auc_score(torch.eye(4)[three][:, :3].numpy(), PREDS[:, :3].numpy())
    assert value("roc_auc", PREDS, three) == pytest.approx(expected)
    assert value("roc_auc", PREDS, torch.zeros(60).long()) != value("roc_auc")  # NaN: no curve


@pytest.mark.parametrize("name", NAMES)
def test_each_name_works_or_is_refused_when_the_learner_is_made(name: str, learn) -> None:
    try:
        learn.metrics = [name]
    except ValueError as error:
        pytest.fail(str(error))
    assert higher_is_better(learn.metrics[0]) is (name not in ("error_rate", "hamming_loss",
                                                               "log_loss"))  # fmt: skip


def test_names_and_functions_of_scikit_learn_say_which_way_is_better() -> None:
    for metric, rises in (
        ("f1_score", True),
        ("balanced_accuracy_score", True),
        ("zero_one_loss", False),
        (skm.f1_score, True),
        (partial(skm.f1_score, average="macro"), True),
        (skm.log_loss, False),
        (skm.adjusted_rand_score, None),
    ):
        [function] = metric_list(metric)
        assert higher_is_better(function) is rises, metric
    assert is_share_of_pictures(metric_list("top_3_accuracy")[0])
    assert not is_share_of_pictures(metric_list("f1_macro")[0])


def test_functions_of_scikit_learn_are_metrics_as_they_are(loaders, mlp) -> None:
    metrics = [skm.f1_score, skm.roc_auc_score, partial(skm.jaccard_score, average="macro")]
    learn = Learner(loaders, mlp, metrics=metrics, device="cpu")
    preds, targets = learn.get_preds()
    assert learn.validate()[1:] == pytest.approx(
        [
            skm.f1_score(targets, preds.argmax(1)),
            skm.roc_auc_score(targets, preds[:, 1]),
            skm.jaccard_score(targets, preds.argmax(1), average="macro"),
        ]
    )
    assert learn.metric_names == ["f1_score", "roc_auc_score", "jaccard_score_macro"]


def test_a_function_for_two_classes_is_refused_for_three_with_the_name_to_type() -> None:
    batch = torch.zeros(3, 4), torch.arange(3)
    loaders = SimpleNamespace(train=[batch], valid=[batch], vocab=list("abc"))
    for metric in (skm.f1_score, "f1", "f1_score"):
        with pytest.raises(ValueError, match='type "f1_macro", "f1_micro" or "f1_weighted"'):
            Learner(loaders, nn.Linear(4, 3), metrics=metric, device="cpu")


def test_a_dict_names_its_metrics(loaders, mlp) -> None:
    wanted = {"right": accuracy, "mine": "f1_macro", "auc": torchmetrics.AUROC(task="binary")}
    learn = Learner(loaders, mlp, metrics=wanted, device="cpu")
    assert learn.metric_names == ["right", "mine", "auc"]
    assert learn.recorder.runs == []
    learn.fit(1, 1e-3, keep_best=True)
    assert learn.recorder.run.shares == {"right": True}


def test_without_scikit_learn_its_names_say_what_to_install() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "sklearn" else find(name)
from nbfinetune.objectives import metric_list, sklearn_metrics
sklearn_metrics.find_spec = importlib.util.find_spec
print(len(metric_list.metric_list(["accuracy", "top_3_accuracy"])))
try:
    metric_list.metric_list("f1_macro")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "2",
        "the metric f1_macro is scikit-learn's, which is not installed: pip install scikit-learn",
    ], done.stderr


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (torchmetrics.Accuracy(task="multiclass", num_classes=4), skm.accuracy_score(T, P)),
        (
            torchmetrics.F1Score(task="multiclass", num_classes=4, average="macro"),
            skm.f1_score(T, P, average="macro"),
        ),
        (
            torchmetrics.classification.MulticlassAUROC(4),
            skm.roc_auc_score(T, ROWS, multi_class="ovr"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_of_torchmetrics_gives_the_value_of_the_whole_pass(metric, expected) -> None:
    metric.update(PREDS[:7], TARGETS[:7])  # what it held before does not count
    for _ in range(2):
        assert value(metric) == pytest.approx(expected, abs=1e-5)
    assert metric.update_count == 0


def test_predictions_come_in_parts_and_no_part_counts_more(monkeypatch) -> None:
    from nbfinetune.objectives import metric_list as module

    monkeypatch.setattr(module, "_ROWS", 7)  # 60 = 8 * 7 + 4
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=4)
    assert value(metric) == pytest.approx(skm.accuracy_score(T, P))
    assert value(torchmetrics.AUROC(task="multiclass", num_classes=4)) == pytest.approx(
        value("roc_auc"), abs=1e-5
    )


def test_binary_and_multi_label_objects_get_what_they_take() -> None:
    binary = torchmetrics.AUROC(task="binary")
    assert value(binary, TWO, OF_TWO) == pytest.approx(skm.roc_auc_score(OF_TWO, TWO[:, 1]))
    labels = torchmetrics.F1Score(task="multilabel", num_labels=3, average="macro")
    expected = skm.f1_score(L, LP, average="macro")
    assert value(labels, LABEL_PREDS, LABELS) == pytest.approx(expected)


def test_an_object_is_empty_after_an_interrupt_and_an_error() -> None:
    for kind in (KeyboardInterrupt, RuntimeError):

        class Breaks(torchmetrics.MeanMetric):
            kind: type

            def update(self, preds, targets) -> None:
                super().update(preds)
                raise self.kind

        Breaks.kind = kind
        metric = Breaks()
        with pytest.raises(kind):
            value(metric)
        assert metric.update_count == 0


def test_objects_say_which_way_is_better_and_stop_and_keep_by_it(loaders, mlp) -> None:
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=2)
    learn = Learner(loaders, mlp, metrics=metric, device="cpu")
    assert learn.metric_names == ["MulticlassAccuracy"]
    assert is_share_of_pictures(learn.metrics[0])
    stop = EarlyStopping("MulticlassAccuracy", patience=9)
    learn.fit(2, 1e-3, keep_best=True, cbs=[stop, SaveBest("MulticlassAccuracy")])
    rows = learn.recorder.run.rows
    assert rows[-1]["MulticlassAccuracy"] == pytest.approx(accuracy(*learn.get_preds()), abs=1)
    falls = torchmetrics.HammingDistance(task="multiclass", num_classes=2)
    assert higher_is_better(metric_list(falls)[0]) is False
    assert not is_share_of_pictures(metric_list(torchmetrics.F1Score("binary"))[0])


def test_a_fit_with_an_object_has_the_values_of_the_function(loaders, mlp) -> None:
    metrics = [accuracy, torchmetrics.Accuracy(task="binary"), "f1_macro"]
    learn = Learner(loaders, mlp, metrics=metrics, device="cpu")
    for row in learn.fit(3, 1e-2).rows:
        assert row["BinaryAccuracy"] == pytest.approx(row["accuracy"])
    deepcopy(learn).fit(1, 1e-3)
    assert pickle.loads(pickle.dumps(learn)).metric_names == learn.metric_names


def test_a_collection_is_a_column_for_each_of_its_metrics(loaders, mlp) -> None:
    collection = torchmetrics.MetricCollection(
        {
            "top": torchmetrics.Accuracy(task="multiclass", num_classes=2),
            "f1": torchmetrics.F1Score(task="multiclass", num_classes=2, average="macro"),
        },
        prefix="valid_",
    )
    learn = Learner(loaders, mlp, metrics=collection, device="cpu")
    assert sorted(learn.metric_names) == ["valid_f1", "valid_top"]
    preds, targets = learn.get_preds()
    found = dict(zip(learn.metric_names, learn.validate()[1:], strict=True))
    expected = skm.f1_score(targets, preds.argmax(1), average="macro")
    assert found["valid_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (torchmetrics.Accuracy, "metric Accuracy is a class; pass an instance of it"),
        (
            torchmetrics.Accuracy(task="multiclass", num_classes=2, average=None),
            r"MulticlassAccuracy gives values of the shape \[2\], not one number",
        ),
        (torchmetrics.Accuracy(task="multiclass", num_classes=9), "MulticlassAccuracy fails on "),
        (
            [torchmetrics.Accuracy("binary"), torchmetrics.Accuracy("binary", threshold=0.7)],
            "two metrics have the same name: BinaryAccuracy, BinaryAccuracy; name them with a dict",
        ),
    ],
    ids=["class", "of-each-class", "classes", "twice"],
)
def test_objects_that_cannot_be_a_column_are_refused_when_the_learner_is_made(
    metric, message: str, loaders, mlp
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Learner(loaders, mlp, metrics=metric, device="cpu")
    assert "\n" not in str(caught.value)


def test_an_object_of_labels_is_refused_for_pictures_of_classes(dls, small_net) -> None:
    metric = torchmetrics.Accuracy(task="multilabel", num_labels=3)
    with pytest.raises(ValueError, match="metric MultilabelAccuracy fails on preds"):
        Learner(dls, small_net(), metrics=metric, device="cpu")


@pytest.mark.parametrize("kind", ["classes", "two", "labels"])
def test_metrics_by_name_have_the_golden_values_of_fastai(kind: str, golden: dict) -> None:
    """`others/test_fastai.py` holds the same numbers against fastai itself."""
    outputs = torch.arange(1, 31, dtype=torch.float64).mul(1.7).sin().mul(3).float().view(10, 3)
    targets = torch.tensor(golden["metrics"]["targets"])
    preds = outputs.softmax(1)
    if kind == "two":
        preds, targets = outputs[:, :2].softmax(1), targets.clamp(max=1)
    if kind == "labels":
        preds, targets = outputs.sigmoid(), (torch.arange(30).view(10, 3) % 4 < 2).float()
    for name, expected in golden["metrics"][kind].items():
        assert value(name, preds, targets) == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("metric", [nn.CrossEntropyLoss(), nn.functional.cross_entropy,
                                    partial(nn.functional.cross_entropy, label_smoothing=0.0)])  # fmt: skip # noqa: E501
def test_losses_of_torch_get_outputs_and_no_probabilities(metric) -> None:
    loader = [(torch.randn(20, 4, generator=G), torch.randint(0, 3, (20,), generator=G))]
    learn = Learner(SimpleNamespace(train=loader, valid=loader, vocab=list("abc")),
                    nn.Linear(4, 3), metrics=metric)  # fmt: skip
    loss, same = learn.validate()
    assert same == pytest.approx(loss, rel=1e-6)
    assert higher_is_better(learn.metrics[0]) in (False, None)


def test_a_metric_that_compares_targets_with_rows_of_classes_is_refused_before_a_step() -> None:
    loader = [(torch.randn(20, 4, generator=G), torch.randint(0, 3, (20,), generator=G))]
    dls = SimpleNamespace(train=loader, valid=loader, vocab=list("abc"))
    for metric in (torchmetrics.MeanMetric(), lambda p, y: ((p - y) ** 2).mean()):
        with pytest.raises(
            ValueError, match=r"metric .* fails on preds \[4, 3\] and targets \[4\]"
        ):
            Learner(dls, nn.Linear(4, 3), metrics=metric)


@pytest.mark.parametrize("function", [skm.log_loss, skm.top_k_accuracy_score])
def test_scikit_learns_scores_are_told_the_classes_that_no_picture_has(function) -> None:
    absent = TARGETS % 2
    expected = function(absent.numpy(), ROWS, labels=[0, 1, 2, 3])
    assert value(function, targets=absent) == pytest.approx(expected)
    told = partial(function, labels=[0, 1, 2, 3])
    assert value(told, targets=absent) == pytest.approx(expected)


def test_a_metric_of_classes_is_refused_for_several_labels() -> None:
    loader = [(torch.randn(60, 4, generator=G), LABELS)]
    dls = SimpleNamespace(train=loader, valid=loader, vocab=list("abc"))
    metric = torchmetrics.Accuracy(task="multiclass", num_classes=3)
    with pytest.raises(ValueError, match="of several labels there is MultilabelAccuracy"):
        Learner(dls, nn.Linear(4, 3), loss_func=nn.BCEWithLogitsLoss(), metrics=metric)
