"""What a classifier got wrong, against scikit-learn, and in one pass."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from nbfinetune import Callback, ClassificationInterpretation, Learner
from nbfinetune.interpretation.confusion import Comparison

from_predictions = ClassificationInterpretation.from_predictions


def names(c: int) -> list[str]:
    return [f"class {i}" for i in range(c)]


@pytest.mark.parametrize("n", [0, 1, 10_000])
@pytest.mark.parametrize("c", [1, 2, 37, 200, 5_000])
def test_matrix_and_scores_are_those_of_scikit_learn(c: int, n: int) -> None:
    rng = np.random.default_rng(c + n)
    targets, predicted = rng.integers(0, c, (2, n))
    interp = from_predictions(targets, predicted, names(c))
    matrix = interp.confusion_matrix()
    assert matrix.is_sparse == (c == 5_000)
    matrix = matrix.to_dense()
    if n:
        assert matrix.dtype == torch.int64
        expected = sk.confusion_matrix(targets, predicted, labels=range(c))
        assert torch.equal(matrix, torch.from_numpy(expected))
        assert interp.accuracy == pytest.approx(sk.accuracy_score(targets, predicted))
    else:
        assert matrix.sum() == 0
        assert interp.accuracy == 0
        return
    expected = sk.precision_recall_fscore_support(
        targets, predicted, labels=range(c), zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert interp.scores()[name].numpy() == pytest.approx(values)


@pytest.mark.parametrize("normalize", ["true", "pred", "all"])
@pytest.mark.parametrize("c", [3, 2_500])
def test_shares_are_those_of_scikit_learn_with_zero_for_classes_without_items(
    normalize: str, c: int
) -> None:
    targets, predicted = [0, 0, 0, 2], [0, 2, 2, 0]  # no item of class 1, none predicted
    interp = from_predictions(targets, predicted, names(c))
    matrix = interp.confusion_matrix(normalize=normalize).to_dense()
    expected = sk.confusion_matrix(targets, predicted, labels=range(3), normalize=normalize)
    assert matrix[:3, :3].numpy() == pytest.approx(expected)
    assert matrix[1].sum() == 0
    assert matrix.isfinite().all()


def test_the_pairs_confused_are_fastais_in_its_order() -> None:
    """The most frequent first, equal ones row by row; no diagonal, no empty cells."""
    targets = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    predicted = [1, 1, 0, 0, 2, 0, 0, 1, 2]
    interp = from_predictions(targets, predicted, "abc")
    expected = [("a", "b", 2), ("c", "a", 2), ("b", "a", 1), ("b", "c", 1), ("c", "b", 1)]
    assert interp.most_confused() == expected
    assert interp.most_confused(2) == expected[:2]
    with pytest.raises(ValueError, match="min_val is 0; it must be a whole number from 1 up"):
        interp.most_confused(0)


PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])


def test_probabilities_give_losses_the_first_classes_and_cells_by_loss() -> None:
    interp = from_predictions([0, 1, 2, 1], PROBS, "abc")
    assert interp.predicted.tolist() == [0, 0, 2, 0]
    assert interp.losses.tolist() == pytest.approx([-math.log(p) for p in (0.7, 0.4, 0.8, 0.3)])
    assert interp.target_probs.tolist() == pytest.approx([0.7, 0.4, 0.8, 0.3])
    assert interp.predicted_probs.tolist() == pytest.approx([0.7, 0.5, 0.8, 0.6])
    assert interp.top[1].tolist() == [0, 1, 2]
    assert interp.cell("b", "a") == interp.cell(1, 0) == [3, 1]
    assert interp.cell("a", "b") == []
    losses, items = interp.top_losses(2)
    assert items.tolist() == [3, 1]
    assert losses.tolist() == pytest.approx([-math.log(0.3), -math.log(0.4)])
    assert len(interp.top_losses(99)[1]) == 4  # RuntimeError in fastai
    assert interp.top_losses(1, largest=False)[1].tolist() == [2]


def test_the_report_has_a_line_for_each_class_and_the_means() -> None:
    report = repr(from_predictions([0, 0, 1], [0, 1, 1], ["cat", "dog"]).report()).splitlines()
    assert report[0] == "accuracy 0.6667"
    assert report[2].split() == ["cat", "1.000", "0.500", "0.667", "2"]
    assert report[3].split() == ["dog", "0.500", "1.000", "0.667", "1"]
    assert report[4].split()[-4:] == ["0.750", "0.750", "0.667", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0], "ab"), r"targets have the shape \[2\] and preds \[1\]"),
        (([0, 2], [0, 1], "ab"), "a target is no class index of a vocab of 2 classes"),
        (([0, 1], [0, -1], "ab"), "a prediction is no class index"),
        (([0], PROBS[:1], "ab"), "probabilities of 3 classes, but the vocab has 2"),
        (([0], PROBS[:1] * 3, "abc"), r"preds have values outside \[0, 1\], or NaN"),
        (([0], PROBS[:1] * math.nan, "abc"), r"preds have values outside \[0, 1\], or NaN"),
        (([0], [0], "ab", ["x", "y"]), "2 paths for 1 items"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_predictions(*arguments)


def test_unknown_classes_and_normalizations_are_refused() -> None:
    interp = from_predictions([0], [0], "ab")
    with pytest.raises(ValueError, match="no class 'c'; give a name of the vocab, or an index"):
        interp.cell("c", 0)
    with pytest.raises(ValueError, match="no class 2"):
        interp.cell(0, 2)
    with pytest.raises(ValueError, match="normalize is 'rows'; it is one of none, true, pred, all"):
        interp.confusion_matrix(normalize="rows")


def test_a_comparison_names_the_items_and_has_mcnemars_p() -> None:
    before = from_predictions([0] * 12, [1] * 10 + [0] * 2, "ab")
    after = from_predictions([0] * 12, [0] * 8 + [1] * 2 + [1, 0], "ab")
    change = before.compare(after)
    assert (change.fixed, change.broken, change.still_wrong) == (list(range(8)), [10], [8, 9])
    assert change.p_value == pytest.approx(0.0390625)  # 2 (1 + 9) / 2^9
    assert "8 fixed, 1 broken, 2 still wrong of 12 items: accuracy +0.5833" in repr(change)
    other = from_predictions([1] * 12, [1] * 12, "ab")
    with pytest.raises(ValueError, match="compare predictions on the same items in the same order"):
        before.compare(other)


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (5, 5), (9, 8)])
def test_models_that_differ_by_chance_have_a_p_of_one(fixed: int, broken: int) -> None:
    change = Comparison(list(range(fixed)), list(range(broken)), [], n=20)
    assert change.p_value == pytest.approx(1.0)


class Passes(Callback):
    """Counts the pictures that the network sees."""

    def __init__(self) -> None:
        self.batches = 0

    def before_batch(self, learn: Learner) -> None:
        self.batches += 1


def test_one_pass_serves_all_and_is_remembered_until_weights_or_data_change(learn) -> None:
    passes = Passes()

    def interpret() -> ClassificationInterpretation:
        return ClassificationInterpretation.from_learner(learn, cbs=[passes])

    first = interpret()
    first.confusion_matrix(), first.most_confused(), first.top_losses(), first.report()
    assert interpret() is first
    assert passes.batches == 3  # of the validation loader
    with torch.no_grad():
        learn.model[0][0].weight.data[0, 0] += 1
    second = interpret()
    assert second is not first
    assert passes.batches == 6
    assert interpret() is second
    learn.dls.valid = learn.dls.valid[:2]
    assert len(interpret()) == 8


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_the_pass_agrees_with_get_preds(learn: Learner, amp: str) -> None:
    learn.amp = amp
    preds, targets, losses = learn.get_preds(with_loss=True)
    interp = ClassificationInterpretation.from_learner(learn)
    assert torch.equal(interp.targets, targets)
    assert torch.equal(interp.predicted, preds.argmax(1))
    assert torch.allclose(interp.losses, losses)
    assert torch.allclose(interp.predicted_probs, preds.max(1).values)
    assert torch.allclose(interp.target_probs, preds.gather(1, targets[:, None])[:, 0])
    assert interp.accuracy == pytest.approx((preds.argmax(1) == targets).float().mean().item())


def weighted(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss that knows means only."""
    return nn.functional.cross_entropy(logits, targets, weight=torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize(
    "loss_func", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.functional.cross_entropy, weighted]
)
def test_the_loss_of_each_item_is_that_of_any_loss_function(loss_func, learn: Learner) -> None:
    learn.loss_func = loss_func
    interp = ClassificationInterpretation.from_learner(learn)
    with torch.no_grad():
        alone = [
            loss_func(learn.model(x[None]), y[None]).item()
            for batch in learn.dls.valid
            for x, y in zip(*batch, strict=True)
        ]
    assert interp.losses.tolist() == pytest.approx(alone, abs=1e-6)


def test_a_stopped_pass_has_the_items_so_far_and_is_not_remembered(dls, tiny_net) -> None:
    from nbfinetune import vision_learner

    learn = vision_learner(dls, tiny_net, device="cpu")

    class Stop(Callback):
        def after_batch(self, learn: Learner) -> None:
            learn.control.stop()

    part = ClassificationInterpretation.from_learner(learn, "train", cbs=[Stop()])
    assert 0 < len(part) < part.n_planned == len(dls.train.dataset)
    whole = ClassificationInterpretation.from_learner(learn, "train")
    assert len(whole) == whole.n_planned == len(dls.train.dataset)


def test_pictures_and_files_belong_to_the_items(dls, tiny_net) -> None:
    from nbfinetune import vision_learner

    learn = vision_learner(dls, tiny_net, device="cpu")
    for ds, loader in (("valid", dls.valid), ("train", dls.train)):
        interp = ClassificationInterpretation.from_learner(learn, ds)
        assert interp.targets.tolist() == loader.dataset.targets
        for i in range(len(interp)):
            assert interp.path(i).parent.name == dls.vocab[interp.targets[i]]


def test_a_loader_that_shuffles_has_no_pictures_to_show(dls, tiny_net) -> None:
    """Its items come in another order than those of its data set."""
    from nbfinetune import vision_learner

    learn = vision_learner(dls, tiny_net, device="cpu")
    with pytest.raises(ValueError, match='shuffles; pass "train" for the training data'):
        ClassificationInterpretation.from_learner(learn, dls.train)


def test_a_learner_without_class_names_is_refused(loaders, mlp) -> None:
    bare = SimpleNamespace(train=loaders.train, valid=loaders.valid)
    with pytest.raises(ValueError, match="this learner has no vocab"):
        ClassificationInterpretation.from_learner(Learner(bare, mlp, device="cpu"))


def test_the_memory_does_not_grow_with_the_classes() -> None:
    interp = from_predictions(torch.zeros(100, dtype=torch.int64), torch.full((100, 900), 1 / 900),
                              names(900))  # fmt: skip
    kept = [v for v in vars(interp).values() if isinstance(v, torch.Tensor)]
    assert sum(t.untyped_storage().nbytes() for t in kept) < 100 * 200


def test_a_stopped_pass_over_plain_batches_is_not_remembered(learn: Learner) -> None:
    class Stop(Callback):
        def after_batch(self, learn: Learner) -> None:
            learn.control.stop()

    assert len(ClassificationInterpretation.from_learner(learn, cbs=[Stop()])) < 10
    assert len(ClassificationInterpretation.from_learner(learn)) == 10


def test_files_of_a_loader_in_unknown_order_are_not_guessed(dls, tiny_net) -> None:
    from nbfinetune import vision_learner

    learn = vision_learner(dls, tiny_net, device="cpu")
    data = dls.valid.dataset
    order = torch.utils.data.SubsetRandomSampler(range(len(data)))
    loader = torch.utils.data.DataLoader(data, 2, sampler=order)
    interp = ClassificationInterpretation.from_learner(learn, loader)
    assert interp.path(0) is None
    with pytest.raises(ValueError, match="no picture is known"):
        interp.image(0)
    in_order = torch.utils.data.DataLoader(data, 2)
    assert ClassificationInterpretation.from_learner(learn, in_order).path(3) == data.path(3)


def test_a_model_of_other_classes_than_the_vocab_is_refused(loaders, mlp) -> None:
    loaders.vocab = ["a", "b", "c"]
    loss_func = nn.functional.cross_entropy  # nobody can tell that it is one of classes
    learn = Learner(loaders, mlp, loss_func=loss_func, device="cpu")
    with pytest.raises(
        ValueError, match=r"the model gives \[4, 2\] for a batch, but the vocab has 3"
    ):
        ClassificationInterpretation.from_learner(learn)


def test_the_same_targets_of_other_files_are_not_compared() -> None:
    first = from_predictions([0, 1], [0, 1], "ab", ["1.png", "2.png"])
    second = from_predictions([0, 1], [0, 1], "ab", ["1.png", "3.png"])
    with pytest.raises(ValueError, match="not the same ones"):
        first.compare(second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda y: nn.functional.one_hot(y, 2).float(),
            "no class indices .*; for several labels use",
        ),
        (lambda y: y.float(), "are torch.float32, no class indices"),
        (lambda y: y - 100, "are no class index of a vocab of 2 classes: -"),
        (lambda y: y + 2, "are no class index of a vocab of 2 classes: [23]"),
    ],
)
def test_targets_of_a_loader_that_are_no_class_indices_are_refused(learn, change, message) -> None:
    learn.dls.valid = [(x, change(y)) for x, y in learn.dls.valid]
    with pytest.raises(ValueError, match=message):
        ClassificationInterpretation.from_learner(learn)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_has_diverged_has_no_interpretation(learn: Learner, value: float) -> None:
    learn.model[2].bias.data[0] = value
    with pytest.raises(
        ValueError, match="the model gives NaN or infinite numbers: it has diverged"
    ):
        ClassificationInterpretation.from_learner(learn)
