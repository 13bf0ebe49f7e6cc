"""Scripts that repeat what was done with a learner, in a process of their own."""

import gc
import importlib
import os
import pickle
import subprocess
import sys
import weakref
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Thread, get_ident
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from torch import nn

from nbfinetune import (
    Callback,
    EarlyStopping,
    ImageDataLoaders,
    Learner,
    LogTo,
    RefitHead,
    SaveBest,
    accuracy,
    error_rate,
    get_image_files,
    vision_learner,
)

LITE = "efficientnet_lite0"


def run_script(file: Path, *folders: Path) -> str:
    """What it prints; modules are looked for in these folders too."""
    there = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": there}
    done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(file: Path) -> list[str]:
    """What is done in `main`."""
    lines = file.read_text().splitlines()
    return [line[4:] for line in lines if line.startswith(("    learn", "    dls"))]


@pytest.fixture
def shell(shell):
    """With the magics, for one test."""
    shell.run_line_magic("load_ext", "nbfinetune")
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")


@pytest.fixture
def lite(photos: Path) -> Learner:
    dls = ImageDataLoaders.from_folder(photos, size=32, bs=8, valid_pct=0.34)
    return vision_learner(dls, LITE, metrics=[accuracy], device="cpu")


def test_magics_methods_and_settings_give_the_same_losses_in_a_fresh_process(
    lite, shell, tmp_path: Path
) -> None:
    shell.push({"learn": lite})
    with lite.quiet():
        for line in ("lr_find", "fit_one_cycle 1", "unfreeze", "fit_one_cycle 1 1e-5:1e-3"):
            shell.run_line_magic(*line.partition(" ")[::2])
        lite.undo_fit()
        lite.use_rate(2e-3, "as picked in its plot", "picked")
        lite.accumulate = 2
        lite.fit(1, cbs=[SaveBest(monitor="accuracy")])
        shell.run_line_magic("fine_tune", "1")
    file = lite.to_script(tmp_path / "train.py")
    assert [line.partition("(")[0].partition(" =")[0] for line in lines_of(file)] == [
        *("dls", "learn", "learn.lr_find", "learn.fit_one_cycle", "learn.freeze_to"),
        *("learn.use_rate", "learn.accumulate", "learn.fit", "learn.fine_tune"),
    ]
    assert "as in the notebook, to the last digit" in run_script(file)


def test_a_run_that_gives_other_losses_is_told(lite, tmp_path: Path) -> None:
    lite.fit(1, 1e-3, show=False)
    file = lite.to_script(tmp_path / "train.py")
    file.write_text(file.read_text().replace("lr=0.001", "lr=0.002"))
    assert "in the notebook they were:" in run_script(file)


def test_names_of_files_are_absolute_and_found_by_what_found_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    files = get_image_files(photos.name)
    marks = tmp_path / "marks.csv"
    marks.write_text("file,label\n")
    dls = ImageDataLoaders.from_name_re(photos.name, files, r"(.+)_\d+", size=32)
    text = vision_learner(dls, LITE).to_script(tmp_path / "a.py").read_text()
    assert f"fnames=get_image_files({str(photos)!r})" in text
    assert f"path={str(photos)!r}" in text
    labels = np.array([file.parent.name for file in files])
    dls = ImageDataLoaders.from_lists(photos.name, files[::-1], labels[::-1], size=np.int64(32))
    text = vision_learner(dls, LITE).to_script(tmp_path / "b.py").read_text()
    assert str(files[0].absolute()) in text
    assert "size=32" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"arch": nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))}, "arch is Sequential"),
        ({"loss_func": nn.CrossEntropyLoss()}, "loss_func is CrossEntropyLoss"),
        ({"class_weights": pd.Series({"red": 1.0, "blue": 2.0, "green": 3.0})}, "class_weights is"),
        ({"metrics": lambda preds, targets: 0.0}, "metrics is <lambda>"),
    ],
)
def test_what_no_script_can_make_again_is_refused(lite, tmp_path, options, text) -> None:
    learn = vision_learner(lite.dls, options.pop("arch", LITE), **options)
    with pytest.raises(ValueError, match=text):
        learn.to_script(tmp_path / "train.py")
    assert list(tmp_path.iterdir()) == []


def test_a_learner_of_a_model_is_refused(learn: Learner, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vision_learner"):
        learn.to_script(tmp_path / "train.py")


class StopNow(Callback):
    def after_batch(self, learn: Learner) -> None:
        learn.control.stop()


def test_a_run_that_was_stopped_by_hand_is_refused_until_it_is_taken_back(lite, tmp_path) -> None:
    with lite.quiet():
        lite.fit(2, cbs=[StopNow()])
        with pytest.raises(ValueError, match=r"run 1, fit, was not left alone \(stopped\)"):
            lite.to_script(tmp_path / "train.py")
        lite.undo_fit()
    assert lines_of(lite.to_script(tmp_path / "train.py"))[2:] == []


def test_an_own_callback_is_refused(lite, tmp_path: Path) -> None:
    lite.fit(1, cbs=[Callback.__class__("Own", (Callback,), {})()], show=False)
    with pytest.raises(ValueError, match=r"cbs holds .*Own"):
        lite.to_script(tmp_path / "train.py")


def test_a_script_that_is_there_is_not_overwritten(lite, tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite"):
        lite.to_script(file)
    assert file.read_text() == "mine"
    lite.to_script(file, overwrite=True)
    assert "vision_learner" in file.read_text()


def test_what_was_refused_is_no_part_of_the_script(lite, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_epoch"):
        lite.fit(-1)
    with pytest.raises(FileNotFoundError):
        lite.load(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match="lr"):
        lite.lr = -1
    assert lines_of(lite.to_script(tmp_path / "train.py"))[2:] == []


def test_metrics_are_imported_from_where_they_are(lite, tmp_path: Path) -> None:
    lite.metrics = [error_rate, accuracy]
    text = lite.to_script(tmp_path / "train.py").read_text()
    assert "learn.metrics = [error_rate, accuracy]" in text
    assert "from nbfinetune import ImageDataLoaders, accuracy, error_rate, vision_learner" in text


def test_data_of_another_size_is_made_at_that_size(lite, tmp_path: Path) -> None:
    learn = vision_learner(lite.dls.with_size(48), LITE)
    assert "size=48" in learn.to_script(tmp_path / "train.py").read_text()


def test_calls_keep_neither_screens_nor_data_alive(lite, photos: Path, shell) -> None:
    shell.push({"learn": lite})
    shell.run_line_magic("fit_one_cycle", "1 1e-3")
    assert [call.arguments.get("cbs") for call in lite.calls] == [[]]
    before = weakref.ref(lite.dls)
    lite.dls = ImageDataLoaders.from_folder(photos, size=32, bs=4, valid_pct=0.34)
    gc.collect()
    assert before() is None


def test_a_folder_or_file_of_a_network_is_named_in_full(lite, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network").mkdir()
    (tmp_path / "weights.pth").touch()
    for arch in ("hf:./network", "hf:network"):
        lite.made_by.arguments.update(arch=arch, weights="weights.pth")
        text = lite.to_script("train.py", overwrite=True).read_text()
        assert f"arch='hf:{tmp_path}/network'" in text
        assert f"weights='{tmp_path}/weights.pth'" in text
    lite.made_by.arguments.update(arch="hf:owner/network", weights="DEFAULT")
    text = lite.to_script("train.py", overwrite=True).read_text()
    assert "arch='hf:owner/network'" in text
    assert "weights='DEFAULT'" in text


def test_a_path_in_the_home_folder_is_found(lite, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(photos.parent))
    dls = ImageDataLoaders.from_folder(f"~/{photos.name}", size=32)
    text = vision_learner(dls, LITE).to_script(tmp_path / "train.py").read_text()
    assert f"path={str(photos)!r}" in text


def test_arrays_of_pictures_are_refused(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    dls = ImageDataLoaders.from_datasets((pictures, np.arange(8) % 2), size=32, valid_pct=0.5)
    with pytest.raises(ValueError, match=r"train is an array of \[8, 6, 6, 3\]"):
        vision_learner(dls, LITE).to_script(tmp_path / "train.py")


@pytest.mark.parametrize("name", ["train_bn", "amp", "amp_inference"])
def test_modes_that_were_set_are_set_again(lite, tmp_path: Path, name: str) -> None:
    others = {True: False, False: True, "off": "bf16", "bf16": "off"}
    value = others[getattr(lite, name)]
    setattr(lite, name, value)
    assert lines_of(lite.to_script(tmp_path / "train.py"))[2:] == [f"learn.{name} = {value!r}"]


def test_transforms_that_were_put_in_are_refused(lite, tmp_path: Path) -> None:
    lite.dls = lite.dls.with_size(48)  # whose size the transforms follow
    text = lite.to_script(tmp_path / "train.py").read_text()
    assert "learn.transforms" not in text
    lite.transforms = replace(lite.transforms, aug=False)
    with pytest.raises(ValueError, match="transforms is ImageTransforms"):
        lite.to_script(tmp_path / "other.py")


def test_the_head_is_fitted_anew_and_logs_that_are_left_out_are_named(lite, tmp_path) -> None:
    lite.fit(1, 1e-3, cbs=[RefitHead(), LogTo(print)], show=False)
    text = lite.to_script(tmp_path / "train.py").read_text()
    assert lines_of(tmp_path / "train.py")[2] == "learn.fit(n_epoch=1, lr=0.001, cbs=[RefitHead()])"
    assert "Left out, as they change no loss: LogTo." in text


def test_settings_after_a_fit_that_is_taken_back_stay(lite, tmp_path: Path) -> None:
    lite.fit(1, 1e-3, show=False)
    lite.accumulate, lite.lr = 2, 2e-3
    lite.unfreeze()
    lite.undo_fit()
    assert lite.accumulate == 2
    assert lines_of(lite.to_script(tmp_path / "train.py"))[2:] == ["learn.accumulate = 2"]


class InAnotherThread(Callback):
    """Does something while a run is on in this thread."""

    def __init__(self, act) -> None:
        self.act = act

    def before_epoch(self, learn: Learner) -> None:
        thread = Thread(target=self.act, args=[learn])
        thread.start()
        thread.join()


def test_what_is_set_during_a_run_comes_after_it(lite) -> None:
    def act(learn: Learner) -> None:
        learn.seed = 7

    lite.fit(1, 1e-3, cbs=[InAnotherThread(act)], show=False)
    assert [call.name for call in lite.calls] == ["fit", "seed"]


def test_a_copy_made_during_a_run_knows_what_is_done_with_it(lite) -> None:
    lite.within_call = get_ident()  # as while a fit is on
    copy = deepcopy(lite)
    copy.unfreeze()
    assert [call.name for call in copy.calls] == ["unfreeze"]


def test_what_changes_nothing_is_no_call(lite) -> None:
    lite.validate()
    lite.get_preds()
    assert lite.calls == ()


def test_functions_of_one_name_are_told_apart(lite, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_metrics.py").write_text("def accuracy(preds, targets):\n    return 0.25\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_metrics")
    lite.metrics = {"ours": accuracy, "own": own.accuracy}
    lite.fit(1, 1e-3, show=False)
    text = lite.to_script(tmp_path / "runs" / "train.py").read_text()
    assert "from own_metrics import accuracy as accuracy_2" in text
    assert "learn.metrics = {'ours': accuracy, 'own': accuracy_2}" in text
    assert "as in the notebook, to the last digit" in run_script(
        tmp_path / "runs" / "train.py", tmp_path
    )


def test_data_put_in_by_hand_is_refused(lite, tmp_path: Path) -> None:
    lite.dls.train = [next(iter(lite.dls.train))]
    with pytest.raises(ValueError, match="a loader of the data was put in by hand"):
        lite.to_script(tmp_path / "train.py")


class Pair(NamedTuple):
    first: float
    second: float


def test_calls_take_what_has_its_own_way_of_being_made(lite, tmp_path: Path) -> None:
    lite.fit(1, Pair(1e-5, 1e-3), show=False)
    assert "lr=(1e-05, 0.001,)" in lite.to_script(tmp_path / "train.py").read_text()


def test_a_learner_with_calls_is_pickled_without_their_callbacks(lite) -> None:
    lite.fit(1, 1e-3, cbs=[LogTo(lambda step, values: None), EarlyStopping()], show=False)
    lite.metrics = []  # a function of a test
    [call, _] = pickle.loads(pickle.dumps(lite)).calls
    assert [cb.name for cb in call.arguments["cbs"]] == ["LogTo", "EarlyStopping"]
