"""Memory ends: in forward, backward, optimizer, validation, features and matrix."""

import gc
import sys
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nbfinetune import ClassificationInterpretation, Learner, vision_learner
from nbfinetune.runtime.out_of_memory import OutOfMemory, is_out_of_memory

pytestmark = pytest.mark.filterwarnings("ignore:out of memory")

ERRORS = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "Python": MemoryError(),
    "NumPy": np._core._exceptions._ArrayMemoryError((2, 2), np.dtype("f8")),
}


class _Fails(torch.autograd.Function):
    """Raises in backward."""

    @staticmethod
    def forward(ctx, x: Tensor, fail: Callable) -> Tensor:
        ctx.fail = fail
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        ctx.fail(len(grad))
        return grad, None


class Room(nn.Module):
    """Has room for `most` items at once, in forward or in backward; notes what it took."""

    def __init__(self, most: int = 10**6, where: str = "forward", error: Exception | None = None):
        super().__init__()
        self.most, self.where, self.taken = most, where, []
        self.error = error or ERRORS["CUDA"]

    def fail(self, n: int) -> None:
        if n > self.most:
            raise self.error
        self.taken.append(n)

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "backward" and x.requires_grad:
            return _Fails.apply(x, self.fail)
        if self.where == "forward" or (self.where == "training" and self.training):
            self.fail(len(x))
        return x


def weights(learn: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


@pytest.fixture
def make(fill) -> Callable[..., Learner]:
    """Makes a learner of 4 numbers an item, 3 batches of 8, with some room."""
    x = torch.sin(torch.arange(96) * 1.7).view(24, 4)
    y = (x.sum(1) > 0).long()
    batches = list(zip(x.split(8), y.split(8), strict=True))
    dls = SimpleNamespace(train=batches, valid=batches, vocab=["no", "yes"])

    def made(room: Room | None = None, *, norm: bool = False, **options) -> Learner:
        between = [nn.BatchNorm1d(5)] if norm else []
        model = nn.Sequential(nn.Linear(4, 5), *between, nn.ReLU(), room or Room(), nn.Linear(5, 2))
        return Learner(dls, fill(model), device="cpu", **options)

    return made


@pytest.fixture
def seen(record_property) -> Callable[[str], None]:
    return lambda text: record_property("seen", text)


@pytest.mark.fault("out of memory, as six libraries say it", "known as such, no other error is")
def test_errors_that_tell_of_memory_are_known(seen) -> None:
    assert all(map(is_out_of_memory, ERRORS.values()))
    others = [
        RuntimeError("mat1 and mat2"),
        ValueError("out of memory"),
        OutOfMemory("no"),
        OSError(),
    ]
    assert not any(map(is_out_of_memory, others))
    seen(f"{len(ERRORS)} known, {len(others)} others not")


@pytest.mark.fault("no memory in the forward pass of a step", "the same weights, parts of half")
@pytest.mark.parametrize("error", ERRORS)
def test_a_step_without_room_is_made_in_parts(make, seen, error: str) -> None:
    whole, room = make(), Room(3, "training", ERRORS[error])
    whole.fit(2, 0.1, show=False)
    learn = make(room)
    with pytest.warns(match="out of memory with 8 items|out of memory with 8 pictures") as warned:
        learn.fit(2, 0.1, show=False)
    torch.testing.assert_close(weights(learn), weights(whole))
    torch.testing.assert_close(learn.recorder.run.losses, whole.recorder.run.losses)
    assert set(room.taken) == {2}
    assert [str(w.message) for w in warned] == [
        "out of memory with 8 pictures at once: going on with parts of 2, with the same gradient"
    ]
    assert learn.recorder.run.notes == [str(warned[0].message)]
    seen("parts of 2 of 8, one line")


@pytest.mark.fault("no memory in the backward pass", "nothing of its gradients is left")
def test_gradients_of_a_batch_that_failed_are_dropped(make, seen) -> None:
    whole, learn = make(), make(Room(4, "backward"))
    whole.fit(2, 0.1, show=False)
    learn.fit(2, 0.1, show=False)
    torch.testing.assert_close(weights(learn), weights(whole))
    seen("weights as without")


@pytest.mark.fault("no memory in the second of three batches of a step", "all three count once")
@pytest.mark.parametrize("where", ["training", "backward"])
def test_a_step_of_several_batches_is_taken_again_as_a_whole(make, seen, where: str) -> None:
    whole, room = make(accumulate=3), Room(8, where)
    learn = make(room, accumulate=3)
    whole.fit(1, 0.1, show=False)

    def shrink(module: nn.Module, inputs: tuple) -> None:
        if len(room.taken) == 1:
            room.most = 5

    handle = room.register_forward_pre_hook(shrink)
    learn.fit(1, 0.1, show=False)
    handle.remove()
    torch.testing.assert_close(weights(learn), weights(whole))
    assert room.taken[0] == 8
    assert room.taken.count(4) == 6
    seen("weights as without")


@pytest.mark.fault("no memory with BatchNorm that moves", "says that its statistics differ")
def test_statistics_of_parts_are_said_to_differ(make, seen) -> None:
    learn = make(Room(4, "training"), norm=True)
    with pytest.warns(match="parts of 4, whose BatchNorm statistics differ from those of a whole"):
        learn.fit(1, 0.1, show=False)
    assert learn.status == "finished"
    seen("said in the line")


@pytest.mark.fault("no memory, and a loss of the user's own", "says that losses are averaged")
def test_losses_of_parts_are_said_to_be_averaged(make, seen) -> None:
    learn = make(Room(4, "training"), loss_func=lambda x, y: nn.functional.cross_entropy(x, y))
    with pytest.warns(match="parts of 4, whose losses are averaged"):
        learn.fit(1, 0.1, show=False)
    seen("said in the line")


@pytest.mark.fault("no memory, and losses that are added up", "the same weights")
def test_losses_that_are_added_up_are_not_averaged(make, seen) -> None:
    how = {"loss_func": nn.CrossEntropyLoss(reduction="sum")}
    whole, learn = make(**how), make(Room(4, "training"), **how)
    for each in (whole, learn):
        each.fit(1, 0.01, show=False)
    torch.testing.assert_close(weights(learn), weights(whole))
    seen("weights as without")


@pytest.mark.fault("no memory, and classes of different weight", "the same weights")
def test_classes_keep_their_weight_in_parts(make, seen) -> None:
    how = {"loss_func": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))}
    whole, learn = make(**how), make(Room(3, "training"), **how)
    for each in (whole, learn):
        each.fit(1, 0.1, show=False)
    torch.testing.assert_close(weights(learn), weights(whole))
    seen("weights as without")


@pytest.mark.fault("no memory for one item", "the run ends, weights of the last whole step, usable")
def test_a_run_ends_where_one_item_does_not_fit(make, seen) -> None:
    room = Room(8, "training")
    learn, whole = make(room), make()
    whole.fit(1, 0.1, show=False)
    learn.fit(1, 0.1, show=False)
    room.most = 0
    with pytest.raises(OutOfMemory, match="out of memory with 1 picture in a training step") as e:
        learn.fit(1, 0.1, show=False)
    assert e.value._render_traceback_() == [str(e.value)]  # what a notebook shows
    assert learn.status == "failed"
    torch.testing.assert_close(weights(learn), weights(whole))
    assert all(p.grad is None for p in learn.model.parameters())
    room.most = 8
    for each in (whole, learn):
        each.fit(1, 0.1, show=False)
    torch.testing.assert_close(weights(learn), weights(whole), rtol=1e-4, atol=1e-4)
    seen("failed, then trained on")


@pytest.mark.fault("no memory for the optimizer's state, once", "the step is made once")
@pytest.mark.parametrize("times", [1, 2])
def test_an_optimizer_step_is_made_once_more(make, monkeypatch, seen, times: int) -> None:
    whole, learn, failed = make(), make(), []
    whole.fit(1, 0.1, show=False)
    before, step = weights(learn), learn.opt.step

    def short_of_memory(*args, **kwargs):
        if len(failed) < times:
            failed.append(1)
            raise ERRORS["CUDA"]
        return step(*args, **kwargs)

    monkeypatch.setattr(learn.opt, "step", short_of_memory)
    if times == 1:
        learn.fit(1, 0.1, show=False)
        torch.testing.assert_close(weights(learn), weights(whole), rtol=0, atol=0)
    else:
        with pytest.raises(OutOfMemory, match=r"optimizer's step.*those of the step before"):
            learn.fit(1, 0.1, show=False)
        assert torch.equal(weights(learn), before)
    seen("made" if times == 1 else "ended in one line, weights as before")


@pytest.mark.fault("no memory in validation and get_preds", "the same values, the run goes on")
def test_passes_go_on_in_smaller_parts(make, seen) -> None:
    whole, room = make(), Room(3)
    learn = make(room)
    values, preds = whole.validate(), whole.get_preds()[0]
    with pytest.warns(match="out of memory with 8 pictures at once: going on with 2$") as warned:
        assert learn.validate() == pytest.approx(values)
    assert len(warned) == 1
    torch.testing.assert_close(learn.get_preds()[0], preds)
    assert set(room.taken) == {2}
    seen("values as without")


@pytest.mark.fault("no memory for one item in a pass", "one line, and the learner is usable")
def test_a_pass_ends_where_one_item_does_not_fit(make, seen) -> None:
    room = Room(0)
    learn = make(room)
    with pytest.raises(OutOfMemory, match="with 1 picture in a pass without gradients"):
        learn.get_preds()
    room.most = 8
    assert learn.get_preds()[0].shape == (24, 2)
    assert room.taken == [8, 8, 8]  # memory is looked at anew
    seen("one line, then predicted")


@pytest.mark.fault("no memory while the matrix predicts", "the same matrix")
def test_a_matrix_is_that_of_whole_batches(make, seen) -> None:
    whole = ClassificationInterpretation.from_learner(make())
    parts = ClassificationInterpretation.from_learner(make(Room(3)))
    assert torch.equal(whole.confusion_matrix(), parts.confusion_matrix())
    torch.testing.assert_close(whole.losses, parts.losses)
    seen("24 items alike")


def pictures_learner(dls, **options) -> tuple[Learner, Room]:
    """A learner of pictures, and the room in its body."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), Room(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learn = vision_learner(dls, nn.Sequential(body, nn.Linear(4, 3)), device="cpu", **options)
    room = next(m for m in learn.model.modules() if isinstance(m, Room))
    room.taken.clear()  # the body was tried out
    return learn, room


@pytest.mark.fault("no memory in a batch of augmented pictures", "the same augmentation again")
def test_a_batch_that_is_taken_again_has_the_same_augmentation(dls, seen) -> None:
    runs = []
    for most in (100, 2):
        learn, room = pictures_learner(dls, cache_features=False)
        room.most, room.where = most, "backward"
        learn.unfreeze()
        learn.fit(2, 0.1, show=False)
        runs.append((weights(learn), max(room.taken)))
    torch.testing.assert_close(runs[0][0], runs[1][0])
    assert [most for _, most in runs] == [4, 2]
    seen("weights as without")


@pytest.mark.fault("no memory while features are computed", "the same features, each once")
def test_features_are_computed_in_smaller_parts(dls, seen) -> None:
    runs = []
    for most in (100, 2):
        learn, room = pictures_learner(dls)
        room.most = most
        learn.freeze_to(-1, quiet=True)
        learn.fit(2, 0.1, show=False)
        runs.append((weights(learn), sum(room.taken)))
    torch.testing.assert_close(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1] == 18
    seen("18 pictures, each once")


@pytest.mark.fault("no memory in the head, after the body was seen", "no feature counts twice")
def test_what_the_head_gets_is_kept_once_an_item(dls, seen) -> None:
    from nbfinetune.training.fine_tuning.refit import layer_inputs

    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    first, room = nn.Linear(4, 3), Room()
    head, transforms = nn.Sequential(first, room), pictures_learner(dls)[0].transforms
    model, groups = nn.Sequential(body, head), [[body], [head]]
    learn = Learner(dls, model, groups=groups, transforms=transforms, device="cpu")
    whole = layer_inputs(learn, first, [dls.valid], [])
    room.most = 2
    parts = layer_inputs(learn, first, [dls.valid], [])
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs)
    seen(f"{len(whole[0])} of {len(whole[1])}")


@pytest.mark.fault("an error of an earlier cell keeps a batch", "it is let go where memory ends")
def test_what_the_last_error_of_the_session_keeps_is_let_go(make, monkeypatch, seen) -> None:
    class Large:
        pass

    def earlier() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        raise ValueError

    kept: list[weakref.ref] = []
    try:
        earlier()
    except ValueError as error:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    gc.collect()
    assert kept[0]() is not None
    make(Room(4, "training")).fit(1, 0.1, show=False)
    assert kept[0]() is None
    seen("let go")


@pytest.mark.fault("no memory in lr_find", "the same suggestion, in parts")
def test_a_search_goes_on_in_parts(make, seen) -> None:
    found = [make(room).lr_find(show=False, num_it=30) for room in (None, Room(4, "training"))]
    assert found[1].losses == pytest.approx(found[0].losses, rel=1e-3)
    seen(f"{len(found[1].losses)} losses alike")
