"""What no function can use is refused in one line of our own words, whatever it is."""

import ast
import math
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nbfinetune
from nbfinetune import (
    ClassificationInterpretation,
    EarlyStopping,
    ImageDataLoaders,
    Learner,
    MultiLabelInterpretation,
    SaveBest,
    check_images,
    get_image_files,
    load_learner,
    samples,
    vision_learner,
)
from nbfinetune.history.recorder import Recorder
from nbfinetune.history.runs import Run

PACKAGE = Path(nbfinetune.__file__).parent
OURS = (ValueError, TypeError, RuntimeError, OSError)
LONGEST = 1500  # characters of a message: it may list classes or options

# What a variable of the user's may hold by accident where something else is expected.
STRANGE = {
    "None": None,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus one": -1,
    "zero": 0,
    "a huge number": 10**30,
    "a fraction": 0.37,
    "True": True,
    "an empty text": "",
    "a text": "no such thing",
    "a line break": "two\nlines",
    "NUL": "a\0b",
    "no UTF-8": "\udcff.jpg",
    "a long text": "x" * 5000,
    "bytes": b"bytes",
    "an empty list": [],
    "a list of None": [None],
    "a nested list": [[1, 2], [3]],
    "a dict": {"a": 1},
    "a set": {1, "a"},
    "an array": np.arange(3.0),
    "an array of no dimension": np.array(1.5),
    "a tensor": torch.ones(2, 2),
    "a slice": slice(None),
    "a class": int,
    "a function": lambda *args, **kwargs: None,
    "a module": nn.Flatten(),
    "a generator": (x for x in ()),
    "a complex number": 1j,
    "an object": object(),
    "a path": Path("no/such/path"),
}


class Case:
    """A public function, arguments that are right, and those that are put to the test."""

    def __init__(self, call: Callable, tested: str, **right: object) -> None:
        self.call, self.tested, self.right = call, tested.split(), right


@pytest.fixture
def cases(photos, dls, learn, tmp_path) -> dict[str, Case]:
    files = get_image_files(photos)
    labels = [file.parent.name for file in files]
    lines = [f"{photos.name}/{f.parent.name}/{f.name},{f.parent.name}" for f in files]
    (photos.parent / "labels.csv").write_text("\n".join(["file,label", *lines]))
    small = {"size": 16, "bs": 8}
    make = ImageDataLoaders
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    interp = ClassificationInterpretation.from_predictions([0, 1, 1], [0, 1, 0], ["a", "b"])
    of_pictures = vision_learner(dls, net, weights=None, device="cpu")
    kept = learn.save(tmp_path / "learn.safetensors")
    exported = of_pictures.export(tmp_path / "exported.safetensors")
    recorder = Recorder()
    recorder.runs.append(Run("fit", 1, 1, ["epoch"], losses=[1.0], smooth=[1.0], lrs=[[1e-3]]))
    return {
        "from_folder": Case(make.from_folder, "path train valid", path=photos, **small),
        "from_name_re": Case(
            make.from_name_re, "path fnames pat", path=photos, fnames=None, pat=r"(.+)_", **small
        ),
        "from_lists": Case(
            make.from_lists,
            "path fnames labels is_valid valid_pct seed size bs num_workers aug on_bad corrections",
            path=photos,
            fnames=files,
            labels=labels,
            **small,
        ),
        "from_csv": Case(
            make.from_csv,
            "path csv_fname folder suff fn_col label_col valid_col delimiter",
            path=photos.parent,
            csv_fname="labels.csv",
            **small,
        ),
        "from_datasets": Case(
            make.from_datasets,
            "train valid vocab size bs aug on_bad",
            train=dls.train.dataset,
            valid=dls.valid.dataset,
            vocab=dls.vocab,
            **small,
        ),
        "show_batch": Case(dls.show_batch, "max_n nrows ncols", max_n=2),
        "check_images": Case(check_images, "path", path=photos),
        "get_image_files": Case(get_image_files, "path", path=photos),
        "draw_shapes": Case(
            samples.draw_shapes, "n size wrong seed shapes", path=tmp_path / "drawn", n=2, size=16
        ),
        "vision_learner": Case(
            vision_learner,
            "dls arch weights head metrics loss_func label_smoothing class_weights "
            "logit_adjustment normalize train_bn seed lr wd moms amp cache_features accumulate "
            "clip_grad device cbs",
            dls=dls,
            arch=net,
            weights=None,
            device="cpu",
        ),
        "Learner": Case(
            Learner,
            "model groups loss_func metrics lr wd moms train_bn transforms amp "
            "cache_features accumulate clip_grad device cbs seed config",
            dls=learn.dls,
            model=learn.model,
            device="cpu",
        ),
        "fit": Case(learn.fit, "n_epoch lr keep_best wd cbs start_epoch", n_epoch=1),
        "fit_one_cycle": Case(
            learn.fit_one_cycle,
            "n_epoch lr_max div div_final pct_start keep_best wd moms cbs start_epoch",
            n_epoch=1,
        ),
        "fit_flat_cos": Case(learn.fit_flat_cos, "n_epoch lr div_final pct_start wd", n_epoch=1),
        "fit_sgdr": Case(
            learn.fit_sgdr, "n_cycles cycle_len lr_max cycle_mult", n_cycles=1, cycle_len=1
        ),
        "fine_tune": Case(
            learn.fine_tune,
            "epochs base_lr freeze_epochs lr_mult pct_start div keep_best wd cbs",
            epochs=1,
            freeze_epochs=1,
        ),
        "lr_find": Case(
            learn.lr_find,
            "start_lr end_lr num_it stop_div suggest seeds groups verify cbs",
            num_it=8,
        ),
        "freeze_to": Case(learn.freeze_to, "n", n=1),
        "validate": Case(learn.validate, "ds"),
        "get_preds": Case(learn.get_preds, "ds"),
        "predict": Case(of_pictures.predict, "item", item=files[0]),
        "save": Case(learn.save, "file", file=tmp_path / "s.safetensors", overwrite=True),
        "export": Case(
            learn.export, "file format overwrite", file=tmp_path / "e.safetensors", overwrite=True
        ),
        "load": Case(learn.load, "file", file=kept),
        "load_learner": Case(load_learner, "file dls arch", file=exported, arch=net),
        "from_learner": Case(ClassificationInterpretation.from_learner, "ds", learn=learn),
        "from_predictions": Case(
            ClassificationInterpretation.from_predictions,
            "targets preds vocab paths",
            targets=[0, 1, 1],
            preds=[0, 1, 0],
            vocab=["a", "b"],
        ),
        "multi_label": Case(
            MultiLabelInterpretation.from_predictions,
            "targets preds vocab",
            targets=[[0, 1]],
            preds=[[0.2, 0.9]],
            vocab=["a", "b"],
        ),
        "confusion_matrix": Case(interp.confusion_matrix, "normalize"),
        "plot_confusion_matrix": Case(
            interp.plot_confusion_matrix,
            "normalize title figsize dpi cmap norm_dec plot_txt",
            figsize=(2, 2),
        ),
        "plot_top_losses": Case(interp.plot_top_losses, "k largest nrows ncols figsize"),
        "show_results": Case(of_pictures.show_results, "max_n ds", max_n=2),
        "plot_loss": Case(recorder.plot_loss, "skip_start with_valid log"),
        "most_confused": Case(interp.most_confused, "min_val"),
        "top_losses": Case(interp.top_losses, "k"),
        "cell": Case(interp.cell, "actual predicted", actual=0, predicted=1),
        "compare": Case(interp.compare, "other", other=interp),
        "EarlyStopping": Case(EarlyStopping, "monitor min_delta patience"),
        "SaveBest": Case(SaveBest, "monitor"),
    }


NAMES = (
    *("from_folder", "from_name_re", "from_lists", "from_csv", "from_datasets", "show_batch"),
    *("check_images", "get_image_files", "draw_shapes", "vision_learner", "Learner"),
    *("fit", "fit_one_cycle", "fit_flat_cos", "fit_sgdr", "fine_tune", "lr_find", "freeze_to"),
    *("validate", "get_preds", "predict", "save", "export", "load", "load_learner"),
    *("from_learner", "from_predictions", "multi_label", "confusion_matrix", "most_confused"),
    *("plot_confusion_matrix", "plot_top_losses", "show_results", "plot_loss"),
    *("top_losses", "cell", "compare", "EarlyStopping", "SaveBest"),
)
COUNTS = (  # of work: a huge number is meant, and would take for ever
    *("n_epoch", "epochs", "freeze_epochs", "num_it", "n_cycles", "cycle_len", "cycle_mult"),
    *("seeds", "verify"),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_anything_else_than_what_is_needed_is_refused_in_our_words(
    name: str, cases: dict[str, Case], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a text may be taken for the name of a file to write
    case, foreign = cases[name], []
    case.call(**case.right)
    for argument in case.tested:
        for what, value in STRANGE.items():
            if what == "a huge number" and argument in COUNTS:
                continue
            try:
                case.call(**(case.right | {argument: value}))  # some of it may be right
            except OURS as error:
                raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
                text = str(error)
                if not raised_in.startswith(str(PACKAGE)) or "\n" in text or len(text) > LONGEST:
                    foreign.append(f"{argument} = {what}: {type(error).__name__}: {text[:200]}")
            except Exception as error:
                foreign.append(f"{argument} = {what}: {type(error).__name__}: {error}")
    assert foreign == []


def test_all_entrances_are_put_to_the_test(cases: dict[str, Case]) -> None:
    assert sorted(cases) == sorted(NAMES)


def test_the_package_raises_no_other_errors_than_users_are_told_of() -> None:
    allowed = {
        *("ValueError", "TypeError", "RuntimeError", "OSError"),
        *("FileNotFoundError", "FileExistsError", "TimeoutError", "UsageError"),
        *("UnreadableImage", "InvalidItem"),  # kinds of ValueError
        *("CancelFit", "CancelTrain"),  # end a run quietly
        *("Interrupted", "KeyboardInterrupt"),
        "OutOfMemory",  # a MemoryError
        *("ClusterError", "EngineLost", "WorkerLost"),  # kinds of RuntimeError, in one line
        "Broken",  # within a run in workers, which makes one of these of it
        *("_broken", "_silent", "refusal", "lost", "failed"),  # functions that make one of these
        # of Python's own protocols
        *("NotImplementedError", "IndexError", "AttributeError", "ImportError"),
    }
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
                assert name in allowed, f"{file.name}:{node.lineno} raises {name}"


def test_the_table_of_what_data_may_look_like_names_tests_that_there_are() -> None:
    rows = [
        line.split("|")
        for line in (PACKAGE / "data" / "README.md").read_text().splitlines()
        if line.startswith("| ") and "what you have" not in line
    ]
    assert len(rows) > 30
    for row in rows:
        files = re.findall(r"`([\w/]+\.py)`", row[-2])
        assert files, row[1]
        assert all((Path(__file__).parent / file).is_file() for file in files), row[1]
