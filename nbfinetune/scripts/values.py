"""Values as Python text: calls with their arguments, and the imports that these need."""

import math
import os
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from nbfinetune.arguments import as_path
from nbfinetune.images.files import get_image_files
from nbfinetune.networks.families.hugging_face import PREFIX
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.calls import Call, Lost

_MOST = 5_000  # values of one list; more belong in a CSV file
_CALLBACKS = ("EarlyStopping", "SaveBest", "RefitHead")
_LOGS = ("LogTo",)


class Writing:
    """Values as Python text, with the imports that this needs.

    Attributes
    ----------
    left_out : classes of callbacks that change no loss, and are not written
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}  # module and name -> what it is called here
        self.left_out: set[str] = set()

    def imports(self) -> str:
        """The lines that import what was written by now, besides torch."""
        homes: dict[str, list[str]] = {}
        for (home, name), here in sorted(self._names.items()):
            homes.setdefault(home, []).append(name if here == name else f"{name} as {here}")
        lines = [f"from {home} import {', '.join(names)}" for home, names in homes.items()]
        return "\n".join(["import torch", *lines])

    def call(self, call: Call) -> str:
        """A call with its arguments by name; screens are left out, and data is `dls`."""
        if call.name in ("vision_learner", "load_learner"):
            self._import("nbfinetune", call.name)
        parts = []
        for name, given in call.arguments.items():
            if name == "dls":
                parts.append("dls=dls")
            elif name == "cbs":
                parts += [f"cbs={text}"] if (text := self._callbacks(given)) != "[]" else []
            elif name in ("path", "file", "corrections") and given is not None:
                parts.append(f"{name}={str(as_path(given, name))!r}")
            elif name in ("arch", "weights") and isinstance(given, str):
                parts.append(f"{name}={_in_full(given)!r}")
            elif name == "fnames" and given is not None:
                parts.append(f"fnames={self._files(call, given)}")
            elif name not in ("show", "checkpoint"):
                parts.append(f"{name}={self.value(given, name)}")
        return f"{call.name}({', '.join(parts)})"

    def dls(self, made: Call | Lost) -> str:
        """How the data was made."""
        if isinstance(made, Lost):
            raise ValueError(
                f"the data is {made.text}, of your own, which no script can make again; what "
                "ImageDataLoaders.from_folder and its like make can be written"
            )
        self._import("nbfinetune", "ImageDataLoaders")
        return f"ImageDataLoaders.{self.call(made)}"

    def value(self, value: object, name: str) -> str:
        """A value as Python text.

        Parameters
        ----------
        name : what it is, for the error
        """
        if name == "cbs":
            return self._callbacks(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if type(value) in (type(None), bool, int, float, str):
            return repr(value)
        if isinstance(value, PathLike):
            return repr(str(as_path(value, name)))
        if isinstance(value, slice):
            ends = [self.value(end, name) for end in (value.start, value.stop)]
            return f"slice({', '.join(ends)})"
        if isinstance(value, Mapping):
            pairs = (f"{self.value(k, name)}: {self.value(v, name)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, list | tuple | set):
            if len(value) > _MOST:
                raise ValueError(
                    f"{name} has {len(value):,} values, too many for a script; write them to a CSV "
                    "file, and make the data by ImageDataLoaders.from_csv"
                )
            texts = ", ".join(self.value(each, name) for each in value)
            return f"({texts},)" if isinstance(value, tuple) else f"[{texts}]"
        if isinstance(value, Call):
            return self.dls(value)
        if (home := _home(value)) is not None:
            return self._import(home, value.__qualname__)
        text = value.text if isinstance(value, Lost) else shown(value)
        raise ValueError(
            f"{name} is {text}, which no script can make again; it can write plain values, and "
            "functions of a module that can be imported"
        )

    def _callbacks(self, cbs: object) -> str:
        texts = []
        for cb in [cbs] if isinstance(cbs, Call | Lost) else cbs or ():
            name = cb.name if isinstance(cb, Call) else cb.text
            if name in _CALLBACKS:
                self._import("nbfinetune", name)
                texts.append(self.call(cb))
            elif name in _LOGS:
                self.left_out.add(name)
            else:
                raise ValueError(
                    f"cbs holds {name}, which no script can make again; "
                    f"{', '.join(_CALLBACKS)} can be written"
                )
        return f"[{', '.join(texts)}]"

    def _files(self, call: Call, files: object) -> str:
        """The list of files; `get_image_files` where that gives them all."""
        given = [os.fspath(file) for file in files]
        path = call.arguments.get("path")
        if given == [os.fspath(file) for file in get_image_files(path)]:
            self._import("nbfinetune", "get_image_files")
            return f"get_image_files({os.path.abspath(path)!r})"
        return self.value([os.path.abspath(Path(path, file)) for file in given], "fnames")

    def _import(self, home: str, name: str) -> str:
        """What something is called in the script, where others may have the same name."""
        if (home, name) not in self._names:
            same = sum(name == other for _, other in self._names)
            self._names[home, name] = f"{name}_{same + 1}" if same else name
        return self._names[home, name]


def _in_full(name: str) -> str:
    """The name of a network or of weights, a folder or file that is there by its whole path."""
    prefix = PREFIX if name.startswith(PREFIX) else ""
    there = Path(name.removeprefix(prefix)).expanduser()
    is_there = os.path.isdir(there) if prefix else os.path.isfile(there)
    return f"{prefix}{there.absolute()}" if is_there else name


def _home(value: object) -> str | None:
    """The module that a function or class can be imported from, else None."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    package = sys.modules["nbfinetune"]
    if name in package.__all__ and getattr(package, name) is value:
        return package.__name__
    if home in (None, "__main__") or not name.isidentifier():
        return None
    return home if getattr(sys.modules.get(home), name, None) is value else None
