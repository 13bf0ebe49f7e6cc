"""Body groups: the body of a network in layer groups from its input on, by its stages.

A stage is what its family calls so: the blocks between two reductions of the map, or one block of
a plain transformer. Networks of timm say it themselves (`group_matcher`), those of torchvision are
in a table, and of others the list of modules that holds most weights is that of the stages.
"""

from collections.abc import Mapping

import torchvision.models as tv
from torch import nn

from nbfinetune.networks.layer_groups import LayerGroup

# Groups of a body, at most: the embedding and twelve blocks, as layer-wise decay has them for ViT-B
# (Bao et al. 2021, arXiv 2106.08254). Deeper networks have several blocks in a group.
_MOST = 13
_STARTS = {  # family of torchvision -> the modules with which a group begins, besides the first
    "convnext": "features.2 features.4 features.6",
    "densenet": "features.transition1 features.transition2 features.transition3",
    "efficientnet": "features.2 features.3 features.4 features.6",
    "googlenet": "inception3a inception4a inception5a",
    "inception": "Mixed_5b Mixed_6a Mixed_7a",
    "maxvit": "blocks.0 blocks.1 blocks.2 blocks.3",
    "mnasnet": "layers.8 layers.9 layers.10 layers.12",
    "mobilenet_v2": "features.2 features.4 features.7 features.14",
    "mobilenet_v3_large": "features.2 features.4 features.7 features.13",
    "mobilenet_v3_small": "features.2 features.4 features.9",
    "regnet": "trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output.block4",
    "shufflenet": "stage2 stage3 stage4",
    "swin": "features.2 features.4 features.6",
}
_POOLED = ("alexnet", "squeezenet", "vgg")  # a group begins with a pooling layer
_Numbers = dict[int, int]  # id of a parameter -> number of its group


def groups_by_stage(network: nn.Module, body: nn.Module, *, name: str) -> list[LayerGroup]:
    """The body as layer groups, input first; one group where no stages are known.

    A group holds whole modules where it can; parameters beside modules of several groups, such as
    a class token, are held in a `ParameterDict`, which is no part of the network.

    Parameters
    ----------
    network : what the body was made of, whose parameters it has
    name : of the network; "" for a module of the user's, of which timm's rule alone is known
    """
    if callable(getattr(network, "group_matcher", None)):
        numbers = _by_matcher(network)
    else:
        numbers = _by_starts(network, _starts(network, name) if name else [])
    return _placed(body, _merged(numbers, body))


def _by_matcher(network: nn.Module) -> _Numbers:
    """As timm's own matcher has it: by stages, or blocks of networks without stages."""
    from timm.models import group_parameters

    try:
        matcher = network.group_matcher(coarse=True)
    except AssertionError:  # RDNet has blocks only
        matcher = network.group_matcher(coarse=False)
    numbers = group_parameters(network, matcher, reverse=True)
    return {id(p): numbers[name] for name, p in network.named_parameters()}


def _starts(network: nn.Module, name: str) -> list[str]:
    """The modules with which a group begins, besides the first group."""
    if name in tv.list_models(module=tv):
        if name.startswith(_POOLED):
            pools = [i for i, m in enumerate(network.features) if isinstance(m, nn.MaxPool2d)]
            return [*(f"features.{i}" for i in pools), "classifier"]
        for family, starts in _STARTS.items():
            if name.startswith(family):
                return starts.split()
    lists = {
        prefix: module
        for prefix, module in network.named_modules()
        if prefix and isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
    }
    sizes = {prefix: sum(p.numel() for p in m.parameters()) for prefix, m in lists.items()}
    blocks = max(sizes, key=sizes.get, default="")
    return [f"{blocks}.{child}" for child, _ in lists[blocks].named_children()] if blocks else []


def _by_starts(network: nn.Module, starts: list[str]) -> _Numbers:
    """Numbers that rise with each of the modules named, in the order of registration."""
    numbers: _Numbers = {}
    number = 0
    for name, module in network.named_modules():
        number += name in starts
        for p in module.parameters(recurse=False):
            numbers.setdefault(id(p), number)
    return numbers


def _merged(numbers: Mapping[int, int], body: nn.Module) -> _Numbers:
    """Numbers from 0 on for the parameters of the body, `_MOST` different ones at most.

    Norms and biases that are a group alone, as after the last block, go with the one before.
    """
    params = list(body.parameters())
    used = sorted({numbers[id(p)] for p in params})
    matrices = {numbers[id(p)] for p in params if p.dim() > 1}
    number, merged = -1, {}
    for old in used:
        number += old in matrices or number < 0
        merged[old] = number
    n = max(number + 1, _MOST)
    return {id(p): merged[numbers[id(p)]] * _MOST // n for p in params}


def _placed(body: nn.Module, numbers: Mapping[int, int]) -> list[LayerGroup]:
    """Groups of modules that have the parameters with these numbers.

    Modules without parameters, as dropout, are where those before them are.
    """
    groups: list[LayerGroup] = [[] for _ in range(max(numbers.values(), default=0) + 1)]
    seen: set[nn.Module] = set()
    last = 0

    def place(module: nn.Module) -> None:
        nonlocal last
        if module in seen:
            return
        seen.add(module)
        found = {numbers[id(p)] for p in module.parameters()}
        if len(found) < 2:
            last = found.pop() if found else last
            groups[last].append(module)
            return
        own: dict[int, dict[str, nn.Parameter]] = {}
        for name, p in module.named_parameters(recurse=False):
            own.setdefault(numbers[id(p)], {})[name] = p
        for i, params in own.items():
            groups[i].append(nn.ParameterDict(params))
        for child in module.children():
            place(child)

    place(body)
    return groups
