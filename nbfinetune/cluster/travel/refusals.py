"""Refusals: what of a call cannot travel to other processes, found by its parts and named."""

from collections.abc import Callable, Iterator, Mapping

from torch import nn

from nbfinetune.objectives.metrics import metric_name
from nbfinetune.rendering.names import printable
from nbfinetune.training.state import Callback, LearnerState

_DEPTH = 3  # attributes of attributes that are looked at


def refusal(
    learn: LearnerState,
    arguments: Mapping[str, object],
    why_not: Callable[[object], Exception | None],
    error: Exception,
) -> ValueError:
    """The error that names what cannot travel, in one line.

    Parameters
    ----------
    why_not : what goes wrong with an object alone, None if nothing does
    error : what went wrong with the whole
    """
    for name, part, remedy in _parts(learn, arguments):
        if (found := why_not(part)) is not None:
            reason = _reason(part, found, why_not)
            return ValueError(f"{name} cannot travel to the workers: {reason}: {remedy}")
    text = " ".join(str(error).split())
    return ValueError(
        f"this learner cannot travel to the workers ({text}): leave workers= and cluster= out"
    )


def _parts(
    learn: LearnerState, arguments: Mapping[str, object]
) -> Iterator[tuple[str, object, str]]:
    """Name, object and what to do about it, of all that a user gave; the smaller parts first."""
    own = [*learn.cbs, *(cb for value in arguments.values() for cb in _callbacks(value))]
    for cb in own:
        if getattr(cb, "runs_on", "first") != "console":
            name = f"the callback {type(cb).__name__}"
            yield name, cb, "take it out of cbs=, or open it in before_fit"
    for metric in learn.metrics:
        yield f"the metric {metric_name(metric)}", metric, "take it out of metrics="
    yield "the loss function", learn.loss_func, "pass one without it as loss_func="
    yield "aug of the loaders", getattr(learn.transforms, "aug", None), "pass another aug="
    yield "transforms", learn.transforms, "pass others"
    yield from _modules(learn.model)
    for side in ("train", "valid"):
        loader = getattr(learn.dls, side, None)
        name = "training" if side == "train" else "validation"
        remedy = "make it of what can be pickled, or leave workers= and cluster= out"
        dataset = getattr(loader, "dataset", None)
        yield f"the {name} data set", dataset, remedy
        yield f"the {name} loader", loader, remedy
    yield "dls", learn.dls, "make it of what can be pickled"
    for name, value in arguments.items():
        if not _callbacks(value):
            yield f"the argument {name}", value, "pass another"
    for name, value in vars(learn).items():
        yield f"the attribute {name.lstrip('_')} of the learner", value, f"delete learn.{name}"


def _callbacks(value: object) -> list[Callback]:
    listed = value if isinstance(value, list | tuple) else [value]
    return [cb for cb in listed if isinstance(cb, Callback)]


def _modules(model: nn.Module) -> Iterator[tuple[str, object, str]]:
    """The modules of a network from the inside to the outside."""
    for path, module in reversed(list(model.named_modules())):
        name = f"the module {path} ({type(module).__name__})" if path else "the network"
        yield name, module, "keep it out of the network's attributes, or open it in forward"


def _reason(part: object, error: Exception, why_not: Callable[[object], Exception | None]) -> str:
    """The innermost attribute that is to blame, and what is said of it."""
    path, at = [], part
    for _ in range(_DEPTH):
        own = getattr(at, "__dict__", {})
        found = next(((k, v) for k, v in own.items() if why_not(v) is not None), None)
        if found is None:
            break
        path.append(found[0])
        at = found[1]
    text = " ".join(str(error).split())
    if not path:
        return text
    kind = printable(type(at).__name__)
    return f"its {printable('.'.join(path))} is {_article(kind)} {kind} ({text})"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"
