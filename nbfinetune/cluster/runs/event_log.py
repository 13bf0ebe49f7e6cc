"""Event log: what a run tells, kept in its process from the first event on, and asked for."""

import pickle
import threading

_MOST = 8 * 2**20  # bytes of one answer


class EventLog:
    """Events in their order, as bytes, to be read while more are added.

    They go between processes of one user, as pickles of plain values.
    """

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._changed = threading.Condition()
        self._over = False

    def add(self, event: dict) -> None:
        """Keep an event as it is now."""
        data = pickle.dumps(event, protocol=pickle.HIGHEST_PROTOCOL)
        with self._changed:
            self._events.append(data)
            self._changed.notify_all()

    def end(self) -> None:
        """No event comes any more; who waits for one waits no longer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def since(self, first: int, wait: float) -> list[bytes]:
        """The events from number `first` on, some 8 MB of them at most.

        Parameters
        ----------
        wait : seconds that one is waited for where there is none
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > first or self._over, wait)
            found, n_bytes = [], 0
            for data in self._events[first:]:
                found.append(data)
                n_bytes += len(data)
                if n_bytes > _MOST:
                    break
            return found

    def all_read(self, first: int) -> bool:
        """Whether there is none from number `first` on, and none comes."""
        with self._changed:
            return self._over and first >= len(self._events)
