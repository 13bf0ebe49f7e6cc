"""With real kernels: that of this Python, and of those named in `NBFINETUNE_KERNELS`.

`NBFINETUNE_KERNELS` lists Python executables of other environments, separated as in PATH, which
need ipykernel and ipywidgets only. So other versions of ipykernel are tested.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from nbfinetune.live import event_pump
from nbfinetune.live.event_pump import EventPump

PYTHONS = [
    sys.executable,
    *filter(None, os.environ.get("NBFINETUNE_KERNELS", "").split(os.pathsep)),
]
TIMEOUT = 30  # seconds until a message that does not come fails a test; nothing is timed

# The module is loaded from its file, since the package needs torch. `clicks` hands what it receives
# to `react`, which a test may replace.
SETUP = f"""
import importlib.util, signal, sys, threading, time
import comm, ipykernel
spec = importlib.util.spec_from_file_location("event_pump", {event_pump.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
EventPump = module.EventPump

received = []
react = received.append
clicks = comm.create_comm(target_name="clicks", comm_id="clicks")
clicks.on_msg(lambda message: react(message["content"]["data"]))

def train(pump, until=lambda: received):
    print("training", flush=True)
    end = time.monotonic() + {TIMEOUT}
    while not until() and time.monotonic() < end:
        pump.poll()
        time.sleep(0.001)
"""
RESET = "received.clear(); react = received.append"


class Kernel:
    """A kernel and the messages of its cells."""

    def __init__(self, client: BlockingKernelClient, interrupt: Callable[[], None]) -> None:
        self.client, self.interrupt = client, interrupt
        self.messages: list[dict] = []  # all that was published

    def send(self, code: str, stop_on_error: bool = False) -> str:
        return self.client.execute(code, stop_on_error=stop_on_error)

    def send_event(
        self, data: object, kind: str = "comm_msg", subshell: str | None = None, **content: str
    ) -> str:
        content = {"comm_id": "clicks", "data": data, **content}
        message = self.client.session.msg(kind, content)
        if subshell:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def begin(self, code: str, stop_on_error: bool = False) -> str:
        """Send a cell, and wait until its training runs."""
        cell = self.send(code, stop_on_error)
        self.wait(cell, lambda message: "training" in message["content"].get("text", ""))
        return cell

    def wait(self, parent: str, until: Callable[[dict], bool]) -> None:
        while True:
            message = self.client.get_iopub_msg(timeout=TIMEOUT)
            self.messages.append(message)
            if message["parent_header"].get("msg_id") == parent and until(message):
                return

    def idle(self, parent: str) -> None:
        """Wait until the message of this id has been handled."""
        if (parent, "idle") not in self.states():
            self.wait(parent, lambda m: m["content"].get("execution_state") == "idle")

    def states(self) -> list[tuple[str, str]]:
        return [
            (m["parent_header"].get("msg_id"), m["content"]["execution_state"])
            for m in self.messages
            if m["msg_type"] == "status"
        ]

    def printed(self, cell: str) -> list[str]:
        """The lines that a cell printed, once it has ended."""
        self.idle(cell)
        return "".join(
            m["content"]["text"]
            for m in self.messages
            if m["msg_type"] == "stream" and m["parent_header"].get("msg_id") == cell
        ).splitlines()

    def reply(self, cell: str) -> str:
        """The status in the reply to a cell; replies must be asked for in the order they come."""
        while True:
            reply = self.client.get_shell_msg(timeout=TIMEOUT)
            if reply["msg_type"] == "execute_reply":
                assert reply["parent_header"]["msg_id"] == cell
                return reply["content"].get("ename", reply["content"]["status"])

    def run(self, code: str) -> list[str]:
        """What a cell printed; nothing but success will do."""
        cell = self.send(code)
        assert self.reply(cell) == "ok"
        return self.printed(cell)


class OfPython(KernelSpecManager):
    """Finds the kernel of a Python executable, which need not be registered."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [kernel_name, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="a kernel", language="python")


@pytest.fixture(scope="module", params=PYTHONS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kernel]:
    manager = KernelManager(kernel_name=request.param, kernel_spec_manager=OfPython())
    profile = str(tmp_path_factory.mktemp("profile"))
    manager.start_kernel(env={**os.environ, "IPYTHONDIR": profile})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        kernel = Kernel(client, manager.interrupt_kernel)
        kernel.run(SETUP)
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(started: Kernel) -> Kernel:
    """A kernel that runs, without events from an earlier test."""
    started.run(RESET)
    started.messages.clear()
    return started


TRAIN = """
with EventPump() as pump:
    train(pump)
print(received)
"""


def test_an_event_is_handled_while_the_cell_runs(kernel: Kernel) -> None:
    cell = kernel.begin(TRAIN)
    kernel.send_event(3)
    assert kernel.printed(cell) == ["training", "[3]"]
    assert kernel.reply(cell) == "ok"


def test_an_event_is_handled_in_the_main_thread(kernel: Kernel) -> None:
    kernel.run("react = lambda data: received.append(threading.current_thread().name)")
    cell = kernel.begin(TRAIN)
    kernel.send_event(3)
    assert kernel.printed(cell)[-1] == "['MainThread']"
    assert kernel.reply(cell) == "ok"


def test_a_front_end_may_open_and_close_a_comm_while_the_cell_runs(kernel: Kernel) -> None:
    kernel.run("""
def opened(new, message):
    received.append(("open", message["content"]["data"]))
    new.on_close(lambda message: received.append(("close", message["content"]["data"])))
comm.get_comm_manager().register_target("new", opened)
""")
    cell = kernel.begin(
        "with EventPump() as pump: train(pump, lambda: len(received) > 1)\nprint(received)"
    )
    kernel.send_event(1, "comm_open", comm_id="new", target_name="new")
    kernel.send_event(2, "comm_close", comm_id="new")
    assert kernel.printed(cell)[-1] == "[('open', 1), ('close', 2)]"
    assert kernel.reply(cell) == "ok"


def test_a_slider_takes_all_its_values_while_the_cell_runs(kernel: Kernel) -> None:
    [model] = kernel.run("""
from ipywidgets import IntSlider
slider = IntSlider(value=1)
slider.observe(lambda change: received.append(change["new"]), "value")
print(slider.model_id)
""")
    cell = kernel.begin(
        "with EventPump() as pump: train(pump, lambda: slider.value == 4)\nprint(received)"
    )
    for value in (2, 3, 4):
        data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
        kernel.idle(kernel.send_event(data, comm_id=model))  # as ipywidgets does, one at a time
    assert kernel.printed(cell)[-1] == "[2, 3, 4]"
    assert kernel.reply(cell) == "ok"


def test_what_a_reloaded_page_asks_is_answered_while_the_cell_runs(kernel: Kernel) -> None:
    cell = kernel.begin(TRAIN)
    for kind in ("kernel_info", "comm_info"):
        asked = kernel.client.session.msg(f"{kind}_request", {})
        kernel.client.shell_channel.send(asked)
        answer = kernel.client.get_shell_msg(timeout=TIMEOUT)  # before the cell ends
        assert answer["msg_type"] == f"{kind}_reply"
        assert answer["parent_header"]["msg_id"] == asked["header"]["msg_id"]
        assert answer["content"]["status"] == "ok"
        kernel.idle(asked["header"]["msg_id"])
    assert answer["content"]["comms"]["clicks"] == {"target_name": "clicks"}
    kernel.send_event(3)
    assert kernel.printed(cell) == ["training", "[3]"]
    assert kernel.reply(cell) == "ok"


def test_what_is_printed_after_an_event_belongs_to_the_cell_and_not_to_the_event(
    kernel: Kernel,
) -> None:
    kernel.run("react = lambda data: (received.append(data), print('by the handler'))")
    cell = kernel.begin("print('before')\n" + TRAIN)
    event = kernel.send_event(3)
    assert kernel.printed(cell) == ["before", "training", "[3]"]
    assert kernel.printed(event) == ["by the handler"]
    assert kernel.reply(cell) == "ok"


def test_busy_and_idle_are_published_for_an_event_and_then_busy_for_the_cell(
    kernel: Kernel,
) -> None:
    cell = kernel.begin(TRAIN)
    event = kernel.send_event(3)
    kernel.idle(cell)
    assert kernel.states() == [
        (cell, "busy"),
        (event, "busy"),
        (event, "idle"),
        (cell, "busy"),
        (cell, "idle"),
    ]
    assert kernel.reply(cell) == "ok"


def test_cells_queued_meanwhile_run_afterwards_in_order(kernel: Kernel) -> None:
    cell = kernel.begin(TRAIN)
    queued = [kernel.send(f"received.append({letter!r}); print(received)") for letter in "ABC"]
    kernel.send_event(3)
    assert [kernel.reply(sent) for sent in [cell, *queued]] == ["ok"] * 4
    assert kernel.printed(cell)[-1] == "[3]"
    assert [kernel.printed(sent) for sent in queued] == [
        ["[3, 'A']"],
        ["[3, 'A', 'B']"],
        ["[3, 'A', 'B', 'C']"],
    ]


def test_two_runs_in_one_cell_keep_the_order_of_queued_cells(kernel: Kernel) -> None:
    cell = kernel.begin(f"{TRAIN}\n{RESET}\n{TRAIN}")
    first = kernel.send("received.append('A')")
    kernel.idle(kernel.send_event(3))
    second = kernel.send("received.append('B'); print(received)")
    kernel.idle(kernel.send_event(4))
    assert [kernel.reply(sent) for sent in (cell, first, second)] == ["ok"] * 3
    assert kernel.printed(cell) == ["training", "[3]", "training", "[4]"]
    assert kernel.printed(second) == ["[4, 'A', 'B']"]


def test_after_an_interrupt_nothing_queued_is_lost(kernel: Kernel) -> None:
    cell = kernel.begin("with EventPump() as pump: train(pump, lambda: False)")
    queued = [kernel.send(f"received.append({letter!r}); print(received)") for letter in "AB"]
    kernel.idle(kernel.send_event(3))  # handled, so the pump has taken the cells before it
    kernel.interrupt()
    assert [kernel.reply(sent) for sent in [cell, *queued]] == ["KeyboardInterrupt", "ok", "ok"]
    assert kernel.printed(queued[0]) == ["[3, 'A']"]
    assert kernel.printed(queued[1]) == ["[3, 'A', 'B']"]
    cell = kernel.begin(f"{RESET}\n{TRAIN}")
    kernel.send_event(5)
    assert kernel.printed(cell)[-1] == "[5]"
    assert kernel.reply(cell) == "ok"


def test_after_an_interrupt_the_rest_of_run_all_is_aborted_as_without_the_pump(
    kernel: Kernel,
) -> None:
    cell = kernel.begin("with EventPump() as pump: train(pump, lambda: False)", stop_on_error=True)
    queued = [kernel.send("received.append('ran')") for _ in range(2)]
    kernel.idle(kernel.send_event(3))
    kernel.interrupt()
    statuses = [kernel.reply(sent) for sent in [cell, *queued]]
    assert statuses == ["KeyboardInterrupt", "aborted", "aborted"]
    kernel.run("pass")  # a cell sent just after the error may be aborted too
    assert kernel.run("print(received)") == ["[3]"]


@pytest.mark.parametrize(
    ("presses", "done"),
    [(1, "[3, 'end of 3', 4, 'end of 4']"), (2, "[3]")],
    ids=["one press lets the handlers end", "a second press does not"],
)
def test_an_interrupt_in_a_handler_loses_no_message(
    kernel: Kernel, presses: int, done: str
) -> None:
    kernel.run(f"""
def react(data):
    received.append(data)
    if data == 3:
        for _ in range({presses}):
            signal.raise_signal(signal.SIGINT)
    received.append(f"end of {{data}}")
""")
    cell = kernel.begin("""
with EventPump() as pump:
    print("training", flush=True)
    while not (pump._deferred and len(pump._events) == 2):  # all that is sent below in one poll
        pump._receive()
    try:
        train(pump, lambda: False)
    finally:
        print(received)
""")
    queued = kernel.send("print(received)")
    kernel.send_event(3)
    kernel.send_event(4)
    assert [kernel.reply(cell), kernel.reply(queued)] == ["KeyboardInterrupt", "ok"]
    assert kernel.printed(cell)[-1] == done
    kernel.printed(queued)
    assert kernel.run("print(received[-2:])") == ["[4, 'end of 4']"]


def test_queued_cells_run_even_if_an_interrupt_keeps_exit_from_running(kernel: Kernel) -> None:
    cell = kernel.begin("pump = EventPump().__enter__()\ntrain(pump)\nraise KeyboardInterrupt")
    queued = kernel.send("print(received)")
    kernel.send_event(3)
    assert [kernel.reply(cell), kernel.reply(queued)] == ["KeyboardInterrupt", "ok"]
    assert kernel.printed(queued) == ["[3]"]


def test_a_cell_that_a_broken_off_poll_left_in_the_socket_runs(kernel: Kernel) -> None:
    cell = kernel.begin(f"""
with EventPump() as pump:
    print("training", flush=True)
    assert pump._stream.socket.poll({1000 * TIMEOUT})  # sees it, so the stream is not told of it
""")
    queued = kernel.send("print('ran')")
    assert [kernel.reply(cell), kernel.reply(queued)] == ["ok", "ok"]
    assert kernel.printed(queued) == ["ran"]


def test_an_error_in_a_handler_ends_neither_the_loop_nor_the_pump(kernel: Kernel) -> None:
    kernel.run("react = lambda data: received.append(1 / data)")
    cell = kernel.begin(TRAIN + "print(pump.works)")
    kernel.send_event(0)
    kernel.send_event(2)
    assert kernel.printed(cell)[1:] == ["[0.5]", "True"]
    assert kernel.reply(cell) == "ok"


def test_a_kernel_that_fails_turns_the_pump_off_and_queued_cells_still_run(kernel: Kernel) -> None:
    cell = kernel.begin("""
kernel = get_ipython().kernel
with EventPump() as pump:
    kernel._publish_status = None
    train(pump, lambda: not pump.works)
    del kernel._publish_status
print(pump.works)
""")
    queued = kernel.send("print('ran')")
    kernel.send_event(3)
    assert [kernel.reply(cell), kernel.reply(queued)] == ["ok", "ok"]
    assert kernel.printed(cell)[-1] == "False"
    assert kernel.printed(queued) == ["ran"]


def test_an_event_that_a_front_end_sends_to_a_subshell_is_handled_while_the_cell_runs(
    kernel: Kernel,
) -> None:
    create = kernel.client.session.msg("create_subshell_request")
    kernel.client.control_channel.send(create)
    if kernel.run("print(ipykernel.version_info[0] > 6)") == ["False"]:
        pytest.skip("ipykernel 6 has no subshells")
    subshell = kernel.client.get_control_msg(timeout=TIMEOUT)["content"]["subshell_id"]
    cell = kernel.begin(TRAIN)
    kernel.send_event(3, subshell=subshell)
    assert kernel.printed(cell) == ["training", "[3]"]
    assert kernel.reply(cell) == "ok"


def test_in_another_thread_the_pump_does_nothing(kernel: Kernel) -> None:
    assert kernel.run("""
def in_thread():
    with EventPump(every=0) as pump:
        pump.poll()
    print(pump.works)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
""") == ["False"]


def test_outside_a_kernel_the_pump_does_nothing() -> None:
    with EventPump(every=0) as pump:
        pump.poll()
    assert not pump.works


@pytest.mark.parametrize("attributes", [{}, {"shell_stream": None}], ids=["none", "no stream"])
def test_with_a_kernel_of_another_kind_the_pump_does_nothing(
    monkeypatch: pytest.MonkeyPatch, attributes: dict
) -> None:
    async def cell() -> bool:
        loop = SimpleNamespace(asyncio_loop=asyncio.get_running_loop())
        shell = SimpleNamespace(kernel=SimpleNamespace(io_loop=loop, **attributes))
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)
        with EventPump(every=0) as pump:
            pump.poll()
        return pump.works

    assert not asyncio.run(cell())
