"""Interrupts: one at any point, and a second one at once, leaves nothing half done."""

import random
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nbfinetune import Callback, Learner, vision_learner
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.runtime import allocator, rng
from nbfinetune.runtime.interrupts import defers_interrupts, interrupts_held

POINTS = 8  # at which signals are injected, of each operation
SIGNALS = 250  # real ones, of each operation, singly and again in pairs


@pytest.fixture(scope="module")
def loaders(photos: Path) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=16, bs=4)


def make(loaders: ImageDataLoaders, **options) -> Learner:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 3))
    return vision_learner(loaders, net, device="cpu", **options)


def bits(learn: Learner) -> bytes:
    """The weights and buffers."""
    state = learn.model.state_dict().values()
    return b"".join(v.detach().contiguous().flatten().view(torch.uint8).numpy() for v in state)


class Steps(Callback):
    """The weights at each event that a run can end at, and those after each of its steps."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.after: dict[tuple[str, int], bytes] = {}

    def _look(self, learn: Learner) -> None:
        run = learn.recorder.run
        self.after[run.name, len(run.lrs)] = bits(learn)
        self.seen.add(bits(learn))

    before_fit = before_batch = after_batch = after_train = after_epoch = after_fit = _look


@dataclass(frozen=True)
class Operation:
    """What is interrupted.

    Parameters
    ----------
    do : the operation
    broken : says, from a learner and its weights before, which promise of its own is broken
    options : of the learner
    """

    do: Callable[[Learner], object]
    broken: Callable[[Learner, Learner], str]
    options: dict


def _whole_step(learn: Learner, before: Learner) -> str:
    run = learn.recorder.runs[-1] if len(learn.recorder.runs) > len(before.recorder.runs) else None
    expected = _steps_of(before).after[run.name, len(run.lrs)] if run else bits(before)
    return "" if bits(learn) == expected else "weights are not those of the last step recorded"


def _some_step(learn: Learner, before: Learner) -> str:
    whole = bits(learn) in _steps_of(before, "fine_tune").seen | {bits(before)}
    return "" if whole else "weights are of no whole step"


_STEPS: dict[tuple, Steps] = {}


def _steps_of(before: Learner, what: str = "fit") -> Steps:
    """The steps of the same operation when nothing interrupts it."""
    key = what, before.train_bn
    if key not in _STEPS:
        steps, learn = Steps(), deepcopy(before)
        learn.cbs = [steps]
        with learn.quiet():
            _fit(learn) if what == "fit" else _fine_tune(learn)
        _STEPS[key] = steps
    return _STEPS[key]


def _same(learn: Learner, before: Learner) -> str:
    same = bits(learn) == bits(before) and _optimizer(learn) == _optimizer(before)
    same &= len(learn.recorder.runs) == len(before.recorder.runs) and learn.frozen == before.frozen
    return "" if same else "the learner has changed"


def _optimizer(learn: Learner) -> list:
    states = learn.opt.state_dict()["state"]
    return [(i, k, torch.as_tensor(v).tolist()) for i, s in states.items() for k, v in s.items()]


def _file(learn: Learner) -> Path:
    return learn.dls.folder_of_tests / "model.safetensors"


def _loaded(learn: Learner, before: Learner) -> str:
    there = make(learn.dls)
    there.load(_file(learn))
    all_of_it = bits(learn) == bits(there) and _optimizer(learn) == _optimizer(there)
    return "" if all_of_it or not _same(learn, before) else "a part was loaded"


def _saved(learn: Learner, before: Learner) -> str:
    left = [file.name for file in _file(learn).parent.iterdir() if ".part" in file.name]
    make(learn.dls).load(_file(learn))  # a whole one, of before or of now
    return f"left: {left}" if left else _same(learn, before)


def _fit(learn: Learner) -> None:
    learn.fit_one_cycle(2, 1e-2)


def _fine_tune(learn: Learner) -> None:
    learn.fine_tune(1, 1e-2, freeze_epochs=1)


def _freeze(learn: Learner) -> None:
    for _ in range(10):  # else few signals would come in time
        learn.freeze_to(1, quiet=True)
        learn.freeze_to(0, quiet=True)


def _load(learn: Learner) -> None:
    for _ in range(3):
        learn.load(_file(learn))


def _save(learn: Learner) -> None:
    for _ in range(3):
        learn.save(_file(learn), overwrite=True)


OPERATIONS = {
    "fit": Operation(_fit, _whole_step, {}),
    "fit with statistics that move": Operation(_fit, _whole_step, {"train_bn": True}),
    "fine_tune": Operation(_fine_tune, _some_step, {}),
    "lr_find": Operation(lambda learn: learn.lr_find(num_it=8, verify=2), _same, {}),
    "validate": Operation(lambda learn: learn.validate(), _same, {}),
    "get_preds": Operation(lambda learn: learn.get_preds("train", with_loss=True), _same, {}),
    "freeze": Operation(_freeze, lambda learn, before: "", {}),
    "load": Operation(_load, _loaded, {}),
    "save": Operation(_save, _saved, {}),
}


@pytest.fixture(params=OPERATIONS)
def case(request, loaders: ImageDataLoaders, tmp_path: Path) -> tuple[Operation, Learner]:
    operation = OPERATIONS[request.param]
    loaders.folder_of_tests = tmp_path
    learn = make(loaders, **operation.options)
    with learn.quiet():
        learn.fit(1, 1e-2)
    learn.save(_file(learn))
    with learn.quiet():
        learn.fit(1, 1e-2)
    return operation, learn


def case_name(case: tuple[Operation, Learner]) -> str:
    return next(name for name, operation in OPERATIONS.items() if operation is case[0])


def numbers() -> tuple:
    """Where the session's random numbers are."""
    return random.getstate(), np.random.get_state()[1].tobytes(), bytes(torch.get_rng_state())


def broken(learn: Learner, outside: tuple) -> Iterator[str]:
    """The promises of every operation that are broken, by their names."""
    modules = list(learn.model.modules())
    trains = [any(p.requires_grad for m in g for p in m.parameters()) for g in learn.groups]
    yield from (
        what
        for what, kept in {
            "gradients are on": torch.is_grad_enabled(),
            "autocast is off": not torch.is_autocast_enabled("cpu"),
            "the session's random numbers are as before": numbers() == outside,
            "nobody holds the generators": not rng._asking,
            "memory is given back": not allocator._inside,
            "no run is on": not learn.control.running and not learn.training,
            "all modules are in eval mode": not any(m.training for m in modules),
            "no gradient is left": all(p.grad is None for p in learn.model.parameters()),
            "no hook is left": not any(m._forward_hooks or m._forward_pre_hooks for m in modules),
            "frozen is what is frozen": learn.train_bn or learn.frozen == trains.index(True),
        }.items()
        if not kept
    )
    for run in learn.recorder.runs:
        series = run.lrs, run.moms, run.seconds, run.losses, run.smooth
        if len({len(part) for part in series}) > 1:
            yield f"the history holds together: {[len(part) for part in series]}"
        if not len(run.rows) == len(run.row_steps) == len(run.weakest):
            yield "the epochs hold together"
        if run.status == "running":
            yield "no run is on in the history"


@contextmanager
def handled(handler: object) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
        assert signal.getsignal(signal.SIGINT) == handler, "the handler is given back"
    finally:
        signal.signal(signal.SIGINT, before)


class _Once:
    """A handler that raises once in each attempt, so that the test itself is left in peace."""

    armed = False

    def __call__(self, signum: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


def attempt(operation: Operation, learn: Learner, inject: Callable[[], object]) -> list[str]:
    """Do it once to a copy, interrupted; what is broken, and "interrupted" if it was."""
    copy, once = deepcopy(learn), _Once()
    outside, said = numbers(), []
    with handled(once), copy.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject()
        try:
            once.armed = True
            operation.do(copy)
            once.armed = False
        except KeyboardInterrupt:
            said.append("interrupted")
        except BaseException as error:
            once.armed = False
            said.append(f"no error but the interrupt: {error!r}")
        finally:
            sys.setprofile(None)
    interrupted = "interrupted" in said
    own = operation.broken(copy, learn) if interrupted else ""
    return said + list(broken(copy, outside)) + ([own] if own else [])


def injecting(at: int, presses: int, count: list[int]) -> None:
    """Signals at a point where Python looks for some: a function's begin, or after one of C."""
    signal_now = signal.raise_signal

    def profile(frame: object, event: str, arg: object) -> None:
        if event not in ("call", "c_return"):
            return
        count[0] += 1
        if count[0] == at:
            sys.setprofile(None)
            for _ in range(presses):
                signal_now(signal.SIGINT)

    sys.setprofile(profile)


@pytest.mark.fault("a signal, or two at once, at any point", "nothing is half done")
@pytest.mark.parametrize("presses", [1, 2], ids=["once", "twice"])
def test_a_signal_at_any_point_leaves_nothing_half_done(case, presses, record_property) -> None:
    operation, learn = case
    count = [0]
    attempt(operation, learn, lambda: injecting(0, 0, count))
    points = random.Random(presses).sample(range(1, count[0]), POINTS)
    said = Counter()
    for at in points:
        said.update(attempt(operation, learn, lambda at=at: injecting(at, presses, [0])))
    record_property("seen", f"{case_name(case)}: {said['interrupted']} of {POINTS} acted")
    assert set(said) <= {"interrupted"}, said


_SENDER = """
import os, signal, sys, time
for line in sys.stdin:
    delay, *gaps = map(float, line.split())
    for wait in (delay, *gaps):
        time.sleep(wait)
        os.kill(os.getppid(), signal.SIGINT)
    print(flush=True)
"""


@pytest.fixture(scope="module")
def sender() -> Iterator[subprocess.Popen]:
    """Sends signals from outside, as a front end does."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _SENDER], **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.bulk
@pytest.mark.fault("real signals at random times", "nothing is half done")
@pytest.mark.parametrize("presses", [1, 2], ids=["once", "twice"])
def test_real_signals_leave_nothing_half_done(case, presses, sender, record_property) -> None:
    operation, learn = case
    draw, said, seconds = random.Random(presses), Counter(), []
    for _ in range(3):
        copy, began = deepcopy(learn), perf_counter()
        with copy.quiet():
            operation.do(copy)
        seconds.append(perf_counter() - began)
    for i in range(SIGNALS // presses):

        def send() -> None:
            gaps = [draw.uniform(0, 0.002) for _ in range(presses - 1)]
            times = [draw.uniform(0, min(seconds)), *gaps]
            sender.stdin.write(" ".join(map(str, times)) + "\n")
            sender.stdin.flush()

        with handled(lambda signum, frame: None):  # those that come too late
            said.update(attempt(operation, learn, send))
            sender.stdout.readline()
        if i % 50 == 0:
            again = deepcopy(learn)
            with again.quiet():
                assert again.fit(1, 1e-3).status == "finished"
    sent = SIGNALS // presses * presses
    record_property("seen", f"{sent} in {case_name(case)}, {said['interrupted']} acted")
    assert set(said) <= {"interrupted"}, said


class Press(Callback):
    """Signals in an event of the step with this number."""

    def __init__(self, step: int, presses: int = 1, event: str = "before_batch") -> None:
        self.step, self.presses, self.n = step, presses, 0
        setattr(self, event, self._press)

    def _press(self, learn: Learner) -> None:
        self.n += 1
        if self.n == self.step:
            for _ in range(self.presses):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def pressed() -> Iterator[None]:
    with handled(signal.default_int_handler):
        yield


@pytest.mark.fault("a signal in a batch", "the batch is done, its step recorded, and no more")
def test_a_first_interrupt_lets_the_batch_end(loaders, pressed) -> None:
    learn = make(loaders)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 1e-2, cbs=[Press(2)], show=False)
    assert (learn.recorder.run.status, len(learn.recorder.run.losses)) == ("interrupted", 2)


@pytest.mark.fault("a second signal in a step that hangs", "the step ends, nothing of it is left")
def test_a_second_interrupt_ends_a_step_that_hangs(loaders, pressed) -> None:
    learn = make(loaders, train_bn=True)
    steps, hangs = Steps(), []

    def hang(module: nn.Module, inputs: tuple, out: Tensor) -> None:
        if module.training and len(learn.recorder.run.lrs) == 2:
            hangs.append(threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]))
            signal.raise_signal(signal.SIGINT)
            hangs[0].start()
            while True:
                pass

    hook = learn.model.register_forward_hook(hang)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 1e-2, cbs=[steps], show=False)
    hook.remove()
    hangs[0].join()
    assert bits(learn) == steps.after["fit", 2]
    assert len(learn.recorder.run.losses) == 2


@pytest.mark.fault("a second signal in the optimizer's step", "the step is whole, and recorded")
def test_no_interrupt_cuts_the_step_of_the_optimizer(loaders, pressed) -> None:
    learn = make(loaders)
    expected = Steps()
    deepcopy(learn).fit(1, 1e-2, cbs=[expected], show=False)
    step, n = learn.opt.step, []

    def stepped(*args) -> None:
        n.append(1)
        for _ in range(3 * (len(n) == 2)):
            signal.raise_signal(signal.SIGINT)
        step(*args)

    learn.opt.step = stepped
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, 1e-2, show=False)
    assert bits(learn) == expected.after["fit", 2]
    assert len(learn.recorder.run.losses) == 2


@pytest.mark.fault("three signals while a search is put back", "it is put back")
def test_a_search_is_put_back_however_often_one_presses(loaders, pressed) -> None:
    learn = make(loaders)
    learn.fit(1, 1e-2, show=False)
    before = deepcopy(learn)

    class Pressing(dict):
        def clear(self) -> None:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            super().clear()

    class Swap(Callback):
        def after_fit(self, learn: Learner) -> None:
            learn.opt.state = Pressing(learn.opt.state)

    with pytest.raises(KeyboardInterrupt):
        learn.lr_find(num_it=8, verify=0, cbs=[Swap()], show=False)
    assert _same(learn, before) == ""


@pytest.mark.fault("a signal while a run is paused", "it ends at once")
def test_a_paused_run_is_interrupted_at_once(loaders, pressed) -> None:
    learn = make(loaders)
    learn.control.on_pause = lambda paused: paused and signal.raise_signal(signal.SIGINT)

    class Pause(Callback):
        def before_batch(self, learn: Learner) -> None:
            learn.control.pause()

    with pytest.raises(KeyboardInterrupt):
        learn.fit(2, 1e-2, cbs=[Pause()], show=False)
    assert len(learn.recorder.run.losses) == 1


@pytest.mark.fault("a handler of the user's that only takes note", "it is called, the run goes on")
def test_a_handler_that_does_not_raise_is_called_once_for_each_signal(loaders) -> None:
    noted = []

    def note(signum: int, frame: object) -> None:
        noted.append(signum)

    learn = make(loaders)
    with handled(note):
        assert learn.fit(1, 1e-2, cbs=[Press(2, presses=3)], show=False).status == "finished"
    assert noted == [signal.SIGINT] * 3


@pytest.mark.fault("a signal that the process ignores", "it is ignored")
def test_signals_that_are_ignored_stay_ignored(loaders) -> None:
    with handled(signal.SIG_IGN):
        done = make(loaders).fit(1, 1e-2, cbs=[Press(2, presses=3)], show=False)
    assert done.status == "finished"


@pytest.mark.fault("an interrupt that a callback catches", "the next one acts as the first")
def test_after_an_interrupt_that_was_caught_the_next_one_waits_too(loaders, pressed) -> None:
    class Catch(Press):
        def _press(self, learn: Learner) -> None:
            try:
                super()._press(learn)
            except KeyboardInterrupt:
                self.n = self.step

    learn = make(loaders)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, 1e-2, cbs=[Catch(1, presses=2), Press(2)], show=False)
    assert len(learn.recorder.run.losses) == 2


@pytest.mark.fault("a signal while another thread trains", "the thread's run goes on")
def test_a_run_in_another_thread_is_not_interrupted(loaders, pressed) -> None:
    learn, on = make(loaders), threading.Event()

    class On(Callback):
        def before_batch(self, learn: Learner) -> None:
            on.set()

    fit = threading.Thread(target=learn.fit, args=(4, 1e-2), kwargs={"cbs": [On()], "show": False})

    @defers_interrupts
    def wait_for_it() -> None:
        fit.start()
        on.wait()
        signal.raise_signal(signal.SIGINT)
        fit.join()

    with pytest.raises(KeyboardInterrupt):
        wait_for_it()
    assert learn.recorder.run.status == "finished"


@pytest.mark.fault("an error of a batch, and a signal before it", "it is called interrupted")
def test_an_error_after_a_signal_is_an_interrupt(loaders, pressed) -> None:
    """As of processes that load, which the front end interrupts too."""
    learn = make(loaders)

    class Fail(Callback):
        def before_batch(self, learn: Learner) -> None:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("a worker exited")

    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, 1e-2, cbs=[Fail()], show=False)
    assert learn.recorder.run.status == "interrupted"


@pytest.mark.fault("a signal in a magic that predicts", "one line, no traceback")
@pytest.mark.parametrize("magic", ["confusion_matrix", "label_issues", "fine_tune"])
def test_an_interrupted_magic_ends_with_one_line(shell, loaders, pressed, magic: str) -> None:
    shell.run_line_magic("load_ext", "nbfinetune")
    learn = shell.user_ns["learn"] = make(loaders)
    prepare = learn.prepare

    def pressing(x: Tensor, *, training: bool) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return prepare(x, training=training)

    learn.prepare = pressing
    try:
        with pytest.raises(Interrupted) as caught:
            shell.run_line_magic(magic, "1" if magic == "fine_tune" else "--no-widgets")
        assert len(caught.value._render_traceback_()) == 1
        assert not learn.control.running
    finally:
        shell.run_line_magic("unload_ext", "nbfinetune")
        del shell.user_ns["learn"]


@pytest.mark.fault("a fit that keeps its best epoch is interrupted", "its weights, as after Stop")
def test_interrupt_and_stop_keep_the_same_weights(loaders, pressed) -> None:
    class StopAt(Press):
        def _press(self, learn: Learner) -> None:
            self.n += 1
            if self.n == self.step:
                learn.control.stop()

    ends = []
    for cb in (Press(9), StopAt(9)):
        learn = make(loaders)
        try:
            learn.fit(3, 1e-2, keep_best=True, cbs=[cb], show=False)
        except KeyboardInterrupt:
            assert learn.recorder.run.status == "interrupted"
        ends.append(bits(learn))
    assert ends[0] == ends[1]


@pytest.mark.fault("two signals while the generators are seeded or put back", "they are put back")
@pytest.mark.parametrize("nth", [1, 2])
def test_the_generators_are_taken_and_given_whole(monkeypatch, pressed, nth: int) -> None:
    real, calls, outside = rng.set_rng_state, [], numbers()

    def pressing(state: dict) -> None:
        calls.append(1)
        if len(calls) == nth:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        real(state)

    monkeypatch.setattr(rng, "set_rng_state", pressing)
    state = rng.get_rng_state()

    def draw() -> None:
        with rng.seeded_rng(state):
            torch.rand(1)

    with pytest.raises(KeyboardInterrupt):
        draw()
    assert not rng._asking
    assert numbers() == outside


@pytest.mark.fault("two runs in threads at once", "each has the losses of its seed")
def test_two_runs_in_threads_draw_the_numbers_of_their_seeds(loaders) -> None:
    first, second = (make(loaders, cache_features=False, seed=seed) for seed in (1, 2))
    alone = [deepcopy(learn) for learn in (first, second)]
    both = threading.Barrier(2, timeout=30)

    class Together(Callback):
        def before_fit(self, learn: Learner) -> None:
            if len(rng._asking) < 2:  # until the other one waits for its turn
                threading.Event().wait(0.2)

    outside = numbers()
    fits = [
        threading.Thread(
            target=lambda learn=learn, n=n: (
                both.wait(),
                learn.fit(n, 1e-2, cbs=[Together()], show=False),
            )
        )
        for learn, n in ((first, 8), (second, 11))
    ]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join()
    assert numbers() == outside
    for learn, again, n in zip((first, second), alone, (8, 11), strict=True):
        again.fit(n, 1e-2, show=False)
        assert learn.recorder.run.losses == again.recorder.run.losses


def test_what_is_held_acts_afterwards_however_many_come(pressed) -> None:
    done = []

    def press() -> None:
        with interrupts_held():
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        press()
    assert done == ["whole"]
