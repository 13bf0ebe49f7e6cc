"""Data: folders, file names, CSV files, lists and data sets to training and validation loaders.

Pictures are decoded once, when the loaders are made: what cannot be read is known then, and they
are kept as uint8 images, in memory or in a file, while there is room. The learner does all that is
random or of the network (augmentation, normalisation) on the batch, on its device.
"""

from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from random import SystemRandom

import torch
from torchvision.transforms.v2 import functional as F

from nbfinetune.data.corrections import correct, read_corrections
from nbfinetune.data.datasets import (
    ImageDataset,
    even_loader,
    read_dataset,
    read_files,
)
from nbfinetune.data.images import get_image_files
from nbfinetune.data.labels import csv_columns, folder_labels, name_labels
from nbfinetune.data.splits import check_split, sorted_labels, split_labels
from nbfinetune.data.transforms import Augment, ImageTransforms, presize
from nbfinetune.rendering.tables import PictureSheet, Table
from nbfinetune.runtime.rng import seeded_rng

_TRUE = ("1", "true", "yes", "valid")  # in the column of a CSV file that says what is held out


class ImageDataLoaders:
    """A training and a validation loader of labelled pictures.

    Made by one of the `from_*` class methods, which all take these options:

    Parameters
    ----------
    valid_pct : share of each class held out for validation, in (0, 1); at least one picture of
        every class is on each side
    seed : of that split
    size : side in pixels at which the network sees the pictures
    bs : pictures in a batch at most; batches of an epoch are of even size and none is dropped
    num_workers : processes that load; None = none, as pictures are kept decoded, or decoded by
        threads where there is no room to keep them
    aug : random crop, mirror image and lighting while the body trains (a frozen one gives features
        of each picture once: see `cache_features` of `Learner`); False for none, or a function of
        one uint8 picture, such as a torchvision.transforms.v2 transform, that gives [3, size, size]
    on_bad : "error" refuses pictures that cannot be decoded, naming them; "skip" leaves them out
    corrections : CSV file of `%clean --apply`: labels to change and pictures to leave out

    Attributes
    ----------
    train, valid : torch DataLoaders of batches (uint8 [n, 3, h, w], int64 [n])
    vocab : the class names, in the order of their indices
    """

    def __init__(
        self,
        train: ImageDataset,
        valid: ImageDataset,
        vocab: Sequence[str],
        *,
        size: int,
        bs: int,
        num_workers: int | None,
        aug: Augment,
    ) -> None:
        check_split(train, valid, vocab)
        self.train = even_loader(train, bs, shuffle=True, num_workers=num_workers)
        self.valid = even_loader(valid, bs, shuffle=False, num_workers=num_workers)
        self.vocab, self.size, self.bs, self.aug = list(vocab), size, bs, aug

    def __repr__(self) -> str:
        return (
            f"ImageDataLoaders: {len(self.train.dataset)} train, {len(self.valid.dataset)} valid, "
            f"{len(self.vocab)} classes, {self.size} px, bs {self.bs}"
        )

    @classmethod
    def from_folder(
        cls, path: str | PathLike, *, train: str = "train", valid: str = "valid", **options
    ) -> "ImageDataLoaders":
        """Class folders in `path`, or in its folders `train` and `valid` if it has them.

        Parameters
        ----------
        path : folder with one folder for each class, or with `train` and `valid` that have them
        train, valid : names of the folders of a given split
        **options : see `ImageDataLoaders`

        Examples
        --------
        >>> dls = ImageDataLoaders.from_folder("photos", size=224)  # doctest: +SKIP
        """
        root = Path(path).expanduser().absolute()
        if not (root / train).is_dir():
            files = get_image_files(root)
            return cls.from_lists(root, files, folder_labels(files, root), **options)
        if not (root / valid).is_dir():
            folders = sorted(f.name for f in root.iterdir() if f.is_dir() and f.name != train)
            raise ValueError(
                f"{root} has a folder {train!r} but none named {valid!r} (it has: "
                f"{', '.join(folders) or 'nothing else'}); pass valid=NAME, "
                f"or, if {train!r} is a class, another train=NAME"
            )
        trained, held_out = (get_image_files(root / name) for name in (train, valid))
        labels = folder_labels(trained, root / train) + folder_labels(held_out, root / valid)
        is_valid = [False] * len(trained) + [True] * len(held_out)
        return cls.from_lists(root, trained + held_out, labels, is_valid=is_valid, **options)

    @classmethod
    def from_name_re(
        cls, path: str | PathLike, fnames: Sequence[str | PathLike] | None, pat: str, **options
    ) -> "ImageDataLoaders":
        r"""Labels from file names: the first group of the regular expression `pat`.

        Parameters
        ----------
        path : folder that the files are in
        fnames : the files, absolute or relative to `path`; None = all pictures below it
        pat : searched for in the name of each file, without its folder
        **options : see `ImageDataLoaders`

        Examples
        --------
        >>> dls = ImageDataLoaders.from_name_re("pets", None, r"(.+)_\d+")  # doctest: +SKIP
        """
        files = get_image_files(path) if fnames is None else [Path(f) for f in fnames]
        return cls.from_lists(path, files, name_labels(files, pat), **options)

    @classmethod
    def from_csv(
        cls,
        path: str | PathLike,
        csv_fname: str = "labels.csv",
        *,
        folder: str = "",
        suff: str = "",
        fn_col: int | str = 0,
        label_col: int | str = 1,
        valid_col: int | str | None = None,
        delimiter: str = ",",
        **options,
    ) -> "ImageDataLoaders":
        """File names and labels from a CSV file with a header line.

        Parameters
        ----------
        path : folder that the CSV file and the pictures are in
        csv_fname : the CSV file in it, UTF-8
        folder : folder of the pictures in `path`
        suff : added to each file name, such as ".jpg"
        fn_col, label_col : columns of file and label, by number or heading
        valid_col : column that is true (1, true, yes, valid) for the pictures held out
        delimiter : between the columns
        **options : see `ImageDataLoaders`
        """
        root = Path(path).expanduser().absolute()
        columns = (fn_col, label_col, *([] if valid_col is None else [valid_col]))
        names, labels, *held_out = csv_columns(root / csv_fname, columns, delimiter)
        files = [root / folder / (name + suff) for name in names]
        if held_out:
            options["is_valid"] = [text.strip().lower() in _TRUE for text in held_out[0]]
        return cls.from_lists(root, files, labels, **options)

    @classmethod
    def from_lists(
        cls,
        path: str | PathLike,
        fnames: Sequence[str | PathLike],
        labels: Sequence[str | int],
        *,
        is_valid: Sequence[bool] | None = None,
        valid_pct: float = 0.2,
        seed: int = 42,
        size: int = 224,
        bs: int = 64,
        num_workers: int | None = None,
        aug: Augment = True,
        on_bad: str = "error",
        corrections: str | PathLike | None = None,
    ) -> "ImageDataLoaders":
        """Files and their labels.

        Parameters
        ----------
        path : folder that relative names are in (names that are not there are looked for in the
            working folder)
        fnames, labels : the files and the class of each
        is_valid : for each file whether it is held out; None = a split by `valid_pct` and `seed`

        Raises
        ------
        ValueError
            For files that cannot be decoded, classes of one picture, options out of range.
        """
        _check_options(valid_pct, size, bs, num_workers, aug, on_bad)
        if not len(fnames) == len(labels) > 0:
            raise ValueError(f"{len(fnames)} files but {len(labels)} labels; give one for each")
        if is_valid is not None and len(is_valid) != len(fnames):
            raise ValueError(f"{len(fnames)} files but {len(is_valid)} values in is_valid")
        files = [_locate(Path(path).expanduser(), Path(f)) for f in fnames]
        marks = {} if corrections is None else read_corrections(corrections)
        kept, corrected = correct(files, labels, marks)
        side = presize(size)
        read, cache = read_files([files[i] for i in kept], side, on_bad)
        good = [kept[k] for k in read]
        names = sorted_labels({corrected[i] for i in good})
        index = {name: t for t, name in enumerate(names)}
        targets = [index[corrected[i]] for i in good]
        if is_valid is None:
            # By the labels as they were: a correction moves no other picture to the other side.
            bad = set(kept).difference(good)
            usable = [i for i in range(len(files)) if i not in bad]
            held_out = split_labels(usable, labels, valid_pct, seed)
        else:
            held_out = {i for i in good if is_valid[i]}
        everything = ImageDataset([files[i] for i in good], targets, side, cache, read)
        places = [[k for k, i in enumerate(good) if (i in held_out) == v] for v in (False, True)]
        parts = [everything.subset(part) for part in places]
        vocab = [str(name) for name in names]
        return cls(*parts, vocab, size=size, bs=bs, num_workers=num_workers, aug=aug)

    @classmethod
    def from_datasets(
        cls,
        train: Sequence,
        valid: Sequence,
        vocab: Sequence[str] | None = None,
        *,
        size: int = 224,
        bs: int = 64,
        num_workers: int | None = None,
        aug: Augment = True,
        on_bad: str = "error",
    ) -> "ImageDataLoaders":
        """Two torchvision-style data sets, whose items are (picture, class index).

        Parameters
        ----------
        train, valid : the data sets, without transforms: each item is read once
        vocab : the class names; default: the attribute `classes` of `train`, else the indices

        Examples
        --------
        >>> from torchvision.datasets import CIFAR10
        >>> dls = ImageDataLoaders.from_datasets(
        ...     CIFAR10("data"), CIFAR10("data", train=False), size=32
        ... )  # doctest: +SKIP
        """
        _check_options(0.5, size, bs, num_workers, aug, on_bad)
        classes = [getattr(part, "classes", None) for part in (train, valid)]
        if None not in classes and list(classes[0]) != list(classes[1]):
            raise ValueError(f"train has the classes {classes[0]} but valid has {classes[1]}")
        datasets = [read_dataset(part, presize(size), on_bad) for part in (train, valid)]
        if vocab is None:
            top = max(max(d.targets, default=0) for d in datasets)
            vocab = classes[0] or range(top + 1)
        names = [str(name) for name in vocab]
        return cls(*datasets, names, size=size, bs=bs, num_workers=num_workers, aug=aug)

    def show_batch(self, max_n: int = 9) -> PictureSheet:
        """Up to `max_n` training pictures as the network gets them, with their classes."""
        dataset = self.train.dataset
        with seeded_rng(SystemRandom().getrandbits(32)):  # the user's random numbers stay
            chosen = torch.randperm(len(dataset))[:max_n].tolist()
            images, _ = dataset.batch(chosen)
            shown = ImageTransforms(self.size, aug=self.aug).augment(images)
        captions = [self.vocab[dataset.targets[i]] for i in chosen]
        return PictureSheet([F.to_pil_image(picture) for picture in shown], captions)

    def summary(self) -> Table:
        """Pictures of each class on both sides of the split, their shape and the imbalance."""
        counts = [Counter(loader.dataset.targets) for loader in (self.train, self.valid)]
        rows = [(name, str(counts[0][i]), str(counts[1][i])) for i, name in enumerate(self.vocab)]
        totals = [str(len(loader.dataset)) for loader in (self.train, self.valid)]
        sizes = [counts[0][i] for i in range(len(self.vocab))]
        shape = f"batches of up to {self.bs} x 3 x {self.size} x {self.size}"
        ratio = f"largest class has {max(sizes) / max(min(sizes), 1):.1f} x the smallest"
        return Table(
            f"{len(self.vocab)} classes; {shape}",
            ("class", "train", "valid"),
            [*rows, ("all", *totals)],
            ratio,
        )


def _locate(root: Path, name: Path) -> Path:
    """The file `name` in `root`; as it stands if it is only there, as in glob("root/*.jpg")."""
    inside = (root / name).absolute()
    return inside if inside.exists() or not name.exists() else name.absolute()


def _check_options(
    valid_pct: float, size: int, bs: int, num_workers: int | None, aug: Augment, on_bad: str
) -> None:
    if not 0 < valid_pct < 1:
        raise ValueError(f"valid_pct is {valid_pct}; it must lie between 0 and 1, such as 0.2")
    workers = 0 if num_workers is None else num_workers
    for name, value, least in (("size", size, 1), ("bs", bs, 1), ("num_workers", workers, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {least} up")
    if on_bad not in ("error", "skip"):
        raise ValueError(f'on_bad is {on_bad!r}; it must be "error" or "skip"')
    if not isinstance(aug, bool) and not callable(aug):
        raise ValueError(f"aug is {aug!r}; it must be True, False or a function of a picture")
