"""Networks of timm, by name, for pictures of a size."""

import pytest

from nbfinetune.networks.families.timm_networks import create_network


def test_weights_that_cannot_be_downloaded_are_asked_for_once(monkeypatch) -> None:
    asked = []

    def create_model(name: str, **options) -> None:
        asked.append(options)
        raise FileNotFoundError("no network")

    monkeypatch.setattr("timm.create_model", create_model)
    with pytest.raises(OSError, match="no network"):
        create_network("timm:test_vit", pretrained=True, size=32)
    assert asked == [{"pretrained": True, "img_size": 32}]
