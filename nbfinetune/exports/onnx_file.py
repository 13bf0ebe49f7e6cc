"""ONNX files: models that onnxruntime and others open."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from warnings import catch_warnings

import torch
from torch import Tensor

from nbfinetune.exports.portable import (
    INPUT,
    OUTPUTS,
    Exported,
    batches_through,
    compared,
    exported,
    quiet,
    traced,
)
from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.own_files import check_place, make_folder, write_whole
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.state import LearnerState

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

_OPSET = 18  # torch writes it without converting, and onnxruntime reads it since 1.14 (2023)
_FLOAT = 4  # bytes
_MOST_BYTES = 2**31 - 2**22  # protobuf takes 2 GB; the rest is for what is not weights


def write(learn: LearnerState, path: Path, *, overwrite: bool) -> str:
    """Write the learner's model; returns how far it is from it, in words. See `export`."""
    check_place(path, overwrite=overwrite)
    onnx = _needed()
    tensors = learn.model.state_dict().values()
    n_bytes = sum(_FLOAT * t.numel() for t in tensors if isinstance(t, Tensor))
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"the weights have {n_bytes / 2**30:.1f} GB, and one ONNX file takes 2; export a .pt2 "
            "or .safetensors file"
        )
    of = exported(learn)
    with catch_warnings(action="ignore"), quiet(), seeded_rng(0):
        proto = _proto(of)
    about = {k: v if isinstance(v, str) else json.dumps(v) for k, v in of.about.items()}
    onnx.helper.set_model_props(proto, about)
    content = proto.SerializeToString()
    said = _compared(of, content, shortened(path.name))
    make_folder(path.parent)
    write_whole(path, content)
    return said


def _needed() -> ModuleType:
    """The module onnx, where all is there that torch needs to write such files."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"an ONNX file needs {error.name}, which is not installed: pip install onnx onnxscript"
        ) from None
    return onnx


def _proto(of: Exported) -> "ModelProto":
    """The model as ONNX has it, without traces of its source."""
    program = traced(of)
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: "batch"}},
        )
    except Exception as error:  # operators that ONNX has not
        first = shortened(" ".join(str(error).split()))
        raise ValueError(
            f"{of.name} cannot be written as ONNX ({type(error).__name__}: {first}); export a "
            ".pt2 or .safetensors file"
        ) from error
    proto = written.model_proto
    for node in proto.graph.node:  # where in the user's folders each comes from
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del proto.graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _compared(of: Exported, content: bytes, file: str) -> str:
    try:
        import onnxruntime
    except ImportError:
        how = "onnxruntime is not installed: pip install onnxruntime"
        return f"{file}: not compared with the model, as {how}"
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = batches_through(_running(session), of.pictures)
    what = f"{of.what}, by onnxruntime {onnxruntime.__version__}"
    return compared(of.expected, given, file, what)


def _running(session: "InferenceSession") -> Callable[[Tensor], tuple[Tensor, ...]]:
    def run(pictures: Tensor) -> tuple[Tensor, ...]:
        given = session.run(list(OUTPUTS), {INPUT: pictures.numpy()})
        return tuple(map(torch.from_numpy, given))

    return run
