import copy
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbfinetune import (
    Callback,
    ClassificationInterpretation,
    EarlyStopping,
    Learner,
    SaveBest,
    vision_learner,
)
from nbfinetune.cluster.data import giving, kept
from nbfinetune.cluster.travel import calls, pickles, results
from nbfinetune.data.transforms import ImageTransforms


def sent(value: object, device: str = "cpu") -> object:
    return pickles.Reader(pickles.as_bytes([value], {}), {}, device=device).read()


def same(a: object, b: object) -> bool:
    """Whether nested values are the same, to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state_of(learn: Learner) -> dict:
    """All that decides how a learner goes on."""
    return {
        "weights": learn.model.state_dict(),
        "optimizer": learn.opt.state_dict(),
        "rng": learn._rng,
        "trains": [p.requires_grad for p in learn.model.parameters()],
        "rates": (learn.lr, learn.chosen, learn.frozen, learn.rate_note, learn.second_stage),
        "losses": [run.losses for run in learn.recorder.runs],
        "smooth": [run.smooth for run in learn.recorder.runs],
        "rows": [[{**row, "time": 0} for row in run.rows] for run in learn.recorder.runs],
        "status": vars(learn).get("status"),
        "modes": [module.training for module in learn.model.modules()],
    }


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(4, 6).t(),
        torch.tensor(2.5),
        torch.empty(0, 3),
        torch.randn(5).bfloat16(),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.complex64),
        torch.arange(9),
    ],
)
def test_a_tensor_arrives_bit_for_bit_in_its_layout(tensor: torch.Tensor) -> None:
    assert same(sent(tensor), tensor)


def test_views_that_do_not_fill_their_memory_arrive_with_their_values_alone() -> None:
    one = torch.ones(1).expand(1000, 1000)
    assert torch.equal(sent(one), one)
    row = torch.randn(1_000_000)[::1000]
    content = pickles.as_bytes([row], {})
    assert len(content) < 10_000
    assert torch.equal(pickles.Reader(content, {}).read(), row)


def test_parameters_stay_parameters_and_shared_ones_shared() -> None:
    a = nn.Parameter(torch.randn(3), requires_grad=False)
    a.note = "mine"
    there, again = sent([a, a])
    assert type(there) is nn.Parameter
    assert not there.requires_grad
    assert there is again
    assert there.note == "mine"


def test_what_arrives_can_be_written_to_and_keeps_no_more_memory_than_its_own() -> None:
    there = sent([torch.zeros(4), np.zeros(4)])
    there[0] += 1
    there[1] += 1
    assert there[0].untyped_storage().nbytes() == 16
    assert there[1].base is None or len(there[1].base) < 100


def test_a_class_and_a_function_of_a_cell_travel_whole() -> None:
    names: dict = {"__name__": "__main__"}
    exec("k = 3\nclass Own:\n    def f(self): return k\nown = Own()", names)
    content = pickles.as_bytes([names["own"], lambda x: x + 1], {})
    assert b"__main__" in content
    assert sent(names["own"]).f() == 3


class Noting(Callback):
    """A callback of the user's, which counts and sets an attribute of the learner."""

    def __init__(self) -> None:
        self.steps, self.losses = 0, []

    def after_batch(self, learn: Learner) -> None:
        if learn.training:
            self.steps += 1
            self.losses.append(float(learn.loss))
            learn.noted = self.losses


def test_a_fit_elsewhere_leaves_the_learner_as_a_fit_here_does(learn, trip) -> None:
    twin, cb = copy.deepcopy(learn), Noting()
    with learn.quiet(), twin.quiet():
        twin.fit(2, 0.01, cbs=[Noting()])
        back = trip(learn, "fit", n_epoch=2, lr=0.01, cbs=[cb])
        assert same(state_of(learn), state_of(twin))
        learn.fit_one_cycle(1, 0.01)
        twin.fit_one_cycle(1, 0.01)
    assert same(state_of(learn), state_of(twin))
    assert back.value.stages[0] is learn.recorder.runs[0]
    assert cb.steps == 10
    assert cb.losses == learn.recorder.runs[0].losses == learn.noted
    assert back.left == []


def test_a_learner_that_trained_here_goes_on_elsewhere_with_the_same_losses(learn, trip) -> None:
    twin = copy.deepcopy(learn)
    with learn.quiet(), twin.quiet():
        for each in (learn, twin):
            each.freeze()
            each.fit(1, 0.02)
        twin.unfreeze()
        twin.fit_one_cycle(2, slice(1e-3, 1e-2), keep_best=True)
        learn.unfreeze()
        trip(learn, "fit_one_cycle", n_epoch=2, lr_max=slice(1e-3, 1e-2), keep_best=True)
    assert same(state_of(learn), state_of(twin))
    run = learn.recorder.runs[1]
    assert any(run.kept is row for row in run.rows)


def test_fine_tune_of_pictures_elsewhere_is_that_of_here(dls, trip) -> None:
    learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
    twin = copy.deepcopy(learn)
    with learn.quiet(), twin.quiet():
        twin.fine_tune(1)
        made = learn.made_by
        trip(learn, "fine_tune", epochs=1)
    assert learn.made_by is made
    assert learn.loss.is_leaf
    assert not learn.loss.requires_grad
    assert same(state_of(learn), state_of(twin))
    assert any(p.is_contiguous(memory_format=torch.channels_last) for p in learn.model.parameters())


def test_lr_find_elsewhere_sets_the_rate_here_and_nothing_else(learn, trip) -> None:
    twin = copy.deepcopy(learn)
    with learn.quiet(), twin.quiet():
        here = twin.lr_find()
        there = trip(learn, "lr_find").value
    assert there.lr == here.lr
    assert there.losses == here.losses
    assert learn.last_search is there
    assert same(state_of(learn), state_of(twin))


def test_the_learner_in_the_notebook_is_as_before_while_its_copy_trains(learn, engines) -> None:
    cluster = engines("here")
    with learn.quiet():
        learn.fit(1, 0.01)
    before, attributes = copy.deepcopy(state_of(learn)), dict(vars(learn))
    parcel = calls.pack_call(learn, "fit", {"n_epoch": 1})
    keys = giving.give_all(cluster, parcel.data)

    def run() -> bytes:
        arrived = calls.unpack(parcel.content, keys, device="cpu")
        with arrived.learn.quiet():
            return results.pack_result(arrived, arrived.learn.fit(**arrived.arguments))

    back = results.unpack_result(cluster.call(0, run).get(), learn, parcel)
    assert same(state_of(learn), before)
    assert all(vars(learn)[name] is value for name, value in attributes.items())
    back.put()
    assert len(learn.recorder.runs) == 2


def test_weights_that_did_not_change_do_not_come_back(learn, engines) -> None:
    cluster = engines("here")
    learn.freeze()
    parcel = calls.pack_call(learn, "fit", {})
    keys = giving.give_all(cluster, parcel.data)

    def run() -> set[str]:
        arrived = calls.unpack(parcel.content, keys, device="cpu")
        with arrived.learn.quiet():
            arrived.learn.fit(1)
        back = results.unpack_result(results.pack_result(arrived), learn, parcel)
        return set(back._tree["tensors"])

    statistics = {f"model.0.1.{name}" for name in ("running_mean", "running_var", "weight", "bias")}
    statistics.add("model.0.1.num_batches_tracked")  # norms of frozen groups train (fastai's rule)
    assert cluster.call(0, run).get() == {"model.2.weight", "model.2.bias"} | statistics


def test_another_process_gets_the_whole_learner(learn, loaders, mlp, engines, fill) -> None:
    cluster = engines("here")
    parcel = calls.pack_call(learn, "fit", {"cbs": [Noting()]})
    keys = giving.give_all(cluster, parcel.data)

    def run() -> bytes:
        arrived = calls.unpack(parcel.content, keys, device="cpu")
        with arrived.learn.quiet():
            value = arrived.learn.fit(1, **arrived.arguments)
        return results.pack_result(arrived, value, everything=True)

    content = cluster.call(0, run).get()
    other = copy.deepcopy(learn)
    with torch.no_grad():
        for p in other.model.parameters():
            p.zero_()
    other.freeze()
    back = results.unpack_result(content, other)
    back.put()
    with learn.quiet():
        learn.fit(1)
    assert same(state_of(other), state_of(learn))
    assert back.value.stages[0] is other.recorder.runs[0]


def test_nothing_is_put_into_a_network_that_was_changed_meanwhile(learn, engines) -> None:
    cluster = engines("here")
    parcel = calls.pack_call(learn, "fit", {})
    keys = giving.give_all(cluster, parcel.data)

    def run() -> bytes:
        arrived = calls.unpack(parcel.content, keys, device="cpu")
        with arrived.learn.quiet():
            arrived.learn.fit(1)
        return results.pack_result(arrived)

    content = cluster.call(0, run).get()
    learn.model[2] = nn.Linear(5, 3)
    before = copy.deepcopy(state_of(learn))
    with pytest.raises(ValueError, match=r"network was changed meanwhile \(model.2.weight\)"):
        results.unpack_result(content, learn, parcel).put()
    assert same(state_of(learn), before)


def test_callbacks_of_the_screen_stay_at_home(learn, trip) -> None:
    class Screen(Noting):
        runs_on = "console"

        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()  # could not travel

    mine, own = Screen(), Screen()
    learn.cbs = [own]
    with learn.quiet():
        trip(learn, "fit", n_epoch=1, cbs=[mine])
    assert (mine.steps, own.steps) == (0, 0)
    assert learn.cbs == [own]
    assert len(learn.recorder.runs[0].losses) == 5


def test_callbacks_of_ours_know_here_what_they_saw_there(learn, trip) -> None:
    best, stopping = SaveBest(), EarlyStopping(patience=1)
    learn.cbs = [best, stopping]
    with learn.quiet():
        trip(learn, "fit", n_epoch=3, lr=0.01)
    assert any(best.row is row for row in learn.recorder.runs[0].rows)
    assert learn.cbs == [best, stopping]


class WithFile(Callback):
    def __init__(self, path: str) -> None:
        self.log = open(path, "w")  # noqa: SIM115


class OpensLater(Callback):
    def __init__(self, path: str) -> None:
        self.path, self.n = path, 0

    def before_fit(self, learn: Learner) -> None:
        self.log = open(self.path, "w")  # noqa: SIM115
        self.n = 1


def test_a_callback_with_an_open_file_is_refused_by_name(learn, tmp_path) -> None:
    cb = WithFile(tmp_path / "log")
    with pytest.raises(ValueError, match="cannot travel") as refused:
        calls.pack_call(learn, "fit", {"cbs": [Noting(), cb]})
    cb.log.close()
    assert str(refused.value) == (
        "the callback WithFile cannot travel to the workers: its log is a TextIOWrapper (Cannot "
        "pickle files that are not opened for reading: w): take it out of cbs=, or open it in "
        "before_fit"
    )


def test_what_a_callback_opened_there_stays_there_which_is_told(learn, trip, tmp_path) -> None:
    cb = OpensLater(tmp_path / "log")
    with learn.quiet():
        back = trip(learn, "fit", n_epoch=1, cbs=cb)
    assert cb.n == 1
    assert not hasattr(cb, "log")
    assert back.left == [
        "log of the callback OpensLater (Cannot pickle files that are not opened for reading: w)"
    ]


class Locked:
    """Something that no process can give to another."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, *args: object) -> float:
        return 0.5


LOCK = "cannot pickle '_thread.lock' object"


def test_a_metric_that_cannot_travel_is_refused_by_name(learn) -> None:
    learn.metrics = [Locked()]
    with pytest.raises(
        ValueError, match=rf"^the metric Locked cannot .* its lock is a lock \({LOCK}"
    ):
        calls.pack_call(learn, "fit", {})


def test_a_module_that_cannot_travel_is_refused_by_name(learn) -> None:
    learn.model[1][0].held = Locked()
    with pytest.raises(ValueError, match="cannot travel") as refused:
        calls.pack_call(learn, "fit", {})
    assert str(refused.value) == (
        "the module 1.0 (Linear) cannot travel to the workers: its held.lock is a lock "
        f"({LOCK}): keep it out of the network's attributes, or open it in forward"
    )


def test_a_loader_of_the_users_that_cannot_travel_is_refused_by_name(learn) -> None:
    data = TensorDataset(torch.zeros(4, 4), torch.zeros(4).long())
    data.held = Locked()
    learn.dls.train = DataLoader(data, batch_size=2)
    with pytest.raises(ValueError, match=r"^the training data set cannot .* its held.lock is a "):
        calls.pack_call(learn, "fit", {})


def test_an_argument_that_cannot_travel_is_refused_by_name(learn) -> None:
    with pytest.raises(ValueError, match=r"^the argument wd cannot travel to the workers"):
        calls.pack_call(learn, "fit", {"n_epoch": 1, "wd": Locked()})


def test_an_attribute_of_the_learner_that_cannot_travel_is_refused_by_name(learn) -> None:
    learn.mine = Locked()
    with pytest.raises(ValueError, match=r"^the attribute mine of .* delete learn.mine"):
        calls.pack_call(learn, "fit", {"n_epoch": 1})


def test_a_module_that_is_not_there_is_named_with_the_host() -> None:
    made = ModuleType("only_here")
    exec("class Own:\n    pass", made.__dict__)
    sys.modules["only_here"] = made
    try:
        content = pickles.as_bytes([made.Own()], {})
    finally:
        del sys.modules["only_here"]
    with pytest.raises(ValueError, match=r"^the module only_here is not on .* a cell"):
        pickles.Reader(content, {}).read()


def test_results_refer_to_the_objects_of_the_notebook(dls, small_net, trip, engines) -> None:
    net = small_net()
    groups = [[net.conv, net.norm], [net.classifier]]
    learn = Learner(dls, net, groups=groups, transforms=ImageTransforms(32), device="cpu")

    def interpreted(self: Learner, ds: str) -> ClassificationInterpretation:
        return ClassificationInterpretation.from_learner(self, ds)

    Learner.interpreted, here = interpreted, ClassificationInterpretation.from_learner(learn)
    try:
        interp = trip(learn, "interpreted", ds="valid").value
    finally:
        del Learner.interpreted
    assert interp.dataset is dls.valid.dataset
    assert interp.vocab is dls.vocab
    assert interp.network._there() is learn
    assert same([interp.losses, interp.targets], [here.losses, here.targets])
    issues = trip(learn, "label_issues", show=False).value
    assert [*issues.interp.dataset.parts] == [dls.train.dataset, dls.valid.dataset]
    preds = trip(learn, "get_preds", show=False).value
    assert same(preds.preds, learn.get_preds(show=False).preds)
    assert preds.files == [dls.valid.dataset.path(i) for i in range(len(preds.files))]


def test_a_loader_among_the_arguments_travels_with_its_pictures(dls, photos, small_net, trip):
    learn = Learner(dls, small_net(), transforms=ImageTransforms(32), device="cpu")
    files = sorted((photos / "red").iterdir())
    loader = dls.test_dl(files)
    parcel = calls.pack_call(learn, "get_preds", {"dl": loader, "show": False})
    assert [*parcel.data] == ["dls", "data.0"]
    preds = trip(learn, "get_preds", dl=loader, show=False).value
    assert preds.files == files
    assert same(preds.preds, learn.get_preds(dl=loader, show=False).preds)


def test_no_pictures_are_in_a_parcel(dls, small_net) -> None:
    learn = Learner(dls, small_net(), transforms=ImageTransforms(32), device="cpu")
    squares = dls.train.dataset.cache.nbytes
    parcel = calls.pack_call(learn, "fit", {"cbs": []})
    assert len(parcel.content) < squares / 4
    assert len(parcel.content) < 20_000


def test_a_loaders_own_random_numbers_go_there_and_come_back(loaders, mlp, trip) -> None:
    data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 2)

    def learner() -> Learner:
        own = torch.Generator().manual_seed(3)
        loaders.train = DataLoader(data, 4, shuffle=True, generator=own)
        return Learner(copy.copy(loaders), copy.deepcopy(mlp), device="cpu")

    here, there = learner(), learner()
    with here.quiet(), there.quiet():
        for _ in range(2):
            here.fit(1, 0.01)
            trip(there, "fit", n_epoch=1, lr=0.01)
    assert same(state_of(here), state_of(there))
    streams = [each.dls.train.generator.get_state() for each in (here, there)]
    assert torch.equal(*streams)


def test_the_features_of_a_frozen_body_stay_in_the_engine(dls, engines, fill) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = fill(nn.Sequential(body, nn.Linear(4, 3)))
    learn = Learner(
        *(dls, net),
        groups=[[body], [net[1]]],
        train_bn=False,
        transforms=ImageTransforms(32),
        device="cpu",
    )
    learn.freeze()
    cluster = engines("here")

    def run(content: bytes, keys: dict) -> bytes:
        arrived = calls.unpack(content, keys, device="cpu")
        with arrived.learn.quiet():
            arrived.learn.fit(1)
        return results.pack_result(arrived)

    for expected in (1, 0):
        parcel = calls.pack_call(learn, "fit", {})
        keys = giving.give_all(cluster, parcel.data)
        results.unpack_result(cluster.call(0, run, parcel.content, keys).get(), learn, parcel).put()
        assert learn.recorder.runs[-1].body_epochs == expected
    assert cluster.calls["here", "open_data"] == 1
    assert kept._here.kept == {}
