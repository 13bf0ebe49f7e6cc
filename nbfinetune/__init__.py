"""nbfinetune: the notebook as the training console for image classifiers."""

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nbfinetune import samples
    from nbfinetune.callbacks import Callback, CancelFit, CancelTrain, EarlyStopping, SaveBest
    from nbfinetune.corrections import Corrections
    from nbfinetune.data import ImageDataLoaders
    from nbfinetune.images import check_images, get_image_files
    from nbfinetune.interpretation import ClassificationInterpretation
    from nbfinetune.learner import Learner
    from nbfinetune.lr_results import LRFindComparison, LRFindResult
    from nbfinetune.metrics import accuracy, error_rate, top_k_accuracy
    from nbfinetune.multi_label import MultiLabelInterpretation
    from nbfinetune.recorder import FitResult
    from nbfinetune.vision import load_learner, vision_learner

__all__ = [
    "Callback",
    "CancelFit",
    "CancelTrain",
    "ClassificationInterpretation",
    "Corrections",
    "EarlyStopping",
    "FitResult",
    "ImageDataLoaders",
    "LRFindComparison",
    "LRFindResult",
    "Learner",
    "MultiLabelInterpretation",
    "SaveBest",
    "accuracy",
    "check_images",
    "error_rate",
    "get_image_files",
    "load_learner",
    "samples",
    "top_k_accuracy",
    "vision_learner",
]

# torch takes seconds to import, and `%load_ext nbfinetune` needs none of it: a name is imported
# when it is first asked for (PEP 562).
_MODULE_OF = {
    "Callback": "callbacks",
    "CancelFit": "callbacks",
    "CancelTrain": "callbacks",
    "ClassificationInterpretation": "interpretation",
    "Corrections": "corrections",
    "EarlyStopping": "callbacks",
    "FitResult": "recorder",
    "ImageDataLoaders": "data",
    "LRFindComparison": "lr_results",
    "LRFindResult": "lr_results",
    "Learner": "learner",
    "MultiLabelInterpretation": "multi_label",
    "SaveBest": "callbacks",
    "accuracy": "metrics",
    "check_images": "images",
    "error_rate": "metrics",
    "get_image_files": "images",
    "load_learner": "vision",
    "top_k_accuracy": "metrics",
    "vision_learner": "vision",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _imported(_MODULE_OF.get(name, name))
    value = module if name == "samples" else getattr(module, name)
    globals()[name] = value
    return value


def _imported(name: str) -> ModuleType:
    if "torch" in sys.modules or not gc.isenabled():
        return import_module(f"nbfinetune.{name}")
    # An import of torch fills the memory with what stays, which the garbage collector would look
    # through again and again; one look at the end makes it 5 to 10 % faster (measured).
    gc.disable()
    try:
        return import_module(f"nbfinetune.{name}")
    finally:
        gc.enable()
        gc.collect()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython) -> None:
    """`%load_ext nbfinetune`: add the magics."""
    from nbfinetune import magics

    magics.load(ipython)


def unload_ipython_extension(ipython) -> None:
    """`%unload_ext nbfinetune`: take the magics away."""
    from nbfinetune import magics

    magics.unload(ipython)
