"""Export: a learner as a file for this package, or for another one; a method of `Learner`."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from nbfinetune.arguments import as_path, check_bool
from nbfinetune.checkpoints import checkpoint
from nbfinetune.exports import hub_folder, onnx_file, pt2_file
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.interrupts import defers_interrupts
from nbfinetune.training.printing import say
from nbfinetune.training.state import LearnerState

_OWN = "safetensors"
# Each writes a file, or a folder, and returns what is to be said of it.
_FORMATS: dict[str, Callable[..., str]] = {
    "onnx": onnx_file.write,
    "pt2": pt2_file.write,
    "hub": hub_folder.write,
}
_SUFFIXES = {".onnx": "onnx", ".pt2": "pt2"}


@defers_interrupts
def export(
    learn: LearnerState,
    file: str | PathLike | None = None,
    *,
    format: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write what prediction needs, for this package or for others; returns the path.

    What is for others is compared with the model on up to 32 held-out pictures before it is put in
    its place; the largest difference is printed, and above 1e-4 (of the largest logit, if that is
    over 1) there is an error and no file, as there is none after an interrupt.

    ONNX and pt2 files take uint8 pictures [n, size, size, 3] and give probabilities and logits
    [n, c]; normalisation is inside, and they say the classes and how pictures are scaled and
    cropped. Models are exported in float32, for any n.

    Parameters
    ----------
    file : the file, or the folder of "hub"; default: export.safetensors, or as the format is called
    format : "safetensors" = of this package, for `load_learner`: weights, names of architecture and
        classes, transforms; "onnx" = for onnxruntime and others (needs onnx and onnxscript to
        write); "pt2" = for `torch.export.load`, with torch alone; "hub" = a folder with
        config.json, model.safetensors and a model card, for timm's `create_model("local-dir:...")`
        and for transformers (needs timm). Default: by the suffix .onnx or .pt2, else "safetensors"
    overwrite : whether files that are there may be replaced

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is False.
    OSError
        If it cannot be written; one that is there stays as it is.
    ValueError
        If a library is missing, the model cannot be brought into the format, or what the file gives
        differs from the model.

    Examples
    --------
    >>> learn.export("pets.onnx")  # doctest: +SKIP
    >>> learn.export("pets/", format="hub")  # doctest: +SKIP
    """
    formats = ", ".join((_OWN, *_FORMATS))
    if format is not None and format not in (_OWN, *_FORMATS):
        raise ValueError(f"format is {shown(format)}; it must be one of {formats}")
    if file is None:
        file = f"export.{format or _OWN}" if format != "hub" else "export"
    path = as_path(file, "file")
    format = format or _SUFFIXES.get(path.suffix.lower(), _OWN)
    if format == _OWN:
        return checkpoint.export(learn, file, overwrite=overwrite)
    check_bool(overwrite=overwrite)
    checkpoint.check_writable(learn)
    said = _FORMATS[format](learn, path, overwrite=overwrite)
    if not learn.is_quiet:
        say(said)
    return path
