"""Searches: which a learner had, beside it, as a search changes nothing of the learner itself."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from nbfinetune.training.state import LearnerState


@dataclass(frozen=True)
class Search:
    """A search that is over.

    Parameters
    ----------
    when : seconds since 1970 at which it began
    seconds : that it took
    trained : which layer groups trained, in words
    found : its result
    """

    when: float
    seconds: float
    trained: str
    found: object


_searches: "WeakKeyDictionary[LearnerState, list[Search]]" = WeakKeyDictionary()


def note_search(learn: LearnerState, search: Search) -> None:
    """A search of the learner is over."""
    _searches.setdefault(learn, []).append(search)


def searches_of(learn: LearnerState) -> list[Search]:
    """All of them, the newest last."""
    return _searches.get(learn, [])
