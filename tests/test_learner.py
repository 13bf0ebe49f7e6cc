import multiprocessing
import os
import random
import signal
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from nbfinetune import Callback, ImageDataLoaders, Learner, accuracy, top_k_accuracy, vision_learner


def losses(learn: Learner) -> list[float]:
    return learn.fit_one_cycle(2, 1e-2).stages[0].losses


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("aug", [True, False])
def test_the_same_seed_gives_bit_equal_losses_twice(photos, tiny_net, num_workers, aug) -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(random.randrange(2**30))  # must not matter
        dls = ImageDataLoaders.from_folder(photos, size=16, bs=5, num_workers=num_workers, aug=aug)
        learn = vision_learner(dls, tiny_net, head="fastai", seed=seed, device="cpu")
        first = losses(learn)
        learn.unfreeze()
        runs.append((first, losses(learn)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_one_loader_can_serve_two_equal_learners(dls, tiny_net) -> None:
    runs = [losses(vision_learner(dls, tiny_net, device="cpu")) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("act", ["fit", "interrupt", "predict"])
def test_random_numbers_of_the_user_are_as_before(act: str, dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, head="fastai", device="cpu")

    class Interrupt(Callback):
        def after_batch(self, learn: Learner) -> None:
            raise KeyboardInterrupt

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    if act == "fit":
        learn.fit(1, 1e-3)
    elif act == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            learn.fit(1, 1e-3, cbs=[Interrupt()])
    else:
        learn.get_preds(), learn.validate()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_predicting_between_two_fits_changes_nothing(dls, tiny_net) -> None:
    runs = []
    for predict in (False, True):
        learn = vision_learner(dls, tiny_net, device="cpu")
        first = losses(learn)
        if predict:
            learn.get_preds("train")
            learn.predict(dls.train.dataset.image(0))
        runs.append((first, losses(learn)))
    assert runs[0] == runs[1]


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def _changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    return {k for k in before if not torch.equal(before[k], after[k])}


def test_frozen_means_no_gradient_and_no_moving_statistics(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    assert [p.requires_grad for p in learn.model[0].parameters()] == [False] * 3
    assert isinstance(learn.model[1], nn.Linear)
    seen = []

    class Graph(Callback):
        def before_fit(self, learn: Learner) -> None:
            learn.model[0].register_forward_hook(lambda m, i, out: seen.append(out.requires_grad))

    before = _state(learn.model)
    learn.fit(1, 1e-2, cbs=[Graph()])
    assert _changed(before, learn.model) == {"1.weight", "1.bias"}
    assert seen
    assert not any(seen)


def test_unfrozen_pretrained_statistics_stay_but_weights_train(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    learn.unfreeze()
    before = _state(learn.model)
    learn.fit(1, 1e-2)
    fixed = {"0.norm.running_mean", "0.norm.running_var", "0.norm.num_batches_tracked"}
    assert _changed(before, learn.model) == set(before) - fixed


def test_fastais_rule_trains_norms_and_moves_statistics_of_the_frozen_body(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, train_bn=True, head="fastai", device="cpu")
    before = _state(learn.model)
    learn.fit(2, 1e-2)  # the second step's gradient is no longer zero anywhere
    assert _changed(before, learn.model) == set(before) - {"0.conv.weight"}


def test_from_scratch_everything_trains(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, weights=None, device="cpu")
    assert learn.frozen == 0
    before = _state(learn.model)
    learn.fit(2, 1e-2)
    assert _changed(before, learn.model) == set(before)


def test_unfreezing_clears_the_momentum(learn: Learner) -> None:
    learn.fit(1, 1e-3)
    assert learn.opt.state
    with pytest.warns(
        UserWarning, match="no change in what trains: 0 of 3 layer groups are frozen"
    ):
        learn.unfreeze()
    assert not learn.opt.state


def test_freezing_that_changes_nothing_says_so(learn: Learner) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn.freeze()
    with pytest.warns(
        UserWarning, match="no change in what trains: 2 of 3 layer groups are frozen, 22 of"
    ):
        learn.freeze()


def test_a_model_of_one_group_cannot_be_frozen_and_says_so(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, device="cpu")
    with pytest.warns(
        UserWarning, match="no change in what trains: 0 of 1 layer groups are frozen"
    ):
        learn.freeze()


def test_summary_shows_groups_parameters_rates_and_device(learn: Learner) -> None:
    learn.freeze_to(-2)
    learn.fit(1, slice(1e-5, 1e-3))
    assert repr(learn.summary()).splitlines() == [
        "Sequential: 1 of 3 layer groups are frozen, 52 of 77 parameters train",
        "layer group  parameters  trainable  last lr",
        "body 0               35         10   1.0e-5",
        "body 1               30         30   1.0e-4",
        "head                 12         12   1.0e-3",
        "device cpu, mixed precision off, next lr 1.0e-3",
    ]


def test_bf16_trains_in_mixed_precision_on_a_cpu(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, amp="bf16", device="cpu")
    kinds = []
    mlp[2].register_forward_hook(lambda m, i, out: kinds.append(out.dtype))
    result = learn.fit(1, 1e-2)
    assert set(kinds) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in mlp.parameters())
    exact = Learner(loaders, mlp, amp="off", device="cpu").validate()
    assert result.rows[-1]["valid_loss"] == pytest.approx(exact[0], rel=0.02)


def test_fp16_scales_its_gradients(loaders, mlp) -> None:
    learn = Learner(loaders, mlp, amp="fp16", device="cpu")
    assert learn.scaler.is_enabled()
    result = learn.fit(2, 1e-2)
    assert np.isfinite(result.stages[0].losses).all()


def test_auto_precision_is_off_on_a_cpu(loaders, mlp) -> None:
    assert Learner(loaders, mlp, device="cpu").amp == "off"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp": "fp8"}, "amp is 'fp8'; it must be one of auto, bf16, fp16, off"),
        ({"accumulate": 0}, "accumulate is 0; it must be a whole number from 1 up"),
        ({"groups": [[nn.Linear(1, 1)]]}, "is in no layer group"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str, loaders, mlp) -> None:
    with pytest.raises(ValueError, match=message):
        Learner(loaders, mlp, device="cpu", **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", ["auto", "fp16", "off"])
def test_training_on_cuda_learns(dls, tiny_net, amp: str) -> None:
    learn = vision_learner(dls, tiny_net, head="fastai", amp=amp, device="cuda")
    first, last = (learn.fit(3, 1e-2).rows[-1]["valid_loss"] for _ in range(2))
    assert last < first


def test_two_metrics_of_one_name_are_refused(loaders, mlp) -> None:
    with pytest.raises(ValueError, match="two metrics have the same name: accuracy, accuracy"):
        Learner(loaders, mlp, metrics=[accuracy, accuracy], device="cpu")
    both = [partial(top_k_accuracy, k=1), partial(top_k_accuracy, k=2)]
    row = Learner(loaders, mlp, metrics=both, device="cpu").fit(1, 1e-3).rows[0]
    assert row["top_k_accuracy_2"] == 1


def test_workers_that_died_with_an_interrupt_do_not_stop_the_next_fit(photos, tiny_net) -> None:
    dls = ImageDataLoaders.from_folder(photos, size=16, bs=5, num_workers=2)
    learn = vision_learner(dls, tiny_net, device="cpu")

    class KillWorkers(Callback):
        """What the front end's interrupt does: it signals the whole process group."""

        def after_batch(self, learn: Learner) -> None:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGINT)
                worker.join()
            raise KeyboardInterrupt

    # A suite started in the background ignores this signal, and so would the workers.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            learn.fit(1, 1e-3, cbs=[KillWorkers()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert learn.fit(1, 1e-3).status == "finished"
