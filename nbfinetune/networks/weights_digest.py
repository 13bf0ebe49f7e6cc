"""Weights digest: whether a network is still the one that something was computed with."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module) -> bytes:
    """A digest of the bytes of all weights and buffers and of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if not isinstance(value, Tensor):  # a module's extra state
            digest.update(repr(value).encode())
            continue
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()


@dataclass(frozen=True, eq=False)
class IdentityKey:
    """Equal to one that holds the very same thing; it keeps it, as another may come to its id."""

    thing: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityKey) and self.thing is other.thing
