"""nbfinetune: the notebook as the training console for image classifiers."""

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from nbfinetune.rendering.left_out import left_out, names_left_out
from nbfinetune.runtime.openmp import spin_briefly
from nbfinetune.version import __version__ as __version__

if TYPE_CHECKING:
    from torchvision.models import resnet18, resnet34, resnet50

    from nbfinetune.comparison.comparing import compare_networks
    from nbfinetune.comparison.results import NetworkComparison
    from nbfinetune.data import samples
    from nbfinetune.data.corrections import Corrections
    from nbfinetune.data.loaders import ImageDataLoaders
    from nbfinetune.history.recorder import FitResult
    from nbfinetune.images.decoding import check_images
    from nbfinetune.images.files import get_image_files
    from nbfinetune.interpretation.classification import ClassificationInterpretation
    from nbfinetune.interpretation.multi_label import MultiLabelInterpretation
    from nbfinetune.learner import Learner
    from nbfinetune.live.loop_plot import LoopPlot
    from nbfinetune.live.progress import EpochTable
    from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
    from nbfinetune.lr_finder.suggestions import minimum, slide, steep, valley
    from nbfinetune.objectives.metrics import (
        accuracy,
        balanced_accuracy,
        error_rate,
        top_k_accuracy,
    )
    from nbfinetune.training.callbacks import CancelFit, CancelTrain
    from nbfinetune.training.fine_tuning.refit import RefitHead
    from nbfinetune.training.logs.log_to import LogTo
    from nbfinetune.training.monitors import EarlyStopping, SaveBest
    from nbfinetune.training.state import Callback
    from nbfinetune.vision import cnn_learner, load_learner, vision_learner

__all__ = [
    "Callback",
    "CancelFit",
    "CancelTrain",
    "ClassificationInterpretation",
    "Corrections",
    "EarlyStopping",
    "EpochTable",
    "FitResult",
    "ImageDataLoaders",
    "LRFindComparison",
    "LRFindResult",
    "Learner",
    "LogTo",
    "LoopPlot",
    "MultiLabelInterpretation",
    "NetworkComparison",
    "RefitHead",
    "SaveBest",
    "accuracy",
    "balanced_accuracy",
    "check_images",
    "cnn_learner",
    "compare_networks",
    "error_rate",
    "get_image_files",
    "load_learner",
    "minimum",
    "resnet18",
    "resnet34",
    "resnet50",
    "samples",
    "slide",
    "steep",
    "top_k_accuracy",
    "valley",
    "vision_learner",
]

# torch takes seconds to import, and `%load_ext nbfinetune` needs none of it: a name is imported
# when it is first asked for (PEP 562).
_MODULE_OF = {
    "Callback": "training.state",
    "CancelFit": "training.callbacks",
    "CancelTrain": "training.callbacks",
    "ClassificationInterpretation": "interpretation.classification",
    "Corrections": "data.corrections",
    "EarlyStopping": "training.monitors",
    "EpochTable": "live.progress",
    "FitResult": "history.recorder",
    "ImageDataLoaders": "data.loaders",
    "LRFindComparison": "lr_finder.results",
    "LRFindResult": "lr_finder.results",
    "Learner": "learner",
    "LogTo": "training.logs.log_to",
    "LoopPlot": "live.loop_plot",
    "MultiLabelInterpretation": "interpretation.multi_label",
    "NetworkComparison": "comparison.results",
    "RefitHead": "training.fine_tuning.refit",
    "SaveBest": "training.monitors",
    "accuracy": "objectives.metrics",
    "balanced_accuracy": "objectives.metrics",
    "check_images": "images.decoding",
    "cnn_learner": "vision",
    "compare_networks": "comparison.comparing",
    "error_rate": "objectives.metrics",
    "get_image_files": "images.files",
    "load_learner": "vision",
    "minimum": "lr_finder.suggestions",
    "resnet18": "torchvision.models",
    "resnet34": "torchvision.models",
    "resnet50": "torchvision.models",
    "samples": "data.samples",
    "slide": "lr_finder.suggestions",
    "steep": "lr_finder.suggestions",
    "top_k_accuracy": "objectives.metrics",
    "valley": "lr_finder.suggestions",
    "vision_learner": "vision",
}


def __getattr__(name: str) -> object:
    if name in names_left_out("nbfinetune"):
        # An AttributeError would lose its text in `from nbfinetune import name`.
        raise ImportError(left_out("nbfinetune", name))
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _imported(_MODULE_OF[name])
    value = module if name == "samples" else getattr(module, name)
    globals()[name] = value
    return value


def _imported(home: str) -> ModuleType:
    home = home if home.startswith("torchvision") else f"nbfinetune.{home}"
    spin_briefly()
    if "torch" in sys.modules or not gc.isenabled():
        return import_module(home)
    # An import of torch fills the memory with what stays, which the garbage collector would look
    # through again and again; one look at the end makes it 5 to 10 % faster (measured).
    gc.disable()
    try:
        return import_module(home)
    finally:
        gc.enable()
        gc.collect()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython) -> None:
    """`%load_ext nbfinetune`: add the magics."""
    from nbfinetune.magics import extension

    spin_briefly()  # the next cell may import torch by itself
    extension.load(ipython)


def unload_ipython_extension(ipython) -> None:
    """`%unload_ext nbfinetune`: take the magics away."""
    from nbfinetune.magics import extension

    extension.unload(ipython)
