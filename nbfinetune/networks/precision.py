"""Precision: the number type of a forward pass, chosen by what the device and the network gain."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

AMP = ("auto", "bf16", "fp16", "off")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_amp(device: torch.device, model: nn.Module, *, known: bool) -> str:
    """Mixed precision of training steps: "bf16", "fp16" or "off".

    On a CPU it depends on the network, so that a seed gives the same numbers again: bfloat16 halves
    the time of most (resnet18 0.52 x, densenet121 0.57 x, vit_b_16 0.54 x, regnet_y_400mf 0.75 x),
    but depthwise convolutions make others slower (efficientnet_b0 1.6 x, mobilenet_v3_small 2.3 x;
    by `benchmarks/precision.py`).

    Parameters
    ----------
    known : whether the network has a name; modules of the user's stay in float32 on a CPU, as they
        may write into tensors of their own
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    depthwise = any(m.groups == m.in_channels > 1 for m in convolutions)
    return "off" if depthwise else inference_amp(device, "off", known=known)


def inference_amp(device: torch.device, training: str, *, known: bool) -> str:
    """Mixed precision of forward passes without gradients, `training` being that of the others.

    CPUs that compute in bfloat16 take about half the time for them (efficientnet_lite0 0.38 x,
    resnet18 0.46 x, convnext_tiny 0.56 x), and a linear probe of pets photos has the same
    error (10 splits at 128 px: 0.220, against 0.225 in float32).
    """
    native = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has it not
    has_bf16 = any(native.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if device.type == "cpu" and known and has_bf16 else training


def chosen_amp(amp: str, device: torch.device, model: nn.Module, *, known: bool) -> tuple[str, str]:
    """Mixed precision of training and of inference; what suits them if `amp` is "auto"."""
    if amp != "auto":
        return amp, amp
    training = training_amp(device, model, known=known)
    return training, inference_amp(device, training, known=known)


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """The context of a forward pass in the mixed precision `amp`."""
    if amp == "off":
        return nullcontext()  # a switched off autocast costs 10 us a step
    return torch.autocast(device.type, dtype=_DTYPES[amp])
