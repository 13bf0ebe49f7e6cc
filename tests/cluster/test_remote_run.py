import os
import signal
import threading
import warnings

import pytest
import torch
from runs_of_workers import At, Seen, Slow, later, new_learner, same, weights

from nbfinetune import Callback, SaveBest
from nbfinetune.cluster.engines import Engines
from nbfinetune.training.resuming.searches import searches_of

pytestmark = pytest.mark.usefixtures("local_engines")


@pytest.fixture(autouse=True)
def two(local_engines) -> Engines:
    return local_engines(2)


def long_run(learn, *cbs, **how):
    return learn.fit(100, 1e-2, workers=2, show=False, cbs=[Slow(), *cbs], **how)


def test_a_fit_in_two_workers_gives_the_losses_weights_and_history_of_one_process() -> None:
    alone, spread = new_learner(), new_learner()
    alone.fit_one_cycle(2, 1e-2, show=False)
    result = spread.fit_one_cycle(2, 1e-2, show=False, workers=2)
    one, other = alone.recorder.run, spread.recorder.run
    assert result.stages == (other,)
    assert result.rows == other.rows
    assert result.kept is other.rows[-1]
    assert other.losses == pytest.approx(one.losses, rel=1e-5)
    assert other.smooth == pytest.approx(one.smooth, rel=1e-5)
    assert (other.lrs, other.moms, other.row_steps) == (one.lrs, one.moms, one.row_steps)
    assert (other.status, other.n_valid, other.trained) == ("finished", 10, one.trained)
    assert same(weights(alone), weights(spread))
    alone.fit(1, 1e-3, show=False)  # the optimizer's state came back too
    spread.fit(1, 1e-3, show=False)
    assert same(weights(alone), weights(spread))


def test_fine_tune_has_its_two_stages_and_what_the_recipe_found() -> None:
    alone, spread = new_learner(), new_learner()
    alone.fine_tune(2, 1e-2, freeze_epochs=1, show=False)
    result = spread.fine_tune(2, 1e-2, freeze_epochs=1, show=False, workers=2)
    assert [run.name for run in result.stages] == [run.name for run in alone.recorder.runs]
    for one, other in zip(alone.recorder.runs, spread.recorder.runs, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
        assert (other.notes, other.kept_why) == (one.notes, one.kept_why)
    assert result.kept in spread.recorder.runs[0].rows + spread.recorder.runs[1].rows
    assert spread.second_stage.rate == alone.second_stage.rate
    assert spread.frozen == 0


def test_screens_are_told_of_every_batch_in_order() -> None:
    alone, spread, here, there = new_learner(), new_learner(), Seen(), Seen()
    alone.fit(2, 1e-2, show=False, cbs=[here])
    spread.fit(2, 1e-2, show=False, cbs=[there], workers=2)
    assert there.events == here.events
    assert there.status == "finished"


def test_a_search_finds_the_same_and_changes_nothing_else() -> None:
    alone, spread, seen = new_learner(), new_learner(), Seen()
    before = weights(spread)
    one = alone.lr_find(num_it=20, verify=0, show=False)
    other = spread.lr_find(num_it=20, verify=0, show=False, workers=2, cbs=[seen])
    assert other.losses == pytest.approx(one.losses, rel=1e-4)
    assert (spread.lr, spread.rate_note) == (alone.lr, alone.rate_note)
    assert spread.last_search is other
    assert spread.recorder.runs == []
    assert "status" not in vars(spread)
    assert same(before, weights(spread))
    assert sum(name == "after_batch" for name, *_ in seen.events) == len(other.losses)
    [noted] = searches_of(spread)
    assert noted.found is other


def test_passes_give_the_same() -> None:
    learn = new_learner()
    assert learn.validate(workers=2) == pytest.approx(learn.validate(), rel=1e-5)
    for one, other in zip(learn.get_preds(), learn.get_preds(workers=2), strict=True):
        torch.testing.assert_close(one, other)


def test_stop_ends_the_run_in_all_workers_and_keeps_what_was_done() -> None:
    learn = new_learner()
    result = long_run(learn, Seen(10, lambda learn: learn.control.stop()))
    run = learn.recorder.run
    assert result.status == run.status == learn.status == "stopped"
    assert 10 <= len(run.losses) == len(run.lrs) < 100
    assert run.events == [(len(run.lrs), "stopped")]
    alone = new_learner()
    before = len(run.lrs) - 1  # a screen is told of a step after the run has looked at requests
    alone.fit(100, 1e-2, show=False, cbs=[Seen(before, lambda learn: learn.control.stop())])
    assert same(weights(learn), weights(alone))


def test_pause_scale_and_finish_act_on_all_workers() -> None:
    learn = new_learner()

    def drag(learn) -> None:
        learn.control.scale = 0.5
        learn.control.pause()
        later(0.4, learn.control.resume)

    def finish(learn) -> None:
        learn.control.finish(12)

    result = long_run(learn, Seen(5, drag), Seen(30, finish))
    run, what = learn.recorder.run, [text for _, text in learn.recorder.run.events]
    assert set(what) == {"learning rate times 0.5", "paused", "finishing in 12 steps"}
    [scaled] = [step for step, text in run.events if "times" in text]
    [first] = [step for step, text in run.events if "finishing" in text]
    assert {rate for [*_, rate] in run.lrs[:scaled]} == {1e-2}
    assert {rate for [*_, rate] in run.lrs[scaled : first + 1]} == {5e-3}
    assert len(run.lrs) == first + 12
    assert run.lrs[-1][-1] < 1e-3
    assert result.status == "stopped"
    assert learn.control.finished
    assert learn.recorder.run.rows  # validated at its end


def test_an_interrupt_stops_all_workers_and_ends_the_call_as_ever() -> None:
    learn = new_learner()
    with pytest.raises(KeyboardInterrupt):
        long_run(learn, Seen(5, lambda learn: signal.raise_signal(signal.SIGINT)))
    run = learn.recorder.run
    assert (run.status, learn.status) == ("interrupted", "interrupted")
    assert run.events == []
    assert 5 <= len(run.losses) == len(run.lrs)
    assert not learn.control.running
    learn.fit(1, 1e-2, workers=2, show=False)


def test_a_users_callback_runs_in_the_first_worker_and_what_it_learned_comes_back(capsys) -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.rates, self.pid = [], os.getpid()

        def after_batch(self, learn) -> None:
            if learn.training:
                self.rates.append(learn.opt.param_groups[-1]["lr"])
                self.pid = os.getpid()

        def after_epoch(self, learn) -> None:
            print("an epoch is done")
            warnings.warn("the loss is what it is", stacklevel=1)

    learn, rates, best = new_learner(), Rates(), SaveBest()
    with pytest.warns(UserWarning, match="the loss is what it is"):
        learn.fit_one_cycle(2, 1e-2, cbs=[rates, best], show=False, workers=2)
    assert rates.rates == [rate for [*_, rate] in learn.recorder.run.lrs]
    assert rates.pid != os.getpid()
    assert best.row is learn.recorder.run.kept
    assert capsys.readouterr().out.count("an epoch is done\n") == 2


def test_what_all_workers_refuse_is_refused_as_ever() -> None:
    learn = new_learner()
    with pytest.raises(ValueError, match=r"^n_epoch is 0; it must be a whole number from 1 up"):
        learn.fit(0, 1e-2, workers=2, show=False)
    assert learn.recorder.runs == []


def test_what_cannot_travel_is_refused_by_name_before_anything_starts() -> None:
    learn, lock = new_learner(), At(1, 0, print)
    lock.lock = threading.Lock()
    with pytest.raises(ValueError, match="the callback At cannot travel to the workers"):
        learn.fit(1, 1e-2, workers=2, show=False, cbs=[lock])


def test_one_worker_and_three_give_the_same(local_engines) -> None:
    losses = []
    for n in (1, 3):
        learn = new_learner()
        learn.fit(1, 1e-2, workers=n, show=False)
        losses.append(learn.recorder.run.losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
