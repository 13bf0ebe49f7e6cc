"""What a run in many workers costs the notebook: events and requests of 64 to 1,024 processes.

    python benchmarks/cluster_console.py [--ranks 2 64 256 1024] [--seconds 10]

The workers are processes of this machine that train nothing: each answers the notebook's questions
as a worker does, the first one with the events of a run of 50 steps a second; in the last third it
is silent, as in a long step, so that the notebook asks all of them whether they are there. They are
joined by sockets in the place of ipyparallel, whose client has one connection however many engines
there are. Printed for each number: CPU seconds of the notebook's side for each second of the run,
while the first tells and while it is silent; questions a second; the longest wait between an event
and its arrival; events lost.
"""

import argparse
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Thread

from nbfinetune.cluster import worker
from nbfinetune.cluster.runs.event_log import EventLog
from nbfinetune.cluster.runs.watching import Watch

STEP = 0.02  # s


class SilentRun:
    """Stands in for a run in a worker; that of the first one tells of steps."""

    def __init__(self, steps: int) -> None:
        self.log, self.failure, self.over = EventLog(), None, False
        if steps:
            Thread(target=self._tell, args=(steps,), daemon=True).start()

    def ask(self, requests: dict) -> None:
        pass

    def _tell(self, steps: int) -> None:
        for i in range(steps):
            time.sleep(STEP)
            self.log.add({"name": "", "number": i, "at": time.time(), "losses": [1.0] * 4})


def serve(pipe: Connection, steps: int) -> None:
    """Answer until the pipe is closed."""
    worker._runs["run"] = SilentRun(steps)
    try:
        while True:
            function, args = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(pickle.dumps(function(*args)))
    except (EOFError, OSError):
        os._exit(0)


class Asked:
    """An answer that comes by a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def ready(self) -> bool:
        return self._pipe.poll()

    def get(self, timeout: float) -> object:
        if not self._pipe.poll(timeout):
            raise TimeoutError
        return pickle.loads(self._pipe.recv_bytes())


class Processes:
    """Stands in for `Engines`."""

    def __init__(self, n: int, steps: int) -> None:
        self.ids, self.asked = list(range(n)), 0
        self._pipes: dict[int, Connection] = {}
        self._processes = []
        context = multiprocessing.get_context("fork")
        for rank in reversed(self.ids):  # the first one last, as it begins to tell at once
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, 0 if rank else steps))
            process.start()
            self._pipes[rank] = mine
            self._processes.append(process)

    def call(self, rank: int, function: Callable, *args: object) -> Asked:
        self.asked += 1
        self._pipes[rank].send_bytes(pickle.dumps((function, args)))
        return Asked(self._pipes[rank])

    def lost(self) -> list[int]:
        return []

    def end(self) -> None:
        for process in self._processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.join()


def watched(engines: Processes, seconds: float, numbers: list, ages: list) -> tuple[float, float]:
    """CPU seconds and questions, both a second, of going along for a while."""
    began = time.monotonic(), time.process_time(), engines.asked
    while time.monotonic() < began[0] + seconds:
        for data in watch.events():
            event = pickle.loads(data)
            numbers.append(event["number"])
            ages.append(time.time() - event["at"])
    passed = time.monotonic() - began[0]
    return (time.process_time() - began[1]) / passed, (engines.asked - began[2]) / passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    print("workers  CPU s/s  questions/s  CPU s/s silent  questions/s silent  oldest event  lost")
    for n in args.ranks:
        engines = Processes(n, round(args.seconds / STEP))
        watch, numbers, ages = Watch(engines, "run"), [], []
        try:
            told = watched(engines, args.seconds, numbers, ages)
            silent = watched(engines, args.seconds / 2, numbers, ages)
        finally:
            engines.end()
        lost = len(set(range(max(numbers) + 1)) - set(numbers))
        row = f"{n:7} {told[0]:8.3f} {told[1]:12.0f} {silent[0]:15.3f} {silent[1]:19.1f}"
        print(f"{row} {1000 * max(ages):10.0f} ms {lost:5}", flush=True)
