"""What runs and passes display, without a page."""

import pytest


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list:
    """Everything displayed, and what it was replaced by."""
    all_shown = []

    class Handle:
        def update(self, value: object) -> None:
            all_shown.append(value)

    def display(value: object, display_id: bool = False) -> Handle:
        all_shown.append(value)
        return Handle()

    monkeypatch.setattr("nbfinetune.live.displayed.display", display)
    return all_shown
