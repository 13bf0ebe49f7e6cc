"""Portable model: a learner's model with normalisation and probabilities inside, and what is said
of it; and how what another library gives is compared with it."""

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.transforms import ImageTransforms, presize
from nbfinetune.networks.outputs import logits_of
from nbfinetune.objectives.losses import Activation, softmax
from nbfinetune.rendering.names import printable, shortened
from nbfinetune.rendering.numbers import counted, rate_text
from nbfinetune.runtime.interrupts import act_on_interrupt
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.state import LearnerState
from nbfinetune.version import __version__

INPUT, OUTPUTS = "pictures", ("probabilities", "logits")
_TOLERANCE = 1e-4  # in float32 the order of sums alone changes logits of 10 by 1e-5
_COMPARED = 32  # held-out pictures
_MADE_UP = 8  # pictures, where a learner has no others
_ACTIVATIONS = {softmax: "softmax", torch.sigmoid: "sigmoid", torch.exp: "exp"}


class PortableModel(nn.Module):
    """From uint8 pictures [n, size, size, 3] to probabilities and logits [n, c].

    Parameters
    ----------
    model : takes normalised pictures [n, 3, size, size]; in eval mode, float32, on the CPU
    activation : makes probabilities of logits
    """

    def __init__(self, model: nn.Module, transforms: ImageTransforms, activation: Activation):
        super().__init__()
        self.model, self.activation = model, activation
        mean, std = (
            torch.tensor(tuple(v))[:, None, None] for v in (transforms.mean, transforms.std)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)
        self.eval()

    def normalised(self, pictures: Tensor) -> Tensor:
        """Pictures as the model takes them, [n, 3, size, size]."""
        return pictures.permute(0, 3, 1, 2).float() * self.scale + self.offset

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(self.model(self.normalised(pictures)), model=self.model)
        return self.activation(logits), logits


@dataclass(frozen=True)
class Exported:
    """What is exported of a learner, and what the file is compared on.

    Parameters
    ----------
    name : of its network, for messages
    model : a copy in float32 on the CPU; the learner stays as it is
    pictures : uint8, shape [n, size, size, 3]
    expected : probabilities and logits that the model gives of them, each [n, c]
    what : the pictures are, in words
    about : what a file says of its pictures and its outputs
    """

    name: str
    model: PortableModel
    pictures: Tensor
    expected: tuple[Tensor, Tensor]
    what: str
    about: dict[str, object]


def exported(learn: LearnerState) -> Exported:
    """What is exported of a learner.

    Raises
    ------
    ValueError
        If it is none of pictures.
    """
    if not isinstance(learn.transforms, ImageTransforms):
        raise ValueError(
            "this learner has no transforms for pictures, which a file for others needs; pass "
            "transforms=ImageTransforms(size) to Learner, or export a .safetensors file"
        )
    copied = deepcopy(learn.model).to("cpu", torch.float32)
    copied = copied.to(memory_format=torch.contiguous_format).requires_grad_(False)
    model = PortableModel(copied, learn.transforms, learn.activation)
    pictures, what = _pictures_of(learn)
    expected = batches_through(model, pictures)
    name = learn.config.get("arch") or type(learn.model).__name__
    about = _described(learn, expected[-1].shape[1])
    act_on_interrupt()
    return Exported(name, model, pictures, expected, what, about)


def _described(learn: LearnerState, c: int) -> dict[str, object]:
    size = learn.transforms.size
    side = presize(size)
    return {
        "class_names": [str(name) for name in learn.vocab or range(c)],
        "size": size,
        "resize": side,
        "edge": round((side - size) / 2),  # as torchvision's center_crop rounds it
        "preprocessing": f"upright by EXIF, transparency on white, RGB; the middle square, scaled "
        f"to {side} x {side} px (bilinear, antialiased), of which the middle {size} x {size} px; "
        f"uint8 [n, {size}, {size}, 3]; normalised inside",
        "mean": list(learn.transforms.mean),
        "std": list(learn.transforms.std),
        "activation": _ACTIVATIONS.get(learn.activation, "of the loss function"),
        "made_by": f"nbfinetune {__version__}, torch {torch.__version__}",
    }


def _pictures_of(learn: LearnerState) -> tuple[Tensor, str]:
    """Held-out pictures, evenly from all of them; noise where the learner has none."""
    size, loader = learn.transforms.size, getattr(learn.dls, "valid", None)
    if loader is not None and gives_pictures(loader):
        n = len(loader.dataset)
        chosen = [i * n // min(n, _COMPARED) for i in range(min(n, _COMPARED))]
        images = learn.transforms.middle(loader.dataset.batch(chosen)[0])
        return images.permute(0, 2, 3, 1).contiguous(), counted(len(chosen), "held-out picture")
    with seeded_rng(0):
        noise = torch.randint(0, 256, (_MADE_UP, size, size, 3), dtype=torch.uint8)
    return noise, f"{_MADE_UP} pictures of noise, as this learner has no others"


def compared(expected: tuple[Tensor, ...], given: tuple[Tensor, ...], file: str, what: str) -> str:
    """How far what a file gives is from the model, in words.

    Parameters
    ----------
    expected, given : outputs of the model and of the file, the last of them logits [n, c]
    file : its name
    what : they were compared on, and how

    Raises
    ------
    ValueError
        If it is too far, or not of the same shape.
    """
    act_on_interrupt()  # nothing is written yet
    for ours, theirs in zip(expected, given, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"{file} is not written: it gives {list(theirs.shape)}, not {list(ours.shape)}"
            )
    both = zip(expected, given, strict=True)
    furthest = max(float((a.double() - b.double()).abs().max()) for a, b in both)
    largest = float(expected[-1].abs().max())
    allowed = _TOLERANCE * max(1.0, largest)
    if not furthest <= allowed:  # nor NaN
        raise ValueError(
            f"{file} is not written: what it gives differs from the model by "
            f"{rate_text(furthest)} on {what}, more than {rate_text(allowed)}"
        )
    return (
        f"{file}: largest difference {rate_text(furthest)} (values up to {largest:.3g}) on {what}"
    )


def batches_through(run: Callable[[Tensor], tuple], pictures: Tensor) -> tuple[Tensor, ...]:
    """What `run` gives of all pictures, in batches of different size: of 1, and the others."""
    sizes = [1, len(pictures) - 1][: len(pictures)]
    with torch.no_grad():
        parts = [tuple(run(part)) for part in pictures.split(sizes)]
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch and onnxscript log no pages of what they do."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def traced(of: Exported) -> torch.export.ExportedProgram:
    """The model as torch.export sees it, for any number of pictures, without traces of its source.

    Raises
    ------
    ValueError
        If torch.export cannot follow the model.
    """
    example = torch.zeros_like(of.pictures[:1]).expand(2, -1, -1, -1)  # no picture of the user's
    shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    printed = io.StringIO()  # where it fails, pages of the graph with names of folders
    try:
        with torch.no_grad(), quiet(), redirect_stdout(printed), redirect_stderr(printed):
            program = torch.export.export(of.model, (example.contiguous(),), dynamic_shapes=shapes)
    except Exception as error:  # whatever the code of a module makes of it
        first = printable(next(iter(str(error).splitlines()), ""))
        raise ValueError(
            f"torch.export cannot follow {of.name} ({type(error).__name__}: {shortened(first)}); "
            "export a .safetensors file"
        ) from None
    print(printed.getvalue(), end="")  # of other threads
    act_on_interrupt()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names of the user's folders
    return program
