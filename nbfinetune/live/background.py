"""Background runs: in a thread, which a magic lets end before it touches their learner."""

import threading
from time import sleep
from typing import TYPE_CHECKING

from nbfinetune.live.cell_errors import interrupted_as
from nbfinetune.live.event_pump import EventPump
from nbfinetune.training.control import RunControl, calls_that_are_on

__all__ = ["BackgroundRun", "RunControl", "calls_that_are_on", "wait_until_idle"]

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

_LOOK = 0.05  # seconds between two looks at a run in the background


class BackgroundRun(threading.Thread):
    """A run in the background, until its screen is closed too."""


def wait_until_idle(learn: "Learner") -> None:
    """Wait for the run of the learner that is on in another thread, if there is one."""
    thread = learn.control.thread
    if thread is None or thread is threading.current_thread():
        return
    print("waiting for the run that is on", flush=True)
    # A cell's thread goes on after its run.
    on = thread.is_alive if isinstance(thread, BackgroundRun) else lambda: learn.control.running
    text = "interrupted; the run goes on, %stop ends it"
    with EventPump() as pump, interrupted_as(text):  # for clicks; the run itself must not poll it
        while on():
            sleep(_LOOK)
            pump.poll()
