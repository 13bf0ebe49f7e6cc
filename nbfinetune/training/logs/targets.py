"""Targets: whatever takes values by step, as one function `log(step, values)`.

They are known by their methods, so that no library is imported or named: a writer of TensorBoard
has `add_scalar`, mlflow and loggers of Lightning have `log_metrics`, wandb and trackio have `log`.
"""

from collections.abc import Callable, Mapping
from os import PathLike

from nbfinetune.rendering.names import shown
from nbfinetune.training.logs.csv_log import CsvLog

Value = float | int | str
Log = Callable[[int, Mapping[str, Value]], object]


def log_function(target: object) -> Log:
    """The function `log(step, values)` of a target.

    Raises
    ------
    ValueError
        If it has none of the methods that are known, and is no function.
    """
    if isinstance(target, type):
        name = target.__name__
        raise ValueError(f"LogTo was given the class {name}; pass an instance of it, {name}()")
    if isinstance(target, (str, PathLike)):
        return CsvLog(target)
    if callable(getattr(target, "add_scalar", None)):
        return Scalars(target)
    if callable(getattr(target, "log_metrics", None)):
        return MetricsAndParams(target)
    if callable(getattr(target, "log", None)):
        return Dicts(target)
    if callable(target):
        return target
    raise ValueError(
        f"LogTo cannot log to {shown(target)}, a {type(target).__name__}; give a function "
        'log(step, values), the name of a CSV file, "runs/log.csv", or what has add_scalar (a '
        "SummaryWriter), log_metrics (mlflow) or log (wandb, trackio)"
    )


def _parted(values: Mapping[str, Value]) -> tuple[dict[str, float], dict[str, str]]:
    """The numbers, and the texts."""
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    return {name: float(values[name]) for name in values if name not in texts}, texts


class Scalars:
    """What has add_scalar(tag, value, step), and add_text for texts."""

    def __init__(self, writer: object) -> None:
        self._writer = writer

    def __call__(self, step: int, values: Mapping[str, Value]) -> None:
        numbers, texts = _parted(values)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        for name, text in texts.items():
            if hasattr(self._writer, "add_text"):
                self._writer.add_text(name, text, step)

    def flush(self) -> None:
        """Let it write what it holds."""
        if hasattr(self._writer, "flush"):
            self._writer.flush()


class MetricsAndParams:
    """What has log_metrics(numbers, step=), and log_params for texts, each of which is set once."""

    def __init__(self, client: object) -> None:
        self._client = client

    def __call__(self, step: int, values: Mapping[str, Value]) -> None:
        numbers, texts = _parted(values)
        if numbers:
            self._client.log_metrics(numbers, step=step)
        if texts and hasattr(self._client, "log_params"):
            self._client.log_params({f"{name} from step {step}": t for name, t in texts.items()})


class Dicts:
    """What has log(values, step=)."""

    def __init__(self, run: object) -> None:
        self._run = run

    def __call__(self, step: int, values: Mapping[str, Value]) -> None:
        self._run.log(dict(values), step=step)
