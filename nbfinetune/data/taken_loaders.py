"""Taken loaders: what a learner copies of its loaders, and what follows when these change."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.transforms import ImageTransforms


@dataclass(frozen=True, eq=False)
class TakenLoaders:
    """Loaders, and what they were like when a learner took them."""

    dls: ImageDataLoaders
    vocab: list[str] | None
    size: int | None
    aug: object

    @classmethod
    def of(cls, dls: ImageDataLoaders | None) -> "TakenLoaders | None":
        """The loaders as they are now, None if there are none.

        Raises
        ------
        ValueError
            If these are no two loaders.
        """
        if dls is None:
            return None
        if not (hasattr(dls, "train") and hasattr(dls, "valid")):
            raise ValueError(
                f"dls is a {type(dls).__name__}; it must have train and valid, each a loader of "
                "(inputs, targets), as ImageDataLoaders has"
            )
        names = class_names(dls)
        size, aug = getattr(dls, "size", None), getattr(dls, "aug", None)
        return cls(dls, names and list(names), size, aug)


def class_names(dls: ImageDataLoaders) -> list[str] | None:
    """The class names as a list of Python's own values; the loaders' own list if it is one."""
    vocab = getattr(dls, "vocab", None)
    if vocab is None or type(vocab) is list:
        return vocab  # so names that are changed in it are changed here too
    return vocab.tolist() if hasattr(vocab, "tolist") else list(vocab)


def has_class_indices(loader: object) -> bool:
    """Whether the targets of a loader are surely class indices [n]; it is not run."""
    if gives_pictures(loader):
        return True
    batch = loader[0] if isinstance(loader, (list, tuple)) and loader else None
    targets = batch[1] if isinstance(batch, (list, tuple)) and len(batch) == 2 else None
    return isinstance(targets, Tensor) and targets.ndim == 1 and not targets.is_floating_point()


def followed_transforms(
    transforms: object,
    new: TakenLoaders,
    old: TakenLoaders | None,
    run: Callable[[Tensor], object],
) -> object:
    """The transforms with what is new in the size and the augmentation of loaders.

    Parameters
    ----------
    run : the model, which has to take pictures of another size

    Raises
    ------
    ValueError
        If it does not.
    """
    if type(transforms) is not ImageTransforms:
        return transforms
    if new.aug is not None and (old is None or new.aug is not old.aug):
        transforms = replace(transforms, aug=new.aug)
    size = transforms.size if old and new.size == old.size else new.size or transforms.size
    if size == transforms.size:
        return transforms
    try:
        with torch.no_grad():
            run(torch.zeros(1, 3, size, size))
    except Exception as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"dls gives pictures of {size} px, which the model does not take ({text}); make the "
            f"loaders with size={transforms.size}, or a new learner"
        ) from None
    return replace(transforms, size=size)
