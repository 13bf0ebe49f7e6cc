"""lr_find changes nothing, however it ends, and its curve is fastai's."""

import base64
import math
import random
import re
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from nbfinetune import Callback, ImageDataLoaders, Learner, vision_learner
from nbfinetune.rng import get_rng_state


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
    """Everything that lr_find might change."""
    names = {id(p): name for name, p in learn.model.named_parameters()}
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
        "attributes": {k: deepcopy(v) for k, v in plain.items() if k not in ("groups", "cbs")},
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

    result = learn.lr_find(stop_div=False, cbs=[Groups()])
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


def test_the_result_iterates_in_the_order_asked_for(learn: Learner) -> None:
    result = learn.lr_find(suggest=("minimum", "steep"))
    lr_min, lr_steep = result
    assert result.suggestions == {"minimum": lr_min, "steep": lr_steep}
    assert learn.lr_find(suggest="slide").suggestions.keys() == {"slide"}


@pytest.fixture
def learner_of_colours(dls, tiny_net) -> Learner:
    return vision_learner(dls, tiny_net, device="cpu")


def test_a_network_that_learns_gets_a_rate_with_confidence(learner_of_colours) -> None:
    result = learner_of_colours.lr_find(end_lr=100)
    assert result.confidence != "none"
    assert result.lr == next(iter(result))
    assert result.low < result.high
    assert repr(result).startswith(f"lr_find: valley {result.lr:.1e}; usable {result.low:.1e} to")


def test_a_flat_curve_has_no_rate(learn: Learner) -> None:
    result = learn.lr_find(1e-12, 1e-10)
    assert (result.confidence, result.lr) == ("none", None)
    assert repr(result).startswith("lr_find: no suggestion: the loss is flat")


def test_a_short_run_is_refused_without_an_error(learn: Learner) -> None:
    result = learn.lr_find(num_it=6)  # IndexError in fastai
    assert result.confidence == "none"
    assert math.isnan(next(iter(result)))
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
    html = result._repr_html_()
    assert f'alt="{result!r}"' in html
    assert "<svg" not in html  # JupyterLab strips it from notebooks that are not trusted
    data = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)"', html)[1]
    svg = ElementTree.fromstring(base64.b64decode(data))
    drawn = Counter(element.tag.partition("}")[2] for element in svg.iter())
    assert drawn["circle"] == len(result.losses)
    assert drawn["polyline"] == 1
    texts = [element.text for element in svg.iter() if element.text]
    assert f"valley {result.lr:.1e}" in texts
    assert f"steep {result.suggestions['steep']:.1e}" in texts
    assert {"1e-4", "learning rate", "loss"} <= set(texts)
    assert any(element.get("fill-opacity") == "0.12" for element in svg.iter())  # the bracket


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_lr": 1.0, "end_lr": 0.1}, "start_lr 1.0 must be positive and below end_lr 0.1"),
        ({"start_lr": 0}, "start_lr 0 must be positive"),
        ({"num_it": 5}, "num_it is 5; it must be a whole number from 6 up"),
        ({"suggest": ("best",)}, "no suggestion 'best'; there are valley, slide, minimum, steep"),
        ({"suggest": ()}, "suggest names none of valley"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_touched(options, message, learn) -> None:
    before = state(learn)
    with pytest.raises(ValueError, match=message):
        learn.lr_find(**options)
    assert equal(state(learn), before)


def test_nothing_to_train_or_to_train_on_is_refused(learn: Learner) -> None:
    for p in learn.model.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no parameter of the model is trainable; call learn.un"):
        learn.lr_find()
    learn.unfreeze()
    learn.dls.train = []
    with pytest.raises(ValueError, match="this learner has no data to train on"):
        learn.lr_find()
