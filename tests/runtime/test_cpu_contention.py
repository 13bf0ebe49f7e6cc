"""Other work on the machine is noticed where it makes several threads slower than one."""

import pytest
import torch

from nbfinetune import Callback, Learner
from nbfinetune.runtime import cpu_contention

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_slowdown_is_told_with_what_to_type(monkeypatch) -> None:
    monkeypatch.setattr(cpu_contention, "thread_slowdown", lambda: 3.5)
    text = cpu_contention.contention_text(CPU)
    assert text == (
        "other work on this machine makes 2 threads 3.5 times slower than one: "
        "torch.set_num_threads(1) helps"
    )


@pytest.mark.usefixtures("two_threads")
def test_nothing_is_said_where_nothing_is_lost(monkeypatch) -> None:
    monkeypatch.setattr(cpu_contention, "thread_slowdown", lambda: 0.7)
    assert cpu_contention.contention_text(CPU) == ""


@pytest.mark.usefixtures("two_threads")
def test_the_ratio_is_that_of_the_measured_times(monkeypatch) -> None:
    now = [0.0]

    def conv(x: torch.Tensor, weight: torch.Tensor) -> None:
        now[0] += 6.0 if torch.get_num_threads() == 2 else 1.5

    monkeypatch.setattr(cpu_contention.torch, "conv2d", conv)
    monkeypatch.setattr(cpu_contention.time, "perf_counter", lambda: now[0])
    assert cpu_contention.thread_slowdown() == 4.0
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_is_given_back_on_an_interrupt(monkeypatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cpu_contention.torch, "conv2d", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cpu_contention.thread_slowdown()
    assert torch.get_num_threads() == 2


def test_one_thread_and_other_devices_are_not_measured(monkeypatch) -> None:
    monkeypatch.setattr(cpu_contention, "thread_slowdown", lambda: 1 / 0)
    assert cpu_contention.contention_text(torch.device("cuda")) == ""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert cpu_contention.contention_text(CPU) == ""


@pytest.fixture
def busy(monkeypatch, two_threads) -> None:
    """A busy machine, and torch that came first."""
    monkeypatch.setattr(cpu_contention, "thread_slowdown", lambda: 4.0)
    monkeypatch.setattr(cpu_contention.openmp, "is_set", lambda: False)


TAKEN = (
    "other work on this machine makes 2 threads 4.0 times slower than one: this run takes one; "
    "import nbfinetune before torch, and more do not slow each other"
)


class Threads(Callback):
    """Notes how many threads a run has."""

    def before_fit(self, learn: Learner) -> None:
        self.seen = torch.get_num_threads()


@pytest.mark.usefixtures("busy")
def test_a_run_beside_other_work_takes_one_thread_and_gives_it_back() -> None:
    run = cpu_contention.one_thread_if_busy(CPU)
    assert run.__enter__() == TAKEN
    assert torch.get_num_threads() == 1
    assert run.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is not True
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("busy")
def test_a_method_says_in_one_line_that_it_takes_one_thread(learn, capsys) -> None:
    threads = Threads()
    learn.fit(1, cbs=[threads])
    assert threads.seen == 1
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().out.splitlines()[0] == TAKEN


@pytest.mark.usefixtures("busy")
def test_threads_that_the_user_set_stay(monkeypatch) -> None:
    monkeypatch.setattr(cpu_contention.openmp, "is_set", lambda: True)
    with cpu_contention.one_thread_if_busy(CPU) as text:
        assert torch.get_num_threads() == 2
    assert text == ""
