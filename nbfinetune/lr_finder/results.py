"""What learning rate searches found: one curve, or several overlaid."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from nbfinetune.lr_finder.pictures import lr_picture
from nbfinetune.lr_finder.suggestions import centred, n_finite, suggested
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.tables import Table


@dataclass(frozen=True)
class LRFindResult:
    """The curve of a range test, what it suggests and what it is worth.

    Iterating gives the suggested rates in the order asked for; where none were asked for, minimum
    and steep, as the lecture of fastai unpacks them.

    Parameters
    ----------
    lrs : learning rate of each step
    losses : raw training loss of each step, the mean of the sweeps
    smooth : their moving average (factor 0.98, fastai's), which lags behind them; pictures show a
        centred average, which does not
    suggestions : name -> rate; NaN where the curve is too short for it
    confidence : "high", "low" or "none"
    verdict : one sentence: why, and what to do
    low, high : rates between which training works, None without confidence
    trained : what trained, such as "head"
    sweeps : raw losses of each sweep
    trials : of each short run, if there were any, the rate and the held-out loss
    verified : the best of these rates, None without
    mult_trials : of the short runs with another rate of the head, how many times it is that of the
        first layer group, which had `verified`, and the held-out loss
    lr_mult : the best of these, 1 where one rate for all is as good
    advised : without confidence the rate that the verdict names, if it names one
    asked : names of the suggestions that were asked for
    """

    lrs: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    smooth: list[float] = field(repr=False)
    suggestions: dict[str, float]
    confidence: str
    verdict: str
    low: float | None
    high: float | None
    trained: str = ""
    sweeps: list[list[float]] = field(default_factory=list, repr=False)
    trials: list[tuple[float, float]] = field(default_factory=list)
    verified: float | None = None
    mult_trials: list[tuple[float, float]] = field(default_factory=list)
    lr_mult: float = 1.0
    advised: float | None = None
    asked: tuple[str, ...] = ()

    @property
    def lr(self) -> float | slice | None:
        """The verified rate, else the first suggestion; None without confidence.

        A slice from the first layer group to the head where `lr_mult` is above 1.
        """
        if self.confidence == "none":
            return None
        rate = self.rate(self.chosen)
        return slice(rate, rate * self.lr_mult) if self.lr_mult > 1 else rate

    @property
    def chosen(self) -> str:
        """The name of that rate."""
        return next(iter(self.suggestions)) if self.verified is None else "verified"

    def rate(self, name: str) -> float:
        """The rate that a suggestion gives, whether it was asked for or not; NaN if there is none.

        Parameters
        ----------
        name : bracket, valley, slide, minimum, steep, or verified
        """
        if name == "verified":
            return math.nan if self.verified is None else self.verified
        if name in self.suggestions:
            return self.suggestions[name]
        usable = None if self.low is None else (self.low, self.high)
        return suggested(name, self.lrs, self.smooth, usable)

    @property
    def bracket(self) -> float:
        """The middle of the usable range; as the others below an AttributeError if there is none.

        So `hasattr` tells whether the curve allows a suggestion.
        """
        return self._known("bracket")

    @property
    def valley(self) -> float:
        """Two thirds into the longest stretch of falling losses (fastai's suggestion)."""
        return self._known("valley")

    @property
    def slide(self) -> float:
        """Left end of an interval slid from the right until the slopes at its ends are alike."""
        return self._known("slide")

    @property
    def minimum(self) -> float:
        """A tenth of the rate of the lowest loss."""
        return self._known("minimum")

    @property
    def steep(self) -> float:
        """The rate at which the loss falls fastest."""
        return self._known("steep")

    def _known(self, name: str) -> float:
        rate = self.rate(name)
        if math.isnan(rate):
            raise AttributeError(f"this curve has no {name}: {self.verdict}")
        return rate

    def __iter__(self) -> Iterator[float]:
        """The rates asked for; where none were, fastai's two: `lr_min, lr_steep = ...`."""
        return iter(map(self.rate, self.asked or ("minimum", "steep")))

    @property
    def centred(self) -> list[float]:
        """The losses smoothed without lag."""
        return centred(self.losses).tolist()

    @property
    def marks(self) -> dict[str, float]:
        """The suggestions that there are."""
        if self.confidence == "none":
            return {}
        rates = {"verified": self.rate("verified"), **self.suggestions}
        return {name: lr for name, lr in rates.items() if math.isfinite(lr)}

    @property
    def band(self) -> tuple[list[float], list[float]] | None:
        """Lowest and highest smoothed loss of several sweeps, up to the first not finite."""
        if len(self.sweeps) < 2:
            return None
        n = min(map(n_finite, (*self.sweeps, self.lrs)))
        smooth = [centred(losses[:n]).tolist() for losses in self.sweeps]
        columns = list(zip(*smooth, strict=True))
        return [min(column) for column in columns], [max(column) for column in columns]

    def compare(self, *others: "LRFindResult", names: Sequence[str] = ()) -> "LRFindComparison":
        """This curve and others on one pair of axes, such as before and after unfreezing.

        Parameters
        ----------
        names : of the curves, this one's first; default: what trained

        Examples
        --------
        >>> frozen.compare(unfrozen)  # doctest: +SKIP
        """
        results = (self, *others)
        names = names or [result.trained or "search" for result in results]
        if len(names) != len(results):
            raise ValueError(f"{len(names)} names for {len(results)} curves; give one for each")
        if len(set(names)) < len(names):
            names = [f"{k}: {name}" for k, name in enumerate(names, 1)]
        return LRFindComparison(dict(zip(names, results, strict=True)))

    def __repr__(self) -> str:
        text = self.verdict
        if self.trials:
            trials = ", ".join(f"{rate_text(lr)}: {loss:.3f}" for lr, loss in self.trials)
            text += f"; held-out loss of the short runs {trials}"
        for mult, loss in self.mult_trials:
            text += f", head at {mult:.0f} times the best: {loss:.3f}"
        if self.confidence == "none":
            return f"lr_find: no suggestion: {text}"
        rates = _rates(self.marks)
        are = "suggested rate" if len(self.marks) == 1 else "suggested rates"
        span = f"; usable range {_usable_range(self)}" if self.low is not None else ""
        return f"lr_find: {are} {rates}{span}; confidence {self.confidence}: {text}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": lr_picture({"": self}, repr(self))}


@dataclass(frozen=True)
class LRFindComparison:
    """Several curves on one pair of axes, with a table.

    Parameters
    ----------
    results : name -> result
    complete : whether all that was asked for was searched
    """

    results: dict[str, LRFindResult]
    complete: bool = True

    @property
    def lr(self) -> list[float] | None:
        """The first suggestion of each; None if one is without confidence or was not searched."""
        rates = [result.lr for result in self.results.values()]
        return None if None in rates or not self.complete else rates

    @property
    def chosen(self) -> str:
        """The curves' names."""
        return ", ".join(self.results)

    @property
    def table(self) -> Table:
        """The curves in words."""
        rows = []
        for name, found in self.results.items():
            known = found.confidence != "none"
            rates = _rates(found.marks) if known else "none"
            row = (
                name,
                rates,
                _usable_range(found) if known else "",
                found.confidence,
                found.verdict,
            )
            rows.append(row)
        columns = ("curve", "suggested rate", "usable range", "confidence", "why")
        return Table("", columns, rows)

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        html = lr_picture(self.results, ", ".join(self.results)) + self.table._repr_html_()
        return {"text/plain": repr(self), "text/html": html}


@dataclass(frozen=True)
class SearchReport:
    """What a search leaves in a notebook without a kernel.

    Parameters
    ----------
    found : its result
    line : what the next run uses
    """

    found: LRFindResult | LRFindComparison
    line: str

    def __repr__(self) -> str:
        return f"{self.found!r}\n{self.line}"

    def _repr_html_(self) -> str:
        html = self.found._repr_mimebundle_()["text/html"]
        return f"{html}<div>{escape(self.line)}</div>"


def _rates(suggestions: dict[str, float]) -> str:
    return ", ".join(f"{rate_text(lr)} ({name})" for name, lr in suggestions.items())


def _usable_range(found: LRFindResult) -> str:
    return f"{rate_text(found.low)} to {rate_text(found.high)}" if found.low is not None else ""
