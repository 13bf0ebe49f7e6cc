"""The callbacks between a run and its screen."""

import pytest

from nbfinetune import (
    Callback,
    EarlyStopping,
    ImageDataLoaders,
    Learner,
    accuracy,
    vision_learner,
)
from nbfinetune.history.report import TrainingReport
from nbfinetune.live.screens import LiveSearch, LiveTraining, pumping_events
from nbfinetune.lr_finder.results import SearchReport
from nbfinetune.rendering.tables import StaticView
from nbfinetune.widgets import screen as screen_module
from nbfinetune.widgets.screen import Screen
from nbfinetune.widgets.training_plot import TrainingPlot


def test_all_stages_are_drawn_in_one_plot_that_ends_as_a_report(learn: Learner, shown) -> None:
    learn.metrics = [accuracy]
    screen = LiveTraining()
    assert not screen.began
    learn.fine_tune(2, freeze_epochs=1, cbs=[screen])
    assert screen.began
    assert shown == [screen.plot]
    assert len(screen.plot.figure._raw.y) == 15  # 3 epochs of 5 batches
    assert screen.plot.figure._valid.x.tolist() == [5, 10, 15]
    assert screen.plot.status.text.startswith("epoch 2 of 2: train_loss 0.")
    screen.close()
    assert isinstance(shown[-1], TrainingReport)
    assert len(shown[-1].runs) == 2
    assert screen.plot.comm is None  # the widget is gone from both sides


def test_the_buttons_steer_the_run(learn: Learner, shown) -> None:
    screen = LiveTraining()
    steps = []

    def poll() -> None:
        """Stands for the pump: it delivers clicks between batches."""
        steps.append(len(learn.recorder.run.lrs))
        if steps[-1] == 3:
            screen.plot._slider.set_state({"value": 0.5})
        if steps[-1] == 6:
            screen.plot.buttons._handle_custom_msg({"request": "stop"}, [])

    learn.control.poll = poll
    result = learn.fit(4, 1e-2, cbs=[screen])
    [run] = result.stages
    assert [lrs[0] for lrs in run.lrs] == [1e-2] * 3 + [5e-3] * 3
    assert run.events == [(3, "learning rate times 0.5"), (6, "stopped")]
    assert result.status == "stopped"


def test_the_scale_of_one_stage_does_not_reach_the_next(learn: Learner, shown) -> None:
    screen = LiveTraining()
    learn.control.poll = lambda: setattr(screen.plot, "scale", 0.5)
    learn.fit(1, 1e-2, cbs=[screen])
    learn.control.poll = lambda: None
    assert learn.fit(1, 1e-2, cbs=[screen]).stages[0].lrs[-1] == [1e-2] * 3


def test_a_search_is_streamed_and_its_static_view_takes_its_place_without_a_front_end(
    learn: Learner, shown, monkeypatch
) -> None:
    monkeypatch.setattr("nbfinetune.live.screens._RENDER_TIMEOUT", 0.0)
    screen = LiveSearch(1e-7, 10.0, 100)
    found = learn.lr_find(verify=0, cbs=[screen])
    assert shown == [screen.plot]
    assert screen.done == len(found.losses)

    class Pump:
        works = True

        def poll(self) -> None: ...

    screen.show(found, 1e-3, "as before", Pump(), print)
    assert shown[-1].found is found
    assert repr(shown[-1]) == f"{found!r}\nnext run: 1.0e-3 (as before)"
    assert "nbft-static-view" not in shown[-1]._repr_html_()
    assert len(shown) == 2
    assert screen.plot.comm is None


def test_with_a_front_end_the_plot_stays_above_its_static_view(learn: Learner, shown) -> None:
    screen = LiveSearch(1e-7, 10.0, 100)
    found = learn.lr_find(cbs=[screen])
    screen.plot.status.rendered = True
    picked = []
    with pumping_events(learn) as pump:
        screen.show(found, 1e-3, "as before", pump, picked.append)
    assert shown == [screen.plot, StaticView(SearchReport(found, "next run: 1.0e-3 (as before)"))]
    assert screen.plot.lr == 1e-3
    assert picked == []
    screen.plot._handle.set_state({"value": 3e-3})
    assert picked == [3e-3]


def test_the_pump_is_taken_off_after_the_run(learn: Learner) -> None:
    with pumping_events(learn) as pump:
        assert learn.control.poll == pump.poll
    assert learn.control.poll() is None
    assert learn.control.poll != pump.poll


def test_a_closed_screen_leaves_no_widget_behind(learn: Learner, shown) -> None:
    Screen().close()  # with the first one a widget opens that stays
    before = len(_open_widgets())
    screen = LiveTraining()
    learn.fit(1, 1e-2, cbs=[screen])
    screen.close()
    assert len(_open_widgets()) == before


def test_one_widget_stays_open_so_that_the_page_keeps_its_subshell() -> None:
    screen_module._kept_open.cache_clear()  # that of another test may be of another kernel
    Screen().close()
    kept = screen_module._kept_open()
    assert kept in _open_widgets().values()
    for _ in range(2):
        kept.close()  # as `Widget.close_all` does
        assert kept not in _open_widgets().values()
        Screen().close()
        assert kept in _open_widgets().values()


def _open_widgets() -> dict:
    from ipywidgets.widgets.widget import _instances

    return _instances


def test_a_search_that_ends_with_an_error_leaves_a_line(learn: Learner, shown) -> None:
    screen = LiveSearch(1e-7, 10.0, 100)
    screen.close("never began")
    assert shown == []

    class Broken(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        learn.lr_find(cbs=[screen, Broken()])
    screen.close("lr_find ended with an error; nothing was changed")
    assert repr(shown[-1]) == "lr_find ended with an error; nothing was changed"
    assert screen.plot.comm is None


def test_an_older_plot_becomes_its_static_view_at_a_new_search(learn: Learner, shown) -> None:
    screen = LiveSearch(1e-7, 10.0, 100)
    found = learn.lr_find(cbs=[screen])
    screen.plot.status.rendered = True
    with pumping_events(learn) as pump:
        screen.show(found, 1e-3, "as before", pump, print)
    screen.retire()
    assert repr(shown[-1]) == repr(found)
    assert screen.plot.comm is None


def test_a_pause_from_elsewhere_shows_on_the_button(learn: Learner, shown) -> None:
    screen, seen = LiveTraining(), []

    def poll() -> None:
        if learn.control.paused:
            seen.append(screen.plot.paused)
            if len(seen) == 3:
                learn.control.resume()

    class Pause(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.training and learn.iter == 2:
                learn.control.pause()

    learn.control.poll = poll
    for _ in range(2):  # as two stages of a fine_tune
        seen.clear()
        learn.fit(1, 1e-2, cbs=[screen, Pause()])
        assert not screen.plot.paused
        assert seen[-1]


def test_many_short_epochs_are_drawn_no_faster_than_batches(learn: Learner, shown) -> None:
    screen, drawn = LiveTraining(), []
    screen.plot = TrainingPlot([])
    screen.plot.draw = lambda runs, planned: drawn.append(len(runs[-1].rows))
    learn.fit(200, 1e-3, cbs=[screen])
    assert 2 <= len(drawn) < 100
    assert drawn[-1] == 200  # the last one has all


def test_where_clicks_do_not_arrive_that_is_said(learn: Learner, shown, monkeypatch) -> None:
    monkeypatch.setattr(
        "nbfinetune.live.screens.contention_text", lambda device: "two threads are slow"
    )
    screen, said = LiveTraining(), []
    screen.hint = "buttons act after the cell here"

    class Listen(Callback):
        def before_epoch(self, learn: Learner) -> None:
            said.append(screen.plot.status.text)

    learn.fit(1, 1e-2, cbs=[screen, Listen()])
    assert said == ["epoch 1 of 1. buttons act after the cell here. two threads are slow"]


def test_a_run_that_is_refused_shows_its_own_error(learn: Learner, shown) -> None:
    learn.cbs.append(EarlyStopping("nope"))
    with pytest.raises(ValueError, match="monitor is 'nope'"):
        learn.fit(1, 1e-3, cbs=[LiveTraining()])
    assert shown == []


def test_the_epoch_that_a_fine_tune_keeps_is_marked_in_table_and_plot(
    learn: Learner, shown, monkeypatch
) -> None:
    learn.metrics = [accuracy]
    screen = LiveTraining()
    result = learn.fine_tune(2, freeze_epochs=1, cbs=[screen])
    at = result.rows.index(result.kept)
    assert screen.plot.figure._crosshair.kept == 5 * (at + 1)
    row = at + 1 + (at > 0)  # below the names of the stages
    marked = screen.plot._table.value.split("<tr>")[2 + row]  # below the titles
    assert marked.startswith(f"<td>{result.kept['epoch']} (kept)</td>")
    assert screen.plot.buttons.text == "finished"


def test_features_that_are_computed_are_told_of_within_a_batch(
    photos, small_net, shown, monkeypatch
) -> None:
    monkeypatch.setattr("nbfinetune.training.batches.microbatches.PICTURES", 4)
    monkeypatch.setattr("nbfinetune.live.screens._INTERVAL", 0.0)
    monkeypatch.setattr("nbfinetune.live.screens._SHARE", 0)
    monkeypatch.setattr("nbfinetune.live.screens._BYTES_A_SECOND", 1e12)
    dls = ImageDataLoaders.from_folder(photos, size=32, valid_pct=0.3, bs=12, aug=False)
    learn = vision_learner(dls, small_net(), device="cpu", train_bn=False)
    screen, said = LiveTraining(), []

    class Listen(Callback):
        def after_part(self, learn: Learner) -> None:
            said.append(screen.plot._done.value)

    learn.fit(1, 1e-3, cbs=[screen, Listen()])
    assert said[:2] == ["features: picture 4 of 12", "features: picture 8 of 12"]
    assert said[2].startswith("features: picture 3 of 6 held out")
