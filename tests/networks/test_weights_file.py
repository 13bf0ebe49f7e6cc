import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nbfinetune.networks.weights_file import load_weights_file


def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return make().state_dict()


WRAPPED = {
    "alone": lambda state: state,
    "DataParallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "both": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "a part compiled": lambda state: {k.replace("0.", "0._orig_mod."): v for k, v in state.items()},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"model_state_dict": OrderedDict(state)},
    "a Lightning module": lambda state: {
        "state_dict": {f"net.{k}": v for k, v in state.items()},
        "hyper_parameters": {"lr": 1e-3},
    },
    "old, without counts": lambda state: {
        k: v for k, v in state.items() if not k.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("case", WRAPPED)
def test_state_dicts_are_taken_as_others_write_them(case: str, state, tmp_path: Path) -> None:
    torch.save(WRAPPED[case](state), tmp_path / "w.pth")
    network = make()
    load_weights_file(network, tmp_path / "w.pth")
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_safetensors_are_known_by_their_content(state, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.bin")
    network = make()
    load_weights_file(network, tmp_path / "w.bin")
    assert torch.equal(network[3].weight, state["3.weight"])


def test_tensors_beside_the_prefix_are_left_out_with_a_warning(state, tmp_path: Path) -> None:
    averaged = {"n_averaged": torch.tensor(3)} | {f"module.{k}": v for k, v in state.items()}
    torch.save(averaged, tmp_path / "w.pth")
    network = make()
    with pytest.warns(UserWarning, match="1 tensors are not used: n_averaged"):
        load_weights_file(network, tmp_path / "w.pth")
    assert torch.equal(network[3].weight, state["3.weight"])


class Evil:
    def __reduce__(self) -> tuple:
        return pytest.fail, ("code in the file was run",)


CONTENTS = {
    "empty": (b"", "is empty; copy or download it again"),
    "text": (b"hello", "is no file of weights: it begins with b'hello'; write it with torch.save"),
    "html": (b"<html>not found</html>", "is no file of weights: it begins with b'<html>not'"),
    "objects": (pickle.dumps(Evil()), "holds Python objects, such as a whole model, or is"),
    "half a zip": (b"PK\3\4" + b"\0" * 40, "or is damaged; it is not unpickled"),
    "half safetensors": (b"\x80\0\0\0\0\0\0\0{", "is no safetensors file, or is damaged"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_files_that_hold_no_weights_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = CONTENTS[case]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights_file(make(), tmp_path / "w.pth")
    assert "w.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make(), "holds Python objects, such as a whole model"),
        ([1, 2], "holds a list, not a state dict; write it with torch.save"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"epoch": 1, "lr": 0.1}, "holds no state dict: no tensors are: epoch, lr"),
        ({"a": torch.zeros(1)}, "do not fit Sequential: 8 missing: 0.weight.*; 1 unknown: a; pass"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_what_it_is(content, message, tmp_path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load_weights_file(make(), tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


def test_another_shape_is_named_and_nothing_is_copied(state, tmp_path: Path) -> None:
    torch.save(state | {"3.weight": torch.ones(5, 4)}, tmp_path / "w.pth")
    network = make()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"3.weight is \[5, 4\] there but \[2, 4\] in the network"):
        load_weights_file(network, tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
