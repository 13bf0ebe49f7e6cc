"""Predictions of pictures without labels, and of lists of them."""

import builtins
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbfinetune import (
    Callback,
    CancelFit,
    ClassificationInterpretation,
    ImageDataLoaders,
    Learner,
    load_learner,
    vision_learner,
)


@pytest.fixture(scope="module")
def learn(photos: Path) -> Learner:
    """A network that tells the three colours: it compares the channels."""
    dls = ImageDataLoaders.from_folder(photos, size=16, bs=4)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    learn = vision_learner(dls, net, device="cpu")
    learn.model[-1].weight.data = 9 * torch.eye(3).flip(0)  # blue, green, red of channels RGB
    learn.model[-1].bias.data.zero_()
    return learn


@pytest.fixture(scope="module")
def files(photos: Path) -> list[Path]:
    """Of all classes, in an order of neither names nor classes."""
    found = sorted(photos.rglob("*.png"))
    return [found[(7 * i) % 18] for i in range(18)]


def test_files_without_labels_are_predicted_in_their_order(learn, files) -> None:
    preds, targets = found = learn.get_preds(dl=learn.dls.test_dl(files))
    assert targets is None
    assert found.labels == [f.parent.name for f in files]
    for i in (0, 5, 17):
        assert torch.allclose(preds[i], learn.predict(files[i])[2], atol=1e-6)


def test_the_result_shows_each_file_beside_its_prediction(learn, files) -> None:
    found = learn.get_preds(dl=learn.dls.test_dl(files))
    frame = found.to_df()
    assert frame.columns.tolist() == ["file", "predicted", "probability"]
    assert frame.file.tolist() == [str(f) for f in files]
    assert frame.predicted.tolist() == [f.parent.name for f in files]
    assert frame.probability.tolist() == pytest.approx(found.preds.max(1).values.tolist())
    probs = found.to_df(probs=True)[["p(blue)", "p(green)", "p(red)"]].to_numpy()
    assert np.allclose(probs, found.preds.numpy())
    lines = repr(found).splitlines()
    assert lines[0] == "predictions of 18 items"
    assert lines[2].split()[:2] == [str(files[0]), files[0].parent.name]
    assert lines[-1] == "and 8 more; to_df() has all"
    assert f"<td>{files[0].parent.name}</td>" in found._repr_html_()


def test_with_labels_actual_class_and_loss_stand_beside_it(learn, photos: Path) -> None:
    loader = learn.dls.test_dl(photos, with_labels=True)
    preds, targets, losses = found = learn.get_preds(dl=loader, with_loss=True)
    frame = found.to_df()
    assert frame.actual.tolist() == ["blue"] * 6 + ["green"] * 6 + ["red"] * 6
    assert frame.loss.tolist() == pytest.approx(nn.functional.nll_loss(
        preds.log(), targets, reduction="none").tolist(), abs=1e-5)  # fmt: skip
    assert losses is found.losses
    assert learn.validate(loader)[1] == 0
    assert ClassificationInterpretation.from_learner(learn, loader).accuracy == 1


def test_of_the_validation_set_it_is_the_same_tuple_as_ever(learn) -> None:
    preds, targets = found = learn.get_preds()
    assert isinstance(found, tuple)
    assert found == (preds, targets)
    assert targets.tolist() == learn.dls.valid.dataset.targets
    again = pickle.loads(pickle.dumps(found))
    assert (again.vocab, again.labels) == (found.vocab, found.labels)


def test_own_loaders_have_numbers_in_the_place_of_files(learn) -> None:
    x, y = next(iter(learn.dls.valid))
    found = learn.get_preds(dl=[(x, y)])
    assert found.to_df().file.tolist() == [None] * len(y)
    assert "item 0" in repr(found)


def test_several_labels_are_those_from_a_half_up() -> None:
    x = torch.tensor([[9.0, -9.0, 9.0], [-9.0, -9.0, -9.0]])
    data = TensorDataset(x, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    loaders = type("Loaders", (), {"vocab": ["wet", "red", "old"]})()
    loaders.train = loaders.valid = DataLoader(data, 2)
    model = nn.Linear(3, 3)
    nn.init.eye_(model.weight), nn.init.zeros_(model.bias)
    found = Learner(loaders, model, loss_func=nn.BCEWithLogitsLoss(), device="cpu").get_preds()
    assert found.labels == ["wet, old", ""]
    assert found.to_df().actual.tolist() == ["wet", ""]


def test_pictures_left_out_are_named_in_the_result(learn, files, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out: 1 of 3"):
        loader = learn.dls.test_dl([files[0], tmp_path / "bad.png", files[1]], on_bad="skip")
    found = learn.get_preds(dl=loader)
    assert found.labels == [files[0].parent.name, files[1].parent.name]
    assert list(found.unread) == [1]
    assert "1 left out, as they cannot be read: " in repr(found)
    assert "bad.png: empty file" in repr(found)


REFUSED = {
    "validate": lambda learn, dl: learn.validate(dl),
    "interpretation": lambda learn, dl: ClassificationInterpretation.from_learner(learn, dl),
    "losses": lambda learn, dl: learn.get_preds(dl=dl, with_loss=True),
}


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_what_needs_labels_says_so(ask, learn, files) -> None:
    with pytest.raises(ValueError, match="these pictures have no labels"):
        ask(learn, learn.dls.test_dl(files))


@pytest.mark.parametrize("what", ["files", "texts", "column", "folder", "pictures"])
def test_files_in_place_of_a_loader_say_what_to_type(what: str, learn, files, photos) -> None:
    given = {
        "files": files,
        "texts": [str(f) for f in files],
        "column": pd.Series([str(f) for f in files]),
        "folder": photos,
        "pictures": [Image.new("RGB", (8, 8))],
    }[what]
    with pytest.raises(ValueError, match=r"no loader of batches; give dls.test_dl\(files\), or"):
        learn.get_preds(dl=given)
    with pytest.raises(ValueError, match="ds and dl are given; leave one of them out"):
        learn.get_preds("train", dl=learn.dls.valid)


def _kinds(files: list[Path]) -> list:
    """One picture of each kind that `predict` takes."""
    pixels = np.array(Image.open(files[3]))
    data = files[4].read_bytes()
    return [files[0], str(files[1]), Image.open(files[2]), pixels,
            torch.from_numpy(pixels).permute(2, 0, 1), data, bytearray(data), memoryview(data),
            io.BytesIO(data)]  # fmt: skip


def test_one_picture_may_be_of_any_kind(learn, files) -> None:
    labels = [learn.predict(item)[0] for item in _kinds(files)]
    assert labels == [files[i].parent.name for i in (0, 1, 2, 3, 3, 4, 4, 4, 4)]
    same = learn.predict(files[4])[2], learn.predict(files[4].read_bytes())[2]
    assert torch.equal(*same)


def test_a_list_gives_what_each_gives_alone_in_its_order(learn, files) -> None:
    for items in (_kinds(files), files, tuple(files), np.array(files), pd.Series(files)[::-1]):
        found = learn.predict(items)
        kinds = _kinds(files) if len(items) == 9 else items
        alone = [learn.predict(item) for item in kinds]
        assert [(label, int(index)) for label, index, _ in found] == [
            (label, int(index)) for label, index, _ in alone
        ]
        for (_, _, probs), (_, _, expected) in zip(found, alone, strict=True):
            assert torch.allclose(probs, expected, atol=1e-6)
    assert [label for label, *_ in learn.predict(f for f in files[:3])] == [
        f.parent.name for f in files[:3]
    ]


def test_a_list_is_predicted_in_batches(learn, files) -> None:
    sizes = []
    hook = learn.model.register_forward_pre_hook(lambda m, x: sizes.append(len(x[0])))
    learn.predict(files[:10])
    hook.remove()
    assert sizes == [4, 3, 3]


def test_unreadable_ones_of_a_list_are_named_and_none_is_dropped(learn, files) -> None:
    items = [files[0], "gone.png", b"", files[1]]
    with pytest.raises(ValueError, match=r"2 of 4 pictures cannot be read: .*gone.png.*, item 2"):
        learn.predict(items)
    with pytest.warns(UserWarning, match="left out: 2 of 4 pictures"):
        found = learn.predict(items, on_bad="skip")
    assert [label for label, *_ in found] == [
        files[0].parent.name, None, None, files[1].parent.name]  # fmt: skip
    assert found[1] == (None, None, None)
    frame = found.to_df(probs=True)
    assert frame.unread.isna().tolist() == [True, False, False, True]
    assert frame.unread[1] == "no such file"
    assert frame["p(red)"].isna().tolist() == [False, True, True, False]
    assert "no such file" in repr(found)
    with pytest.raises(ValueError, match="on_bad is 'drop'; it must be"):
        learn.predict(items, on_bad="drop")


def test_a_learner_from_a_file_predicts_lists_without_data(learn, files, tmp_path: Path) -> None:
    learn.export(tmp_path / "colours.safetensors")
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3, bias=False))
    loaded = load_learner(tmp_path / "colours.safetensors", arch=net, device="cpu")
    assert [label for label, *_ in loaded.predict(files)] == [f.parent.name for f in files]


def test_a_stopped_pass_gives_nothing_and_the_next_one_all(learn, files) -> None:
    class Stop(Callback):
        def after_batch(self, learn: Learner) -> None:
            learn.control.stop()

    loader = learn.dls.test_dl(files)
    with pytest.raises(RuntimeError, match="stopped before all was predicted; nothing was changed"):
        learn.get_preds(dl=loader, cbs=Stop())
    assert len(learn.get_preds(dl=loader).preds) == 18
    assert not learn.control.running


def test_a_callback_may_ask_for_predictions_in_a_run(photos: Path, tiny_net) -> None:
    seen = []

    class Look(Callback):
        def after_epoch(self, learn: Learner) -> None:
            seen.append(len(learn.get_preds().preds))
            raise CancelFit

    dls = ImageDataLoaders.from_folder(photos, size=16)
    vision_learner(dls, tiny_net, device="cpu").fit(2, 1e-3, cbs=Look())
    assert seen == [3]


def test_a_run_in_another_thread_is_not_disturbed(learn, files) -> None:
    begun, end = threading.Event(), threading.Event()

    class Wait(Callback):
        def after_batch(self, learn: Learner) -> None:
            begun.set()
            end.wait(9)

    thread = threading.Thread(target=learn.get_preds, kwargs={"cbs": Wait()})
    thread.start()
    try:
        assert begun.wait(9)
        with pytest.raises(RuntimeError, match="training in the background"):
            learn.get_preds(dl=learn.dls.test_dl(files))
    finally:
        end.set()
        thread.join()


def test_without_pandas_a_line_says_how_to_get_it(learn, files, monkeypatch) -> None:
    found, real = learn.predict(files[:2]), builtins.__import__

    def no_pandas(name: str, *args) -> object:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(ImportError, match="needs pandas, which is not installed: pip install pan"):
        found.to_df()
