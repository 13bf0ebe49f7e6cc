"""nbfinetune: the notebook as the training console for image classifiers."""

__version__ = "0.1.0"

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


def load_ipython_extension(ipython) -> None:
    """`%load_ext nbfinetune`: add the magics."""
    from nbfinetune import magics

    magics.load(ipython)


def unload_ipython_extension(ipython) -> None:
    """`%unload_ext nbfinetune`: take the magics away."""
    from nbfinetune import magics

    magics.unload(ipython)
