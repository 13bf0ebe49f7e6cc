"""Learners of fastai, taken over. They are skipped without fastai, which asks for an older torch:

    pip install --no-deps --target fa fastai==2.8.12 fastcore==2.2.41 "fastprogress<1.1.7" \
        fasttransform==0.0.5 plum-dispatch beartype cloudpickle fastdownload rich \
        markdown-it-py mdurl
    PYTHONPATH=fa python -m pytest tests/others

Numbers are compared with those of fastai itself, and with those of fastai 2.8.12 in
`fastai_golden.json`, which the tests of fits hold without it.
"""

import gc
import pickle
import random
import warnings
import weakref
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from IPython.core.error import UsageError
from PIL import Image
from torch import nn

import nbfinetune
from nbfinetune import ClassificationInterpretation
from nbfinetune.objectives.metric_list import metric_list
from nbfinetune.objectives.metrics import metric_value

fastai = pytest.importorskip("fastai", reason="fastai is not installed: see how to in this file")

from fastai.callback.all import GradientAccumulation, MixUp  # noqa: E402
from fastai.vision import all as fv  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Sequential):
    def __init__(self, c: int) -> None:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, c))
        super().__init__(body, head)


def split(model: nn.Module) -> list:
    return [fv.params(part) for part in model]


def items_of(photos: Path) -> list[Path]:
    return sorted(fv.get_image_files(photos))


def in_validation(file: Path) -> bool:
    return file.stem[-1] in "45"


def loaders_of(photos: Path, blocks=None, **options) -> fv.DataLoaders:
    how = {
        "blocks": blocks or (fv.ImageBlock, fv.CategoryBlock),
        "get_items": items_of,
        "splitter": fv.FuncSplitter(in_validation),
        "get_y": fv.parent_label,
        "item_tfms": fv.Resize(32),
        "batch_tfms": [*fv.aug_transforms(size=32), fv.Normalize.from_stats(*fv.imagenet_stats)],
    }
    return fv.DataBlock(**(how | options)).dataloaders(photos, bs=5, num_workers=0)


@pytest.fixture
def dls(photos: Path) -> fv.DataLoaders:
    return loaders_of(photos)


@pytest.fixture
def theirs(dls) -> fv.Learner:
    metrics = [fv.error_rate, fv.F1Score(average="macro"), fv.RocAuc()]
    return fv.Learner(dls, Net(3), splitter=split, metrics=metrics, lr=3e-3, wd=0.02)


def quiet_fit(learn: fv.Learner, *args) -> None:
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(*args)


def test_it_has_fastais_parts_and_shares_its_weights(theirs) -> None:
    ours = nbfinetune.Learner.from_fastai(theirs)
    assert ours.model is theirs.model
    assert ours.vocab == ["blue", "green", "red"]
    assert [len(list(g)) for g in ours.groups] == [1, 1]
    assert ours.groups[1][0] is theirs.model[1]
    assert (ours.lr, ours.train_bn, ours.frozen) == (3e-3, True, 0)
    assert {g["weight_decay"] for g in ours.opt.param_groups} == {0.0, 0.02}
    assert isinstance(ours.loss_func, nn.CrossEntropyLoss)
    assert ours.metric_names == ["error_rate", "f1_score", "roc_auc_score"]
    assert ours.transforms.mean == pytest.approx([0.485, 0.456, 0.406])
    ours.fit(1, 1e-2)
    assert torch.equal(next(theirs.model.parameters()), next(ours.model.parameters()))


def test_validation_and_predictions_are_fastais_before_and_after_training(theirs, photos) -> None:
    quiet_fit(theirs, 2, 1e-2)
    ours = nbfinetune.Learner.from_fastai(theirs)
    for _ in range(2):
        with theirs.no_bar():
            expected = list(theirs.validate())
            preds, targets = theirs.get_preds()
        assert ours.validate() == pytest.approx(expected, abs=1e-5)
        found = ours.get_preds()
        assert torch.allclose(found[0], torch.Tensor(preds), atol=1e-5)
        assert found[1].tolist() == targets.tolist()
        for item in (photos / "red" / "red_4.png", str(photos / "blue" / "blue_0.png")):
            with theirs.no_bar():
                name, index, probs = theirs.predict(item)
            label, i, p = ours.predict(item)
            assert (label, int(i)) == (name, int(index))
            assert torch.allclose(p, torch.Tensor(probs), atol=1e-5)
        ours.fit_one_cycle(2, 1e-2)


class Batches(list):
    """Batches in memory, with what fastai asks of a loader."""

    n_inp, shuffle, drop_last, bs, device = 1, False, False, 4, torch.device("cpu")
    dataset = [(0, fv.TensorCategory(0))] * 10

    def to(self, device: object) -> "Batches":
        return self


@pytest.mark.parametrize("who", ["fastai", "taken over"])
def test_a_fit_has_the_golden_losses_and_rows(who, golden, loaders, mlp) -> None:
    """The batches and the model whose fits `training/test_fitting.py` compares without fastai."""
    dls = fv.DataLoaders(Batches(loaders.train), Batches(loaders.valid))
    dls.vocab = loaders.vocab
    how = {"loss_func": fv.CrossEntropyLossFlat(), "splitter": split, "metrics": fv.accuracy}
    theirs = fv.Learner(dls, mlp, **how)
    expected, rate = golden["fit_one_cycle"], slice(1e-3, 1e-1)
    if who == "fastai":
        quiet_fit(theirs, 2, rate)
        for row, values in zip(theirs.recorder.values, expected["rows"], strict=True):
            assert list(row) == pytest.approx(values, abs=2e-6)
        return
    run = nbfinetune.Learner.from_fastai(theirs).fit_one_cycle(2, rate).stages[0]
    assert run.losses == pytest.approx(expected["losses"], abs=2e-6)
    for row, values in zip(run.rows, expected["rows"], strict=True):
        names = ("train_loss", "valid_loss", "accuracy")
        assert [row[name] for name in names] == pytest.approx(values, abs=2e-6)


def test_metrics_of_fastai_have_their_golden_values_here(golden) -> None:
    """`objectives/test_metrics_of_others.py` holds ours to the same numbers without fastai."""
    outputs = torch.arange(1, 31, dtype=torch.float64).mul(1.7).sin().mul(3).float().view(10, 3)
    targets = torch.tensor(golden["metrics"]["targets"])
    labels = (torch.arange(30).view(10, 3) % 4 < 2).float()
    of_labels = {
        "accuracy_multi": fv.accuracy_multi,
        "f1_macro": fv.F1ScoreMulti(),
        "f1_samples": fv.F1ScoreMulti(average="samples"),
        "roc_auc": fv.RocAucMulti(),
        "average_precision": fv.APScoreMulti(),
        "hamming_loss": fv.HammingLossMulti(),
    }
    of_classes = {
        "error_rate": fv.error_rate,
        "f1_macro": fv.F1Score(average="macro"),
        "balanced_accuracy": fv.BalancedAccuracy(),
        "cohen_kappa": fv.CohenKappa(),
        "matthews_corrcoef": fv.MatthewsCorrCoef(),
        "top_2_accuracy": partial(fv.top_k_accuracy, k=2),
        "roc_auc": fv.RocAuc(),
    }
    of_two = {"roc_auc": fv.RocAucBinary(), "f1": fv.F1Score()}
    for kind, metrics, out, y in (
        ("classes", of_classes, outputs, targets),
        ("two", of_two, outputs[:, :2], targets.clamp(max=1)),
        ("labels", of_labels, outputs, labels),
    ):
        for name, metric in metrics.items():
            [function] = metric_list([fv.mk_metric(metric)])
            found = metric_value(function, out.softmax(1), y, out)
            assert found == pytest.approx(golden["metrics"][kind][name], abs=1e-6), (kind, name)


def test_a_frozen_learner_of_a_pretrained_kind_stays_frozen(dls) -> None:
    theirs = fv.vision_learner(dls, fv.resnet18, pretrained=False, metrics=fv.accuracy)
    theirs.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ours = nbfinetune.Learner.from_fastai(theirs)
    assert (len(ours.groups), ours.frozen) == (3, 2)
    trains = {name for name, p in theirs.model.named_parameters() if p.requires_grad}
    theirs.freeze()
    assert trains == {name for name, p in theirs.model.named_parameters() if p.requires_grad}
    assert ours.body_and_head is not None
    before = theirs.model[0][0].weight.clone()
    ours.fit(1, 1e-3)
    assert torch.equal(theirs.model[0][0].weight, before)
    ours.unfreeze()
    ours.fit(1, 1e-3)
    assert not torch.equal(theirs.model[0][0].weight, before)


def test_pictures_have_their_files_and_training_pictures_come_in_order(theirs, photos) -> None:
    ours = nbfinetune.Learner.from_fastai(theirs)
    for ds, files in (
        ("valid", [f for f in items_of(photos) if in_validation(f)]),
        ("train", [f for f in items_of(photos) if not in_validation(f)]),
    ):
        interp = ClassificationInterpretation.from_learner(ours, ds)
        assert [interp.dataset.path(i) for i in range(len(interp))] == files
        assert [ours.vocab[t] for t in interp.targets] == [f.parent.name for f in files]
        assert interp.image(1).size == Image.open(files[1]).size
        again = ClassificationInterpretation.from_learner(ours, ds)
        assert again is interp  # nothing is predicted twice
    first, second = (ours.get_preds("train")[0] for _ in range(2))
    assert torch.equal(first, second)  # without augmentation
    assert len(ours.show_results(2).items) == 2
    assert "actual" in repr(interp.plot_top_losses(2))


def test_files_of_a_table_are_found(photos) -> None:
    pd = pytest.importorskip("pandas")
    files = items_of(photos)
    frame = pd.DataFrame({"name": [str(f.relative_to(photos)) for f in files],
                          "label": [f.parent.name for f in files],
                          "is_valid": [in_validation(f) for f in files]})  # fmt: skip
    dls = fv.ImageDataLoaders.from_df(
        frame, photos, valid_col="is_valid", item_tfms=fv.Resize(32), bs=5, num_workers=0
    )
    ours = nbfinetune.Learner.from_fastai(fv.Learner(dls, Net(3), metrics=fv.accuracy))
    interp = ClassificationInterpretation.from_learner(ours)
    assert [interp.dataset.path(i) for i in range(len(interp))] == list(
        filter(in_validation, files)
    )


def test_several_labels_are_taken_over(photos) -> None:
    dls = loaders_of(
        photos,
        (fv.ImageBlock, fv.MultiCategoryBlock),
        get_y=lambda f: [f.parent.name, "odd" if int(f.stem[-1]) % 2 else "even"],
    )
    metrics = [partial(fv.accuracy_multi, thresh=0.4), fv.F1ScoreMulti(), fv.RocAucMulti()]
    theirs = fv.Learner(dls, Net(5), metrics=metrics)
    ours = nbfinetune.Learner.from_fastai(theirs)
    assert isinstance(ours.loss_func, nn.BCEWithLogitsLoss)
    with theirs.no_bar():
        assert ours.validate() == pytest.approx(list(theirs.validate()), abs=1e-5)
    assert len(ours.fit(1, 1e-3).rows[0]) == 7
    assert ours.get_preds()[1].shape == (6, 5)


@pytest.mark.parametrize(
    ("blocks", "how", "found"),
    [
        (fv.RegressionBlock(), {"get_y": lambda f: 0.5}, "Tensor"),
        (fv.PointBlock, {"get_y": lambda f: fv.tensor([[1.0, 2.0]])}, "TensorPoint"),
    ],
    ids=["regression", "points"],
)
def test_other_tasks_are_refused_by_name(photos, blocks, how, found: str) -> None:
    dls = loaders_of(photos, (fv.ImageBlock, blocks), batch_tfms=None, **how)
    theirs = fv.Learner(dls, Net(1), loss_func=fv.MSELossFlat())
    with pytest.raises(ValueError, match=f"fastai's targets are of ({found}); only classes and"):
        nbfinetune.Learner.from_fastai(theirs)


def test_what_is_not_taken_over_is_said(dls) -> None:
    theirs = fv.Learner(
        dls, nn.DataParallel(Net(3)), opt_func=fv.ranger, cbs=[MixUp(), GradientAccumulation(8)]
    )
    text = (
        r"not taken over from fastai: DataParallel \(one device here\); the optimizer ranger "
        r"\(AdamW here\); MixUp; GradientAccumulation \(write accumulate=\)"
    )
    with pytest.warns(UserWarning, match=text) as caught:
        ours = nbfinetune.Learner.from_fastai(theirs)
    assert caught[0].filename == __file__
    assert ours.model is theirs.model.module


def test_a_metric_that_does_not_work_here_is_left_out_by_name(dls) -> None:
    theirs = fv.Learner(dls, Net(3), metrics=[fv.accuracy, fv.LossMetric("ce"), fv.error_rate])
    with pytest.warns(UserWarning, match="not taken over from fastai: the metric ce"):
        ours = nbfinetune.Learner.from_fastai(theirs)
    assert ours.metric_names == ["accuracy", "error_rate"]


def test_groups_that_cut_through_a_module_are_one_and_it_is_said(dls) -> None:
    class Odd(Net):
        def __init__(self) -> None:
            super().__init__(3)
            self[1].scale = nn.Parameter(torch.ones(1))

    def splits_head(model):
        return [[*fv.params(model[0]), model[1].scale], fv.params(model[1][2])]

    theirs = fv.Learner(dls, Odd(), splitter=splits_head)
    with pytest.warns(UserWarning, match=r"as they cut through the module 1 \(one group here\)"):
        ours = nbfinetune.Learner.from_fastai(theirs)
    assert len(ours.groups) == 1


def test_what_is_no_learner_of_fastai_is_refused(dls) -> None:
    for value in (Net(3), "learn", fv.Learner, dls):
        with pytest.raises(ValueError, match="from_fastai takes a learner of fastai, not"):
            nbfinetune.Learner.from_fastai(value)


def test_options_go_before_fastais(theirs) -> None:
    ours = nbfinetune.Learner.from_fastai(theirs, metrics="balanced_accuracy", seed=7)
    assert (ours.metric_names, ours.seed) == (["balanced_accuracy"], 7)


def test_the_random_numbers_of_the_session_are_left_alone(theirs, photos) -> None:
    def states() -> tuple:
        numbers = np.random.get_state()[1].tolist()
        return random.getstate(), numbers, torch.get_rng_state().tolist()

    before = states()
    ours = nbfinetune.Learner.from_fastai(theirs)
    ours.fit(1, 1e-3)
    ours.validate("train")
    ours.predict(items_of(photos)[0])
    assert states() == before


@pytest.fixture
def cells(shell):
    shell.run_line_magic("load_ext", "nbfinetune")
    before = dict(shell.user_ns)
    yield shell
    shell.run_line_magic("unload_ext", "nbfinetune")
    for name in set(shell.user_ns) - set(before):
        del shell.user_ns[name]


def test_magics_work_on_a_learner_of_fastai_and_take_it_over_once(cells, theirs, capsys) -> None:
    cells.user_ns["mine"] = theirs
    found = cells.run_line_magic("lr_find", "-l mine --num-it 20 --verify 0")
    out = capsys.readouterr().out
    assert out.count("mine: taken over from fastai, with the same weights and data\n") == 1
    assert found.lrs
    result = cells.run_line_magic("fit_one_cycle", "1 1e-2")  # it is the only one there is
    assert result.status == "finished"
    cells.run_line_magic("freeze", "-l mine")
    matrix = cells.run_line_magic("confusion_matrix", "-l mine")
    assert len(matrix.interp) == 6
    assert "taken over" not in capsys.readouterr().out
    ours = nbfinetune.Learner.from_fastai(theirs)
    cells.user_ns["same"] = ours
    ours.dls = ours.dls
    cells.run_line_magic("learner_summary", "-l mine")
    theirs.model = Net(3)  # another network
    cells.run_line_magic("learner_summary", "-l mine")
    assert capsys.readouterr().out.count("taken over") == 1


def test_one_that_cannot_be_taken_over_is_refused_in_one_line(cells, photos) -> None:
    dls = loaders_of(photos, (fv.ImageBlock, fv.RegressionBlock()), get_y=lambda f: 0.5)
    cells.user_ns["mine"] = fv.Learner(dls, Net(1), loss_func=fv.MSELossFlat())
    with pytest.raises(UsageError, match="mine cannot be taken over from fastai: fastai's targets"):
        cells.run_line_magic("lr_find", "-l mine")


def test_it_is_copied_saved_and_exported_but_not_pickled(theirs, dls, tmp_path, photos) -> None:
    ours = nbfinetune.Learner.from_fastai(theirs)
    before = theirs.model[0][0].weight.clone()
    copied = deepcopy(ours)
    copied.fit(1, 1e-2)
    assert torch.equal(theirs.model[0][0].weight, before)
    assert copied.dls is ours.dls
    file = copied.save(tmp_path / "copied.safetensors")
    copied.export(tmp_path / "exported.safetensors")
    ours.load(file)
    assert torch.equal(theirs.model[0][0].weight, copied.model[0][0].weight)
    with pytest.raises(TypeError, match=r"fastai's loaders cannot be pickled; use learn.save or"):
        pickle.dumps(ours)
    ours.dls = nbfinetune.ImageDataLoaders.from_folder(photos, size=32)
    with pytest.raises(ValueError, match=r"these loaders give pictures as bytes.* vision_learner"):
        ours.fit(1, 1e-3)


def test_it_is_not_kept_when_fastais_is_gone(dls) -> None:
    theirs = fv.Learner(dls, Net(3))
    ours = weakref.ref(nbfinetune.Learner.from_fastai(theirs))
    del theirs
    gc.collect()
    assert ours() is None


def test_files_without_labels_are_predicted_as_fastai_does(theirs, photos) -> None:
    learn = nbfinetune.Learner.from_fastai(theirs)
    files = items_of(photos)[::-3]
    golden = theirs.get_preds(dl=theirs.dls.test_dl(files))[0]
    for loader in (theirs.dls.test_dl(files), learn.dls.test_dl(files)):
        found = learn.get_preds(dl=loader)
        assert torch.allclose(found[0], golden, atol=1e-6)
        assert found[1] is None
        assert found.to_df().file.tolist() == [str(file) for file in files]
    assert len(learn.get_preds(dl=learn.dls.test_dl(photos))[0]) == len(items_of(photos))
    labelled = theirs.dls.test_dl(files, with_labels=True)
    targets = [theirs.dls.vocab.o2i[file.parent.name] for file in files]
    assert learn.get_preds(dl=labelled)[1].tolist() == targets
    with pytest.raises(ValueError, match=r"1 of 2 files are not there: .*nowhere.jpg"):
        learn.dls.test_dl([files[0], "nowhere.jpg"])


def test_lists_of_pictures_are_predicted_as_each_of_them(theirs, photos, tmp_path) -> None:
    learn = nbfinetune.Learner.from_fastai(theirs)
    files = items_of(photos)[:3]
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    mixed = [files[0], Image.open(files[1]), np.asarray(Image.open(files[2]).convert("RGB"))]
    for listed in (files, mixed):
        for (label, _, probs), item in zip(learn.predict(listed), listed, strict=True):
            assert label == learn.predict(item)[0]
            assert torch.allclose(probs, learn.predict(item)[2], atol=1e-5)
    with pytest.raises(ValueError, match=r"1 of 2 pictures cannot be read: .*bad.png"):
        learn.predict([files[0], bad])
    with pytest.warns(UserWarning, match="left out: 1 of 2"):
        found = learn.predict([bad, files[0]], on_bad="skip")
    assert found[0] == (None, None, None)
    assert found[1][0] == learn.predict(files[0])[0]


@pytest.mark.parametrize("loader", [fv.DataLoader, torch.utils.data.DataLoader])
def test_loaders_of_torchs_data_sets_are_gone_through_and_predict_says_what_to_give(
    loader, photos
) -> None:
    x, y = torch.rand(12, 3, 8, 8), torch.tensor([0, 1, 2] * 4)
    data = torch.utils.data.TensorDataset(x, y)
    dls = fv.DataLoaders(loader(data, 5, shuffle=True), loader(data, 5))
    dls.vocab = ["a", "b", "c"]
    theirs = fv.Learner(dls, Net(3), loss_func=nn.CrossEntropyLoss())
    learn = nbfinetune.Learner.from_fastai(theirs)
    preds, targets = learn.get_preds("train")
    assert torch.equal(targets, y)
    with torch.no_grad():
        assert torch.allclose(preds, learn.model.eval()(x).softmax(1), atol=1e-6)
    file = items_of(photos)[0]
    message = (
        r"is a TensorDataset, whose transforms are not known; give a loader: learn.get_preds\("
    )
    for predict in (learn.predict, learn.dls.test_dl):
        for item in (file, [file]):
            with pytest.raises(ValueError, match=message):
                predict(item)
