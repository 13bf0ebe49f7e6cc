"""pets.ipynb needs the photos: without `NBFINETUNE_PETS` its cells are skipped, saying so."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("NBFINETUNE_PETS"):
        return
    skip = pytest.mark.skip(reason="NBFINETUNE_PETS is not set: no folder of Oxford-IIIT pets")
    for item in items:
        if item.path.name == "pets.ipynb":
            item.add_marker(skip)
