"""Skeletons: networks without memory for their weights, to compare shapes before one is built."""

from collections.abc import Callable

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class WithoutMemory(TorchFunctionMode):
    """Inside, tensors that weights begin as take no memory, and their values no time.

    Those from which networks work out their numbers of channels stay real: RegNets and networks of
    timm read them, which `torch.device("meta")` does not allow.
    """

    def __torch_function__(
        self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)
