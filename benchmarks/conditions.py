"""What the benchmarks share: the conditions of a run, sides in turn, medians and ranges."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median


def conditions(*packages: str) -> str:
    """Date, versions and machine, a line each."""
    names = ("torch", "torchvision", *packages)
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {versions}\n"
        f"{_cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, which others on the machine lengthen least."""
    started = time.process_time()
    work()
    return time.process_time() - started


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side gives in each round, A B A B: what slowly changes is on all sides alike."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            values[name].append(side())
    return values


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Quotients round by round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    low, mid, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid} ({low} to {high})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line, the first to the left."""
    widths = [max(len(cells[k]) for cells in (heads, *rows)) for k in range(len(heads))]
    lines = []
    for cells in (heads, *rows):
        rest = [f"{cell:>{w}}" for cell, w in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join([f"{cells[0]:<{widths[0]}}", *rest]))
    return "\n".join(lines)
