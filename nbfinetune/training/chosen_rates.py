"""Chosen rates: what a run trains at that is given no rate, while what trains stays the same."""

from dataclasses import dataclass

from nbfinetune.networks.layer_groups import LearningRate, lr_text

_LR_MULT = 100.0  # rate of the head over that of the first group, as in `fine_tune`


@dataclass(frozen=True)
class ChosenRate:
    """A learning rate that a search found, that was picked in its plot, or a default after these.

    Parameters
    ----------
    lr : the rate, or one for each layer group
    where : where it comes from, such as "as lr_find found"
    frozen : number of groups that were frozen then
    trained : what trained, in words
    kind : "found", "picked" or "default"
    """

    lr: LearningRate
    where: str
    frozen: int
    trained: str
    kind: str = "found"

    @property
    def text(self) -> str:
        """The rate and where it comes from."""
        return f"{lr_text(self.lr)}, {self.where}"


def safe_rate(lr: LearningRate, n_training: int) -> LearningRate:
    """The rate of a run for which none was found: `lr` for a head alone, else less for the body.

    A rate that suits a new head destroys a pretrained body: on pets photos one of 1.9e-3 took the
    error from 0.33 to 0.96.

    Parameters
    ----------
    lr : the learner's first rate
    n_training : number of layer groups that train
    """
    if n_training == 1 or not isinstance(lr, (int, float)):
        return lr
    return slice(lr / _LR_MULT, lr)
