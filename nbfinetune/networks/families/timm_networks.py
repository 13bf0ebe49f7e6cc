"""Networks of timm, by name, for pictures of a size."""

from difflib import get_close_matches

import torch
from torch import nn

from nbfinetune.rendering.names import shown


def check_timm_name(name: str) -> None:
    """Raise ValueError, with names like it, if timm, which must be there, has no such network."""
    import timm

    plain = name.removeprefix("timm:")
    if not timm.is_model(plain):
        near = timm.list_models(f"*{plain}*")[:3] or get_close_matches(plain, timm.list_models())
        raise ValueError(
            f"timm has no network {shown(plain)}" + (f"; it has {', '.join(near)}" if near else "")
        )


def create_network(name: str, *, pretrained: bool, size: int) -> nn.Module:
    """A network of timm; one for a fixed size is built for pictures of `size` px, if it can be.

    Parameters
    ----------
    name : "timm:" and the name that timm has

    Raises
    ------
    ValueError
        If timm is not installed, or has no such network; names like it are given.
    OSError, RuntimeError
        If the weights cannot be had.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(f"{name} needs timm, which is not installed: pip install timm") from None
    check_timm_name(name)
    plain = name.removeprefix("timm:")
    cfg = timm.get_pretrained_cfg(plain)
    if cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != size:
        try:
            with torch.no_grad():
                network = timm.create_model(plain, pretrained=pretrained, img_size=size)
                network.eval()(torch.zeros(1, 3, size, size))
            return network.train()
        except OSError:  # a second try to download would fail as slowly
            raise
        except Exception:  # whatever its code makes of that size
            pass
    return timm.create_model(plain, pretrained=pretrained)
