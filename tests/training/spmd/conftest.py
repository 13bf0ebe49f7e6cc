"""Processes that train together, without a cluster."""

import pickle
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import cloudpickle
import pytest

SERVER = Path(__file__).parent / "server.py"


class Processes:
    """They live as long as the tests; the first `size` of them do a call."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=self._key)
        self._pipes: list[Connection] = []
        self._processes: list[subprocess.Popen] = []

    def __call__(self, size: int, function: Callable, *arguments: object) -> list:
        """What `function(world, *arguments)` gives in each of `size` processes."""
        while len(self._pipes) < size:
            command = [sys.executable, str(SERVER), str(self._listener.address[1]), self._key.hex()]
            self._processes.append(subprocess.Popen(command))
            self._pipes.append(self._listener.accept())
        cloudpickle.register_pickle_by_value(
            sys.modules[function.__module__]
        )  # it has no name there
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, pipe in enumerate(self._pipes[:size]):
            pipe.send_bytes(cloudpickle.dumps((function, rank, size, port, arguments)))
        found = [pickle.loads(pipe.recv_bytes()) for pipe in self._pipes[:size]]
        errors = [text for well, text in found if not well]
        assert not errors, "\n".join(errors)
        return [value for _, value in found]

    def close(self) -> None:
        """Let them end."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send_bytes(b"")
            process.wait()


@pytest.fixture(scope="session")
def together() -> Iterator[Processes]:
    """Calls a function of a world in two processes, or in three."""
    processes = Processes()
    yield processes
    processes.close()
