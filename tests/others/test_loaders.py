import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from nbfinetune import ClassificationInterpretation, Learner

G = torch.Generator().manual_seed(0)
X, Y = torch.randn(16, 4, generator=G), torch.randint(0, 3, (16,), generator=G)


def loader(x=X, y=Y, **options) -> DataLoader:
    return DataLoader(TensorDataset(x, y), 8, **options)


def test_a_plain_loops_network_and_loaders_make_a_learner() -> None:
    model = nn.Linear(4, 3)
    state = torch.get_rng_state()
    learn = Learner.from_loaders(
        model, loader(shuffle=True), loader(), ["a", "b", "c"], metrics="accuracy"
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert learn.model is model
    assert learn.vocab == ["a", "b", "c"]
    assert learn.fit(2, 1e-2).rows[-1]["accuracy"] <= 1
    assert len(ClassificationInterpretation.from_learner(learn)) == 16


def test_class_names_are_those_of_the_data_also_of_a_part_of_it(photos) -> None:
    data = ImageFolder(photos, v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)]))  # fmt: skip # noqa: E501
    part = Subset(data, range(9))
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    learn = Learner.from_loaders(model, DataLoader(part, 4), DataLoader(data, 4))
    assert learn.vocab == ["blue", "green", "red"]
    learn.fit(1, 1e-3)


def test_batches_that_are_dicts_are_taken_by_their_usual_names() -> None:
    batches = [{"pixel_values": X[:8], "labels": Y[:8]}, {"pixel_values": X[8:], "labels": Y[8:]}]
    learn = Learner.from_loaders(nn.Linear(4, 3), batches, batches, list("abc"))
    plain = Learner.from_loaders(learn.model, loader(), loader(), list("abc"))
    assert learn.validate() == pytest.approx(plain.validate())
    assert learn.fit(1, 1e-3).stages[0].n_iter == 2


def test_several_labels_are_taken_with_a_loss_that_takes_them() -> None:
    labels = torch.randint(0, 2, (16, 3), generator=G).float()
    learn = Learner.from_loaders(
        nn.Linear(4, 3),
        loader(y=labels),
        loader(y=labels),
        list("abc"),
        loss_func=nn.BCEWithLogitsLoss(),
        metrics=["f1_macro", "accuracy_multi"],
    )
    assert len(learn.fit(1, 1e-3).rows) == 1


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (TensorDataset(X, Y), r"train_loader is a data set, a TensorDataset; pass DataLoader"),
        (DataLoader(Stream(), 8), r"train_loader is a DataLoader without a length"),
        ((batch for batch in [(X, Y)]), "train_loader is a generator without a length"),
        (3, "train_loader is a int without a length"),
        ([], "train_loader has no batches"),
        ([(X, Y, Y)], r"a batch of train_loader is 3 parts; it must be \(inputs, targets\)"),
        ([{"a": X, "b": Y}], "batches of train_loader are dicts of a, b; which are inputs and"),
        ([(X.numpy(), Y)], "inputs of train_loader are a NumPy array; they must be tensors"),
        ([(X, Y.tolist())], "targets of train_loader are a list; they must be tensors"),
        ([(X, Y[:5])], "a batch of train_loader has 16 inputs and 5 targets"),
        ([(X, Y[:, None])], r"of shape \[16, 1\]; they must be int64 \[n\]: targets.squeeze\(1\)"),
        ([(X, Y.int())], r"targets of train_loader are torch.int32 .* targets.long\(\)"),
        ([(X, Y.float())], r"torch.float32 of shape \[16\]; they must be class indices, whole"),
        ([(X, Y + 1)], "targets of train_loader go from 1 to 3, but vocab has 3 classes, 0 to 2"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_no_loader_of_pairs_is_refused_before_a_learner_is_made(train, message) -> None:
    with pytest.raises(ValueError, match=message):
        Learner.from_loaders(nn.Linear(4, 3), train, loader(), list("abc"))
    with pytest.raises(ValueError, match=message.replace("train_", "valid_")):
        Learner.from_loaders(nn.Linear(4, 3), loader(), train, list("abc"))


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (None, r"has no class names \(dataset.classes\); pass them as vocab="),
        ("abc", "vocab is 'abc'; give the class names as a list"),
        ([], "vocab is empty"),
        (3, "vocab is 3; give the class names"),
    ],
)
def test_class_names_are_asked_for(vocab, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Learner.from_loaders(nn.Linear(4, 3), loader(), loader(), vocab)


def test_the_random_numbers_of_the_session_are_left_alone() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    Learner.from_loaders(nn.Linear(4, 3), [(X, Y)], loader(shuffle=True), list("abc"))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after[:2] == before[:2]
    assert isinstance(SimpleNamespace(), object)


def _folders(photos, names=None) -> ImageFolder:
    data = ImageFolder(photos, v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)]))  # fmt: skip # noqa: E501
    data.classes = names or data.classes
    return data


def test_class_names_are_those_of_data_sets_in_a_row() -> None:
    parts = [TensorDataset(X, Y), TensorDataset(X, Y)]
    for part in parts:
        part.classes = list("abc")
    joined = DataLoader(ConcatDataset(parts), 8)
    assert Learner.from_loaders(nn.Linear(4, 3), joined, joined).vocab == list("abc")


def test_validation_data_of_other_classes_are_refused(photos) -> None:
    train, valid = DataLoader(_folders(photos), 4), DataLoader(_folders(photos, ["blue", "red"]), 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ValueError, match="valid has blue, red; not in both: green"):
        Learner.from_loaders(model, train, valid)


def test_a_vocab_in_another_order_than_the_class_names_of_the_data_is_refused(photos) -> None:
    loader = DataLoader(_folders(photos), 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ValueError, match="class 0 is blue in the data but red in vocab"):
        Learner.from_loaders(model, loader, loader, ["red", "green", "blue"])
    learn = Learner.from_loaders(model, loader, loader, ["bleu", "vert", "rouge"])
    assert learn.vocab == ["bleu", "vert", "rouge"]


def test_loaders_of_dicts_predict_the_training_data_in_its_order() -> None:
    data = [{"image": x, "label": y} for x, y in zip(X, Y, strict=True)]
    loader = DataLoader(data, 8, shuffle=True)
    learn = Learner.from_loaders(nn.Linear(4, 3), loader, loader, list("abc"))
    preds, targets = learn.get_preds("train")
    assert torch.equal(targets, Y)
    assert torch.allclose(preds, learn.model(X).softmax(1), atol=1e-6)
