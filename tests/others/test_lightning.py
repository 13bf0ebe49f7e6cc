"""LightningModules; skipped where Lightning is not installed: pip install lightning."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbfinetune import Learner

lightning = pytest.importorskip("lightning", reason="Lightning is not installed: pip install it")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
G = torch.Generator().manual_seed(0)
X, Y = torch.randn(16, 4, generator=G), torch.randint(0, 3, (16,), generator=G)
LOADER = DataLoader(TensorDataset(X, Y), 8)
NAMES = ["a", "b", "c"]
SAID = "not taken over from Lightning: training_step, configure_optimizers and hooks of "


class Lit(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(4, 3)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def training_step(self, batch, i):
        return self.criterion(self.model(batch[0]), batch[1])


class WithForward(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.loss_fn = nn.Linear(4, 5), nn.Linear(5, 3), nn.CrossEntropyLoss()

    def forward(self, x):
        return self.two(self.one(x).relu())

    def train_dataloader(self):
        return LOADER

    def val_dataloader(self):
        return [LOADER]


class Data(lightning.LightningDataModule):
    classes = NAMES

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {stage}")
        self.data = TensorDataset(X, Y)

    def train_dataloader(self):
        return DataLoader(self.data, 8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data, 8)


def test_network_loss_and_loaders_are_found_and_weights_are_the_same() -> None:
    module, data = Lit(), Data()
    with pytest.warns(UserWarning, match=SAID + "Lit; the loss is CrossEntropyLoss") as caught:
        learn = Learner.from_lightning(module, data, metrics="accuracy")
    assert caught[0].filename == __file__
    assert learn.model is module.model
    assert learn.loss_func.label_smoothing == 0.1
    assert learn.vocab == NAMES
    assert data.calls == ["prepare_data", "setup fit"]
    before = module.model.weight.clone()
    learn.fit(1, 1e-2)
    assert not torch.equal(module.model.weight, before)
    with pytest.warns(UserWarning, match=SAID):
        Learner.from_lightning(module, data)
    assert data.calls == ["prepare_data", "setup fit"]  # a second split could be another one


def test_a_module_with_a_forward_and_loaders_of_its_own_is_the_network() -> None:
    module = WithForward()
    with pytest.warns(UserWarning, match=SAID):
        learn = Learner.from_lightning(module, vocab=NAMES)
    assert learn.model is module
    learn.fit(1, 1e-2)
    learn.lr_find(num_it=6, verify=0, show=False)


def test_what_cannot_be_known_is_refused_with_what_to_pass() -> None:
    def refused(message: str, *args, **options) -> None:
        with pytest.raises(ValueError, match=message):
            Learner.from_lightning(*args, **options)

    pair = LOADER, LOADER
    refused("from_lightning takes a LightningModule", nn.Linear(4, 3), pair)
    refused("Lit has no loaders of its own; pass data=, a LightningDataModule or", Lit())
    refused("data is .*; pass a LightningDataModule, or both loaders", Lit(), LOADER)
    refused("the data of train_loader has no class names", Lit(), pair)
    module = Lit()
    del module.criterion
    refused("which loss Lit trains with is not known.* pass it, as loss_func=", module, pair, NAMES)
    with pytest.warns(UserWarning, match=SAID):
        Learner.from_lightning(module, pair, NAMES, loss_func=nn.CrossEntropyLoss())
    module.other = nn.Linear(2, 2)
    refused("Lit has no forward, and none of its attributes .*holds all", module, pair, NAMES)

    class Broken(Data):
        def setup(self, stage: str) -> None:
            raise OSError("no such folder")

    refused("Broken gives no loaders: OSError: no such folder", Lit(), Broken())


def test_a_forward_that_does_more_than_the_network_is_kept() -> None:
    class Normalising(Lit):
        def forward(self, x):
            return self.model((x - 0.5) / 0.25)

    class Plain(Lit):
        def forward(self, x):
            return self.model(x)

    module, plain = Normalising(), Plain()
    with pytest.warns(UserWarning, match=SAID):
        learn = Learner.from_lightning(module, (LOADER, LOADER), NAMES)
    assert torch.allclose(learn.get_preds()[0], module(X).softmax(1), atol=1e-6)
    with pytest.warns(UserWarning, match=SAID):
        assert Learner.from_lightning(plain, (LOADER, LOADER), NAMES).model is plain.model
    assert plain.training
