"""Header: what a model file says beside its tensors, each value as it must be, or refused."""

from collections.abc import Sequence
from math import inf

from nbfinetune.arguments import check_bool, check_number, is_missing, is_number
from nbfinetune.data.arguments import as_sizes
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.rendering.names import first_few, shown

SETTINGS = ("lr", "betas", "weight_decay")  # of the optimizer's groups


def check_buildable(header: dict, name: str, heads: Sequence[str]) -> None:
    """Raise ValueError unless a file says all that is needed to build its model.

    heads : names of those that there are
    """
    needed = {"arch", "head", "mean", "std", "size", "train_bn"}
    if missing := needed - set(header):
        raise ValueError(
            f"{name} does not say how to build its model: it has no {first_few(sorted(missing))}; "
            "make the learner as before and use learn.load"
        )
    check_header(header, name, pictures=True)
    if not isinstance(header["arch"], str) or header["head"] not in heads or not header["vocab"]:
        found = ", ".join(f"{key} {shown(header[key])}" for key in ("arch", "head", "vocab"))
        raise ValueError(
            f"{name} does not fit: in its header are {found}; they must be the name of a network, "
            f"one of {', '.join(heads)}, and a list of names"
        )


def check_header(header: dict, name: str, *, pictures: bool) -> None:
    """Raise ValueError, naming the file, for values that no learner has.

    Parameters
    ----------
    pictures : whether size, mean and std of pictures are looked at too
    """
    try:
        _check_classes(header["vocab"])
        for what in {"frozen", "n_groups"} & set(header):
            _check_whole(what, header[what])
        if "train_bn" in header:
            check_bool(train_bn=header["train_bn"])
        if pictures:
            _check_pictures(header)
        if "opt" in header:
            _check_settings(header["opt"])
        if "opt_weights" in header and not _are_texts(header["opt_weights"]):
            raise ValueError(f"opt_weights is {shown(header['opt_weights'])}, no list of names")
    except ValueError as error:
        raise ValueError(f"{name} does not fit: in its header {error}") from None


def _check_whole(what: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} is {shown(value)}; it must be a whole number from 0 up")


def _check_classes(vocab: object) -> None:
    if vocab is None:
        return
    texts = vocab if isinstance(vocab, list) and vocab else [None]
    if not all(type(text) in (str, int) and not is_missing(text) for text in texts):
        raise ValueError(f"vocab is {shown(vocab)}; it must be a list of names")
    if len(set(texts)) < len(texts):
        raise ValueError(f"vocab is {shown(vocab)}; each class needs a name of its own")


def _check_pictures(header: dict) -> None:
    channels = {key: header[key] for key in ("mean", "std") if key in header}
    for what, values in channels.items():
        if not _are_numbers(values):
            raise ValueError(f"{what} is {shown(values)}; it must be three numbers")
    if "size" in header:
        as_sizes(header["size"], 1, None)
    ImageTransforms(1, **{key: tuple(values) for key, values in channels.items()})


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(map(is_number, values))


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _check_settings(groups: object) -> None:
    """The settings of each group of the optimizer."""
    for group in groups if isinstance(groups, list) else [None]:
        if not isinstance(group, dict) or not set(SETTINGS) <= set(group):
            raise ValueError(f"the optimizer has no settings, but {shown(group)}")
        for key in ("lr", "weight_decay"):
            check_number(f"{key} of the optimizer", group[key], 0, inf, such_as=0.01)
        betas = group["betas"]
        if not _are_numbers(betas) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas of the optimizer is {shown(betas)}; give two in [0, 1)")
