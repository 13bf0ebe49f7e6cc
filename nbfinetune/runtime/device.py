"""Device: what a learner works on, if it is there."""

import torch

from nbfinetune.rendering.names import shortened, shown


def usable_device(device: str | int | torch.device | None) -> torch.device:
    """The device asked for, or the first that there is of CUDA, MPS and CPU.

    Raises
    ------
    ValueError
        If it is not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"device is {shown(device)}, which cannot be used ({shortened(first)}); "
            'it must be "cuda", "mps" or "cpu", or None for the first that there is'
        ) from None
    if found.type == "meta":
        raise ValueError('device is "meta", which holds no values; it must be "cuda" or "cpu"')
    return found
