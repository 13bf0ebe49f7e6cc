import socket

import torch

from nbfinetune.cluster import answering
from nbfinetune.cluster.answering import settle, settled


def test_threads_and_devices_of_a_host_are_shared_out(monkeypatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(answering, "_settled", {})
    monkeypatch.setattr(answering, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    try:
        has = settle(3, 4, None)
        assert torch.get_num_threads() == 2
        assert settled(0, 1, None) == has  # a run may be on with what was shared out
    finally:
        torch.set_num_threads(before)
    assert has == {
        "address": "127.0.0.1",
        "cores": 8,
        "gpus": 2,
        "local_rank": 3,
        "device": "cuda:1",
        "threads": 2,
    }


def test_an_engine_says_where_others_reach_it(monkeypatch) -> None:
    monkeypatch.delenv("NBFINETUNE_ADDRESS", raising=False)
    assert answering._address(None) == "127.0.0.1"
    here = socket.gethostbyname(socket.gethostname())
    assert answering._address("127.0.0.1") == here  # a tunnel, which ends at this host
    monkeypatch.setenv("NBFINETUNE_ADDRESS", "10.1.2.3")
    assert answering._address("192.0.2.1") == answering._address(None) == "10.1.2.3"
