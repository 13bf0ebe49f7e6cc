"""Description: data, network and settings of a learner, by which it is known again."""

import hashlib
from collections.abc import Mapping, Sequence

from nbfinetune.data.datasets import ImageDataset
from nbfinetune.rendering.names import shortened
from nbfinetune.training.logs.log_to import LogTo
from nbfinetune.training.state import Callback, LearnerState

_NAMED = 3  # differences that one message tells
_LONGEST = 60  # characters of a value in it
OF_PICTURES = "file names and labels of the {} pictures"


def description(learn: LearnerState) -> dict[str, object]:
    """What a run depends on besides its weights, as plain values by their names in a message."""
    config, dls = learn.config, learn.dls
    aug = getattr(learn.transforms, "aug", None)
    named = [*learn.model.named_parameters(), *learn.model.named_buffers()]
    shapes = [f"{name} {list(t.shape)} {t.dtype}" for name, t in named]
    groups = [sum(p.numel() for m in group for p in m.parameters()) for group in learn.groups]
    found: dict[str, object] = {}
    for side, loader in (("training", dls.train), ("held-out", dls.valid)):
        found |= _of_loader(side, loader)
    return found | {
        "vocab": learn.vocab,
        "size": getattr(learn.transforms, "size", None),
        "mean": _listed(getattr(learn.transforms, "mean", None)),
        "std": _listed(getattr(learn.transforms, "std", None)),
        "aug": aug if isinstance(aug, bool | None) else _name(aug),
        "bs": getattr(dls, "bs", None),
        "arch": config.get("arch") or type(learn.model).__name__,
        "head": config.get("head"),
        "parameters of the layer groups": groups,
        "names and shapes of the weights": _digest(shapes),
        "loss_func": _of_loss(learn.loss_func),
        "metrics": learn.metric_names,
        "train_bn": learn.train_bn,
        "amp": learn.amp,
        "amp_inference": learn.amp_inference,
        "cache_features": learn.features.wanted,
        "accumulate": learn.accumulate,
        "clip_grad": learn.clip_grad,
        "moms": list(learn.moms),
        "lr_decay": learn.lr_decay,
        "wd": learn.first_wd,
        "seed": learn.seed,
        "device": learn.device.type,
        "cbs": [_name(type(cb)) for cb in learn.cbs],
    }


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> str:
    """What two descriptions differ in, in a few words; "" if in nothing."""
    found = []
    for key in here:
        before, now = there.get(key), here[key]
        if before == now or (before is None and key not in there):
            continue
        both = [shortened(repr(value), _LONGEST) for value in (before, now)]
        digest = key.startswith(("names", "file names"))
        same = digest or both[0] == both[1]
        found.append(f"the {key} are others" if same else f"{key} was {both[0]} but is {both[1]}")
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


def _of_loader(side: str, loader: object) -> dict[str, object]:
    dataset = getattr(loader, "dataset", None)
    found: dict[str, object] = {f"number of {side} batches": len(loader)}
    if isinstance(dataset, ImageDataset):
        found[f"number of {side} pictures"] = len(dataset)
        found[OF_PICTURES.format(side)] = _digest(_items(dataset))
    return found


def _items(dataset: ImageDataset) -> list[str]:
    """Names and labels; of other data sets than files the labels alone."""
    if isinstance(dataset.items, list):
        names = [getattr(item, "name", "") for item in dataset.items]
    else:
        names = [""] * len(dataset)
    return [f"{name}\0{target}" for name, target in zip(names, dataset.targets, strict=True)]


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()


def _listed(values: object) -> list | None:
    return None if values is None else list(values)


def _name(thing: object) -> str:
    return getattr(thing, "__qualname__", type(thing).__qualname__)


def _of_loss(loss: object) -> str:
    """Its class and its plain options; the values of its tensors are part of a checkpoint."""
    options = {
        key: value
        for key, value in sorted(getattr(loss, "__dict__", {}).items())
        if key in ("label_smoothing", "reduction", "ignore_index", "gamma", "alpha")
    }
    return " ".join([_name(loss), *(f"{key}={value}" for key, value in options.items())])


def callback_names(cbs: Sequence[Callback]) -> list[str]:
    """The classes of the user's own callbacks of a call; screens are ours."""
    own = (type(cb) for cb in cbs)
    return [
        _name(kind)
        for kind in own
        if kind is LogTo or not kind.__module__.startswith("nbfinetune.")
    ]
