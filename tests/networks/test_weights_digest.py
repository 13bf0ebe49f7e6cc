"""Weights: a digest says whether a network is still the same."""

import torch
from torch import nn

from nbfinetune.networks.weights_digest import IdentityKey, weights_digest


def test_any_byte_of_weights_or_statistics_changes_the_digest() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    digests = [weights_digest(net)]
    with torch.no_grad():
        net[0].weight.data[3, 2, 1, 0] += 1  # which torch does not count
        digests.append(weights_digest(net))
        net[1].running_var[2] = 7
        digests.append(weights_digest(net))
    assert len(set(digests)) == 3
    assert weights_digest(net.to(memory_format=torch.channels_last)) == digests[-1]


def test_state_that_is_no_tensor_counts_too() -> None:
    class Extra(nn.Linear):
        scale = 1

        def get_extra_state(self) -> dict:
            return {"scale": self.scale}

        def set_extra_state(self, state: dict) -> None:
            self.scale = state["scale"]

    net = Extra(2, 2)
    before = weights_digest(net)
    net.scale = 2
    assert weights_digest(net) != before


def test_only_the_very_same_thing_is_the_same() -> None:
    one, other = [1], [1]
    assert IdentityKey(one) == IdentityKey(one)
    assert IdentityKey(one) != IdentityKey(other)
