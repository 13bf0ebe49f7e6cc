"""Data: folders, names, tables, lists and data sets to training and validation loaders.

Pictures are decoded once, when the loaders are made: what cannot be read is known then, and they
are kept as uint8 images, in memory or in a file, while there is room. The learner does all that is
random or of the network (augmentation, normalisation) on the batch, on its device.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nbfinetune.arguments import (
    as_files,
    as_path,
    as_share,
    as_whole_number,
    check_text,
    known_options,
)
from nbfinetune.data import arguments as given
from nbfinetune.data import loader_views
from nbfinetune.data.arguments import say
from nbfinetune.data.corrections import correct, read_corrections
from nbfinetune.data.datasets import ImageDataset, even_loader, gives_pictures
from nbfinetune.data.labels import folder_items, label_notes, name_labels
from nbfinetune.data.sources import prediction_sets
from nbfinetune.data.sources.csv_files import read_csv
from nbfinetune.data.sources.data_sets import as_items
from nbfinetune.data.sources.frames import frame_table
from nbfinetune.data.sources.reading import decoded_anew, read_dataset
from nbfinetune.data.sources.tables import LabelTable, table_items
from nbfinetune.data.splits import (
    check_split,
    read_parts,
    split_dataset,
    split_notes,
)
from nbfinetune.data.transforms import Augment, presize
from nbfinetune.images.files import get_image_files, locate
from nbfinetune.rendering.left_out import left_out
from nbfinetune.runtime.calls import makes

if TYPE_CHECKING:
    from pandas import DataFrame

_OPTIONS = (
    *("is_valid", "valid_pct", "seed", "corrections"),
    *("size", "bs", "num_workers", "aug", "on_bad"),
)


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
    on_bad : "error" refuses pictures that cannot be decoded, naming them, those of formats without
        a decoder (such as HEIC) too; "skip" leaves them out, but never all of a class: the network
        would call its pictures something else
    corrections : CSV file of `%clean --apply`: labels to change and pictures to leave out

    Attributes
    ----------
    train, valid : torch DataLoaders of batches (uint8 [n, 3, h, w], int64 [n])
    vocab : the class names, in the order of their indices; by value if all are whole numbers
    warnings : what was doubtful about the data, as it was warned of; `summary` repeats it
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
        notes: list[str],
    ) -> None:
        check_split(train, valid, vocab)
        for text in [*label_notes(vocab), *split_notes(train, valid, vocab)]:
            say(notes, text)
        self.warnings = notes
        self.train = even_loader(train, bs, shuffle=True, num_workers=num_workers)
        self.valid = even_loader(valid, bs, shuffle=False, num_workers=num_workers)
        self.vocab, self.size, self.bs, self.aug = list(vocab), size, bs, aug

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(left_out("ImageDataLoaders", name), name=name, obj=self)

    def __repr__(self) -> str:
        return (
            f"ImageDataLoaders: {len(self.train.dataset)} train, {len(self.valid.dataset)} valid, "
            f"{len(self.vocab)} classes, {self.size} px, bs {self.bs}"
        )

    @classmethod
    @known_options(*_OPTIONS)
    @makes
    def from_folder(
        cls, path: str | PathLike, *, train: str = "train", valid: str = "valid", **options
    ) -> "ImageDataLoaders":
        """Class folders in `path`, or in its folders `train` and `valid` if it has them.

        Instead of `train` also training, instead of `valid` also val or validation is found. A
        folder test beside them is not read, and is no class beside class folders.

        Parameters
        ----------
        path : folder with one folder for each class, or with `train` and `valid` that have them
        train, valid : names of the folders of a given split
        **options : see `ImageDataLoaders`

        Examples
        --------
        >>> dls = ImageDataLoaders.from_folder("photos", size=224)  # doctest: +SKIP
        """
        check_text(train=train, valid=valid)
        notes, root = [], as_path(path, "path")
        files, labels, split = folder_items(root, train, valid, notes)
        given.check_one_split(options, split)
        return cls.from_lists(root, files, labels, **options, **split)._noted(notes)

    @classmethod
    @known_options(*_OPTIONS)
    @makes
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
        files = get_image_files(path) if fnames is None else as_files(fnames, "fnames")
        return cls.from_lists(path, files, name_labels(files, pat), **options)

    @classmethod
    @known_options(*_OPTIONS)
    @makes
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
        delimiter: str | None = None,
        encoding: str | None = None,
        **options,
    ) -> "ImageDataLoaders":
        """File names and labels from a CSV file with a header line.

        Parameters
        ----------
        path : folder that the CSV file and the pictures are in
        csv_fname : the CSV file in it
        folder : folder of the pictures in `path`
        suff : added to each file name, such as ".jpg"
        fn_col, label_col : columns of file and label, by number or heading
        valid_col : column that is true (1, true, yes, valid, val, validation) for the pictures held
            out and false (0, false, no, train, training) for the others
        delimiter : between the columns; None = a comma, or a semicolon, tab or | that is found in
            the header where a comma does not divide it, with a warning
        encoding : of the file; None = UTF-8, or UTF-16 or UTF-32 with its mark
        **options : see `ImageDataLoaders`
        """
        check_text(csv_fname=csv_fname, folder=folder, suff=suff)
        root, notes = as_path(path, "path"), []
        columns = (fn_col, label_col, *([] if valid_col is None else [valid_col]))
        table = read_csv(root / csv_fname, columns, delimiter, encoding, notes)
        return cls._from_table(table, columns, root, folder, suff, options)._noted(notes)

    @classmethod
    @known_options(*_OPTIONS)
    def from_df(
        cls,
        df: "DataFrame",
        path: str | PathLike = ".",
        fn_col: int | str = 0,
        label_col: int | str = 1,
        valid_col: int | str | None = None,
        *,
        folder: str = "",
        suff: str = "",
        **options,
    ) -> "ImageDataLoaders":
        """File names and labels from a pandas DataFrame, by the rules of `from_csv`.

        Rows go by their position, whatever is left of an index.

        Parameters
        ----------
        df : a row for each picture
        path : folder that the pictures are in
        fn_col, label_col, valid_col : columns by position or name, see `from_csv`
        folder, suff : see `from_csv`
        **options : see `ImageDataLoaders`

        Examples
        --------
        >>> dls = ImageDataLoaders.from_df(df, "photos", "file", "label")  # doctest: +SKIP
        """
        check_text(folder=folder, suff=suff)
        table = frame_table(df)
        columns = (fn_col, label_col, *([] if valid_col is None else [valid_col]))
        return cls._from_table(table, columns, as_path(path, "path"), folder, suff, options)

    @classmethod
    def _from_table(
        cls,
        table: LabelTable,
        columns: Sequence[int | str],
        root: Path,
        folder: str | PathLike,
        suff: str,
        options: dict,
    ) -> "ImageDataLoaders":
        files, labels, split = table_items(table, columns, root / folder, suff)
        given.check_one_split(options, split)
        return cls.from_lists(root, files, labels, **options, **split)

    @classmethod
    @known_options()
    @makes
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
        fnames, labels : the files and the class of each, by position: pandas Series of any index,
            arrays, tensors and generators too; labels are names or whole numbers
        is_valid : for each file whether it is held out; None = a split by `valid_pct` and `seed`

        Raises
        ------
        ValueError
            For files that cannot be decoded, classes of one picture, options out of range.
        """
        valid_pct = as_share("valid_pct", valid_pct)
        seed = as_whole_number("seed", seed)
        size, bs, num_workers = given.as_sizes(size, bs, num_workers)
        given.check_choices(aug, on_bad)
        notes: list[str] = []
        root, names = as_path(path, "path"), as_files(fnames, "fnames")
        for name in names:
            given.check_no_url(name)
        classes = given.as_labels(labels, names)
        split = (valid_pct, seed) if is_valid is None else given.as_marks(is_valid, len(names))
        files = [locate(root, f) for f in names]
        marks = {} if corrections is None else read_corrections(corrections)
        kept, corrected = correct(files, classes, marks, notes)
        parts, vocab = read_parts(
            files, classes, kept, corrected, split, presize(size), on_bad, notes
        )
        return cls(*parts, vocab, notes=notes, size=size, bs=bs, num_workers=num_workers, aug=aug)

    @classmethod
    @known_options()
    @makes
    def from_datasets(
        cls,
        train: Sequence,
        valid: Sequence | None = None,
        vocab: Sequence[str] | None = None,
        *,
        image_col: str | None = None,
        label_col: str | None = None,
        valid_pct: float | None = None,
        seed: int | None = None,
        size: int = 224,
        bs: int = 64,
        num_workers: int | None = None,
        aug: Augment = True,
        on_bad: str = "error",
    ) -> "ImageDataLoaders":
        """Data sets of torchvision or Hugging Face, parts of these, arrays.

        Parameters
        ----------
        train, valid : data sets without transforms, whose items are (picture, class index);
            `datasets.Dataset`; pairs (pictures, labels) of arrays [n, h, w], [n, h, w, c] or
            [n, c, h, w]; `Subset` and `ConcatDataset` of these. Each item is read once
        valid : None = a share `valid_pct` (0.2) of each class of `train`, by `seed` (42)
        vocab : the class names; default: those of the data set, else the indices
        image_col, label_col : columns of a data set of Hugging Face; None = the only one of the
            features Image and ClassLabel, else of texts or whole numbers

        Examples
        --------
        >>> from torchvision.datasets import CIFAR10
        >>> dls = ImageDataLoaders.from_datasets(
        ...     CIFAR10("data"), CIFAR10("data", train=False), size=32
        ... )  # doctest: +SKIP
        """
        size, bs, num_workers = given.as_sizes(size, bs, num_workers)
        given.check_choices(aug, on_bad)
        split = given.as_split(valid is not None, valid_pct, seed)
        notes: list[str] = []
        given_parts = {"train": train} | ({} if valid is None else {"valid": valid})
        columns = {"image_col": image_col, "label_col": label_col}
        sources, names = as_items(given_parts, vocab, notes, **columns)
        parts = [read_dataset(part, presize(size), on_bad, notes) for part in sources]
        if names is None:
            top = max(max(part.targets, default=0) for part in parts)
            names = [str(t) for t in range(top + 1)]
        if split:
            parts = split_dataset(parts[0], names, *split)
        return cls(*parts, names, notes=notes, size=size, bs=bs, num_workers=num_workers, aug=aug)

    test_dl = prediction_sets.test_dl

    def _noted(self, notes: list[str]) -> "ImageDataLoaders":
        self.warnings[:0] = notes
        return self

    @property
    def c(self) -> int:
        """The number of classes."""
        return len(self.vocab)

    def with_size(self, size: int) -> "ImageDataLoaders":
        """Loaders of the same pictures in the same split, decoded anew for another size.

        Parameters
        ----------
        size : side in pixels at which the network is to see the pictures

        Raises
        ------
        ValueError
            For a size out of range, files that can no longer be read, loaders put in by hand.

        Examples
        --------
        >>> learn = vision_learner(dls.with_size(288), "resnet34")  # doctest: +SKIP
        """
        size = given.as_sizes(size, self.bs, None)[0]
        if not all(map(gives_pictures, (self.train, self.valid))):
            raise ValueError("a loader was put in by hand; make such loaders of another size anew")
        new = copy(self)
        new.size, new.vocab, new.warnings = size, list(self.vocab), list(self.warnings)
        if made := getattr(self, "made_by", None):
            new.made_by = replace(made, arguments=made.arguments | {"size": size})
        for name, shuffle in (("train", True), ("valid", False)):
            old = getattr(self, name)
            data = decoded_anew(old.dataset, presize(size))
            loader = even_loader(data, self.bs, shuffle=shuffle, num_workers=old.num_workers)
            setattr(new, name, loader)
        return new

    show_batch = loader_views.show_batch
    summary = loader_views.summary
