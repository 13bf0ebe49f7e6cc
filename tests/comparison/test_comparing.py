"""Comparing networks: what is found of known pictures, what is refused, skipped, kept and left."""

import random
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from nbfinetune import ImageDataLoaders, Learner, compare_networks
from nbfinetune.comparison import comparing
from nbfinetune.comparison.comparing import compare
from nbfinetune.comparison.licences import weights_licence
from nbfinetune.comparison.plan import even_share, planned
from nbfinetune.comparison.probe import _Stopwatch
from nbfinetune.comparison.progress import ComparisonScreen, Progress
from nbfinetune.comparison.results import NetworkComparison
from nbfinetune.runtime.out_of_memory import OutOfMemory

LITE0, LITE1 = "efficientnet_lite0", "efficientnet_lite1"


def test_classes_of_their_own_colour_have_no_error_and_labels_by_chance_have_one(dls) -> None:
    found = compare_networks(dls, LITE0, device="cpu", show=False)
    [one] = found.networks
    assert (one.name, one.size, one.error, one.standard_error) == (LITE0, 32, 0.0, 0.0)
    assert one.n_params == 4_652_008 - 1_281_000 + 1281 * 3  # another classifier
    assert one.seconds > 0
    assert found.table().title.startswith("1 network and size on 12 training pictures of 3")
    dls.train.dataset.targets[:] = [0, 1] * 6  # of whatever colour
    [one] = compare_networks(dls, LITE0, device="cpu", show=False).networks
    assert one.error > 0.3


def test_each_size_is_decoded_for_itself_and_small_ones_come_first(
    dls: ImageDataLoaders, capsys
) -> None:
    found = compare_networks(dls, [LITE0, LITE1, LITE0], sizes=[48, 32], device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{name} at {size} px" for size in (32, 48) for name in (LITE0, LITE1)
    ]
    assert found.newest == lines[-1]
    assert len(found.networks) == 4
    assert 'vision_learner(dls.with_size(48), "' in repr(found)


def test_nothing_else_changes_and_what_is_held_out_is_not_looked_at(dls: ImageDataLoaders) -> None:
    def state() -> list[object]:
        generators = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
        return [*generators, random.getstate(), torch.is_grad_enabled(), torch.get_num_threads(),
                signal.getsignal(signal.SIGINT), vars(dls).copy(), list(dls.warnings),
                dls.train.dataset.cache.sum().item()]  # fmt: skip

    held_out = dls.valid.dataset
    held_out.cache, held_out.items = None, [Path("gone")] * len(held_out)
    before = state()
    compare_networks(dls, [LITE0], sizes=[32, 40], device="cpu", show=False)
    assert state() == before


def test_data_sets_are_compared_as_files_are(photos: Path) -> None:
    with pytest.warns(UserWarning, match="the same in train and in valid"):
        dls = ImageDataLoaders.from_datasets(*[ImageFolder(photos)] * 2, size=32)
    found = compare_networks(dls, LITE0, sizes=40, max_n=9, device="cpu", show=False)
    assert found.pictures == "9 of 18 training pictures of 3 classes"


def test_a_network_without_weights_is_skipped_by_name_once(dls, monkeypatch) -> None:
    def offline(name: str, **options) -> None:
        tried.append(name)
        raise OSError("no net")

    tried: list[str] = []
    monkeypatch.setattr("torchvision.models.get_model", offline)
    found = compare_networks(dls, ["resnet18", LITE0], sizes=[32, 40], device="cpu", show=False)
    assert [one.name for one in found.networks] == [LITE0, LITE0]
    assert tried == ["resnet18"]
    [gap] = found.gaps
    assert gap.startswith("resnet18: the weights of resnet18 cannot be downloaded (no net)")
    with pytest.raises(ValueError, match=r"no network can be compared: resnet18: the weights"):
        compare_networks(dls, "resnet18", device="cpu", show=False)


def test_a_size_that_a_network_does_not_take_is_skipped_alone(dls, monkeypatch) -> None:
    make = comparing.vision_learner

    def picky(dls: ImageDataLoaders, name: str, **options) -> Learner:
        if dls.size == 32 and name == LITE1:
            raise ValueError("takes 40 px")
        return make(dls, name, **options)

    monkeypatch.setattr(comparing, "vision_learner", picky)
    found = compare_networks(dls, [LITE1, LITE0], sizes=[32, 40], device="cpu", show=False)
    assert len(found.networks) == 3
    assert found.gaps == [f"{LITE1} at 32 px: takes 40 px"]


def test_a_network_that_does_not_fit_into_memory_is_skipped(dls, monkeypatch) -> None:
    def large(learn: Learner, name: str, cbs: list) -> None:
        if name == LITE1:
            raise OutOfMemory("even one picture is too much")
        return small(learn, name, cbs)

    small = comparing.probe
    monkeypatch.setattr(comparing, "probe", large)
    found = compare_networks(dls, [LITE1, LITE0], device="cpu", show=False)
    assert [one.name for one in found.networks] == [LITE0]
    assert found.gaps == [f"{LITE1}: even one picture is too much"]


@pytest.mark.parametrize(
    ("archs", "options", "message"),
    [
        ([], {}, "no network is named; give some, such as efficientnet_lite0 or resnet34"),
        ([LITE0, "efficientnet_lite"], {}, "called 'efficientnet_lite'; did you mean efficientn"),
        ("resnet43", {}, "no network is called 'resnet43'; did you mean resnet34"),
        ("timm:resnet1888", {}, "timm has no network 'resnet1888'; it has resnet18"),
        ([torch.nn.Linear(2, 2)], {}, "archs holds a module, Linear; give names"),
        (LITE0, {"sizes": []}, "sizes is empty; give px"),
        (LITE0, {"sizes": [0]}, "size is 0; it must be a whole number from 1 up"),
        (LITE0, {"sizes": "224"}, "size is '2'; it must be a whole number"),
        (LITE0, {"max_n": 2}, "max_n is 2; it must be a whole number from 3 up"),
        (LITE0, {"max_n": 3}, "3 training pictures of 3 classes; a comparison needs at least two"),
        (LITE0, {"device": "abacus"}, "device is 'abacus', which cannot be used"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_network_runs(
    dls, monkeypatch, archs, options: dict, message: str
) -> None:
    monkeypatch.setattr(comparing, "vision_learner", None)  # which would fail if it were called
    with pytest.raises(ValueError, match=message):
        compare_networks(dls, archs, **options)


def test_loaders_of_other_things_than_pictures_are_refused(loaders) -> None:
    with pytest.raises(ValueError, match="dls is a SimpleNamespace; compare networks on ImageData"):
        compare_networks(loaders, LITE0)


class StopsAt(ComparisonScreen):
    """Asks to stop, or interrupts, when the n-th network has its first batch."""

    def __init__(self, n: int, interrupt: bool = False) -> None:
        self.n, self.interrupt = n, interrupt

    def before_batch(self, learn: Learner) -> None:
        done = len(self.found.networks) if self.found else 0
        if done == self.n - 1:
            if self.interrupt:
                signal.raise_signal(signal.SIGINT)
            else:
                learn.control.stop()


@pytest.mark.parametrize("n", [1, 3])
def test_stop_keeps_what_is_done(dls: ImageDataLoaders, n: int) -> None:
    plan = planned(dls, [LITE0, LITE1], [32, 40], device="cpu")
    found = compare(plan, StopsAt(n))
    assert (len(found.networks), found.stopped) == (n - 1, True)
    assert f"{n - 1} of 4 networks" in repr(found)


def test_an_interrupt_acts_between_two_batches_and_the_screen_has_what_is_done(dls) -> None:
    plan = planned(dls, [LITE0, LITE1], device="cpu")
    screen = StopsAt(2, interrupt=True)
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        compare(plan, screen)
    assert isinstance(screen.found, NetworkComparison)
    assert [one.name for one in screen.found.networks] == [LITE0]
    assert torch.equal(torch.get_rng_state(), before)


def test_of_many_pictures_each_class_gives_its_share() -> None:
    targets = [0] * 60 + [1] * 30 + [2] * 10
    chosen = even_share(targets, 20)
    assert Counter(targets[i] for i in chosen) == {0: 12, 1: 6, 2: 2}
    assert chosen == sorted(set(chosen)) == even_share(targets, 20)


def test_seconds_are_those_of_all_batches_but_the_first(monkeypatch) -> None:
    watch = _Stopwatch()
    watch.seconds = [9.0, 1.0, 2.0, 1.5]
    assert watch.for_pictures(1000, of=40) == 150  # four batches of ten in 1.5 s each
    watch.seconds = [9.0]
    assert watch.for_pictures(1000, of=10) == 900


def test_the_time_left_follows_the_area_and_the_mean_of_known_networks(dls, monkeypatch) -> None:
    class Said(ComparisonScreen):
        def show(self, done: float, text: str) -> None:
            said.append((round(done, 3), text))

    now, said = [0.0], []
    monkeypatch.setattr("nbfinetune.comparison.progress.monotonic", lambda: now[0])
    progress = Progress(planned(dls, [LITE0, LITE1], [100, 200], device="cpu"), Said())
    progress.begin(LITE0, 100)
    assert said[-1] == (0.0, f"{LITE0} at 100 px, 1 of 4")
    now[0] = 10.0
    progress.end()
    progress.begin(LITE1, 100)  # 10 s as the first, then 40 s each
    assert said[-1] == (0.1, f"{LITE1} at 100 px, 2 of 4, 01:30 left")
    now[0] = 40.0
    progress.end()  # it took 30
    progress.begin(LITE0, 200)
    assert said[-1] == (0.2, f"{LITE0} at 200 px, 3 of 4, 02:40 left")  # 40 + 120
    progress.lose(LITE1)
    progress._show()
    assert said[-1][1].endswith("00:40 left")


def test_licences_are_those_that_their_libraries_state() -> None:
    assert weights_licence("timm:resnet18") == "apache-2.0"
    assert weights_licence("timm:eva02_tiny_patch14_224") == "mit"
    assert weights_licence("resnet18") == weights_licence(LITE0) == ""


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("RGB", (9, 9), (i, k, 0)).save(tmp_path / name / f"{i}.png")
    dls = ImageDataLoaders.from_folder(tmp_path, size=32)
    dls.train.dataset.path(0).unlink()
    assert compare_networks(dls, LITE0, device="cpu", show=False).networks  # it is decoded
    with pytest.raises(ValueError, match="1 of 6 pictures can no longer be read"):
        compare_networks(dls, LITE0, sizes=40, device="cpu", show=False)
