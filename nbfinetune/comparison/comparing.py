"""Comparing: networks and sizes of pictures by how well a linear layer on their features does."""

from collections.abc import Sequence

import torch

from nbfinetune.comparison.plan import MAX_N, Plan, planned
from nbfinetune.comparison.probe import ComparedNetwork, probe
from nbfinetune.comparison.progress import ComparisonScreen, PrintedComparison, Progress
from nbfinetune.comparison.results import NetworkComparison, Skipped
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.networks.backbones import Arch
from nbfinetune.runtime.cpu_contention import one_thread_if_busy
from nbfinetune.runtime.interrupts import act_on_interrupt, defers_interrupts
from nbfinetune.runtime.out_of_memory import OutOfMemory
from nbfinetune.training.callbacks import CancelFit
from nbfinetune.training.printing import say
from nbfinetune.vision import vision_learner


def compare_networks(
    dls: ImageDataLoaders,
    archs: Sequence[Arch],
    *,
    sizes: int | Sequence[int] | None = None,
    max_n: int = MAX_N,
    device: str | torch.device | None = None,
    show: bool = True,
) -> NetworkComparison:
    """Which of some pretrained networks, and at which size of pictures, fits the data best.

    Each network is run once over the training pictures, as it is. A linear layer is fitted to what
    it gives of nine tenths of them, ten times, and its errors on the others are counted: about
    those of `fine_tune`'s first stage. Training all layers changes them, mostly for the better.

    The pictures held out are not looked at, so that after training their error is one of a network
    that was not chosen by them. The errors here are not of that kind: the lowest of several is a
    little too low. Nothing is changed: not `dls`, no learner, no random numbers.

    Parameters
    ----------
    dls : the data; of its training pictures those are used that are not augmented
    archs : names of networks, or torchvision's builders, as for `vision_learner`; those whose
        weights cannot be had are skipped, and so are sizes that a network does not take
    sizes : sides of the pictures in pixels; default: that of `dls`
    max_n : training pictures at most, of each class its share
    device : to compute on; default: the first that there is of CUDA, MPS and CPU
    show : whether a line is printed for each network that is done

    Raises
    ------
    ValueError
        For names of no network (names near it are given), options out of range, or where no network
        can be had at any size.

    Examples
    --------
    >>> found = compare_networks(dls, ["resnet34", "resnet50"], sizes=[160, 224])  # doctest: +SKIP
    >>> dls = dls.with_size(found.best.size)  # doctest: +SKIP
    >>> learn = vision_learner(dls, found.best.name)  # doctest: +SKIP
    """
    plan = planned(dls, archs, sizes, max_n=max_n, device=device)
    with one_thread_if_busy(plan.device) as text:
        if show:
            say(text)
        return compare(plan, PrintedComparison() if show else ComparisonScreen())


@defers_interrupts
def compare(plan: Plan, screen: ComparisonScreen) -> NetworkComparison:
    """Do what is planned, as long as the screen does not ask to stop.

    Raises
    ------
    ValueError
        If no network can be had at any size.
    """
    found: list[ComparedNetwork] = []
    skipped: list[Skipped] = []
    progress, lost, dls = Progress(plan, screen), set(), None
    for name, size in plan.jobs:
        if name in lost:
            continue
        act_on_interrupt()
        if screen.stopping:
            return NetworkComparison.of(plan, found, skipped, stopped=True)
        progress.begin(name, size)
        if dls is None or dls.size != size:
            dls = plan.loaders(size)
        try:
            learn = vision_learner(dls, name, device=plan.device, cache_features=False)
        except RuntimeError as error:  # its weights cannot be had, at no size
            skipped.append(Skipped(name, None, str(error)))
            lost.add(name)
            progress.lose(name)
            continue
        except ValueError as error:
            skipped.append(Skipped(name, size, str(error)))
            continue
        try:
            found.append(probe(learn, name, [progress]))
        except CancelFit:
            return NetworkComparison.of(plan, found, skipped, stopped=True)
        except OutOfMemory as error:
            skipped.append(Skipped(name, size, str(error)))
            continue
        progress.end()
        screen.add(NetworkComparison.of(plan, found, skipped))
    if not found:
        gaps = NetworkComparison.of(plan, [], skipped).gaps
        raise ValueError(f"no network can be compared: {'; '.join(gaps)}")
    return NetworkComparison.of(plan, found, skipped)
