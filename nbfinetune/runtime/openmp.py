"""OpenMP: how the threads that compute wait for each other, set before torch brings its library.

libgomp, which comes with torch's wheels for Linux, lets a thread that waits spin: it holds its core
against the thread it waits for as soon as another process has work. What that costs is measured by
`benchmarks/busy.py`, see "Busy machines" in `benchmarks/README.md`.
"""

import os
import sys

_NAME = "GOMP_SPINCOUNT"
_COUNT = "1000"  # turns; by default 300,000, and billions where OMP_WAIT_POLICY is ACTIVE
_PREFIXES = ("OMP_", "GOMP_", "KMP_")


def is_set() -> bool:
    """Whether the environment says how threads compute, by the user's will or by `spin_briefly`."""
    return any(name.startswith(_PREFIXES) for name in os.environ)


def spin_briefly() -> None:
    """Let threads that wait give their core away soon; call it before torch is imported.

    libgomp reads the variable when it is loaded. Child processes inherit it, where it does the
    same; it changes no number that is computed. Nothing is done once torch is there, outside Linux,
    and where the user set any variable of OpenMP, which is then to mean what it meant.
    """
    if sys.platform == "linux" and "torch" not in sys.modules and not is_set():
        os.environ[_NAME] = _COUNT
