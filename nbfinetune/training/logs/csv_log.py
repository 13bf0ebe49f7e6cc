"""CSV log: values by step as a table, one row a step, one column a name."""

import csv
from collections.abc import Mapping
from io import StringIO
from os import PathLike
from pathlib import Path

from nbfinetune.arguments import as_path
from nbfinetune.rendering.names import shortened, shown
from nbfinetune.runtime.own_files import write_whole

_STEP = "step"


class CsvLog:
    """Writes `step` and values to a CSV file, whole at each `flush`; a log there is replaced.

    Parameters
    ----------
    file : ends with .csv; its folder is made

    Raises
    ------
    ValueError
        For another name, or a file that is there and no such log.
    """

    def __init__(self, file: str | PathLike) -> None:
        self.path = as_path(file, "the log")
        if self.path.suffix != ".csv":
            raise ValueError(
                f"LogTo({shown(str(file))}) is no CSV file; give a name that ends with .csv, or "
                "for TensorBoard LogTo(SummaryWriter(folder))"
            )
        self._rows: dict[int, dict[str, object]] = {}
        self._check_own()

    def _check_own(self) -> None:
        try:
            with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
                first = next(csv.reader(file), [_STEP])[:1]
        except FileNotFoundError:
            return
        except OSError as error:
            text = error.strerror or error
            raise ValueError(f"{shortened(self.path)} cannot be read ({text})") from None
        if first != [_STEP]:
            raise ValueError(
                f"{shortened(self.path)} is there and no log of steps: its first column is "
                f"{shown(first[0]) if first else 'missing'}; give another name"
            )

    def __call__(self, step: int, values: Mapping[str, object]) -> None:
        self._rows.setdefault(step, {}).update(values)

    def flush(self) -> None:
        """Write all rows."""
        names = list(dict.fromkeys(name for row in self._rows.values() for name in row))
        out = StringIO()
        writer = csv.DictWriter(out, [_STEP, *names])
        writer.writeheader()
        writer.writerows({_STEP: step} | row for step, row in sorted(self._rows.items()))
        Path(self.path.parent).mkdir(parents=True, exist_ok=True)
        write_whole(self.path, out.getvalue().encode())

    def resume(self, step: int) -> None:
        """Go on after this step with what the file has of a process that was killed."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                at = int(row.pop(_STEP))
                if at <= step:
                    there = {name: value for name, value in row.items() if value}
                    self._rows[at] = there | self._rows.get(at, {})
