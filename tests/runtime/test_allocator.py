"""Freed memory is kept while batches come, and given back to the system afterwards."""

import ctypes
from types import SimpleNamespace

import pytest
import torch

from nbfinetune import Learner
from nbfinetune.runtime import allocator
from nbfinetune.runtime.allocator import keep_freed_memory

CPU = torch.device("cpu")
GLIBC = {"M_TRIM_THRESHOLD": -1, "M_TOP_PAD": -2, "M_MMAP_THRESHOLD": -3, "M_MMAP_MAX": -4}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The settings that are made, and "trim"."""
    made, names = [], {number: name for name, number in GLIBC.items()}
    libc = SimpleNamespace(
        mallopt=lambda option, value: made.append((names[option], value)),
        malloc_trim=lambda pad: made.append(("trim", pad)),
    )
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    return made


def test_large_blocks_are_neither_mapped_nor_trimmed_inside(calls) -> None:
    with keep_freed_memory(CPU):
        assert {"M_MMAP_MAX": 0, "M_TRIM_THRESHOLD": -1}.items() <= dict(calls).items()
        assert "trim" not in dict(calls)


def test_memory_goes_back_to_the_system_on_an_error_too(calls) -> None:
    def interrupted() -> None:
        with keep_freed_memory(CPU):
            calls.clear()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert dict(calls)["M_MMAP_MAX"] == 65536  # glibc's default
    assert dict(calls)["M_TRIM_THRESHOLD"] > 0
    assert calls[-1] == ("trim", 0)


def test_runs_and_predictions_keep_it_once(calls, loaders, mlp) -> None:
    learn = Learner(loaders, mlp, device="cpu")
    learn.fit(2, 1e-3)
    assert [name for name, _ in calls].count("trim") == 1
    learn.validate()
    learn.get_preds()
    assert [name for name, _ in calls].count("trim") == 3


@pytest.mark.parametrize(("device", "platform"), [("cuda", "linux"), ("cpu", "win32")])
def test_other_devices_and_systems_are_left_alone(calls, monkeypatch, device, platform) -> None:
    monkeypatch.setattr(allocator.sys, "platform", platform)
    with keep_freed_memory(torch.device(device)):
        pass
    assert calls == []


def test_a_c_library_without_the_settings_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    with keep_freed_memory(CPU):
        done = True
    assert done


def test_a_pass_within_a_run_takes_nothing_back(calls) -> None:
    with keep_freed_memory(CPU):
        with keep_freed_memory(CPU):
            pass
        assert "trim" not in dict(calls)
    assert [name for name, _ in calls].count("trim") == 1
    assert [name for name, _ in calls].count("M_MMAP_MAX") == 2
