"""Pickles: objects as bytes for the user's own processes, and objects made of such bytes.

Functions and classes of notebook cells go whole, tensors as the bytes that they are in memory, in
their layout, without their graph. Some objects stay behind and go by name alone.
"""

import io
import pickle
import socket
import struct
from collections.abc import Callable, Mapping, Sequence

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

_SIZE = struct.Struct("<Q")


class _OnDevice:
    """In the place of the device of the sender: there it is that of the receiver."""


_ON_DEVICE = _OnDevice()
Reducers = Mapping[type, Callable[[object], tuple]]


def as_bytes(
    parts: Sequence[object],
    names: Mapping[str, object],
    *,
    reducers: Reducers | None = None,
    stays: Callable[[object], str | None] = lambda value: None,
) -> bytes:
    """Objects as bytes, each to be read by a call of `Reader.read`; what they share stays shared.

    Parameters
    ----------
    names : objects that go by name
    reducers : of types, what `object.__reduce__` would give
    stays : further objects that go by name: gets each of them, returns its name or None

    Raises
    ------
    Exception
        Of whatever kind, where something cannot be pickled.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, names, reducers or {}, stays)
    for part in parts:
        pickler.dump(part)
    pieces = [memoryview(file.getbuffer()), *(buffer.raw() for buffer in pickler.buffers)]
    sizes = [len(pieces), *(piece.nbytes for piece in pieces)]
    return b"".join([*map(_SIZE.pack, sizes), *pieces])


def check_pickles(value: object, names: Mapping[str, object], reducers: Reducers) -> None:
    """Raise what `as_bytes` would raise of an object; tensors are not copied."""
    _Pickler(io.BytesIO(), names, reducers, lambda value: None).dump(value)


class Reader:
    """What `as_bytes` gave, read part by part.

    Parameters
    ----------
    named : objects that went by name; more may be put in between two parts
    device : of tensors that were on another device than the CPU
    """

    def __init__(
        self,
        content: bytes,
        named: Mapping[str, object],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        view = memoryview(content)
        n, at = _SIZE.unpack_from(view)[0], _SIZE.size
        sizes = [_SIZE.unpack_from(view, at + i * _SIZE.size)[0] for i in range(n)]
        at += n * _SIZE.size
        pieces = []
        for size in sizes:
            pieces.append(view[at : at + size])
            at += size
        self._unpickler = _Unpickler(io.BytesIO(pieces[0]), buffers=pieces[1:])
        self._unpickler.named, self._unpickler.device = named, device

    def read(self) -> object:
        """The next part.

        Raises
        ------
        ValueError
            If something of it is of a module that is not on this machine; it names both.
        """
        try:
            return self._unpickler.load()
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the module {error.name} is not on {socket.gethostname()}: install it there, or "
                "put what is used of it into a cell of the notebook"
            ) from error


class _Pickler(cloudpickle.Pickler):
    def __init__(
        self,
        file: io.BytesIO,
        names: Mapping[str, object],
        reducers: Reducers,
        stays: Callable[[object], str | None],
    ) -> None:
        self.buffers: list[pickle.PickleBuffer] = []
        self._alive, self._reducers, self._stays = names, reducers, stays
        self._names = {id(value): name for name, value in names.items() if value is not None}
        self._names[id(_ON_DEVICE)] = "device"
        self._newest: pickle.PickleBuffer | None = None
        super().__init__(file, protocol=5, buffer_callback=self._is_within)

    def _is_within(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer goes within the pickle: others than of tensors are few and small."""
        if buffer is not self._newest:
            return True
        self.buffers.append(buffer)
        return False

    def persistent_id(self, value: object) -> str | None:
        return self._names.get(id(value)) or self._stays(value)

    def reducer_override(self, value: object) -> object:
        if isinstance(value, Tensor) and _is_plain(value):
            return self._reduced(value)
        if isinstance(value, DataLoader) and getattr(value, "_iterator", None) is not None:
            kind, arguments, state, *_ = value.__reduce_ex__(4)  # without its living processes
            return kind, arguments, state | {"_iterator": None}
        reducer = self._reducers.get(type(value))
        return super().reducer_override(value) if reducer is None else reducer(value)

    def _reduced(self, value: Tensor) -> tuple:
        plain = _dense(value.detach().cpu())
        self._newest = pickle.PickleBuffer(memory_of(plain))
        arguments = (
            self._newest,
            plain.dtype,
            tuple(plain.shape),
            plain.stride(),
            None if value.device.type == "cpu" else _ON_DEVICE,
            value.requires_grad and value.is_leaf,
            isinstance(value, nn.Parameter),
        )
        own = vars(value)
        return (_tensor, arguments, own, None, None, _set_own) if own else (_tensor, arguments)


class _Unpickler(pickle.Unpickler):
    named: Mapping[str, object]
    device: torch.device | str

    def persistent_load(self, name: str) -> object:
        return self.device if name == "device" else self.named[name]


def _is_plain(value: Tensor) -> bool:
    known = type(value) in (Tensor, nn.Parameter, nn.Buffer)
    return known and value.layout == torch.strided and not (value.is_quantized or value.is_meta)


def _dense(value: Tensor) -> Tensor:
    """The tensor in its layout if it fills its memory, else a copy in the plain one."""
    value = value.resolve_conj().resolve_neg()
    order = sorted(range(value.ndim), key=lambda dim: -value.stride(dim))
    return value if value.permute(order).is_contiguous() else value.contiguous()


def memory_of(value: Tensor) -> np.ndarray:
    """The bytes of a tensor on the CPU that fills its memory, in their order there: uint8 [n]."""
    start = value.storage_offset() * value.itemsize
    flat = torch.empty(0, dtype=torch.uint8)
    return flat.set_(value.untyped_storage(), start, (value.nbytes,)).numpy()


def bytes_of(value: Tensor) -> np.ndarray:
    """The bytes of any tensor, uint8 [n], in the order of its layout."""
    return memory_of(_dense(value.detach().cpu()))


def _tensor(
    buffer: memoryview,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    device: torch.device | None,
    requires_grad: bool,
    is_parameter: bool,
) -> Tensor:
    made = torch.empty_strided(shape, stride, dtype=dtype)
    memory_of(made)[:] = np.frombuffer(buffer, np.uint8)
    if device is not None:
        made = made.to(device)
    return nn.Parameter(made, requires_grad) if is_parameter else made.requires_grad_(requires_grad)


def _set_own(value: Tensor, own: dict) -> None:
    vars(value).update(own)
