import signal
import time

import pytest
from IPython.core.error import UsageError

from nbfinetune.cluster import answering, overview
from nbfinetune.cluster import engines as engines_module
from nbfinetune.cluster.overview import change, states
from nbfinetune.rendering.tables import Table


@pytest.fixture
def ip(shell, local_engines):
    """A shell with the magics, and two engines."""
    local_engines(2)
    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


def rows(table: Table) -> list[str]:
    return ["".join(row[0:1] + row[5:]) for row in table.rows]


def test_the_magic_and_the_learner_show_hosts_devices_and_states(ip, learn, local_engines) -> None:
    two = local_engines(2)
    shown = ip.run_line_magic("cluster", "")
    assert rows(shown) == ["local: 2 workers on 1 host", "0ready", "1ready"]
    assert [row[2] for row in shown.rows[1:]] == [str(two.info(rank).pid) for rank in (0, 1)]
    assert shown.rows[1][3] == two.info(0).device
    assert repr(learn.cluster) == repr(shown)
    assert ip.run_line_magic("cluster", ";") is None
    assert rows(ip.run_line_magic("cluster", "--workers 2")) == rows(shown)


def begin() -> None:
    answering.busy = lambda: True


def end() -> None:
    answering.busy = lambda: False


def test_a_run_is_shown_and_not_stopped_unless_forced(ip, local_engines) -> None:
    two = local_engines(2)
    two.call(1, begin).get(10)
    assert rows(ip.run_line_magic("cluster", ""))[1:] == ["0ready", "1at work"]
    with pytest.raises(UsageError, match=r"a run is on in local; end it with %stop, or type: %cl"):
        ip.run_line_magic("cluster", "--stop")
    two.call(1, end).get(10)


def test_a_hung_worker_is_shown_as_one(local_engines, monkeypatch) -> None:
    monkeypatch.setattr(overview, "_PATIENCE", 0.3)
    two = local_engines(2)
    two.signal(0, signal.SIGSTOP)
    time.sleep(0.2)
    try:
        assert states(two) == ["no answer", "ready"]
    finally:
        two.signal(0, signal.SIGCONT)
    two.call(0, answering.nothing).get(10)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--workers 0", "workers is 0; it must be 1 or more"),
        ("--workers 2 --stop", "type --workers N, --cluster PROFILE or both, or --stop"),
        ("--force", "type --workers N"),
        ("--cluster none-of-these", "there is no profile 'none-of-these' in .+; type: ipython pro"),
    ],
)
def test_lines_that_cannot_be_end_in_one_line(ip, line, message) -> None:
    with pytest.raises(UsageError, match=message):
        ip.run_line_magic("cluster", line)


def test_stopping_ends_all_and_says_what(ip, local_engines, monkeypatch, capsys) -> None:
    assert ip.run_line_magic("cluster", "--stop") is None
    assert capsys.readouterr().out == "ended: local (2 workers)\n"
    assert engines_module._pools == []
    assert change(stop=True) == "there is no cluster"
    assert change().title == "there is no cluster"
