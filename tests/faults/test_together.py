"""What goes on together: runs beside closed widgets, deleted learners, copies and other threads."""

import gc
import threading
import time
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import anywidget
import ipywidgets
import pytest
from IPython.core.error import UsageError
from ipywidgets.widgets import widget as widgets
from jupyter_client.manager import start_new_kernel
from torch import nn

from nbfinetune import Callback, Learner
from nbfinetune.live.screens import LiveSearch, LiveTraining
from nbfinetune.magics.lines import control_of_line
from nbfinetune.training.control import calls_that_are_on
from nbfinetune.widgets.disposal import dispose, is_open
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.status import Status

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("shell"),
]
_LONGEST = 20  # seconds; what takes longer hangs


@pytest.fixture
def seen(record_property) -> Callable[[str], None]:
    return lambda text: record_property("seen", text)


class Does(Callback):
    """Does something after a training batch, once."""

    def __init__(self, what: Callable[[Learner], object], at: int = 2) -> None:
        self.what, self.at, self.gave = what, at, None

    def after_batch(self, learn: Learner) -> None:
        if learn.training and self.gave is None and len(learn.recorder.run.lrs) >= self.at:
            self.gave = (self.what(learn),)


def all_children(screen: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    return [*screen.children, *(w for c in screen.children for w in getattr(c, "children", ()))]


CLOSED = {
    "the screen": lambda screen: screen.close(),
    "all widgets": lambda screen: ipywidgets.Widget.close_all(),
    "its parts alone": lambda screen: [w.close() for w in all_children(screen)],
    "its first part": lambda screen: screen.children[0].close(),
    "its layout": lambda screen: screen.layout.close(),
}


@pytest.mark.fault("a screen closed while its run is on, in part or as a whole", "the run goes on")
@pytest.mark.parametrize("closed", CLOSED)
def test_a_run_goes_on_without_its_screen(learn, monkeypatch, seen, closed: str) -> None:
    screen = LiveTraining()
    monkeypatch.setattr("nbfinetune.live.screens._INTERVAL", 0.0)  # draws each time
    monkeypatch.setattr("nbfinetune.live.screens._SHARE", 0)
    monkeypatch.setattr("nbfinetune.live.screens._BYTES_A_SECOND", 1e12)
    close = Does(lambda learn: CLOSED[closed](screen.plot))
    learn.fine_tune(2, freeze_epochs=1, cbs=[screen, close], show=False)
    assert close.gave
    assert [run.status for run in learn.recorder.runs] == ["finished", "finished"]
    assert screen.runs == learn.recorder.runs
    screen.close("done")
    assert screen.plot.comm is None
    seen("finished, finished")


@pytest.mark.fault("the plot of a search closed while it is on", "the search goes on")
def test_a_search_goes_on_without_its_plot(learn, seen) -> None:
    screen = LiveSearch(1e-5, 1.0, 40)
    close = Does(lambda learn: screen.plot.close())
    found = learn.lr_find(num_it=40, verify=0, cbs=[screen, close], show=False)
    screen.show(found, 1e-3, "found", None, lambda lr: "")
    screen.close("the end")
    assert close.gave
    assert len(found.losses) > 10
    seen(f"{len(found.losses)} steps")


def test_an_error_of_an_open_screen_is_not_hidden(learn) -> None:
    screen = LiveTraining()

    def broken(learn: Learner) -> None:
        screen.plot.show_ended = 1 / 0

    screen._begin = broken
    with pytest.raises(ZeroDivisionError):
        learn.fit(1, cbs=[screen], show=False)


@pytest.mark.fault("a closed screen displayed again", "it opens again, with all its parts")
def test_a_closed_screen_opens_again(seen) -> None:
    parts = [Status(), ipywidgets.HBox([ipywidgets.Label("a")])]
    screen = Screen(parts)
    screen.close()
    everything = [screen, *parts, parts[1].children[0], screen.layout]
    assert all(w.comm is None for w in everything)
    assert screen._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
    assert is_open(screen)
    assert all(w.comm is not None for w in everything)
    screen.close()
    seen(f"{len(everything)} parts")


@pytest.mark.fault("widgets made and closed", "neither side keeps them")
def test_closed_widgets_are_freed(seen) -> None:
    Screen().close()  # with the first one a widget opens that stays
    open_before, gone = len(widgets._instances), []
    for _ in range(3):
        screen = Screen([Status(), ipywidgets.Label("a")])
        gone.append(weakref.ref(screen.children[0]))
        dispose(screen)
        del screen
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert len(widgets._instances) == open_before
    seen("3 of 3 freed")


@pytest.mark.fault("scripts of widgets in files", "no widget is kept by its file")
def test_no_widget_is_kept_by_the_file_of_its_script(seen) -> None:
    import nbfinetune.widgets.confusion_matrix
    import nbfinetune.widgets.training_plot  # noqa: F401

    # anywidget lets a file that may change keep each widget, for as long as the process lives.
    todo, ours = [anywidget.AnyWidget], []
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        ours += [cls] if cls.__module__.startswith("nbfinetune.") else []
    assert len(ours) > 5
    sources = [vars(cls)[key] for cls in ours for key in ("_esm", "_css") if key in vars(cls)]
    assert not [source for source in sources if type(source).__name__ == "FileContents"]
    seen(f"{len(ours)} classes")


@pytest.fixture
def trained_in_thread(learn) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=lambda: learn.fit(10**6, show=False), daemon=True)
    thread.start()
    until = time.monotonic() + _LONGEST
    while not (learn.control.running and learn.recorder.runs) and time.monotonic() < until:
        time.sleep(0.01)
    yield thread
    for control in calls_that_are_on():
        control.stop()
    thread.join(_LONGEST)
    assert not thread.is_alive()


@pytest.mark.fault("%stop where the variable of the run is gone, or another's now", "it ends")
@pytest.mark.parametrize("scope", ["gone", "another"])
def test_stop_reaches_a_run_without_a_variable(learn, loaders, mlp, shell, seen, scope) -> None:
    names = {} if scope == "gone" else {"learn": Learner(loaders, mlp, device="cpu")}
    shell.run_line_magic("load_ext", "nbfinetune")
    stop = shell.magics_manager.registry["TrainingMagics"].stop
    with pytest.raises(UsageError):
        control_of_line(stop, "", ChainMap(names))  # none is on
    thread = threading.Thread(target=lambda: learn.fit(10**6, show=False), daemon=True)
    thread.start()
    while not learn.control.running:
        time.sleep(0.01)
    control = control_of_line(stop, "", ChainMap(names))
    shell.run_line_magic("unload_ext", "nbfinetune")
    assert control is learn.control
    control.stop()
    thread.join(_LONGEST)
    assert learn.status == "stopped"
    seen("stopped")


@pytest.mark.fault("%stop while several named learners train", "it asks which")
def test_stop_asks_which_of_several(learn, trained_in_thread, shell, loaders, seen) -> None:
    shell.run_line_magic("load_ext", "nbfinetune")
    stop = shell.magics_manager.registry["TrainingMagics"].stop
    other = Learner(loaders, nn.Linear(4, 2), device="cpu")
    assert control_of_line(stop, "", ChainMap({"a": learn, "b": other})) is learn.control
    with other.control.claim(scales_rates=True):
        scope = ChainMap({"a": learn, "b": other})
        with pytest.raises(UsageError, match="a, b are training; say which: -l a"):
            control_of_line(stop, "", scope)
        assert control_of_line(stop, "-l b", scope) is other.control
    shell.run_line_magic("unload_ext", "nbfinetune")
    seen("one line")


@pytest.mark.fault("two threads that train one learner at the same moment", "one is refused")
def test_of_two_threads_one_gets_the_learner(learn, seen) -> None:
    said = []
    for _ in range(20):
        begin = threading.Barrier(2)

        def go(begin: threading.Barrier = begin) -> None:
            begin.wait()
            try:
                with learn.control.claim(scales_rates=True):
                    time.sleep(0.01)
            except RuntimeError as error:
                said.append(str(error))

        threads = [threading.Thread(target=go) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(said) == 20
    assert "training in the background" in said[0]
    assert not learn.control.running
    seen("20 of 20 times")


@pytest.mark.fault("a learner copied while it rests", "both train alike, and apart")
def test_a_copy_trains_like_its_learner(learn, seen) -> None:
    learn.fit(1, show=False)
    copied = deepcopy(learn)
    for each in (learn, copied):
        each.fit_one_cycle(2, 0.1, show=False)
    assert copied.recorder.run.losses == learn.recorder.run.losses
    assert copied.control is not learn.control
    ours = {p.data_ptr() for p in copied.model.parameters()}
    assert not ours & {p.data_ptr() for p in learn.model.parameters()}
    opt = {id(p) for group in copied.opt.param_groups for p in group["params"]}
    assert opt == {id(p) for p in copied.model.parameters()}
    seen("the same losses")


@pytest.mark.fault("a learner copied in its run, beside its screen", "the copy rests, and trains")
def test_a_copy_made_in_a_run_rests(learn, seen) -> None:
    copy = Does(deepcopy)
    screen = LiveTraining()
    learn.fit(2, cbs=[screen, copy], show=False)
    screen.close()
    [copied] = copy.gave
    assert learn.status == "finished"
    assert (copied.status, copied.recorder.run.status) == ("stopped", "stopped")
    assert not copied.control.running
    assert not copied.run_cbs
    assert not copied.model.training
    copied.fit(1, show=False)
    assert copied.status == "finished"
    seen("stopped, then finished")


@pytest.mark.fault("a learner copied while another thread trains it", "weights of a whole step")
def test_a_copy_made_from_another_thread_is_of_a_whole_step(learn, trained_in_thread, seen) -> None:
    for _ in range(5):
        copied = deepcopy(learn)
        steps = {int(state["step"]) for state in copied.opt.state.values()}
        assert steps == {len(copied.recorder.run.lrs)}
        assert copied.status == "stopped"
        assert not learn.control.paused
        time.sleep(0.02)
    assert trained_in_thread.is_alive()
    seen("5 of 5 copies")


KERNEL = """
import gc, time, warnings, weakref
from torch import nn
from ipywidgets.widgets import widget
warnings.simplefilter("ignore")
from nbfinetune import ImageDataLoaders, vision_learner
from nbfinetune.widgets.screen import Screen
%load_ext nbfinetune
def make(**how):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return vision_learner(dls, nn.Sequential(body, nn.Linear(8, 3)), device="cpu", **how)
def wait(over):
    until = time.monotonic() + 20
    while not over() and time.monotonic() < until:
        time.sleep(.05)
"""


@pytest.fixture(scope="module")
def kernel(photos: Path) -> Iterator[Callable[[str], str]]:
    """Runs a cell in a real kernel; gives what it printed."""
    manager, client = start_new_kernel(kernel_name="python3")

    def run(code: str) -> str:
        messages = []
        reply = client.execute_interactive(code, output_hook=messages.append, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        texts = (m["content"]["text"] for m in messages if m["msg_type"] == "stream")
        return "".join(texts)

    run(KERNEL + f"folder = {str(photos)!r}")
    run("dls = ImageDataLoaders.from_folder(folder, size=32, bs=6)")
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.fault("all widgets closed during --bg, in a kernel", "both stages are finished")
def test_a_background_run_outlives_its_widgets(kernel, seen) -> None:
    kernel("learn = make(cache_features=False)\n%fine_tune 3 1e-3 --bg --freeze-epochs 40")
    said = kernel(
        "import ipywidgets; ipywidgets.Widget.close_all()\n"
        "wait(lambda: not learn.control.running)\nprint([r.status for r in learn.recorder.runs])"
    )
    assert "['finished', 'finished']" in said
    seen("finished, finished")


@pytest.mark.fault("`del learn` during --bg, in a kernel", "%stop ends the run, nothing is kept")
def test_a_deleted_learner_is_stopped_and_freed(kernel, seen) -> None:
    kernel("learn = make(cache_features=False)\n%fit_one_cycle 400 1e-3 --bg")
    said = kernel(
        "kept, control = weakref.ref(learn), learn.control\ndel learn\n%stop\n"
        "wait(lambda: (gc.collect(), kept() is None)[1])\nprint(control.running, kept())"
    )
    assert "False None" in said
    seen("stopped and freed")


@pytest.mark.fault("the extension unloaded during --bg, in a kernel", "the run ends as planned")
def test_a_background_run_outlives_the_extension(kernel, seen) -> None:
    kernel("learn = make(cache_features=False)\n%fit_one_cycle 60 1e-3 --bg")
    said = kernel(
        "%unload_ext nbfinetune\nwait(lambda: not learn.control.running)\nprint(learn.status)\n"
        "%load_ext nbfinetune\n%fit_one_cycle 1 --no-widgets\nprint(learn.status)"
    )
    assert said.split().count("finished") >= 2
    seen("finished, and trains on after it is loaded again")


SHOWN = [
    "confusion_matrix",
    "top_losses 4",
    "most_confused",
    "label_issues 3",
    "lr_find --verify 0",
]


@pytest.mark.fault("screens that no page shows, and --no-widgets", "no widget stays, nor the data")
@pytest.mark.parametrize("how", ["", " --no-widgets"])
def test_screens_that_nobody_sees_keep_nothing(kernel, seen, how: str) -> None:
    lines = "\n".join(f"%{magic}{how}" for magic in SHOWN)
    kernel(
        "Screen().close()\nbefore = len(widget._instances)\nimport nbfinetune.live.screens as s\n"
        "s._RENDER_TIMEOUT = 0.1\nkeep = dls\n"
        "dls = ImageDataLoaders.from_folder(folder, size=32, bs=6)"
    )
    kernel(f"learn = make()\n{lines}")
    said = kernel(
        "r = weakref.ref(dls.valid.dataset)\ndel learn; dls = keep\n%reset -f out\ngc.collect()\n"
        "print(r() is None, len(widget._instances) - before)"
    )
    assert "True 0" in said
    seen("0 widgets, data freed")
