"""Engines of tests: processes that are none, each host with a cache folder of its own."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbfinetune.cluster.data import giving, kept, squares
from nbfinetune.cluster.travel.calls import pack_call, unpack
from nbfinetune.cluster.travel.results import pack_result, unpack_result


class _Done:
    """What a call gives, or how it ended."""

    def __init__(self, value: object, error: Exception | None = None) -> None:
        self._value, self._error = value, error

    def ready(self) -> bool:
        return True

    def get(self, timeout: float | None = None) -> object:
        if self._error:
            raise self._error
        return self._value


class HereEngines:
    """Engines in this process: `hosts` says on which host each rank is.

    Attributes
    ----------
    calls : how often each function was called on each host
    n_bytes : of the chunks and the pickles that each host got
    """

    def __init__(self, root: Path, hosts: list[str], patch: pytest.MonkeyPatch) -> None:
        self.ids = list(range(len(hosts)))
        self.hosts, self._root, self._patch = hosts, root, patch
        self._own = [kept.HostData() for _ in hosts]
        self.calls: Counter = Counter()
        self.n_bytes: Counter = Counter()
        self.change_chunk: Callable[[bytes], bytes] = lambda chunk: chunk

    def info(self, rank: int) -> SimpleNamespace:
        return SimpleNamespace(host=self.hosts[rank])

    def cache(self, host: str) -> Path:
        return self._root / host / "squares"

    def call(self, rank: int, function: Callable, *args: object) -> _Done:
        host = self.hosts[rank]
        self.calls[host, function.__name__] += 1
        self.n_bytes[host] += sum(len(arg) for arg in args if isinstance(arg, bytes))
        if function is kept.take_chunk:
            args = (*args[:-1], self.change_chunk(args[-1]))
        if function in (kept.lacking, kept.open_data) and host != "here":
            args = (*args[:-1], str(self._root / "a place of another machine"))
        with self._patch.context() as patch:
            patch.setenv("NBFINETUNE_CACHE", str(self._root / host))
            patch.setattr(kept, "_here", self._own[rank])
            try:
                return _Done(function(*args))
            except Exception as error:
                return _Done(None, error)


@pytest.fixture
def engines(tmp_path, monkeypatch) -> Callable[..., HereEngines]:
    """Makes engines on the hosts of these names; "here" is the notebook's."""
    monkeypatch.setenv("NBFINETUNE_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr(squares, "_whole", {})

    def make(*hosts: str) -> HereEngines:
        return HereEngines(tmp_path, list(hosts), monkeypatch)

    return make


@pytest.fixture
def trip(engines) -> Callable:
    """Call a method of a learner in an engine, and give the learner what came of it."""

    def call(learn, method: str, **arguments):
        cluster = engines("here")
        parcel = pack_call(learn, method, arguments)
        keys = giving.give_all(cluster, parcel.data)

        def run() -> bytes:
            arrived = unpack(parcel.content, keys, device="cpu")
            value = getattr(arrived.learn, arrived.method)(**arrived.arguments)
            return pack_result(arrived, value)

        returned = unpack_result(cluster.call(0, run).get(), learn, parcel)
        returned.put()
        return returned

    return call
