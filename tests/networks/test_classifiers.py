"""The classifier is the layer whose values are the output, wherever it is registered."""

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from nbfinetune.networks.classifiers import without_classifier
from nbfinetune.networks.outputs import LogitsOf

SIZE = 64


class Net(nn.Module):
    """A convolution, its mean, and what `forward` makes of the features and a classifier `fc`."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], object], **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.conv = nn.Linear(8, 10), nn.Conv2d(3, 8, 3, 2)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.ending = forward

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().mean((2, 3))

    def forward(self, x: Tensor) -> object:
        return self.ending(self, self.features(x))


def expected(net: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer gets in a forward pass."""
    seen = []
    hook = layer.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    net.eval()(x)
    hook.remove()
    return seen[-1]


ENDINGS = {
    "registered first": (lambda net, f: net.fc(f), {}),
    "an unused layer last": (lambda net, f: net.fc(f), {"other": nn.Linear(8, 4)}),
    "an auxiliary output beside it": (
        lambda net, f: {"logits": net.fc(f), "aux": net.aux(f)},
        {"aux": nn.Linear(8, 10)},
    ),
    "a softmax behind it": (lambda net, f: net.act(net.fc(f)), {"act": nn.Softmax(1)}),
    "a sigmoid behind it": (lambda net, f: net.act(net.fc(f)), {"act": nn.Sigmoid()}),
    "a log softmax behind it": (lambda net, f: net.act(net.fc(f)), {"act": nn.LogSoftmax(1)}),
    "a temperature": (lambda net, f: net.fc(f) / 1.0, {}),
    "flattened": (lambda net, f: net.fc(f[:, None]).squeeze(1), {}),
    "called twice": (lambda net, f: (net.fc(f) + net.fc(f)) / 2, {}),
    "under two names": (lambda net, f: net.head(f), {}),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_the_body_gives_what_the_classifier_got(case: str) -> None:
    forward, layers = ENDINGS[case]
    net = Net(forward, **layers)
    if case == "under two names":
        net.head = net.fc
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        features = net.features(x)
        body = without_classifier(net, SIZE)
        assert torch.allclose(body(x), features, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_parameters_are_traced_too_and_stay_frozen(frozen: bool) -> None:
    net = Net(lambda net, f: net.fc(f), other=nn.Linear(8, 4)).requires_grad_(not frozen)
    without_classifier(net, SIZE)
    assert isinstance(net.fc, nn.Identity)
    assert isinstance(net.other, nn.Linear)
    assert {p.requires_grad for p in net.parameters()} == {not frozen}


def headless(name: str) -> nn.Module:
    net = torchvision.models.get_model(name, weights=None)
    for layer, part in (("fc", None), ("classifier", -1), ("heads", None)):
        if hasattr(net, layer):
            top = getattr(net, layer)
            if part and isinstance(top, nn.Sequential):
                top[part] = nn.Identity()
            else:
                setattr(net, layer, nn.Identity())
    return net


HEADLESS = {
    **{name: (lambda name=name: headless(name)) for name in (
        "alexnet", "convnext_tiny", "densenet121", "mobilenet_v3_small", "resnet18",
        "shufflenet_v2_x0_5", "vgg11",
    )},
    **{f"timm {name}": (lambda name=name: timm.create_model(name, num_classes=0)) for name in (
        "convnext_atto", "efficientnet_b0", "mobilenetv3_small_050", "resnet18", "vgg11",
    )},
    "children without pooling": lambda: nn.Sequential(*list(headless("resnet18").children())[:-2]),
    "ends with a norm": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.LayerNorm(6)
    ),
    "ends with a residual": lambda: Net(lambda net, f: f + net.mix(f), mix=nn.Linear(8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADLESS)
def test_a_network_without_a_classifier_is_used_as_it_is(case: str) -> None:
    torch.manual_seed(0)
    net = HEADLESS[case]().eval()
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        before = net(x)
        assert torch.equal(without_classifier(net, SIZE)(x), before)


def test_timm_takes_its_classifier_off_itself() -> None:
    net = timm.create_model("mobilenetv3_small_050").eval()
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        features = expected(net, net.get_classifier(), x)
        assert torch.equal(without_classifier(net, SIZE)(x), features)


def test_a_network_that_gives_an_object_becomes_one_that_gives_a_tensor() -> None:
    net = Net(lambda net, f: {"logits": net.fc(f)})
    body = without_classifier(net, SIZE)
    assert isinstance(body, LogitsOf)
    assert body(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 8)


REFUSED = {
    "two heads": (
        lambda net, f: torch.cat([net.fc(f), net.other(f)], 1),
        r"Net has 2 layers whose outputs are joined: fc, other; pass a network with one",
    ),
    "a sum of two heads": (lambda net, f: net.fc(f) + net.other(f), "2 layers whose outputs"),
    "a tuple": (lambda net, f: (net.fc(f), f), r"Net gives a tuple of 2, not logits \[n, c\]; let"),
    "a dict": (lambda net, f: {"colour": net.fc(f), "form": f}, "gives a dict of colour, form"),
    "a function behind it": (
        lambda net, f: net.fc(f).softmax(1),
        "Net takes the softmax of its classifier fc; leave that out of its forward",
    ),
    "another function": (lambda net, f: net.fc(f).log_softmax(1), "the logsoftmax of its class"),
    "no layer": (lambda net, f: f @ net.fc.weight.T, "is a matrix product that is no nn.Linear"),
    "no gradient": (lambda net, f: net.fc(f).detach(), "what Net gives has no gradient"),
    "classes": (lambda net, f: net.fc(f).argmax(1), "what Net gives has no gradient"),
    "a shape of its own": (lambda net, f: net.fc(f).view(-1, 10), "without its classifier cannot"),
    "an error of its own": (lambda net, f: net.gone(f), "Net cannot be run on pictures.*'gone'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_classifier_to_take_off_is_refused_by_name(case: str) -> None:
    forward, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as caught:
        without_classifier(Net(forward, other=nn.Linear(8, 10)), SIZE)
    assert "px" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_is_named_only_if_another_one_works() -> None:
    large = nn.Sequential(nn.Conv2d(3, 4, 80), nn.Flatten(), nn.LazyLinear(2))
    large(torch.zeros(1, 3, 224, 224))
    with pytest.raises(ValueError, match="does not take pictures of 64 px, but does of 224; make"):
        without_classifier(large, SIZE)
    grey = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"Sequential cannot be run on pictures.*1 channel"):
        without_classifier(grey, SIZE)
