"""Results: networks compared, the lowest error first, in words, as a table and as a chart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from nbfinetune.comparison.pictures import comparison_figure
from nbfinetune.comparison.plan import Plan
from nbfinetune.comparison.probe import N_FOLDS, ComparedNetwork
from nbfinetune.rendering.figures import Picture
from nbfinetune.rendering.names import printable
from nbfinetune.rendering.tables import Table

_OFFERED = 3
_COLUMNS = ("network", "px", "error", "above the best", "parameters", "licence")


@dataclass(frozen=True)
class Skipped:
    """A network that was not compared, and why.

    Parameters
    ----------
    size : at which it was not; None = at any
    """

    name: str
    size: int | None
    reason: str


@dataclass(frozen=True)
class NetworkComparison:
    """What `compare_networks` found.

    Parameters
    ----------
    networks : those that were compared, the lowest error first, of equal ones the lower loss
    skipped : those that were not, and why
    newest : the last one that was done, in a line
    n_planned : networks and sizes that were asked for
    stopped : whether it ended before all of them were done
    pictures : on what they were compared, in words
    of_dls : how the user calls the loaders, and their size
    device : that they ran on: "cpu", "cuda" or "mps"
    guess : error of always naming the most common class
    """

    networks: list[ComparedNetwork]
    skipped: list[Skipped]
    newest: str = field(repr=False)
    n_planned: int
    stopped: bool
    pictures: str
    of_dls: tuple[str, int]
    device: str
    guess: float

    @classmethod
    def of(
        cls,
        plan: Plan,
        found: Sequence[ComparedNetwork],
        skipped: Sequence[Skipped],
        *,
        stopped: bool = False,
    ) -> "NetworkComparison":
        """Of what was found by now, the newest last."""
        total, n = len(plan.dls.train.dataset), len(plan.numbers)
        counts = Counter(plan.dls.train.dataset.targets[i] for i in plan.numbers)
        part = "" if n == total else f" of {total:,}"
        pictures = f"{n:,}{part} training pictures of {plan.dls.c:,} classes"
        device = plan.device.type
        return cls(
            sorted(found, key=lambda one: (one.error, one.loss)),
            list(skipped),
            _line(found[-1], device) if found else "",
            len(plan.jobs),
            stopped,
            pictures,
            (plan.dls_name, plan.dls.size),
            device,
            1 - max(counts.values()) / n,
        )

    @property
    def best(self) -> ComparedNetwork:
        """The one with the lowest error."""
        if not self.networks:
            raise ValueError("no network was compared")
        return self.networks[0]

    @property
    def lines(self) -> list[str]:
        """What to type for each of the best three."""
        name, size = self.of_dls
        loaders = {one.size: f"{name}.with_size({one.size})" for one in self.networks}
        loaders[size] = name
        return [
            f'learn = vision_learner({loaders[one.size]}, "{one.name}")  # {_error(one)}'
            for one in self.networks[:_OFFERED]
        ]

    @property
    def verdict(self) -> str:
        """Which is best, which others may be as good, and which of these is the quickest."""
        if not self.networks:
            return ""
        best = self.best
        if best.error >= self.guess:
            return (
                f"none is better than a guess, whose error is {self.guess:.3f}: too few pictures "
                "of a class to tell, or no network sees the difference"
            )
        text = f"{best.name} at {best.size} px has the lowest error, {_error(best)}"
        alike = [one for one in self.networks[1:] if _no_worse(one, best)]
        if not alike:
            return f"{text}, by more than a standard error" if len(self.networks) > 1 else text
        quick = min(alike, key=lambda one: one.seconds)
        others = f"{quick.name} at {quick.size} px is"
        if len(alike) > 1:
            others = f"{len(alike)} others are"
        text += f"; {others} within a standard error of it"
        if quick.seconds < best.seconds:
            which = "" if len(alike) == 1 else f"{quick.name} at {quick.size} px with "
            times = f"{_digits(quick.seconds)} against {_digits(best.seconds)} {self._unit}"
            text += f", {which}{times}"
        return text

    @property
    def gaps(self) -> list[str]:
        """What was skipped, and why."""
        reasons: dict[tuple[str, str], list[int]] = {}
        for one in self.skipped:
            sizes = reasons.setdefault((one.name, one.reason), [])
            sizes += [] if one.size is None else [one.size]
        every = {one.size for one in (*self.networks, *self.skipped)} - {None}
        texts = []
        for (name, why), sizes in reasons.items():
            some = f" at {', '.join(map(str, sizes))} px" if 0 < len(sizes) < len(every) else ""
            texts.append(printable(f"{name}{some}: {why}"))
        return texts

    @property
    def _unit(self) -> str:
        return _unit_of(self.device)

    def table(self) -> Table:
        """A row for each network and size, the lowest error first."""
        columns = (*_COLUMNS[:4], f"{self._unit} for 1,000 pictures", *_COLUMNS[4:])
        rows = [self._row(one) for one in self.networks]
        asked = f" of {self.n_planned}" if len(rows) < self.n_planned else ""
        what = "network and size" if len(rows) == self.n_planned == 1 else "networks and sizes"
        title = f"{len(rows)}{asked} {what} on {self.pictures}, a linear layer in {N_FOLDS} folds"
        rows += [(f"skipped: {gap}",) for gap in self.gaps]
        stopped = "stopped before all were done" if self.stopped else ""
        return Table(title, columns, rows, ". ".join(filter(None, [self.verdict, stopped])))

    def _row(self, one: ComparedNetwork) -> tuple[str, ...]:
        above = ""
        if one is not self.best:
            mean, error = one.above(self.best)
            above = f"{mean:+.3f} ± {error:.3f}"
        params, licence = f"{one.n_params / 1e6:.1f} M", one.licence or "not stated"
        seconds = _digits(one.seconds)
        return one.name, str(one.size), _error(one), above, seconds, params, licence

    def plot(self) -> Picture:
        """The errors with their standard errors over the time, sizes of a network as a line."""
        unit = f"{self._unit} for 1,000 pictures"
        text = "; ".join(
            f"{one.name} at {one.size} px {_error(one)}, {_digits(one.seconds)} s"
            for one in self.networks
        )
        figure = comparison_figure(self.networks, self.best, unit)
        return Picture(figure, f"errors over {unit}: {text}")

    def __repr__(self) -> str:
        return "\n".join([repr(self.table()), *self.lines])

    def _repr_html_(self) -> str:
        table = self.table()._repr_html_()
        if not self.networks:
            return table
        code = escape("\n".join(map(printable, self.lines)))
        return f"{self.plot()._repr_html_()}{table}<pre>{code}</pre>"


def _no_worse(one: ComparedNetwork, best: ComparedNetwork) -> bool:
    mean, error = one.above(best)
    return mean <= error


def _error(one: ComparedNetwork) -> str:
    return f"{one.error:.3f} ± {one.standard_error:.3f}"


def _digits(seconds: float) -> str:
    """Three digits, as 0.123, 1.23, 12.0, 123 and 1,234."""
    digits = f"{seconds:#.3g}"
    return f"{seconds:,.0f}" if "e" in digits else digits.rstrip(".")


def _line(one: ComparedNetwork, device: str) -> str:
    """A network in a line."""
    time = f"{_digits(one.seconds)} {_unit_of(device)} for 1,000 pictures"
    return f"{one.name} at {one.size} px: error {_error(one)}, {time}"


def _unit_of(device: str) -> str:
    return f"{'CPU' if device == 'cpu' else 'GPU'} s"
