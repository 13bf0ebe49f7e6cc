"""What a run tells, without workers: put into a log in one learner, and applied to another."""

import math
import time

import pytest
from runs_of_workers import Seen, Slow, new_learner

from nbfinetune import Callback, SaveBest
from nbfinetune.cluster.runs.emitting import Emitting
from nbfinetune.cluster.runs.event_log import EventLog
from nbfinetune.cluster.runs.replay import Replay
from nbfinetune.history.runs import Run
from nbfinetune.live.progress import EpochTable
from nbfinetune.live.time_left import TimeLeft


def told(call, *cbs) -> tuple[object, list[bytes]]:
    """A learner that did `call(learn, cbs=...)`, and the events of it."""
    learn, log = new_learner(), EventLog()
    call(learn, cbs=[*cbs, Emitting(log, learn)])
    return learn, log.since(0, 0)


def fitted(learn, cbs) -> None:
    learn.fine_tune(2, 1e-2, freeze_epochs=1, cbs=cbs, show=False)


def test_the_history_is_the_same_to_the_last_number() -> None:
    there, events = told(fitted)
    here = new_learner()
    replay = Replay(here, [])
    for event in events:
        replay.take(event)
    assert len(here.recorder.runs) == replay.n_stages == 2
    for one, other in zip(there.recorder.runs, here.recorder.runs, strict=True):
        assert vars(one) == vars(other)
        assert isinstance(other, Run)
        assert one is not other
    kept = here.recorder.run.kept
    assert any(kept is row for run in here.recorder.runs for row in run.rows)
    assert (here.epoch, here.status, here.values) == (there.epoch, "finished", there.values)
    assert repr(here.recorder) == repr(there.recorder)


def test_a_screen_is_called_as_in_the_run_and_shows_the_same(capsys) -> None:
    its_screen, screen, seen, its = EpochTable(False), EpochTable(False), Seen(), Seen()
    _, events = told(fitted, its_screen, its)
    shown = capsys.readouterr().out
    replay = Replay(new_learner(), [screen, seen])
    for event in events:
        replay.take(event)
    assert capsys.readouterr().out == shown
    assert seen.events == its.events


def test_quick_steps_are_few_messages_and_all_their_numbers_are_there() -> None:
    started = time.monotonic()
    learn, events = told(lambda learn, cbs: learn.fit(60, 1e-3, cbs=cbs, show=False))
    seconds = time.monotonic() - started
    n_of_epochs = 4 * 60 + 2  # begin, end of training, epoch
    assert len(events) <= n_of_epochs + 20 * seconds + 1
    here = new_learner()
    replay = Replay(here, [])
    for event in events:
        replay.take(event)
    assert here.recorder.run.losses == learn.recorder.run.losses
    assert len(here.recorder.run.lrs) == 60 * 8


def test_rates_to_come_follow_the_schedule_that_stayed_elsewhere() -> None:
    class Planned(Callback):
        def before_fit(self, learn) -> None:
            self.rates = [learn.lr_schedules[-1](i / 50) for i in range(50)]

    its, here = Planned(), Planned()
    _, events = told(lambda learn, cbs: learn.fit_one_cycle(2, 1e-2, cbs=cbs, show=False), its)
    replay = Replay(new_learner(), [here])
    for event in events:
        replay.take(event)
    assert here.rates == pytest.approx(its.rates, rel=1e-3)


def test_the_time_left_goes_by_the_time_of_the_run_however_late_it_is_told() -> None:
    class Clock(Callback):
        def before_fit(self, learn) -> None:
            self.time_left = TimeLeft()
            self.time_left.start(learn)

        def after_batch(self, learn) -> None:
            self.time_left.tick(learn)
            self.text = self.time_left.how_far(learn)[1]

    _, events = told(lambda learn, cbs: learn.fit(2, 1e-3, cbs=cbs, show=False), Slow())
    clock = Clock()
    replay = Replay(new_learner(), [clock])
    for event in events:  # at once
        replay.take(event)
    times = clock.time_left._times[True, True]
    assert len(times) >= 14
    assert all(0.02 <= t < 0.2 for t in times)
    assert math.isfinite(sum(times))


def test_what_is_kept_and_paused_is_told() -> None:
    class Pausing(Callback):
        def after_epoch(self, learn) -> None:
            learn.control.on_pause(True)
            learn.control.on_pause(False)

    call = lambda learn, cbs: learn.fit(2, 1e-2, cbs=[SaveBest(), *cbs], show=False)  # noqa: E731
    there, events = told(call, Pausing())
    here, paused = new_learner(), []
    here.control.on_pause = paused.append
    replay = Replay(here, [])
    for event in events:
        replay.take(event)
    assert paused == [True, False] * 2
    assert here.recorder.run.kept_why == there.recorder.run.kept_why != ""
    assert here.recorder.run.kept is here.recorder.run.rows[1]


def test_a_run_that_tells_no_end_is_closed_for_the_screens() -> None:
    _, events = told(lambda learn, cbs: learn.fit(2, 1e-2, cbs=cbs, show=False))
    here, seen = new_learner(), Seen()
    replay = Replay(here, [seen])
    for event in events[:-1]:
        replay.take(event)
    replay.end("failed")
    replay.end("failed")
    assert (here.recorder.run.status, here.status, seen.status) == ("failed",) * 3
    assert [name for name, *_ in seen.events].count("after_fit") == 1


def test_a_log_gives_events_in_order_and_waits_for_those_to_come() -> None:
    log = EventLog()
    assert log.since(0, 0.0) == []
    for i in range(3):
        log.add({"i": i})
    assert len(log.since(0, 0)) == 3
    assert len(log.since(2, 0)) == 1
    assert not log.all_read(3)
    log.end()
    assert log.since(3, 60.0) == []  # nothing is waited for any more
    assert log.all_read(3)
    assert not log.all_read(2)
