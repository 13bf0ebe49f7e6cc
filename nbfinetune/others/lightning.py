"""Lightning's modules: the network, the loaders and the loss of one, where they can be known."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from nbfinetune.rendering.names import shown
from nbfinetune.runtime.rng import seeded_rng

_HOMES = ("lightning.", "pytorch_lightning.")
_MODELS = ("model", "net", "network", "backbone")
_LOSSES = ("loss_func", "loss_fn", "criterion", "loss_function", "loss")
_NAMES = ("classes", "class_names", "vocab", "labels")


def is_lightning(value: object, name: str) -> bool:
    """Whether this is one of Lightning's classes of a name, such as LightningModule."""
    kinds = type(value).__mro__
    return any(k.__name__ == name and k.__module__.startswith(_HOMES) for k in kinds)


def parts_of_lightning(
    module: object, data: object, vocab: Sequence[str] | None, loss_func: Callable | None
) -> dict[str, object]:
    """What `Learner.from_lightning` makes a learner of: model, train, valid, vocab, loss_func.

    Raises
    ------
    ValueError
        If one cannot be known; the message says what to pass.
    """
    if not is_lightning(module, "LightningModule"):
        raise ValueError(f"from_lightning takes a LightningModule, not {shown(type(module))}")
    train, valid = _loaders(module, data)
    return {
        "model": _model(module, valid),
        "train": train,
        "valid": valid,
        "vocab": vocab if vocab is not None else _class_names(data),
        "loss_func": _loss(module) if loss_func is None else loss_func,
    }


def _model(module: nn.Module, loader: Iterable) -> nn.Module:
    """The part that has all parameters, else the module itself if it has a forward.

    A forward that does more than that part, as to normalise, is not left out either.
    """
    first = next(k for k in type(module).__mro__ if "forward" in vars(k))
    has_forward = not first.__module__.startswith((*_HOMES, "torch."))
    every = {id(p) for p in module.parameters()}
    for name in _MODELS:
        part = getattr(module, name, None)
        if (
            isinstance(part, nn.Module)
            and every == {id(p) for p in part.parameters()}
            and (not has_forward or _gives_the_same(part, module, loader))
        ):
            return part
    if has_forward:
        return module
    raise ValueError(
        f"{type(module).__name__} has no forward, and none of its attributes "
        f"({', '.join(_MODELS)}) holds all parameters; pass its network: "
        "Learner.from_loaders(module.my_network, train_loader, valid_loader)"
    )


def _gives_the_same(part: nn.Module, module: nn.Module, loader: Iterable) -> bool:
    """Whether a part of a module gives what the module gives, of the first batch."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), seeded_rng(0):
            x = next(iter(loader))[0].to(next(module.parameters()).device)
            return torch.equal(part(x), module(x))
    except Exception:  # of whatever the user's forward takes
        return False
    finally:
        for each, mode in modes:
            each.training = mode


def _loss(module: nn.Module) -> Callable:
    for name in _LOSSES:
        loss = vars(module).get(name) or dict(module.named_children()).get(name)
        if callable(loss) and not isinstance(loss, type):
            return loss
    raise ValueError(
        f"which loss {type(module).__name__} trains with is not known: it has no attribute "
        f"{', '.join(_LOSSES)}; pass it, as loss_func=nn.CrossEntropyLoss()"
    )


def _loaders(module: object, data: object) -> tuple[object, object]:
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return data[0], data[1]
    if data is None:
        source, what = module, type(module).__name__
    elif is_lightning(data, "LightningDataModule"):
        source, what = data, type(data).__name__
    else:
        raise ValueError(
            f"data is {shown(type(data))}; pass a LightningDataModule, or both loaders: "
            "data=(train_loader, valid_loader)"
        )
    try:
        return _of(source)
    except Exception:  # it was not set up yet: Lightning's trainer does that
        if data is None:
            raise ValueError(
                f"{what} has no loaders of its own; pass data=, a LightningDataModule or "
                "(train_loader, valid_loader)"
            ) from None
    try:
        source.prepare_data()
        source.setup("fit")
        return _of(source)
    except Exception as error:
        text = (str(error).strip() or "no text").splitlines()[0]
        raise ValueError(f"{what} gives no loaders: {type(error).__name__}: {text}") from error


def _of(source: object) -> tuple[object, object]:
    train, valid = source.train_dataloader(), source.val_dataloader()
    if isinstance(valid, (list, tuple)) and len(valid) == 1 and hasattr(valid[0], "dataset"):
        valid = valid[0]
    if train is None or valid is None:
        raise ValueError("it has no loader for training or validation")
    return train, valid


def _class_names(data: object) -> Sequence[str] | None:
    for name in _NAMES:
        names = getattr(data, name, None)
        if isinstance(names, (list, tuple)):
            return names
    return None
