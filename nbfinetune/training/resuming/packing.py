"""Packing: nested values as plain ones that JSON takes, and the tensors in them by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

_KIND = "$"  # key of what JSON has no form for: tensors, tuples, slices, dicts by number
_PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Unchanging:
    """A tensor that is written again only where torch has counted a change, or it is another."""

    tensor: Tensor


@dataclass(frozen=True)
class Same:
    """In the place of a tensor that has the values of another one, which is packed by this name."""

    name: str


@dataclass
class Packed:
    """What `pack` found: tensors by name, and those of them that may be unchanging."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    unchanging: dict[str, Tensor] = field(default_factory=dict)

    def pack(self, value: object, name: str) -> object:
        """The value as JSON takes it; tensors are kept by names that begin with `name`.

        Raises
        ------
        TypeError
            For what is no number, text, tensor, or tuple, list, dict or slice of these.
        """
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, Unchanging):
            self.unchanging[name] = value.tensor
            return {_KIND: "tensor", "of": name}
        if isinstance(value, Tensor):
            self.tensors[name] = value
            return {_KIND: "tensor", "of": name}
        if isinstance(value, Same):
            return {_KIND: "tensor", "of": value.name}
        if isinstance(value, list):
            return self._items(value, name)
        if isinstance(value, tuple):
            return {_KIND: "tuple", "of": self._items(value, name)}
        if isinstance(value, slice):
            ends = (value.start, value.stop, value.step)
            return {_KIND: "slice", "of": self._items(ends, name)}
        if isinstance(value, Mapping):
            if all(isinstance(key, str) and key != _KIND for key in value):
                return {key: self.pack(v, f"{name}.{key}") for key, v in value.items()}
            pairs = [[key, self.pack(v, f"{name}.{key}")] for key, v in value.items()]
            return {_KIND: "dict", "of": pairs}
        if hasattr(value, "item") and not getattr(value, "shape", None):  # a number of NumPy's
            return self.pack(value.item(), name)
        raise TypeError(f"{name} is a {type(value).__name__}, which no file of ours takes")

    def _items(self, values: list | tuple, name: str) -> list:
        return [self.pack(value, f"{name}.{i}") for i, value in enumerate(values)]


def unpack(value: object, tensors: Mapping[str, Tensor]) -> object:
    """What was packed.

    Raises
    ------
    ValueError
        If a tensor is missing, or a kind is unknown.
    """
    if isinstance(value, list):
        return [unpack(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: unpack(one, tensors) for key, one in value.items()}
    kind, of = value[_KIND], value.get("of")
    if kind == "tensor":
        if of not in tensors:
            raise ValueError(f"{of} is missing")
        return tensors[of]
    items = unpack(of, tensors)
    if kind == "tuple":
        return tuple(items)
    if kind == "slice":
        return slice(*items)
    if kind == "dict":
        return {key: one for key, one in items}  # noqa: C416 (pairs are lists)
    raise ValueError(f"{kind} is no kind of value")
