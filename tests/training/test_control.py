"""A run is paused, stopped, finished and scaled by requests from any thread."""

import math
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from nbfinetune import Callback, CancelTrain, Learner
from nbfinetune.training.steering import rates_to_come


class Do(Callback):
    """Calls `request(learn)` after training step number `step` (from 1 on) of a fit."""

    def __init__(self, step: int, request) -> None:
        self.step, self.request = step, request

    def after_batch(self, learn: Learner) -> None:
        if learn.training and len(learn.recorder.run.lrs) == self.step:
            self.request(learn)


def test_a_run_that_is_left_alone_is_as_without_control(learn: Learner) -> None:
    run = learn.fit_one_cycle(2, 1e-2).stages[0]
    assert run.events == []
    assert run.row_steps == [5, 10]
    assert run.lrs[0][0] == pytest.approx(1e-2 / 25)


def test_stop_ends_after_the_batch_at_hand_and_keeps_its_weights(learn: Learner) -> None:
    weights = []

    def stop(learn: Learner) -> None:
        learn.control.stop()

    class Watch(Callback):
        def after_batch(self, learn: Learner) -> None:
            weights.append(learn.model[2].weight.detach().clone())

    result = learn.fit(3, 1e-2, cbs=[Watch(), Do(2, stop)])
    assert result.status == "stopped"
    assert len(result.stages[0].losses) == 3  # asked for after step 2, seen after step 3
    assert torch.equal(learn.model[2].weight, weights[2])
    assert result.stages[0].events == [(3, "stopped")]
    assert learn.fit(1, 1e-2).status == "finished"  # the request is not left over


def test_stop_in_the_first_stage_ends_the_whole_fine_tune(learn: Learner) -> None:
    result = learn.fine_tune(2, freeze_epochs=2, cbs=[Do(6, lambda learn: learn.control.stop())])
    assert [stage.name for stage in result.stages] == ["fine_tune: head, body frozen"]
    assert len(result.rows) == 1


def test_a_scale_acts_on_the_running_schedule_from_the_next_batch(learn: Learner) -> None:
    plain = learn.fit_one_cycle(2, 1e-2).stages[0].lrs

    def halve(learn: Learner) -> None:
        learn.control.scale = 0.5

    run = learn.fit_one_cycle(2, 1e-2, cbs=[Do(4, halve)]).stages[0]
    expected = [[lr * (0.5 if i >= 4 else 1) for lr in lrs] for i, lrs in enumerate(plain)]
    assert run.lrs == [pytest.approx(lrs) for lrs in expected]
    assert run.events == [(4, "learning rate times 0.5")]
    assert learn.fit_one_cycle(2, 1e-2).stages[0].lrs == plain


@pytest.mark.parametrize(("n_steps", "expected"), [(4, 4), (None, 10), (100, 13)])
def test_finish_anneals_validates_and_ends(learn: Learner, n_steps, expected: int) -> None:
    """At step 7 of 20, in the second of four epochs of five batches."""
    result = learn.fit(4, 1e-2, cbs=[Do(7, lambda learn: learn.control.finish(n_steps))])
    [run] = result.stages
    lrs = [step[-1] for step in run.lrs]
    assert len(lrs) == 7 + expected
    assert lrs[:7] == [1e-2] * 7
    cosine = [
        1e-7 + (1e-2 - 1e-7) * (1 + math.cos(math.pi * i / expected)) / 2 for i in range(expected)
    ]
    assert lrs[7:] == pytest.approx(cosine)
    assert run.row_steps[-1] == len(lrs)  # it was validated at its end
    assert result.kept is run.rows[-1]
    assert result.status == "stopped"
    assert run.events == [(7, f"finishing in {expected} steps")]


def test_finish_needs_a_step(learn: Learner) -> None:
    with pytest.raises(ValueError, match="n_steps is 0; it must be a whole number from 1 up"):
        learn.control.finish(0)


def test_a_paused_run_makes_no_step_until_it_is_resumed(learn: Learner) -> None:
    learn.fit(1, 1e-2)
    seen, looks = [], 0

    def poll() -> None:
        """What the screen does: the click on Resume arrives while the run waits."""
        nonlocal looks
        if learn.control.paused:
            looks += 1
            seen.append(len(learn.recorder.run.lrs))
            if looks == 5:
                learn.control.resume()

    learn.control.poll = poll
    result = learn.fit(2, 1e-2, cbs=[Do(3, lambda learn: learn.control.pause())])
    assert seen == [4] * 5
    assert result.status == "finished"
    assert result.stages[0].events == [(4, "paused")]


def test_a_paused_run_can_be_stopped_from_another_thread(learn: Learner) -> None:
    paused = threading.Event()
    learn.control.poll = lambda: paused.set() if learn.control.paused else None

    def stop() -> None:
        paused.wait(30)
        learn.control.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    result = learn.fit(50, 1e-2, cbs=[Do(3, lambda learn: learn.control.pause())])
    thread.join()
    assert result.status == "stopped"
    assert [what for _, what in result.stages[0].events] == ["paused", "stopped"]


def test_a_learner_that_trains_in_another_thread_refuses_the_rest(learn: Learner) -> None:
    started, go = threading.Event(), threading.Event()

    def hold(learn: Learner) -> None:
        started.set()
        go.wait(30)

    thread = threading.Thread(target=learn.fit, args=(2, 1e-2), kwargs={"cbs": [Do(3, hold)]})
    thread.start()
    assert started.wait(30)
    assert learn.control.running
    try:
        for refused in (
            lambda: learn.fit(1, 1e-2),
            lambda: learn.fine_tune(1),
            lambda: learn.lr_find(),
            lambda: learn.freeze(),
            lambda: learn.validate(),
        ):
            with pytest.raises(RuntimeError, match="training in the background; wait for it, or"):
                refused()
    finally:
        go.set()
        thread.join()
    assert not learn.control.running
    assert learn.recorder.run.status == "finished"
    assert len(learn.recorder.runs) == 1


def test_cancel_train_goes_on_with_the_validation(learn: Learner) -> None:
    class Short(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.training and learn.iter == 1:
                raise CancelTrain

    result = learn.fit(2, 1e-2, cbs=[Short()])
    assert len(result.stages[0].losses) == 4
    assert [row["epoch"] for row in result.rows] == [0, 1]


def test_a_search_that_is_stopped_gives_what_it_has(learn: Learner) -> None:
    result = learn.lr_find(seeds=3, verify=3, cbs=[Do(50, lambda learn: learn.control.stop())])
    assert len(result.losses) == 51
    assert len(result.sweeps) == 1
    assert result.trials == []
    assert not learn.recorder.runs


def test_a_second_finish_goes_on_annealing(learn: Learner) -> None:
    def finish(learn: Learner) -> None:
        learn.control.finish()

    run = learn.fit(4, 1e-2, cbs=[Do(7, finish), Do(12, finish)]).stages[0]
    lrs = [step[-1] for step in run.lrs]
    assert all(b < a for a, b in pairwise(lrs[7:]))
    assert run.events == [(7, "finishing in 10 steps")]


def test_finishing_ends_with_a_whole_optimizer_step(learn: Learner) -> None:
    learn.accumulate = 5
    result = learn.fit(4, 1e-2, cbs=[Do(5, lambda learn: learn.control.finish(3))])
    assert len(result.stages[0].lrs) == 10  # 5 batches make a step


def test_a_scale_of_zero_stands_still(learn: Learner) -> None:
    run = learn.fit(2, 1e-2, cbs=[Do(3, lambda learn: setattr(learn.control, "scale", 0.0))])
    assert [step[-1] for step in run.stages[0].lrs[3:]] == [0.0] * 7


def test_one_drag_of_the_scale_is_one_event(learn: Learner) -> None:
    def to(factor: float) -> Callable[[Learner], None]:
        return lambda learn: setattr(learn.control, "scale", factor)

    drag = [Do(k, to(factor)) for k, factor in enumerate([0.9, 0.8, 0.7], 2)]
    run = learn.fit(2, 1e-2, cbs=drag).stages[0]
    assert run.events == [(2, "learning rate times 0.7")]
    assert [step[-1] for step in run.lrs[1:5]] == pytest.approx([1e-2, 9e-3, 8e-3, 7e-3])


def test_the_rates_to_come_know_scale_finish_and_start(learn: Learner) -> None:
    seen = {}

    class Watch(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.training:
                seen[len(learn.recorder.run.lrs)] = rates_to_come(learn, 100)

    cbs = [Watch(), Do(2, lambda learn: setattr(learn.control, "scale", 0.5))]
    cbs.append(Do(5, lambda learn: learn.control.finish(3)))
    run = learn.fit_one_cycle(4, 1e-2, start_epoch=2, cbs=cbs).stages[0]
    assert len(run.lrs) == 8
    plain = learn.fit_one_cycle(4, 1e-2).stages[0]
    assert seen[1][0] == list(range(1, 10))
    assert seen[1][1] == pytest.approx([lrs[-1] for lrs in plain.lrs[11:]])
    assert seen[3][1] == pytest.approx([0.5 * lrs[-1] for lrs in plain.lrs[13:]])
    assert seen[6][1] == pytest.approx([lrs[-1] for lrs in run.lrs[6:]])


def test_stop_between_two_stages_ends_the_call(learn: Learner) -> None:
    class AtTheEnd(Callback):
        def after_fit(self, learn: Learner) -> None:
            learn.control.stop()

    result = learn.fine_tune(2, freeze_epochs=1, cbs=[AtTheEnd()])
    assert len(result.stages) == 1


def test_weights_are_not_loaded_into_a_run(learn: Learner, tmp_path) -> None:
    file = learn.save(tmp_path / "before.safetensors")
    started, go = threading.Event(), threading.Event()

    def hold(learn: Learner) -> None:
        started.set()
        go.wait(30)

    thread = threading.Thread(target=learn.fit, args=(1, 1e-2), kwargs={"cbs": [Do(3, hold)]})
    thread.start()
    assert started.wait(30)
    weights = learn.model[2].weight.detach().clone()
    try:
        with pytest.raises(RuntimeError, match="training in the background"):
            learn.load(file)
        assert torch.equal(learn.model[2].weight, weights)
    finally:
        go.set()
        thread.join()


def test_a_cut_sweep_does_not_shorten_the_whole_ones(learn: Learner) -> None:
    class StopInTheSecond(Callback):
        sweeps = 0

        def before_fit(self, learn: Learner) -> None:
            self.sweeps += 1

        def after_batch(self, learn: Learner) -> None:
            if self.sweeps == 2:
                learn.control.stop()

    found = learn.lr_find(seeds=3, stop_div=False, cbs=[StopInTheSecond()])
    assert [len(losses) for losses in found.sweeps] == [100]
    groups = learn.lr_find(groups=True, cbs=[Do(50, lambda learn: learn.control.stop())])
    assert groups.lr is None


def test_a_search_takes_no_notice_of_scale_and_finish(learn: Learner) -> None:
    plain = learn.lr_find()

    def meddle(learn: Learner) -> None:
        learn.control.scale = 0.1
        learn.control.finish()

    assert learn.lr_find(cbs=[Do(10, meddle)]).losses == plain.losses


def test_pauses_are_not_in_the_time_of_an_epoch(learn: Learner) -> None:
    looks = []

    def poll() -> None:
        looks.append(learn.control.paused)
        if sum(looks) == 12:  # a pause of a quarter of a second
            learn.control.resume()

    learn.control.poll = poll
    learn.fit(1, 1e-2, cbs=[Do(2, lambda learn: learn.control.pause())])
    run = learn.recorder.run
    assert run.events == [(3, "paused")]
    assert learn.control.waited > 0.2
    assert run.rows[0]["time"] < learn.control.waited  # five steps of a tiny network take less
