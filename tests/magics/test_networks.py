"""The magic that compares networks: what a line means, what it shows, and how it is stopped."""

import signal
from collections.abc import Iterator

import ipywidgets
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbfinetune import Learner, NetworkComparison, vision_learner
from nbfinetune.comparison.progress import ComparisonScreen
from nbfinetune.live import comparison_runs
from nbfinetune.live.cell_errors import Interrupted
from nbfinetune.live.comparison_runs import LiveComparison
from nbfinetune.rendering.tables import Table

LINE = "efficientnet_lite0, 'efficientnet_lite1'"


@pytest.fixture
def ip(shell, dls) -> Iterator[InteractiveShell]:
    """A shell with the magics, and data called `photos`."""
    shell.reset()
    shell.run_line_magic("load_ext", "nbfinetune")
    shell.push({"photos": dls})
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


@pytest.fixture
def shown(monkeypatch) -> list:
    """What a kernel displays, and what it is replaced by."""
    all_shown = []

    class Handle:
        update = all_shown.append

    def display(value: object, display_id: bool = False) -> Handle:
        all_shown.append(value)
        return Handle()

    for module in ("displayed", "comparison_runs"):
        monkeypatch.setattr(f"nbfinetune.live.{module}.display", display)
    for module in ("training_runs", "comparison_runs"):
        monkeypatch.setattr(f"nbfinetune.live.{module}.kernel_runs", lambda: True)
    return all_shown


def test_a_terminal_has_a_line_for_each_network_and_the_result(ip, capsys) -> None:
    found = ip.run_line_magic("networks", f"{LINE} --sizes (32, 40)")
    assert isinstance(found, NetworkComparison)
    assert len(capsys.readouterr().out.splitlines()) == len(found.networks) == 4
    assert found.lines[0].startswith("learn = vision_learner(photos")
    assert ip.run_line_magic("networks", "efficientnet_lite0 --max-n 6;") is None
    assert ip.user_ns["photos"].size == 32


def data_of(ip: InteractiveShell, line: str = "") -> str:
    return ip.run_line_magic("networks", f"efficientnet_lite0 {line}").of_dls[0]


def test_data_is_found_by_name_by_default_and_in_a_learner(ip, dls, tiny_net, monkeypatch) -> None:
    monkeypatch.setattr(
        comparison_runs, "compare", lambda plan, screen: NetworkComparison.of(plan, [], [])
    )
    assert data_of(ip) == "photos"
    ip.push({"dls": dls.with_size(24)})
    assert (data_of(ip), data_of(ip, "--dls photos")) == ("dls", "photos")
    ip.user_ns["others"] = ip.user_ns.pop("dls")
    with pytest.raises(UsageError, match=r"data here: .*; say which: --dls"):
        data_of(ip)
    with pytest.raises(UsageError, match="no 'nope', not ImageDataLoaders; data here"):
        data_of(ip, "--dls nope")
    ip.user_ns.pop("others")
    ip.user_ns.pop("photos")
    ip.push({"mine": vision_learner(dls, tiny_net, device="cpu")})
    assert data_of(ip) == "mine.dls"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no network is named; give some, such as efficientnet_lite0 or resnet34"),
        ("resnet43 efficientnet_lite0", "no network is called 'resnet43'; did you mean resnet34"),
        ("efficientnet_lite0 --sizes 2x", "--sizes 2x: give whole numbers, such as 160,224"),
        ("efficientnet_lite0 --sizes 0", "size is 0; it must be a whole number from 1 up"),
        ("efficientnet_lite0 --size 32 --dls nope", "no 'nope', not ImageDataLoaders; data here"),
        ("efficientnet_lite0 --max_n 1", "max_n is 1; it must be a whole number from 3 up"),
        ("efficientnet_lite0 --top 3", "%networks has no option --top; "),
    ],
)
def test_bad_lines_end_in_one_line_before_anything_runs(ip, monkeypatch, line, message) -> None:
    monkeypatch.setattr(comparison_runs, "compare", None)  # which would fail if it were called
    with pytest.raises(UsageError, match=message):
        ip.run_line_magic("networks", line)
    assert not [k for k, v in ip.user_ns.items() if isinstance(v, NetworkComparison)]


def test_without_data_it_is_said_what_to_make(ip) -> None:
    ip.user_ns.pop("photos")
    with pytest.raises(UsageError, match="there is no data here; make some: dls = ImageDataLoader"):
        ip.run_line_magic("networks", "efficientnet_lite0")


def test_networks_none_of_which_can_be_had_end_in_one_line(ip, monkeypatch) -> None:
    def offline(name: str, **options) -> None:
        raise OSError("no net")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(UsageError, match="no network can be compared: resnet18: the weights of re"):
        ip.run_line_magic("networks", "resnet18")


def test_a_screen_grows_and_gives_way_to_what_was_found(ip, shown) -> None:
    found = ip.run_line_magic("networks", LINE)
    screen = shown[0]
    assert isinstance(screen, ipywidgets.VBox)
    assert "what was found stays" in repr(screen)
    assert shown[1:] == [found]
    assert screen.comm is None  # the widget is gone from both sides


def test_the_stop_button_keeps_what_is_done(ip, shown, monkeypatch) -> None:
    before = LiveComparison.before_batch

    def click(self: LiveComparison, learn: Learner) -> None:
        before(self, learn)
        if self.found:
            self.plot.children[0].children[0].click()

    monkeypatch.setattr(LiveComparison, "before_batch", click)
    found = ip.run_line_magic("networks", LINE)
    assert (len(found.networks), found.stopped) == (1, True)
    assert shown[-1] is found


def test_the_screen_says_how_far_it_is(ip, dls, shown, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(comparison_runs, "monotonic", lambda: now[0])
    screen = LiveComparison(lambda: None)
    now[0] = 10.0
    screen.show(0.25, "resnet18 at 224 px, 1 of 2, 00:30 left")
    stop, bar, label = screen.plot.children[0].children
    assert (stop.description, bar.value, label.value[:8]) == ("Stop", 0.25, "resnet18")
    screen.show(0.26, "at once")
    assert bar.value == 0.25  # two draws a second
    screen.plot.close()
    now[0] = 20.0
    screen.show(0.5, "a closed one ends nothing")


@pytest.mark.parametrize("how", ["", "--no-widgets"])
def test_an_interrupt_shows_what_is_done_and_ends_the_cell_in_a_line(
    ip, shown, monkeypatch, how: str
) -> None:
    def interrupt(self: ComparisonScreen, learn: Learner) -> None:
        if self.found:
            signal.raise_signal(signal.SIGINT)

    for screen in (LiveComparison, comparison_runs._Notebook):
        monkeypatch.setattr(screen, "before_batch", interrupt)
    with pytest.raises(Interrupted, match=r"interrupted after 1 of 2; nothing else was changed"):
        ip.run_line_magic("networks", f"{LINE} {how}")
    assert isinstance(shown[-1], NetworkComparison)
    assert len(shown[-1].networks) == 1


def test_a_cell_without_widgets_has_the_table_and_a_static_one_the_end_alone(
    ip, shown, monkeypatch
) -> None:
    found = ip.run_line_magic("networks", f"{LINE} --no-widgets")
    assert [type(value) for value in shown] == [Table] * 2 + [NetworkComparison]
    assert shown[-1] is found
    shown.clear()
    monkeypatch.setenv("NBFINETUNE_STATIC", "1")
    found = ip.run_line_magic("networks", "efficientnet_lite0")
    assert shown == [found]
