"""Data sets: those of others as items (picture, class index), with their class names.

Parts and rows of data sets (`Subset`, `ConcatDataset`) stay what they are, around what they are of.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from nbfinetune.arguments import as_list
from nbfinetune.data.arguments import as_vocab, say
from nbfinetune.data.sources.arrays import ArrayItems, are_arrays, is_array
from nbfinetune.data.sources.frames import is_frame
from nbfinetune.data.sources.hub import HubItems, check_hub, of_hub
from nbfinetune.data.sources.items import SourceItems
from nbfinetune.data.splits import sorted_labels
from nbfinetune.rendering.names import first_few


def as_items(
    parts: Mapping[str, object],
    vocab: Sequence[str] | None,
    notes: list[str],
    *,
    image_col: str | None = None,
    label_col: str | None = None,
    labelled: bool | None = True,
) -> tuple[list[Sequence], list[str] | None]:
    """Data sets with items (picture, class index), and their class names if they have some.

    Labels that are texts are classes in their order, or in that of `vocab`.

    Parameters
    ----------
    parts : name -> what a user gave
    vocab : the class names as given; None = those of the data
    image_col, label_col, labelled : see `HubItems`

    Raises
    ------
    ValueError
        For what has no items by number, and parts of different classes.
    """
    known: dict[int, SourceItems] = {}

    def adapted(data: object, name: str) -> Sequence:
        if type(data) is Subset:
            inner = adapted(data.dataset, name)
            return data if inner is data.dataset else Subset(inner, data.indices)
        if type(data) is ConcatDataset:
            inner = [adapted(part, name) for part in data.datasets]
            same = all(a is b for a, b in zip(inner, data.datasets, strict=True))
            return data if same else ConcatDataset(inner)
        if id(data) not in known and of_hub(data):
            check_hub(data, name)
            known[id(data)] = HubItems(data, name, image_col, label_col, notes, labelled=labelled)
        elif id(data) not in known and are_arrays(data):
            known[id(data)] = ArrayItems(data[0], None if labelled is False else data[1], name)
        return known.get(id(data), data)

    for name, data in parts.items():
        _check_dataset(data, name)
    adapted_parts = [adapted(data, name) for name, data in parts.items()]
    columns = image_col is not None or label_col is not None
    if columns and not any(isinstance(leaf, HubItems) for leaf in known.values()):
        raise ValueError("image_col and label_col are of data sets of Hugging Face; leave them out")
    _name_texts(list(known.values()), vocab)
    names = class_names(adapted_parts)
    if vocab is not None:
        check_renamed(vocab := as_vocab(vocab), names)
        names = vocab
    if names is None and any(map(_changes_targets, adapted_parts)):
        say(notes, "the data has a target_transform, so its class names are not used; give vocab=")
    if names is None and (names := class_names([_inside(part) for part in adapted_parts])):
        say(notes, f"the class names are those of the data sets inside these: {first_few(names)}")
    return adapted_parts, None if names is None else as_vocab(names)


def _name_texts(sources: Sequence[SourceItems], vocab: Sequence[str] | None) -> None:
    """Give sources whose labels are texts their class indices."""
    if not any(source.texts for source in sources):
        return
    numbered = [source.name for source in sources if source.labels and not source.texts]
    if numbered and vocab is None and not any(source.classes for source in sources):
        raise ValueError(
            f"labels are class indices in {numbered[0]} and class names elsewhere; give names in "
            "both, or vocab= in the order of the indices"
        )
    named = next((source.classes for source in sources if source.classes), None)
    names = named if vocab is None else as_vocab(vocab)
    names = names or sorted_labels({text for source in sources for text in source.texts})
    for source in sources:
        if source.texts:
            source.use(names)


def _check_dataset(data: object, name: str) -> None:
    """Refuse what has no items by number, with what to type."""
    if of_hub(data):
        check_hub(data, name)
    elif isinstance(data, DataLoader):
        raise ValueError(f"{name} is a DataLoader; give its data set, {name}.dataset")
    elif is_frame(data):
        raise ValueError(f"{name} is a DataFrame; use ImageDataLoaders.from_df(df, path)")
    elif is_array(data):
        raise ValueError(
            f"{name} is an array of shape {tuple(data.shape)} without labels; give pairs: "
            "from_datasets((x, y), (x_valid, y_valid)), or one pair to split"
        )
    elif isinstance(data, tuple) and len(data) == 2 and all(map(_is_long, data)):
        raise ValueError(f"{name} is two lists; give items: list(zip(pictures, labels))")
    elif isinstance(data, (str, PathLike, Mapping, IterableDataset)) or not all(
        hasattr(data, method) for method in ("__len__", "__getitem__")
    ):
        keys = list(data) if isinstance(data, Mapping) else []
        of = f" of {first_few(keys)}" if keys else ""
        raise ValueError(
            f"{name} is a {type(data).__name__}{of}, which has no items by number; give a data "
            "set, a list of (picture, class index) or arrays (pictures, labels)"
        )
    if not len(data):
        raise ValueError(f"{name} is empty; give a data set with pictures")


def _is_long(part: object) -> bool:
    """Whether this is a list of pictures or labels, and no item."""
    return isinstance(part, list) and len(part) > 2


def class_names(parts: Sequence[object]) -> list[str] | None:
    """The attribute `classes` of data sets.

    Raises
    ------
    ValueError
        If they have different ones.
    """
    found = [names for part in parts if (names := _classes(part))]
    if any(names != found[0] for names in found):
        other = next(names for names in found if names != found[0])
        raise ValueError(
            f"train has the classes {first_few(found[0])} but valid has {first_few(other)}"
            f"{_difference(found[0], other)}"
        )
    return found[0] if found else None


def check_renamed(vocab: Sequence[str], names: Sequence[str] | None) -> None:
    """Refuse a vocab that has a class name of the data at the place of another class.

    Other names, such as translated ones, are fine.
    """
    for k, name in enumerate(names or []):
        if name in vocab and vocab.index(name) != k:
            at = vocab[k] if k < len(vocab) else "missing"
            raise ValueError(
                f"class {k} is {name} in the data but {at} in vocab; the order of the indices is "
                f"{first_few(names)}: leave vocab out"
            )


def _inside(data: object) -> object:
    """The data set that one of the user's own, such as one that transforms pictures, is around."""
    values = getattr(data, "__dict__", {}).values()
    inside = [v for v in values if isinstance(v, Dataset) or (of_hub(v) and hasattr(v, "features"))]
    return next((inner for inner in inside if len(inner) == len(data)), None)


def _changes_targets(data: object) -> bool:
    """Whether a data set, or one that it is a part or a row of, has a target_transform."""
    if isinstance(data, Subset):
        return _changes_targets(data.dataset)
    if isinstance(data, ConcatDataset):
        return any(map(_changes_targets, data.datasets))
    return getattr(data, "target_transform", None) is not None


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    if sorted(one) == sorted(other):
        return ", in another order: class k is not the same in both"
    apart = [name for name in (*one, *other) if (name in one) != (name in other)]
    return f"; not in both: {first_few(apart)}"


def _classes(dataset: object) -> list[str] | None:
    """The attribute `classes` of a data set, or of those that it is a part or a row of."""
    if isinstance(dataset, Subset):
        return _classes(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        found = [_classes(part) for part in dataset.datasets]
        if any(names != found[0] for names in found):
            raise ValueError(f"data sets of different classes are joined: {first_few(found)}")
        return found[0]
    if of_hub(dataset):
        labels = [feature for feature in dataset.features.values() if hasattr(feature, "names")]
        return list(labels[0].names) if len(labels) == 1 else None
    classes = getattr(dataset, "classes", getattr(dataset, "categories", None))  # Caltech's
    if getattr(dataset, "target_transform", None) is not None:
        return None  # which of the names class k has is not known
    if classes is None or isinstance(classes, (str, Mapping)) or not isinstance(classes, Iterable):
        return None
    # ImageNet's classes are tuples of names.
    return [", ".join(c) if isinstance(c, tuple) else str(c) for c in as_list(classes, "classes")]
