"""Widget events while a cell runs, which the kernel alone would deliver after the cell."""

import threading
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from nbfinetune.runtime.interrupts import interrupts_deferred, interrupts_held, whole

_COMM_TYPES = frozenset({"comm_open", "comm_msg", "comm_close"})
# A page that is reloaded asks these first, and holds its widgets back until they are answered.
_QUESTIONS = frozenset({"kernel_info_request", "comm_info_request"})
_TYPES = _COMM_TYPES | _QUESTIONS


class EventPump:
    """Delivers waiting widget (comm) messages while a cell is running, in the main thread.

    It also answers what a page asks that is opened meanwhile. Other messages, such as cells queued
    by "Run All", are put back in order at the end. Where a front end uses a subshell, the kernel
    may run handlers in its thread, without the pump.

    Parameters
    ----------
    every : seconds between two looks at the queue, >= 0; at 0.03 events wait some 20 ms (measured)

    Attributes
    ----------
    works : False outside a kernel, outside its main thread, with a kernel unlike ipykernel 6 and 7

    Examples
    --------
    >>> with EventPump() as pump:  # doctest: +SKIP
    ...     for batch in batches:
    ...         train(batch)
    ...         pump.poll()
    """

    def __init__(self, every: float = 0.03) -> None:
        self._every = every
        self._looked = 0.0
        self._events: deque[list[Any]] = deque()  # as frames, which the kernel can take back
        self._deferred: deque[list[Any]] = deque()
        try:
            self._connect()
            self.works = True
        except Exception:  # no kernel, or one of another kind
            self.works = False

    def _connect(self) -> None:
        """Find all that is used of the kernel, or raise."""
        import zmq
        from IPython import get_ipython

        kernel = get_ipython().kernel
        import asyncio  # a kernel has it; to a terminal it would bring ssl and more

        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or asyncio.get_running_loop() is not kernel.io_loop.asyncio_loop:
            raise RuntimeError("only the main thread handles signals and the kernel's messages")
        if getattr(kernel, "shell_channel_thread", None):  # ipykernel 7: a thread passes them on
            manager = kernel.shell_channel_thread.manager
            stream = manager._shell_channel_to_main.to_stream
            replies = manager.get_subshell_to_shell_channel_socket(None)
        else:
            stream = replies = kernel.shell_stream
        _ = [kernel.shell_handlers[name] for name in _TYPES], kernel._parent_ident["shell"]
        _ = kernel.get_parent, kernel.set_parent, kernel._publish_status, kernel.log
        _ = kernel.session.feed_identities, kernel.session.deserialize, kernel.session.unpack
        _ = stream.socket.EVENTS, stream.flush, stream._recv_callback, stream._run_callback
        self._zmq, self._kernel, self._stream, self._replies = zmq, kernel, stream, replies

    def poll(self) -> None:
        """Deliver the messages that wait; when called too often, only look at the clock."""
        now = monotonic()
        if not self.works or now - self._looked < self._every:
            return
        self._looked = now
        with interrupts_deferred():  # a second one ends a handler that hangs
            try:
                self._receive()
                while self._events:  # not what arrives meanwhile: a flood must not stop training
                    self._deliver(self._events.popleft())
            except Exception:
                self.works = False
                self._kernel.log.error("Events now wait for the end of the cell", exc_info=True)

    def __enter__(self) -> "EventPump":
        if self.works:
            # After the cell, for an interrupt that kept __exit__ from running or _receive from
            # ending: the stream is not told again of messages that were left.
            self._kernel.io_loop.add_callback(self._put_back)
            self._kernel.io_loop.add_callback(self._stream.flush, self._zmq.POLLIN)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._events or self._deferred:
            self._put_back()  # at once: after an error the kernel aborts the cells it has by then

    @whole
    def _receive(self) -> None:
        """Take all that waits, and keep it."""
        session, socket = self._kernel.session, self._stream.socket
        while socket.EVENTS & self._zmq.POLLIN:
            frames = socket.recv_multipart(copy=False)
            self._deferred.append(frames)  # before it is examined, so that no error can lose it
            try:
                _, parts = session.feed_identities(frames, copy=False)
            except ValueError:  # the kernel's note to itself that it "stops aborting"
                continue
            if session.unpack(parts[1].bytes)["msg_type"] in _TYPES:
                self._events.append(self._deferred.pop())

    def _deliver(self, frames: list[Any]) -> None:
        """Do what the kernel does with a message, then let the cell go on as the parent."""
        kernel = self._kernel
        idents, parts = kernel.session.feed_identities(frames, copy=False)
        message = kernel.session.deserialize(parts, content=True, copy=False)
        handler = kernel.shell_handlers[message["header"]["msg_type"]]
        with self._as_parent(idents, message):
            try:
                answer = handler(self._replies, idents, message)
                if isinstance(answer, Coroutine):
                    _run(answer)
            except Exception:
                kernel.log.error("Exception in message handler:", exc_info=True)

    @contextmanager
    def _as_parent(self, idents: list[bytes], message: dict) -> Iterator[None]:
        kernel = self._kernel
        cell_ident, cell = kernel._parent_ident["shell"], kernel.get_parent("shell")
        kernel.set_parent(idents, message, channel="shell")
        try:
            kernel._publish_status("busy", "shell", message)
            yield
        finally:
            kernel.set_parent(cell_ident, cell, channel="shell")
            # ipywidgets sends the next value after "idle"; servers would cull an idle kernel.
            kernel._publish_status("idle", "shell", message)
            kernel._publish_status("busy", "shell", cell)
            if self._replies is self._stream:  # ipykernel 6 sends a reply when its loop runs again
                self._stream.flush(self._zmq.POLLOUT)

    def _put_back(self) -> None:
        """Hand the messages kept to the kernel, as its stream would have done."""
        with interrupts_held():
            for queue in (self._events, self._deferred):
                while queue:
                    self._stream._run_callback(self._stream._recv_callback, queue.popleft())


def _run(answer: Coroutine) -> None:
    """Run a handler of the kernel that is a coroutine but waits for nothing."""
    try:
        answer.send(None)
    except StopIteration:
        return
    answer.close()
    raise RuntimeError("the kernel's handler waits for something, which a busy cell cannot")
