"""Background runs: in a thread, which a magic lets end before it touches their learner."""

import threading
from time import sleep
from typing import TYPE_CHECKING

from nbfinetune.live.cell_errors import interrupted_as
from nbfinetune.live.event_pump import EventPump
from nbfinetune.runtime.interrupts import act_on_interrupt
from nbfinetune.training.control import RunControl, calls_that_are_on

__all__ = ["BackgroundRun", "RunControl", "calls_that_are_on", "wait_until_idle"]

if TYPE_CHECKING:
    from nbfinetune.learner import Learner

LOOK = 0.05  # seconds between two looks at a run in the background
GOES_ON = "interrupted; the run goes on, %stop ends it"


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
    # The pump is for clicks; the run itself must not poll it.
    with EventPump() as pump, interrupted_as(GOES_ON):
        while on():
            sleep(LOOK)
            pump.poll()
            act_on_interrupt()
