"""Options of a learner: what each may be, refused in one line when it is set, not when it is used.

The check of an attribute gets the learner and the value, and returns what is kept.
"""

import json
from collections.abc import Callable, Sequence

from torch import nn

from nbfinetune.arguments import as_whole_number, is_number
from nbfinetune.data.taken_loaders import TakenLoaders, class_names
from nbfinetune.networks.layer_groups import LayerGroup, lr_per_group
from nbfinetune.networks.precision import AMP
from nbfinetune.objectives.loss_weights import Loss, check_loss_weight, usable_loss
from nbfinetune.objectives.losses import activation_of
from nbfinetune.objectives.metric_list import metric_list
from nbfinetune.objectives.metrics import Metric
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.calls import note_setting

SEEDS = 2**63  # torch takes no larger ones


def check_norm(norm: object) -> None:
    """Raise ValueError unless this is None, or a norm that gradients can be clipped to."""
    if norm is not None and not (is_number(norm) and norm > 0):
        raise ValueError(
            f"clip_grad is {shown(norm)}; it must be None, or a norm above 0, such as 1.0"
        )


def check_moms(moms: object) -> None:
    """Raise ValueError unless these are three momenta."""
    values = list(moms) if isinstance(moms, (tuple, list)) else []
    numbers = all(is_number(m) and 0 <= m < 1 for m in values)
    if len(values) != 3 or not numbers:  # 3: start, middle and end of a cycle
        raise ValueError(
            f"moms is {shown(moms)}; give three numbers in [0, 1), such as 0.95, 0.85, 0.95"
        )


def check_modes(*, amp: object, train_bn: object, transforms: object) -> None:
    """Raise ValueError for those that are none; see `Learner` for what they are."""
    if not isinstance(amp, str) or amp not in AMP:
        raise ValueError(f"amp is {shown(amp)}; it must be one of {', '.join(AMP)}")
    if train_bn not in (True, False):
        raise ValueError(f"train_bn is {shown(train_bn)}; it must be True or False")
    both = [getattr(transforms, name, None) for name in ("train", "valid")]
    if transforms is not None and not all(map(callable, both)):
        raise ValueError(
            f"transforms is a {type(transforms).__name__}; it must be ImageTransforms, which has "
            "train and valid; a transform of your own is aug= of the loaders"
        )


def check_cache(wanted: object, *, splits: bool, train_bn: bool, transforms: object) -> None:
    """Raise ValueError if features are asked for that the body cannot keep.

    splits : whether the model is body and head in a row
    """
    if wanted in ("auto", False):
        return
    needs = f"cache_features={shown(wanted)} needs"
    if not splits:
        raise ValueError(f"{needs} a model in a row that ends with its last layer group")
    if train_bn:
        raise ValueError(f"{needs} train_bn=False: statistics of the frozen body would move")
    if transforms is None:
        raise ValueError(f"{needs} pictures, from ImageDataLoaders")


def checked_config(config: object) -> dict:
    """The config, if it can be exported.

    Raises
    ------
    ValueError
        If it is no dict that JSON can hold.
    """
    try:
        json.dumps({} if config is None else config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config cannot be exported, as JSON: {error}") from None
    if config is not None and not isinstance(config, dict):
        raise ValueError(f"config is a {type(config).__name__}; it must be a dict")
    return dict(config or {})


def checked_model(model: object) -> nn.Module:
    """The model, if it is one.

    Raises
    ------
    ValueError
        If it is a name, a class or something else.
    """
    if isinstance(model, nn.Module):
        return model
    what = f"the class {model.__name__}" if isinstance(model, type) else f"{shown(model)}"
    raise ValueError(
        f"model is {what}; it must be an nn.Module (vision_learner(dls, NAME) takes names)"
    )


def listed_groups(groups: object, model: nn.Module) -> list[LayerGroup]:
    """Layer groups as lists of modules; a module alone is a group too.

    Raises
    ------
    ValueError
        If there is something else in them.
    """
    listed = []
    if groups is not None and not isinstance(groups, (list, tuple)):
        raise ValueError(f"groups is a {type(groups).__name__}; it must be a list of layer groups")
    for group in [model] if groups is None else groups:
        listed.append([group] if isinstance(group, nn.Module) else list(group))
        if odd := [part for part in listed[-1] if not isinstance(part, nn.Module)]:
            raise ValueError(
                f"a layer group holds a {type(odd[0]).__name__}; groups are lists of modules"
            )
    return listed


def followed_names(
    new: TakenLoaders, old: TakenLoaders | None, vocab: list[str] | None
) -> list[str] | None:
    """The names of a learner's classes when it takes new loaders, or the old ones again.

    Other names in the same loaders are new names of the same classes.

    Raises
    ------
    ValueError
        If new loaders have other classes than the learner.
    """
    renamed = old is not None and old.dls is new.dls and new.vocab != old.vocab
    if renamed and len(new.vocab or ()) == len(old.vocab or ()):
        return class_names(new.dls)
    if vocab is None or not new.vocab:
        return class_names(new.dls) if vocab is None else vocab
    if new.vocab not in (vocab, old and old.vocab):
        difference = vocab_difference(new.vocab, vocab)
        raise ValueError(f"dls does not fit: {difference}; make a new learner for other classes")
    return vocab


def vocab_difference(there: Sequence[str], here: Sequence[str]) -> str:
    """Where two lists of classes differ, in one line."""
    if len(there) != len(here):
        return f"it has {len(there)} classes, this learner {len(here)}"
    i = next(i for i, (a, b) in enumerate(zip(there, here, strict=True)) if a != b)
    return f"class {i} is {there[i]!r} there but {here[i]!r} here"


class Checked:
    """An attribute that goes through `check(learn, value)`; it is kept as `_name`."""

    def __init__(self, check: Callable[[object, object], object]) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._kept = f"_{name}"

    def __get__(self, learn: object, owner: type) -> object:
        return self if learn is None else vars(learn)[self._kept]

    def __set__(self, learn: object, value: object) -> None:
        changed = vars(learn).get(self._kept) is not value
        vars(learn)[self._kept] = self._check(learn, value)
        if changed:
            note_setting(learn, self._kept[1:], value)


def checked_lr(learn: object, lr: object) -> object:
    lr_per_group(lr, len(learn.groups))
    return lr


def checked_lr_decay(learn: object, decay: object) -> float | None:
    if decay is not None and not (is_number(decay) and 0 < decay <= 1):
        raise ValueError(
            f"lr_decay is {shown(decay)}; it must be None, or above 0 and at most 1, such as 0.75"
        )
    return decay


def checked_train_bn(learn: object, train_bn: object) -> bool:
    check_modes(amp="auto", train_bn=train_bn, transforms=None)
    return bool(train_bn)


def checked_transforms(learn: object, transforms: object) -> object:
    check_modes(amp="auto", train_bn=True, transforms=transforms)
    return transforms


def checked_amp(learn: object, amp: object) -> str:
    if amp == "auto" or amp not in AMP:
        allowed = ", ".join(each for each in AMP if each != "auto")
        raise ValueError(f"amp of a learner is {shown(amp)}; it must be one of {allowed}")
    return amp


def checked_moms(learn: object, moms: object) -> tuple[float, float, float]:
    check_moms(moms)
    return tuple(moms)


def checked_accumulate(learn: object, n: object) -> int:
    return as_whole_number("accumulate", n, 1)


def checked_seed(learn: object, seed: object) -> int:
    return as_whole_number("seed", seed, 0, SEEDS - 1)


def checked_clip_grad(learn: object, norm: object) -> float | None:
    check_norm(norm)
    return norm


def checked_loss(learn: object, loss_func: object) -> Loss:
    usable = usable_loss(loss_func, learn.device)
    check_loss_weight(usable, learn.vocab)
    c = len(learn.vocab or ("no", "yes"))
    learn.activation = activation_of(usable, c, learn.device)
    learn.n_out = None  # to be compared with those of this loss
    return usable


def listed_metrics(learn: object, metrics: object) -> list[Metric]:
    return metric_list(metrics)
