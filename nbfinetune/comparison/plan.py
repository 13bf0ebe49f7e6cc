"""Plan: which networks are compared at which sizes and on which pictures, checked beforehand."""

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import nn

from nbfinetune.arguments import as_whole_number
from nbfinetune.data.arguments import as_sizes
from nbfinetune.data.datasets import even_loader, gives_pictures
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.sources.reading import decoded_anew
from nbfinetune.data.transforms import presize
from nbfinetune.networks.backbones import Arch, checked_name
from nbfinetune.rendering.numbers import counted
from nbfinetune.runtime.device import usable_device

MAX_N = 5_000  # pictures: a standard error of at most 0.007
_SUCH_AS = "efficientnet_lite0 or resnet34"


@dataclass(frozen=True)
class Plan:
    """What a comparison is to do.

    Parameters
    ----------
    dls : the loaders whose training pictures are used
    dls_name : how the user calls them
    names, sizes : the networks and the sides in pixels, each once
    numbers : of the training pictures that are used
    device : on which the networks run
    """

    dls: ImageDataLoaders
    dls_name: str
    names: list[str]
    sizes: list[int]
    numbers: list[int]
    device: torch.device

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """Network and size, small sizes first: they are quick, and tell how long others take."""
        return [(name, size) for size in self.sizes for name in self.names]

    def loaders(self, size: int) -> ImageDataLoaders:
        """Loaders of the training pictures that are used alone, on both sides, for this size."""
        chosen = self.dls.train.dataset.subset(self.numbers)
        pictures = chosen if size == self.dls.size else decoded_anew(chosen, presize(size))
        new = copy(self.dls)
        new.size, new.aug = size, False
        new.train = new.valid = even_loader(pictures, new.bs, shuffle=False)
        return new


def planned(
    dls: ImageDataLoaders,
    archs: Sequence[Arch],
    sizes: int | Sequence[int] | None = None,
    *,
    max_n: int = MAX_N,
    device: str | torch.device | None = None,
    dls_name: str = "dls",
) -> Plan:
    """The plan of a comparison; `compare_networks` says what the arguments are.

    Raises
    ------
    ValueError
        For names of no network, sizes out of range, loaders of other things than pictures.
    """
    if not isinstance(dls, ImageDataLoaders) or not gives_pictures(dls.train):
        raise ValueError(
            f"{dls_name} is a {type(dls).__name__}; compare networks on ImageDataLoaders as one of "
            "their from_... makes them"
        )
    alone = isinstance(archs, str) or not isinstance(archs, Iterable)
    archs = [archs] if alone else list(archs)
    if not archs:
        raise ValueError(f"no network is named; give some, such as {_SUCH_AS}")
    if modules := [arch for arch in archs if isinstance(arch, nn.Module)]:
        raise ValueError(
            f"archs holds a module, {type(modules[0]).__name__}; give names, such as {_SUCH_AS}"
        )
    names = list(dict.fromkeys(map(checked_name, archs)))
    sizes = [dls.size] if sizes is None else sizes if isinstance(sizes, Iterable) else [sizes]
    px = sorted({as_sizes(size, dls.bs, None)[0] for size in sizes})
    if not px:
        raise ValueError("sizes is empty; give px, such as sizes=[160, 224]")
    max_n = as_whole_number("max_n", max_n, dls.c)
    numbers = even_share(dls.train.dataset.targets, max_n)
    chosen = Counter(dls.train.dataset.targets[i] for i in numbers)
    if len(chosen) < 2 or max(chosen.values()) < 2:
        raise ValueError(
            f"{counted(len(numbers), 'training picture')} of {len(chosen)} classes; a comparison "
            "needs at least two classes, and two pictures of one"
        )
    return Plan(dls, dls_name, names, px, numbers, usable_device(device))


def even_share(targets: Sequence[int], max_n: int) -> list[int]:
    """The numbers of at most so many items, drawn at random, each class in its share.

    Examples
    --------
    >>> even_share([0, 1, 0, 1, 0, 1, 0, 1], 8)
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> [[0, 1, 0, 0, 0, 0, 1, 0][i] for i in even_share([0, 1, 0, 0, 0, 0, 1, 0], 4)].count(1)
    1
    """
    if len(targets) <= max_n:
        return list(range(len(targets)))
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0)).tolist()
    sizes, seen = Counter(targets), Counter()
    places = {}
    for i in order:
        places[i] = (seen[targets[i]] + 0.5) / sizes[targets[i]]
        seen[targets[i]] += 1
    return sorted(sorted(order, key=places.__getitem__)[:max_n])
