"""The matrix, its panel and the other lists of pictures, driven as a front end drives them."""

import json
from pathlib import Path

import ipywidgets
import pytest
import torch
from PIL import Image

from nbfinetune import ClassificationInterpretation, Corrections, vision_learner
from nbfinetune.interpretation.item_list import ItemsReport
from nbfinetune.interpretation.matrix_report import MatrixReport
from nbfinetune.interpretation.matrix_view import items_of, matrix_view, ordered_classes
from nbfinetune.widgets.confused_pairs import ConfusedPairs
from nbfinetune.widgets.confusion_matrix import ConfusionMatrix
from nbfinetune.widgets.image_grid import ImageGrid

from_predictions = ClassificationInterpretation.from_predictions

TARGETS = [0, 0, 0, 1, 1, 2, 2, 2, 3]
PREDICTED = [0, 1, 1, 1, 0, 2, 3, 2, 3]


@pytest.fixture
def interp() -> ClassificationInterpretation:
    return from_predictions(TARGETS, PREDICTED, ["ant", "bee", "cat", "dog"])


@pytest.fixture
def pictures(dls, tiny_net) -> ClassificationInterpretation:
    """18 pictures in files, of which a network that knows nothing predicts the classes."""
    return ClassificationInterpretation.from_learner(
        vision_learner(dls, tiny_net, device="cpu"), "train"
    )


def click(matrix: ConfusionMatrix, row: int, column: int) -> None:
    """What the browser sends."""
    version = matrix.canvas.version
    message = {"event": "cell", "cell": [row, column], "version": version, "asked": 0.5}
    matrix.canvas._handle_custom_msg(message, [])


def cells(view) -> dict[tuple[int, int], int]:
    m = len(view.names)
    numbers = zip(view.numbers.tolist(), view.counts.tolist(), strict=True)
    return {divmod(number, m): count for number, count in numbers}


def test_a_view_has_the_counts_of_its_classes_in_their_order(interp) -> None:
    view = matrix_view(interp, [1, 0, 2, 3])
    assert view.names == ["bee", "ant", "cat", "dog"]
    assert cells(view) == {
        (0, 0): 1,
        (0, 1): 1,
        (1, 0): 2,
        (1, 1): 1,
        (2, 2): 2,
        (2, 3): 1,
        (3, 3): 1,
    }
    assert view.shares.tolist() == pytest.approx([1 / 2, 1 / 2, 2 / 3, 1 / 3, 2 / 3, 1 / 3, 1])
    assert view.shades[2] == pytest.approx(1)  # the most frequent error is darkest
    assert view.shades[0] == pytest.approx(0.5)  # the diagonal shows recall
    assert view.place(0, 1) == (1, 0)


def test_the_other_classes_are_summed_up(interp) -> None:
    view = matrix_view(interp, [0], others=True)
    assert view.names == ["ant", "others"]
    assert cells(view) == {(0, 0): 1, (0, 1): 2, (1, 0): 1, (1, 1): 5}
    assert sorted(items_of(view, interp, 0, 1)) == [1, 2]
    assert sorted(items_of(view, interp, 1, 1)) == [3, 5, 6, 7, 8]
    assert view.place(2, 0) == (1, 0)


def test_rare_errors_can_be_left_out(interp) -> None:
    view = matrix_view(interp, range(4), min_val=2)
    assert cells(view) == {(0, 0): 1, (0, 1): 2, (1, 1): 1, (2, 2): 2, (3, 3): 1}
    assert ConfusionMatrix(interp, Corrections(), min_val=2).canvas.least == 2


@pytest.mark.parametrize(
    ("order", "expected"),
    [("vocab", [0, 1, 2, 3]), ("error", [0, 1, 2, 3]), ("freq", [0, 2, 1, 3])],
)
def test_classes_are_ordered(interp, order: str, expected: list[int]) -> None:
    assert ordered_classes(interp, order) == expected


def test_clustering_puts_confused_classes_side_by_side() -> None:
    interp = from_predictions([0, 0, 2, 1, 1, 3], [2, 2, 0, 3, 3, 1], "abcd")
    order = ordered_classes(interp, "cluster")
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1


def test_selecting_a_cell_by_index_name_or_click_opens_its_items(interp) -> None:
    matrix = ConfusionMatrix(interp, Corrections())
    assert matrix.selected is None
    matrix.selected = ("ant", "bee")
    assert matrix.selected == (0, 1)
    assert sorted(matrix.grid.items) == [1, 2]
    assert matrix.canvas.selected == [0, 1]
    click(matrix, 2, 3)
    assert matrix.selected == (2, 3)
    assert matrix.grid.items == [6]
    assert matrix.grid.heading == "actual cat, predicted dog: 1 picture"
    with pytest.raises(ValueError, match="no class 'cow'"):
        matrix.selected = ("ant", "cow")


def test_the_same_cell_opens_again_after_another_list_was_shown(interp) -> None:
    change = interp.compare(interp)
    matrix = ConfusionMatrix(interp, Corrections(), change=change)
    matrix.selected = (0, 1)
    matrix.grid.show([8], "something else")
    click(matrix, 0, 1)
    assert sorted(matrix.grid.items) == [1, 2]


def many(c: int = 100) -> ClassificationInterpretation:
    """Class k is confused with k + 1 k times."""
    targets = [k for k in range(c) for _ in range(k + 1)]
    predicted = [min(k + 1, c - 1) if n else k for k in range(c) for n in range(k + 1)]
    return from_predictions(targets, predicted, [f"class {k:02}" for k in range(c)])


def test_above_sixty_classes_the_most_confused_come_first_in_pages() -> None:
    matrix = ConfusionMatrix(many(), Corrections())
    assert len(matrix.view.names) == 31
    assert matrix.view.names[:3] == ["class 98", "class 97", "class 96"]
    assert matrix._where.value == "page 1 of 4"
    matrix._next.click()
    assert matrix.view.names[0] == "class 68"
    matrix._search.value = "class 4"
    assert matrix.view.names == [f"class 4{k}" for k in range(9, -1, -1)] + ["others"]
    click(matrix, 0, 10)
    assert len(matrix.grid.items) == 49  # class 49 as class 50
    matrix._search.value = "class 42"
    assert matrix.status.text == "1 class has 'class 42' in the name"
    matrix._search.value = "nothing"
    assert matrix.status.text == "no class has 'nothing' in its name"
    matrix._search.value = ""
    matrix._whole.click()
    assert len(matrix.view.names) == 100
    matrix.selected = (3, 4)
    assert matrix.canvas.selected == list(matrix.view.place(3, 4))


def test_a_mark_survives_other_cells_and_pages_and_is_undone(pictures, photos: Path) -> None:
    corrections = Corrections()
    grid = ImageGrid(pictures, corrections)
    grid.show(range(len(pictures)), "all")
    item = grid.thumbs[3]["item"]
    grid._handle_custom_msg(
        {"event": "mark", "items": [item], "action": "relabel", "label": "red"}, []
    )
    assert str(corrections.marks[pictures.path(item)]) == "relabel as red"
    grid.show([item], "one")
    assert grid.marks == ["relabel as red"]
    assert grid.n_marks == 1
    grid._handle_custom_msg({"event": "undo"}, [])
    assert grid.marks == [""]
    grid._handle_custom_msg({"event": "undo"}, [])
    assert grid.problem == "there is no mark to undo"
    grid._handle_custom_msg(
        {"event": "mark", "items": [item], "action": "relabel", "label": "?"}, []
    )
    assert grid.problem == "no class '?'"


def test_the_same_mark_made_again_after_undo_counts(pictures) -> None:
    corrections = Corrections()
    grid = ImageGrid(pictures, corrections)
    grid.show([0], "one")
    message = {"event": "mark", "items": [0], "action": "remove", "label": ""}
    grid._handle_custom_msg(message, [])
    grid._handle_custom_msg({"event": "undo"}, [])
    grid._handle_custom_msg(message, [])
    assert len(corrections.marks) == 1


def test_pages_hold_36_pictures(interp) -> None:
    big = from_predictions([0] * 80, [1] * 80, "ab")
    grid = ImageGrid(big, Corrections())
    grid.show(big.cell(0, 1), "cell")
    assert (len(grid.thumbs), grid.n_pages) == (36, 3)
    grid._handle_custom_msg({"event": "page", "page": 2}, [])
    assert [t["item"] for t in grid.thumbs] == list(range(72, 80))
    grid._handle_custom_msg({"event": "page", "page": 99}, [])
    assert grid.page == 2
    grid.show([5], "one")
    assert (grid.page, [t["item"] for t in grid.thumbs]) == (0, [5])


def test_a_file_that_cannot_be_read_has_a_placeholder_that_says_so(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (300, 200), "red").save(good)
    bad.write_bytes(b"no picture")
    interp = from_predictions([0, 0, 0], [1, 1, 1], "ab", [good, bad, tmp_path / "gone.png"])
    grid = ImageGrid(interp, Corrections())
    grid.show([0, 1, 2], "cell")
    assert grid.thumbs[0]["jpeg"].startswith(b"\xff\xd8")
    assert [t["jpeg"] for t in grid.thumbs[1:]] == [None, None]
    assert grid.thumbs[1]["problem"] == "cannot be shown: not a picture that Pillow knows"
    assert grid.thumbs[2]["problem"] == "cannot be shown: no such file"
    for opened in (1, 2):  # the same picture again is another event
        grid._handle_custom_msg({"event": "enlarge", "item": 0}, [])
        assert (grid.large["item"], grid.large["opened"]) == (0, opened)
        assert grid.large["jpeg"].startswith(b"\xff\xd8")
        grid._handle_custom_msg({"event": "enlarge", "item": -1}, [])
    grid._handle_custom_msg({"event": "enlarge", "item": 1}, [])
    assert grid.large["problem"] == "cannot be shown: not a picture that Pillow knows"
    assert bad.exists()


def test_pictures_without_files_cannot_be_marked(interp) -> None:
    grid = ImageGrid(interp, Corrections())
    grid.show([1], "cell")
    assert grid.thumbs[0]["problem"] == "cannot be shown: no picture is known of these items"
    grid._handle_custom_msg({"event": "mark", "items": [1], "action": "fine", "label": ""}, [])
    assert grid.problem == "only pictures in files can be marked, and these have none"


def test_thirty_six_thumbnails_are_small(pictures) -> None:
    grid = ImageGrid(pictures, Corrections())
    grid.show(range(len(pictures)), "all")
    sizes = [len(t["jpeg"]) for t in grid.thumbs]
    assert sum(sizes) / len(sizes) * 36 < 400_000


def test_a_pair_of_the_list_opens_its_pictures(interp) -> None:
    pairs = ConfusedPairs(interp, interp.confused_cells(), Corrections())
    assert pairs.pairs == interp.most_confused()
    pairs.chosen = 0
    assert sorted(pairs.grid.items) == [1, 2]
    assert pairs.grid.heading == "actual ant, predicted bee: 2 pictures"
    for _ in range(2):  # the same pair again, after others were shown
        pairs.grid.show([8], "something else")
        pairs._list._handle_custom_msg({"event": "pair", "pair": 1, "asked": 0.5}, [])
        assert (pairs.chosen, pairs.grid.items, pairs._list.answered) == (1, [4], 0.5)
    assert pairs._list.rows[:2] == [["ant", "bee", "2", "66.7%"], ["bee", "ant", "1", "50.0%"]]


def test_the_report_is_text_and_a_picture_and_always_the_same(interp) -> None:
    report = MatrixReport(interp, matrix_view(interp, range(4)))
    lines = repr(report).splitlines()
    assert lines[0] == "9 items of 4 classes, accuracy 0.5556, 4 wrong"
    assert lines[3].split() == ["ant", "bee", "2", "66.7%"]
    html = report._repr_html_()
    assert html.count("<img") == 1
    assert "image/png" in html
    assert html == MatrixReport(interp, matrix_view(interp, range(4)))._repr_html_()
    assert "image/png" in MatrixReport(many(), matrix_view(many(), range(9)))._repr_html_()


def test_names_are_escaped_in_reports() -> None:
    names = ["<script>x</script>", '"&', "\u202e", "n" * 200]
    interp = from_predictions([0, 1, 2, 3], [1, 2, 3, 0], names, paths=["<b>.png"] * 4)
    for report in (
        MatrixReport(interp, matrix_view(interp, range(4)), note="<i>"),
        ItemsReport(interp, range(4), "<i>"),
    ):
        html = report._repr_html_()
        assert "<script" not in html
        assert "<i>" not in html
        assert "<b>" not in html.replace("<b>the", "")


def test_nothing_confused_is_said() -> None:
    interp = from_predictions([0, 1], [0, 1], "ab")
    report = MatrixReport(interp, matrix_view(interp, range(2)))
    assert "nothing is confused" in repr(report)
    matrix = ConfusionMatrix(interp, Corrections())
    assert matrix.canvas.numbers
    said = "confusion matrix of 2 items, accuracy 100.0%; nothing is confused: all 2 are right"
    assert matrix.status.text == said
    pairs = ConfusedPairs(interp, [], Corrections())
    assert pairs.status.text == "nothing is confused: all 2 are right"
    assert pairs.children == (pairs.status,)


def test_no_items_at_all_are_shown_as_such() -> None:
    interp = from_predictions([], torch.zeros(0, 2), "ab")
    matrix = ConfusionMatrix(interp, Corrections())
    assert matrix.canvas.title == "confusion matrix of 0 items, accuracy 0.0%"
    assert matrix.status.text == f"{matrix.canvas.title}: there is nothing to show"
    assert "0 items of 2 classes" in repr(MatrixReport(interp, matrix.view))


def test_the_sum_of_the_others_does_not_make_the_errors_pale() -> None:
    view = matrix_view(many(), ordered_classes(many(), "error")[:30], others=True)
    m = len(view.names)
    single = [
        shade
        for number, shade in zip(view.numbers, view.shades, strict=True)
        if max(divmod(int(number), m)) < m - 1 and number // m != number % m
    ]
    assert max(single) == pytest.approx(1)


def test_a_click_on_a_view_that_has_gone_opens_nothing() -> None:
    matrix = ConfusionMatrix(many(), Corrections())
    old = {"event": "cell", "cell": [0, 0], "version": matrix.canvas.version, "asked": 0.25}
    matrix._next.click()
    matrix.canvas._handle_custom_msg(old, [])
    assert matrix.selected is None
    assert matrix.grid.items == []
    assert matrix.canvas.answered == 0.25  # the page says no longer that it opens


def test_the_page_hears_that_a_cell_is_open_after_its_pictures_were_sent(interp) -> None:
    matrix, order = ConfusionMatrix(interp, Corrections()), []
    matrix.grid.observe(lambda change: order.append("pictures"), "version")
    matrix.canvas.observe(lambda change: order.append(change["new"]), "answered")
    click(matrix, 0, 1)
    assert order == ["pictures", 0.5]


def test_marks_made_in_one_panel_show_in_all(pictures) -> None:
    corrections = Corrections()
    first, second = (ImageGrid(pictures, corrections) for _ in range(2))
    for grid in (first, second):
        grid.show([4], "one")
    first.mark_item(4, "fine")
    assert second.marks == ["fine"]
    corrections.marks.clear()
    assert first.said.endswith("fine (1 marked; %clean lists them)")


def test_an_applied_mark_is_not_undone_by_the_panel(pictures, tmp_path: Path) -> None:
    corrections = Corrections()
    grid = ImageGrid(pictures, corrections)
    grid.show([0], "one")
    grid.mark_item(0, "remove")
    file = corrections.apply(tmp_path / "c.csv")
    assert (grid.marks, grid.n_marks) == ([""], 0)
    grid._handle_custom_msg({"event": "undo"}, [])
    assert file.exists()


def test_an_empty_cell_opens_an_empty_panel(interp) -> None:
    matrix = ConfusionMatrix(interp, Corrections())
    before = matrix.grid.version
    matrix.selected = (3, 0)
    assert matrix.grid.heading == "actual dog, predicted ant: no picture"
    assert matrix.grid.version > before


def test_names_written_from_right_to_left_leave_the_numbers_in_place() -> None:
    hebrew = "\u05e2\u05d1\u05e8"
    interp = from_predictions([0, 1], [1, 1], [hebrew, "plain"])
    matrix = ConfusionMatrix(interp, Corrections())
    matrix.selected = (0, 1)
    assert matrix.grid.heading == f"actual \u2068{hebrew}\u2069, predicted plain: 1 picture"


def test_a_large_matrix_becomes_a_small_picture() -> None:
    c = 3_000
    targets = torch.arange(c)
    interp = from_predictions(targets, targets.roll(1), [str(k) for k in range(c)])
    assert len(MatrixReport(interp, matrix_view(interp, [0]))._repr_html_()) < 200_000
    with pytest.raises(ValueError, match="order cluster is for up to 2,000 classes"):
        ordered_classes(interp, "cluster")


ODD_NAMES = ["caf\udce9", "two\nlines", "cost $5 to $9", "n" * 3000]


_BESIDE = ("thumbs", "_esm", "_css")


def sent(widget: ipywidgets.Widget) -> str:
    """What a front end gets, as the kernel packs it; raises for what is no UTF-8."""
    state = {k: v for k, v in widget.get_state().items() if k not in _BESIDE}
    thumbs = [{**t, "jpeg": None} for t in getattr(widget, "thumbs", [])]
    return json.dumps([state, thumbs], ensure_ascii=False, default=str).encode().decode()


def test_any_names_can_be_sent_and_marked() -> None:
    files = [f"{name[:9]}.png" for name in ODD_NAMES]
    interp = from_predictions([0, 1, 2, 3], [1, 2, 3, 0], ODD_NAMES, files)
    matrix, corrections = ConfusionMatrix(interp, Corrections()), Corrections()
    matrix.selected = (0, 1)
    pairs = ConfusedPairs(interp, interp.confused_cells(), corrections)
    pairs.chosen = 0
    for widget in (matrix.canvas, matrix.grid, matrix.status, pairs._list, pairs.grid):
        text = sent(widget)
        assert "\\n" not in text.replace("\\\\n", "")
    assert matrix.grid.heading == r"actual caf\udce9, predicted two\nlines: 1 picture"
    shown = pairs.grid.vocab[1]
    assert shown == r"two\nlines"
    message = {"event": "mark", "items": [0], "action": "relabel", "label": shown}
    pairs.grid._handle_custom_msg(message, [])
    [mark] = corrections.marks.values()
    assert (mark.label, mark.was) == ("two\nlines", "caf\udce9")
    sent(pairs.grid)
    table = corrections.table()
    for text in (repr(table), table._repr_html_()):
        text.encode()


def test_reports_of_any_names_are_lines_and_pictures() -> None:
    files = [f"{name[:9]}.png" for name in ODD_NAMES]
    interp = from_predictions([0, 1, 2, 3], [1, 2, 3, 0], ODD_NAMES, files)
    matrix = MatrixReport(interp, matrix_view(interp, range(4)))
    for report in (matrix, ItemsReport(interp, range(4), "items"), interp.report()):
        html = report._repr_html_()
        for text in (repr(report), html):
            text.encode()
        assert "$5" not in html
        assert len(repr(report).splitlines()) <= 7
