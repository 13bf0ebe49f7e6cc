"""CPU time a step and bytes a minute that the live screens cost, in a real kernel.

    python benchmarks/screens.py [--steps 300] [--rounds 5]

Steps of 20 ms that only sleep, so the kernel's CPU time is what screens cost; without and with a
screen in turn (A B B A). The bytes are those of all messages that a front end would get.
"""

import argparse
import json
from queue import Empty
from statistics import median

from jupyter_client.manager import start_new_kernel

SETUP = """
import time
from types import SimpleNamespace
import torch
from torch import nn
from nbfinetune import Callback, Learner, accuracy
from nbfinetune.live.screens import LiveSearch, LiveTraining, pumping_events
torch.set_num_threads(1)

class Sleep(Callback):
    "Keeps the CPU time at its tenth step, when the screen is open."
    done = 0
    def after_batch(self, learn):
        time.sleep(0.02)
        self.done += learn.training
        if self.done == 10:
            self.began = time.process_time(), time.perf_counter()

batch = torch.randn(4, 8), torch.tensor([0, 1, 0, 1])
def run(screen, steps):
    loaders = SimpleNamespace(train=[batch] * steps, valid=[batch], vocab=["a", "b"])
    sleep = Sleep()
    learn = Learner(loaders, nn.Linear(8, 2), metrics=accuracy, cbs=[sleep], device="cpu")
    started = time.process_time()
    if screen == "training":
        live = LiveTraining()
        with pumping_events(learn):
            learn.fit_one_cycle(1, 1e-3, cbs=[live], show=False)
    elif screen == "search":
        with pumping_events(learn):
            learn.lr_find(num_it=steps, stop_div=False,
                          cbs=[LiveSearch(1e-7, 10, steps), sleep], show=False)
    elif screen == "bare search":
        learn.lr_find(num_it=steps, stop_div=False, cbs=[sleep], show=False)
    else:
        learn.fit_one_cycle(1, 1e-3, show=False)
    used, lasted = time.process_time() - sleep.began[0], time.perf_counter() - sleep.began[1]
    if screen == "training":
        live.close()
    return 1000 * used / (steps - 10), lasted, 1000 * (sleep.began[0] - started)
"""


def run(client, screen: str, steps: int) -> tuple[float, float, float]:
    """CPU ms a step, MB a minute, CPU ms of the first ten steps and the opening."""
    received = [0]

    def count(message: dict) -> None:
        received[0] += sum(len(buffer) for buffer in message["buffers"])
        received[0] += len(json.dumps(message["content"], default=str))
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
        if message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))

    printed: list[str] = []
    client.execute_interactive(f"print(*run({screen!r}, {steps}))", output_hook=count, timeout=600)
    ms, seconds, opening = map(float, "".join(printed).split())
    return ms, received[0] / 1e6 / seconds * 60, opening


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    manager, client = start_new_kernel()
    try:
        client.execute_interactive(SETUP, timeout=120, output_hook=lambda message: None)
        for bare, live in (("none", "training"), ("bare search", "search")):
            run(client, live, 50)  # imports and first widgets
            costs, bytes_, opening = [], [], []
            for _ in range(args.rounds):
                # A B B A: what slowly changes on the machine is on both sides alike.
                without, first, second, again = (
                    run(client, screen, args.steps) for screen in (bare, live, live, bare)
                )
                costs.append((first[0] + second[0] - without[0] - again[0]) / 2)
                bytes_.append(second[1])
                opening.append(first[2] - without[2])
            print(
                f"{live}: the screen costs {median(costs):.3f} CPU ms a step "
                f"({min(costs):.3f} to {max(costs):.3f}), {median(costs) / 20:.2%} of a 20 ms "
                f"step; {median(bytes_):.2f} MB a minute with the opening, which takes "
                f"{median(opening):.0f} ms",
                flush=True,
            )
    except Empty:
        print("the kernel did not answer")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
