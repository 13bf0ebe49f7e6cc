"""The image panel as a front end drives it: finding, sorting, stepping, choosing, looking."""

from pathlib import Path

import pytest
import torch

from nbfinetune import ClassificationInterpretation, Corrections, vision_learner
from nbfinetune.widgets.image_grid import ImageGrid

from_predictions = ClassificationInterpretation.from_predictions


@pytest.fixture
def interp() -> ClassificationInterpretation:
    probs = torch.tensor([[0.9, 0.1, 0], [0.3, 0.7, 0], [0.2, 0.8, 0], [0.1, 0.3, 0.6]])
    files = ["pug_10.png", "pug_2.png", "beagle_1.png", "boxer_1.png"]
    return from_predictions([0, 0, 1, 2], probs, ["pug", "beagle", "boxer"], files)


@pytest.fixture
def grid(interp) -> ImageGrid:
    grid = ImageGrid(interp, Corrections())
    grid.show([3, 1, 0, 2], "all")
    return grid


def send(grid: ImageGrid, event: str, **content) -> None:
    grid._handle_custom_msg({"event": event, **content}, [])


def items(grid: ImageGrid) -> list[int]:
    return [t["item"] for t in grid.thumbs]


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("PUG", [1, 0], "2 pictures of 4 with 'PUG' in file or class"),
        ("beagle", [1, 2], "2 pictures of 4 with 'beagle' in file or class"),  # one by prediction
        ("_10", [0], "1 picture of 4 with '_10' in file or class"),
        ("cow", [], "0 pictures of 4 with 'cow' in file or class"),
        ("  ", [3, 1, 0, 2], ""),
    ],
)
def test_a_text_finds_files_and_classes(grid, text: str, expected: list[int], count: str) -> None:
    send(grid, "find", text=text)
    assert items(grid) == expected
    assert grid.count == count


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("loss", [1, 3, 2, 0]),
        ("predicted", [0, 2, 1, 3]),
        ("actual", [1, 3, 2, 0]),
        ("file", [2, 3, 1, 0]),  # pug_2 before pug_10
        ("listed", [3, 1, 0, 2]),
    ],
)
def test_pictures_are_sorted(grid, order: str, expected: list[int]) -> None:
    send(grid, "sort", order="file" if order == "listed" else "listed")
    send(grid, "sort", order=order)
    assert items(grid) == expected


def test_what_is_found_and_sorted_is_paged_and_another_list_begins_anew() -> None:
    n = 100
    files = [f"{k % 2}_{k}.png" for k in range(n)]
    many = from_predictions([0] * n, [1] * n, "ab", files)
    grid = ImageGrid(many, Corrections())
    grid.show(range(n), "all")
    send(grid, "page", page=2)
    send(grid, "find", text="1_")
    assert (grid.page, grid.n_pages, len(grid.thumbs)) == (0, 2, 36)
    send(grid, "page", page=1)
    assert items(grid) == list(range(73, 100, 2))
    grid.show(range(50), "others")
    assert (grid.query, grid.order, grid.count, grid.page) == ("", "listed", "", 0)
    assert items(grid) == list(range(36))


def test_steps_go_through_the_whole_list_and_the_page_follows() -> None:
    many = from_predictions([0] * 40, [1] * 40, "ab")
    grid = ImageGrid(many, Corrections())
    grid.show(range(40), "all")
    send(grid, "enlarge", item=35)
    assert (grid.large["position"], grid.large["n"], grid.page) == (35, 40, 0)
    send(grid, "step", by=1)
    assert (grid.large["item"], grid.page) == (36, 1)
    send(grid, "step", by=-1)
    assert (grid.large["item"], grid.page) == (35, 0)
    send(grid, "enlarge", item=39)
    send(grid, "step", by=1)
    assert grid.large["item"] == 39


def test_the_enlarged_view_says_all_that_is_known(grid, monkeypatch, tmp_path: Path) -> None:
    send(grid, "enlarge", item=1)
    assert grid.large["path"] == str(Path("pug_2.png").absolute())
    assert grid.large["words"] == "pug_2.png: actual pug (0.30), predicted beagle (0.70), loss 1.20"
    assert grid.large["classes"] == [
        ["beagle", pytest.approx(0.7)], ["pug", pytest.approx(0.3)], ["boxer", 0],
    ]  # fmt: skip
    send(grid, "mark", items=[1], action="relabel", label="beagle")
    assert grid.large_mark == "relabel as beagle"


def test_chosen_pictures_are_marked_and_undone_at_once(grid) -> None:
    send(grid, "mark", items=[3, 0], action="remove", label="")
    assert grid.marks == ["remove", "", "remove", ""]
    assert grid.said == "2 pictures: remove (2 marked; %clean lists them)"
    send(grid, "mark", items=[], action="remove", label="")
    assert grid.problem == "no picture is chosen; choose some by their boxes"
    send(grid, "undo")
    assert grid.marks == [""] * 4
    assert grid.said == "mark taken back: 2 pictures (no picture is marked now)"


def test_without_a_learner_there_is_no_map_and_the_view_says_so(grid) -> None:
    send(grid, "look", of="predicted")
    send(grid, "enlarge", item=1)
    assert grid.look["jpeg"] is None
    assert grid.look["line"].startswith("these predictions come from no learner")
    send(grid, "look", of="off")
    assert grid.look == {}


@pytest.fixture
def looking(dls) -> ImageGrid:
    learn = vision_learner(dls, "efficientnet_lite0", device="cpu")
    with torch.no_grad():
        learn.model[-1].weight.fill_(0.01)
        learn.model[-1].weight[0] = -0.01
    grid = ImageGrid(ClassificationInterpretation.from_learner(learn), Corrections())
    grid.learn = learn  # keeps it alive
    grid.show(range(6), "all")
    return grid


def test_the_map_of_the_chosen_class_is_laid_over_each_picture(looking) -> None:
    grid = looking
    predicted = grid.interp.vocab[grid.interp.predicted[0]]
    send(grid, "enlarge", item=0)
    send(grid, "look", of="predicted")
    assert grid.look["jpeg"].startswith(b"\xff\xd8")
    assert grid.look["line"].startswith(f"what speaks for predicted {predicted} is bright (logit ")
    send(grid, "step", by=1)
    assert (grid.look["item"], grid.look["of"]) == (1, "predicted")
    blue = next(i for i in range(6) if grid.interp.targets[i] == 0)
    send(grid, "enlarge", item=blue)
    send(grid, "look", of="actual")
    assert grid.look["line"].startswith("nothing here speaks for actual blue (logit -")


def test_the_map_waits_for_a_run_and_tells_of_other_weights(looking) -> None:
    grid = looking
    send(grid, "enlarge", item=0)
    with grid.learn.control.claim(scales_rates=True):
        send(grid, "look", of="predicted")
        assert grid.look["line"] == "a run is on; ask for the activation map after it"
        assert grid.look["jpeg"] is None
    with torch.no_grad():
        grid.learn.model[-1].bias.fill_(1)
    send(grid, "look", of="actual")
    assert "which have changed since the prediction" in grid.look["line"]
