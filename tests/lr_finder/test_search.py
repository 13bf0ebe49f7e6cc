"""lr_find changes nothing, however it ends, and its curve is fastai's."""

import math
import random
import signal
from contextlib import suppress
from copy import deepcopy

import numpy as np
import pytest
import torch

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.lr_finder.pictures import lr_figure
from nbfinetune.lr_finder.suggestions import minimum, steep, valley
from nbfinetune.lr_finder.trials import trial_loss
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.runtime.rng import get_rng_state
from nbfinetune.training.snapshot import unchanged


class At(Callback):
    """Raises an error in training batch number `step`, before or after it."""

    def __init__(self, step: int, error: type[BaseException], *, after: bool = True) -> None:
        self.step, self.error, self.after = step, error, after

    def _maybe(self, learn: Learner) -> None:
        self.step -= 1
        if self.step < 0:
            raise self.error

    def before_batch(self, learn: Learner) -> None:
        if not self.after:
            self._maybe(learn)

    def after_batch(self, learn: Learner) -> None:
        if self.after:
            self._maybe(learn)


def equal(a: object, b: object) -> bool:
    """Bit-equal, through all containers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def state(learn: Learner) -> dict:
    """Everything that lr_find might change, but the rate of the next run, which it is for."""
    names = {id(p): name for name, p in learn.model.named_parameters()}
    without = ("groups", "cbs", "_lr", "lr", "rate_note", "rate_how")
    plain = {k: v for k, v in vars(learn).items() if isinstance(v, (int, float, str, list, dict))}
    return {
        "weights": {k: v.clone() for k, v in learn.model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in learn.model.parameters()],
        "requires_grad": [p.requires_grad for p in learn.model.parameters()],
        "modes": [m.training for m in learn.model.modules()],
        "opt": {names[id(p)]: deepcopy(dict(s)) for p, s in learn.opt.state.items()},
        "groups": [{k: v for k, v in g.items() if k != "params"} for g in learn.opt.param_groups],
        "scaler": learn.scaler.state_dict(),
        "random": get_rng_state(),
        "attributes": {k: deepcopy(v) for k, v in plain.items() if k not in without},
        "own random": deepcopy(learn._rng),
        "runs": [deepcopy(vars(run)) for run in learn.recorder.runs],
        "recorder": set(vars(learn.recorder)),
    }


@pytest.fixture
def trained(loaders, mlp) -> Learner:
    learn = Learner(loaders, mlp, groups=[[part] for part in mlp], device="cpu")
    learn.fit_one_cycle(2, 1e-2)
    learn.model[0][0].weight.grad = torch.ones(5, 4)  # a gradient of the user's own
    return learn


@pytest.mark.parametrize("seed", range(50))
def test_an_interrupt_at_any_step_leaves_everything_bit_equal(seed: int, trained) -> None:
    rng = random.Random(seed)
    at = At(rng.randrange(40), KeyboardInterrupt, after=rng.random() < 0.5)
    before = state(trained)
    with suppress(KeyboardInterrupt):
        trained.lr_find(1e-6, 1.0, 40, stop_div=False, cbs=[at])
    assert equal(state(trained), before)


@pytest.mark.parametrize("error", [None, OSError, torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("stop_div", [True, False])
def test_after_any_end_everything_is_bit_equal(error, stop_div: bool, trained: Learner) -> None:
    before = state(trained)
    cbs = [At(7, error)] if error else []
    if error:
        with pytest.raises(error):
            trained.lr_find(cbs=cbs)
    else:
        trained.lr_find(end_lr=1e4, stop_div=stop_div)
    assert equal(state(trained), before)


def test_an_error_in_the_data_leaves_everything_bit_equal(trained: Learner) -> None:
    class Broken(list):
        def __iter__(self):
            yield from list.__iter__(self)
            raise OSError("disk")

    trained.dls.train = Broken(trained.dls.train)
    before = state(trained)
    with pytest.raises(OSError, match="disk"):
        trained.lr_find()
    assert equal(state(trained), before)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("frozen", [True, False])
def test_training_after_lr_find_equals_training_without_it(
    photos, tiny_net, num_workers: int, amp: str, frozen: bool
) -> None:
    """With augmentation, and more steps than an epoch has."""
    results = []
    for search in (False, True):
        dls = ImageDataLoaders.from_folder(photos, size=16, bs=5, num_workers=num_workers)
        learn = vision_learner(dls, tiny_net, head="fastai", amp=amp, device="cpu")
        if not frozen:
            learn.unfreeze()
        if search:
            learn.lr_find(num_it=8)
        first = learn.fit_one_cycle(1, 1e-2).stages[0]
        if search:
            with pytest.raises(KeyboardInterrupt):
                learn.lr_find(num_it=8, stop_div=False, cbs=[At(4, KeyboardInterrupt)])
        second = learn.fit(1, 1e-3).stages[0]
        weights = {k: v.clone() for k, v in learn.model.state_dict().items()}
        rows = [{k: v for k, v in row.items() if k != "time"} for row in first.rows + second.rows]
        results.append((first.losses, first.lrs, second.losses, rows, weights))
    assert equal(*results)


def test_a_loader_of_the_users_goes_on_where_it_was(trained: Learner) -> None:
    x = torch.randn(12, 4)
    data = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
    generator = torch.Generator().manual_seed(5)
    trained.dls.train = torch.utils.data.DataLoader(
        data, 4, shuffle=True, generator=generator, num_workers=1, persistent_workers=True
    )
    before = generator.get_state()
    trained.lr_find(num_it=8)
    assert torch.equal(generator.get_state(), before)
    after_search = [x for x, _ in trained.dls.train]
    generator.set_state(before)
    trained.dls.train._iterator = None
    assert equal(after_search, [x for x, _ in trained.dls.train])


def test_the_rates_are_those_of_fastai(learn: Learner) -> None:
    seen = []

    class Groups(Callback):
        def before_batch(self, learn: Learner) -> None:
            seen.append([g["lr"] for g in learn.opt.param_groups])

    result = learn.lr_find(stop_div=False, verify=0, cbs=[Groups()])
    expected = {1: 1.202264e-7, 10: 6.309573e-7, 50: 1e-3, 90: 1.584893, 99: 8.317638}
    assert len(result.lrs) == 100
    assert [result.lrs[i] for i in expected] == pytest.approx(list(expected.values()), rel=1e-6)
    assert all(len(set(lrs)) == 1 for lrs in seen)  # one rate for all groups


def test_the_search_never_validates_and_counts_its_steps(learn: Learner) -> None:
    class NoValidation(Callback):
        def before_batch(self, learn: Learner) -> None:
            assert learn.training

        def after_epoch(self, learn: Learner) -> None:
            raise AssertionError("an epoch was ended")

    result = learn.lr_find(num_it=13, stop_div=False, cbs=[NoValidation()])
    assert len(result.losses) == 13  # 5 batches an epoch


def test_without_names_the_result_unpacks_as_in_the_lecture(learn: Learner) -> None:
    found = learn.lr_find()
    lr_min, lr_steep = found
    assert (lr_min, lr_steep) == (found.minimum, found.steep)
    assert (lr_min, lr_steep) == tuple(learn.lr_find(suggest_funcs=(minimum, steep)))
    assert [found.valley] == list(learn.lr_find(suggest=valley))
    assert found.slide == found.rate("slide")


@pytest.mark.parametrize("name", ["suggest", "suggest_funcs"])
@pytest.mark.parametrize("strange", ["best", 3, len, ["valley", None]])
def test_suggestions_that_there_are_not_are_refused(name: str, strange, learn: Learner) -> None:
    with pytest.raises(ValueError, match=r"no suggestion .*; there are bracket, valley, slide"):
        learn.lr_find(**{name: strange})


def test_a_search_sets_the_rate_of_the_next_run(learn: Learner) -> None:
    found = learn.lr_find(1e-4, 1, verify=0)
    assert learn.lr == found.lr
    assert learn.rate_note == f"next run: {rate_text(found.lr)} (bracket)"
    assert learn.fit_flat_cos(1).stages[0].lrs[0] == [found.lr] * len(learn.groups)
    assert learn.rate_note == f"lr {rate_text(found.lr)}, as lr_find found"


def test_a_refused_search_offers_the_rate_that_its_advice_names(loaders, mlp) -> None:
    """That of a network which knows its data: every rate makes it worse."""
    learn = Learner(loaders, mlp, loss_func=lambda out, y: 0.1 + 0 * out.sum(), device="cpu")
    learn.fit_flat_cos(1, 1e-2)
    found = learn.lr_find()
    assert (found.lr, found.advised) == (None, pytest.approx(1e-3))
    assert "it has converged; " in found.verdict
    assert "if you go on, use about 1/10 of the last LR, 1.0e-3" in found.verdict
    assert learn.lr == found.advised
    assert learn.rate_note == "next run: 1.0e-3 (no suggestion; as advised)"


def test_a_search_without_advice_leaves_the_rate_that_was_found_before(learn: Learner) -> None:
    lr = learn.lr_find(1e-4, 1).lr
    assert learn.lr_find(num_it=6).lr is None
    assert learn.lr == lr
    learn.use_rate(5.0, "as picked in its plot", "picked")  # a marker of the older plot
    assert learn.lr_find(num_it=6).lr is None
    assert learn.lr != 5.0


def test_the_result_iterates_in_the_order_asked_for(learn: Learner) -> None:
    result = learn.lr_find(suggest=("minimum", "steep"))
    lr_min, lr_steep = result
    assert result.suggestions == {"minimum": lr_min, "steep": lr_steep}
    assert learn.lr_find(suggest="slide").suggestions.keys() == {"slide"}


@pytest.fixture
def learner_of_colours(dls, tiny_net) -> Learner:
    return vision_learner(dls, tiny_net, device="cpu")


def test_a_network_that_learns_gets_a_rate_with_confidence(learner_of_colours) -> None:
    result = learner_of_colours.lr_find(end_lr=100, verify=0)
    assert result.confidence != "none"
    assert result.lr == result.bracket
    assert result.low < result.high
    rates = f"suggested rate {rate_text(result.lr)} (bracket); usable range {rate_text(result.low)}"
    assert repr(result).startswith(f"lr_find: {rates}")


def test_a_flat_curve_has_no_rate(learn: Learner) -> None:
    result = learn.lr_find(1e-12, 1e-10, verify=0)
    assert (result.confidence, result.lr) == ("none", None)
    assert repr(result).startswith("lr_find: no suggestion: the loss is flat")


def test_a_short_run_is_refused_without_an_error(learn: Learner) -> None:
    result = learn.lr_find(num_it=6)  # IndexError in fastai
    assert result.confidence == "none"
    assert all(map(math.isnan, result))
    with pytest.raises(AttributeError, match="this curve has no valley: too short"):
        _ = result.valley
    assert not hasattr(result, "bracket")
    assert "too short: 6 finite losses" in result.verdict


def test_a_loss_that_is_not_finite_ends_the_search(learn: Learner) -> None:
    learn.loss_func = lambda logits, targets: logits.sum() * math.nan
    result = learn.lr_find()
    assert len(result.losses) == 1
    assert result.confidence == "none"


def test_negative_losses_do_not_end_the_search(learn: Learner) -> None:
    cross_entropy = torch.nn.functional.cross_entropy
    learn.loss_func = lambda logits, targets: cross_entropy(logits, targets) - 5
    assert len(learn.lr_find(1e-6, 1e-3).losses) == 100  # one point in fastai


def test_the_picture_shows_the_curve_and_names_what_it_marks(learner_of_colours) -> None:
    result = learner_of_colours.lr_find(end_lr=100, suggest=("valley", "steep"))
    html = result._repr_mimebundle_()["text/html"]
    assert f'alt="{result!r}"' in html
    assert html.count("data:image/png;base64,") == 1  # GitHub shows no SVG there
    [ax] = lr_figure({"": result}).axes
    points, line, *marks = ax.lines
    assert points.get_xydata().tolist() == np.transpose([result.lrs, result.losses]).tolist()
    assert line.get_ydata().tolist() == result.centred
    assert sorted(m.get_xdata()[0] for m in marks) == sorted(result.suggestions.values())
    assert {text.get_text() for text in ax.texts} == {
        f"suggested rate (valley) {rate_text(result.lr)}",
        f"steep {rate_text(result.suggestions['steep'])}",
        "usable range ",
    }
    [shaded] = ax.patches
    assert shaded.get_extents().transformed(ax.transData.inverted()).intervalx == pytest.approx(
        [result.low, result.high]
    )
    for place, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
        assert float(label.get_text()) == pytest.approx(place)


def test_several_sweeps_are_over_different_batches_and_give_their_mean(learner_of_colours) -> None:
    before = state(learner_of_colours)
    alone = learner_of_colours.lr_find(verify=0)
    three = learner_of_colours.lr_find(seeds=3, verify=0)
    assert equal(state(learner_of_colours), before)
    assert three.sweeps[0] == alone.losses
    assert len({tuple(sweep[:5]) for sweep in three.sweeps}) == 3
    n = min(map(len, three.sweeps))
    mean = np.mean([sweep[:n] for sweep in three.sweeps], axis=0)
    assert three.losses == pytest.approx(mean.tolist())
    assert len(three.lrs) == n
    low, high = three.band
    assert all(a <= b for a, b in zip(low, high, strict=True))
    assert alone.band is None
    assert len(lr_figure({"": three}).axes[0].collections) == 1


def test_the_loaders_own_generator_gives_each_sweep_other_batches(learn: Learner) -> None:
    generator = torch.Generator().manual_seed(7)
    dataset = [(x, y) for batch in learn.dls.train for x, y in zip(*batch, strict=True)]
    learn.dls.train = torch.utils.data.DataLoader(dataset, 4, shuffle=True, generator=generator)
    before = generator.get_state()
    first, second = learn.lr_find(seeds=2).sweeps
    assert first[0] != second[0]
    assert torch.equal(generator.get_state(), before)


def test_one_sweep_for_each_group_moves_that_group_alone(learn: Learner) -> None:
    groups = [torch.nn.utils.parameters_to_vector(g[0].parameters()) for g in learn.groups]
    moved: list[set[int]] = []

    class Watch(Callback):
        def before_fit(self, learn: Learner) -> None:
            moved.append(set())

        def after_batch(self, learn: Learner) -> None:
            now = [torch.nn.utils.parameters_to_vector(g[0].parameters()) for g in learn.groups]
            moved[-1].update(i for i in range(3) if not torch.equal(now[i], groups[i]))

    before = state(learn)
    found = learn.lr_find(1e-3, 1, groups=True, cbs=[Watch()])
    assert equal(state(learn), before)
    assert moved == [{0}, {1}, {2}]
    assert list(found.results) == ["body 0", "body 1", "head"]
    whole = learn.lr_find(1e-3, 1)
    assert found.results["head"].losses[0] == whole.losses[0]
    assert found.results["head"].losses != whole.losses


def test_verify_takes_the_rate_whose_short_run_ends_best(learner_of_colours) -> None:
    before = state(learner_of_colours)
    found = learner_of_colours.lr_find(end_lr=100, verify=3)
    assert equal(state(learner_of_colours), before)
    bare = learner_of_colours.lr_find(end_lr=100, verify=0)
    steps = np.diff(np.log([bare.low, *(lr for lr, _ in found.trials), bare.high]))
    assert steps == pytest.approx([steps[0]] * 4)  # evenly spaced in the bracket
    assert found.trials == [(lr, trial_loss(learner_of_colours, lr)) for lr, _ in found.trials]
    best, loss = min(found.trials, key=lambda trial: trial[1])
    assert (found.lr, found.chosen) == (best, "verified")
    assert found.suggestions == {"bracket": bare.lr}
    assert repr(found).startswith(
        f"lr_find: suggested rates {rate_text(best)} (verified), {rate_text(bare.lr)} (bracket)"
    )
    start, _ = learner_of_colours.validate()
    assert f"{loss:.3f} from {start:.3f}" in found.verdict


def test_a_short_run_trains_as_one_cycle_of_as_many_steps_does(learn: Learner) -> None:
    lrs = []

    class Watch(Callback):
        def after_batch(self, learn: Learner) -> None:
            if learn.training:
                lrs.append(learn.opt.param_groups[0]["lr"])

    trial_loss(learn, 1e-2, [Watch()])
    learn.fit_one_cycle(8, 1e-2)  # epochs of 5 batches: 40 steps
    assert lrs == pytest.approx([step[0] for step in learn.recorder.run.lrs])


def test_verify_says_so_when_no_rate_helps_any_more(learn: Learner) -> None:
    learn.loss_func = lambda logits, targets: logits.sum() * 0 + 1.5
    found = learn.lr_find(verify=2)
    assert found.lr is None
    assert "no short run lowers the held-out loss of 1.500 by 2%" in found.verdict
    assert [loss for _, loss in found.trials] == [1.5, 1.5]


@pytest.mark.parametrize("step", [3, 103, 131, 160, 190])
def test_an_interrupt_in_any_part_of_a_verified_search_changes_nothing(step, trained) -> None:
    before = state(trained)
    with pytest.raises(KeyboardInterrupt):
        trained.lr_find(seeds=2, verify=3, stop_div=False, cbs=[At(step, KeyboardInterrupt)])
    assert equal(state(trained), before)


def test_a_second_interrupt_does_not_leave_it_half_put_back(trained: Learner) -> None:
    class Interrupting(dict):
        def clear(self) -> None:  # in the middle of putting back
            signal.raise_signal(signal.SIGINT)
            super().clear()

    before = state(trained)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), unchanged(trained):
            trained.fit(1, 1e-2)
            trained.opt.state = Interrupting(trained.opt.state)
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, handler)
    assert equal(state(trained), before)


def test_the_state_of_a_loss_function_is_put_back(trained: Learner) -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, logits, targets):
            self.calls += 1
            return torch.nn.functional.cross_entropy(logits, targets)

    trained.loss_func = Counting()
    trained.lr_find(num_it=8)
    assert trained.loss_func.calls == 0


class Noisy(torch.utils.data.Dataset):
    """Items that the random numbers of a worker change."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.randn(4), i % 2


def test_workers_that_live_on_give_the_same_after_a_search(mlp, loaders) -> None:
    seen = []
    for search in (False, True):
        torch.manual_seed(0)
        loaders.train = torch.utils.data.DataLoader(
            Noisy(), 4, num_workers=1, persistent_workers=True,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        learn = Learner(loaders, deepcopy(mlp), device="cpu")
        learn.fit(1, 1e-3)
        if search:
            learn.lr_find(num_it=8)
        seen.append(learn.fit(1, 1e-3).stages[0].losses)
    assert seen[0] == seen[1]


def test_stopping_a_verified_search_leaves_the_last_runs_record_alone(trained: Learner) -> None:
    trained.control.poll = lambda: trained.control.stop() if not trained.training else None
    trained.lr_find(verify=2)
    assert [run.events for run in trained.recorder.runs] == [[]]


def test_two_searches_are_compared_in_one_picture_and_in_words(learner_of_colours) -> None:
    learn = learner_of_colours
    frozen = learn.lr_find(end_lr=100, verify=0)
    learn.unfreeze()
    both = frozen.compare(learn.lr_find(end_lr=100, verify=0))
    assert list(both.results) == ["head", "all layers"]
    [legend] = lr_figure(both.results).legends
    assert [text.get_text() for text in legend.get_texts()] == ["head", "all layers"]
    lines = repr(both).splitlines()
    assert lines[0].split("  ")[:2] == ["curve", ""]
    assert "suggested rate" in lines[0]
    assert "usable range" in lines[0]
    assert lines[1].split()[0] == "head"
    assert f"{rate_text(frozen.lr)} (bracket)" in lines[1]
    assert "all layers" in both._repr_mimebundle_()["text/html"]
    again = frozen.compare(frozen)
    assert list(again.results) == ["1: head", "2: head"]
    named = frozen.compare(frozen, names=("<b>", "x"))
    assert "<b>" not in named._repr_mimebundle_()["text/html"].replace("<b></b>", "")
    with pytest.raises(ValueError, match="1 names for 2 curves"):
        frozen.compare(frozen, names=("x",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds is 0; it must be a whole number of sweeps from 1 up"),
        ({"verify": 1}, "verify is 1; it must be 0, or a number of rates from 2 up"),
        ({"verify": 2, "groups": True}, "leave verify or groups out"),
        ({"start_lr": 1.0, "end_lr": 0.1}, "start_lr 1.0 must be positive and below end_lr 0.1"),
        ({"start_lr": 0}, "start_lr 0 must be positive"),
        ({"num_it": 5}, "num_it is 5; it must be a whole number from 6 up"),
        (
            {"suggest": ("best",)},
            "no suggestion 'best'; there are bracket, valley, slide, minimum, steep",
        ),
        ({"suggest": ()}, "suggest names none of bracket"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_touched(options, message, learn) -> None:
    before = state(learn)
    with pytest.raises(ValueError, match=message):
        learn.lr_find(**options)
    assert equal(state(learn), before)


def test_groups_are_refused_while_some_are_frozen(learn: Learner) -> None:
    learn.freeze()
    with pytest.raises(ValueError, match=r"2 of 3 are frozen; call learn.unfreeze\(\)"):
        learn.lr_find(groups=True)


def test_nothing_to_train_or_to_train_on_is_refused(learn: Learner) -> None:
    for p in learn.model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no parameter of the model is trainable; call learn.un"):
        learn.lr_find()
    learn.unfreeze()
    learn.dls.train = []
    with pytest.raises(ValueError, match="this learner has no data to train on"):
        learn.lr_find()


def test_verify_says_when_all_rates_tried_are_too_high(learn: Learner, monkeypatch) -> None:
    monkeypatch.setattr("nbfinetune.lr_finder.trials.trial_loss", lambda *args: math.inf)
    verdict = learn.lr_find(verify=2).verdict
    assert "are too high; lower start_lr" in verdict


def test_a_search_that_is_all_nan_is_not_called_converged(learn: Learner) -> None:
    learn.loss_func = lambda logits, targets: logits.sum() * math.nan
    found = learn.lr_find(verify=3)
    assert found.lr is None
    assert "converged" not in found.verdict
    assert found.trials == []
