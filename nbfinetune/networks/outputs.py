"""Outputs: the logits in what a model gives, and a network run on pictures, or told why not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nbfinetune.runtime.rng import seeded_rng

_USUAL_SIZES = (224, 299)  # px, that ImageNet networks were trained at


def logits_of(out: object, *, model: nn.Module) -> Tensor:
    """The output of a model, or the `logits` of an object, dict or named tuple that it gives.

    Raises
    ------
    ValueError
        If there are none. Of a plain tuple nobody can say which part is meant.
    """
    if isinstance(out, Tensor):
        return out
    named = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if isinstance(named, Tensor):
        return named
    what = f"a {type(out).__name__}"
    if isinstance(out, Mapping):
        what += f" of {', '.join(map(str, out))}"
    elif isinstance(out, (tuple, list)):
        what += f" of {len(out)}"
    raise ValueError(
        f"{type(model).__name__} gives {what}, not logits [n, c]; let its forward return one "
        "tensor, or an object, dict or named tuple with `logits`"
    )


@contextmanager
def hooked(register: Callable[[], Sequence[RemovableHandle]]) -> Iterator[None]:
    """Inside, the hooks that `register` puts into a network are there."""
    hooks = register()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def output_of(model: nn.Module, x: Tensor) -> object:
    """What the model gives of a batch.

    Raises
    ------
    ValueError
        If it does not take whole numbers, as those of pictures.
    """
    try:
        return model(x)
    except RuntimeError as error:
        if x.is_floating_point() or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"the model does not take batches of {x.dtype} ({str(error).splitlines()[0]}); of "
            "pictures pass transforms=ImageTransforms(dls.size), or use vision_learner(dls, model)"
        ) from error


class LogitsOf(nn.Module):
    """A network that gives an object, as one that gives its logits.

    Of a plain tuple in training the first part counts, if the network gives a tensor otherwise:
    the others are for auxiliary losses.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out = self.network(x)
        if self.training and type(out) in (tuple, list):
            out = out[0]
        return logits_of(out, model=self.network)


def giving_tensors(network: nn.Module, size: int) -> nn.Module:
    """The network, or `LogitsOf` it if it gives something else in training, as aux outputs.

    Raises
    ------
    ValueError
        If it cannot be run in training or gives no logits then.
    """
    trained = deepcopy(network).train()  # statistics would move
    name = f"{type(network).__name__} in training"
    with torch.no_grad(), seeded_rng(0):
        if isinstance(pictures_through(trained, size, name, n=2), Tensor):
            return network
        pictures_through(LogitsOf(trained).train(), size, name, n=2)
    return LogitsOf(network)


def pictures_through(
    network: Callable[[Tensor], object], size: int, name: str, *, n: int = 1
) -> object:
    """What a network gives of n black pictures.

    Raises
    ------
    ValueError
        If it cannot be run. The size is named only if the network takes pictures of another one.
    """
    try:
        return network(torch.zeros(n, 3, size, size))
    except Exception as error:
        wrong = error
    text = f"{type(wrong).__name__}: {' '.join(str(wrong).split())[:200]}"
    for other in (*_own_sizes(network), *_USUAL_SIZES):
        try:
            network(torch.zeros(n, 3, other, other))
        except Exception:
            continue
        raise ValueError(
            f"the network does not take pictures of {size} px, but does of {other}; "
            f"make the loaders with size={other}: {text}"
        ) from None
    raise ValueError(f"{name} cannot be run on pictures, a batch [{n}, 3, h, w]: {text}") from None


def _own_sizes(network: Callable[[Tensor], object]) -> Iterator[int]:
    """Sizes in pixels that a network of timm or transformers was made for, if it says so."""
    network = getattr(network, "__self__", network)  # of a method
    of_timm = getattr(network, "pretrained_cfg", None)
    if isinstance(of_timm, Mapping) and of_timm.get("input_size"):
        yield of_timm["input_size"][-1]
    size = getattr(getattr(network, "config", None), "image_size", None)
    if isinstance(size, int):
        yield size
