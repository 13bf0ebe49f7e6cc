"""Mixed precision is what the device and the network gain by, the same for the same of both."""

import pytest
import torch
from torch import nn

from nbfinetune.networks.precision import inference_amp, training_amp

CPU = torch.device("cpu")
DENSE, DEPTHWISE = nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
GROUPED = nn.Conv2d(4, 4, 3, groups=2)


@pytest.fixture(params=["avx512_bf16", "amx_bf16"])
def bf16_cpu(request, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {request.param: True}, raising=False)


@pytest.mark.usefixtures("bf16_cpu")
def test_depthwise_networks_train_in_float32_and_predict_in_bfloat16() -> None:
    assert training_amp(CPU, DEPTHWISE, known=True) == "off"
    assert inference_amp(CPU, "off", known=True) == "bf16"


@pytest.mark.usefixtures("bf16_cpu")
@pytest.mark.parametrize("network", [DENSE, GROUPED], ids=["dense", "grouped"])
def test_other_networks_train_in_bfloat16(network: nn.Module) -> None:
    assert training_amp(CPU, network, known=True) == "bf16"


@pytest.mark.usefixtures("bf16_cpu")
def test_modules_of_the_users_own_stay_in_float32() -> None:
    assert training_amp(CPU, DENSE, known=False) == "off"
    assert inference_amp(CPU, "off", known=False) == "off"


@pytest.mark.parametrize("can", [{}, {"avx512_bf16": False, "avx2": True}])
def test_a_cpu_without_bfloat16_stays_in_float32(monkeypatch, can: dict) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can, raising=False)
    assert training_amp(CPU, DENSE, known=True) == "off"
    assert inference_amp(CPU, "off", known=True) == "off"


def test_a_torch_that_does_not_tell_stays_in_float32(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert inference_amp(CPU, "off", known=True) == "off"


@pytest.mark.parametrize(("native", "amp"), [(True, "bf16"), (False, "fp16")])
def test_cuda_takes_the_best_type_that_it_has(monkeypatch, native: bool, amp: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    cuda = torch.device("cuda")
    assert training_amp(cuda, DEPTHWISE, known=True) == amp
    assert inference_amp(cuda, amp, known=True) == amp
