"""fastai's plotting methods of an interpretation and of a learner."""

import re

import pytest
import torch

from nbfinetune import ClassificationInterpretation, vision_learner
from nbfinetune.interpretation.matrix_figure import matrix_figure, undrawable
from nbfinetune.interpretation.matrix_view import matrix_view

from_predictions = ClassificationInterpretation.from_predictions


@pytest.fixture
def interp() -> ClassificationInterpretation:
    """Class a: 3 right and 1 taken for b; b: 1 right and 1 taken for a."""
    return from_predictions([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], ["a", "b"])


@pytest.fixture
def learn_of_photos(dls, tiny_net):
    return vision_learner(dls, tiny_net, device="cpu")


def numbers(picture) -> list[str]:
    return [text.get_text() for text in picture.figure.axes[0].texts]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["3", "1", "1", "1"]),
        ({"normalize": False}, ["3", "1", "1", "1"]),
        ({"normalize": True}, [".75", ".25", ".50", ".50"]),
        ({"normalize": "true", "norm_dec": 1}, [".8", ".2", ".5", ".5"]),
        ({"normalize": "pred"}, [".75", ".50", ".25", ".50"]),
        ({"normalize": "all", "norm_dec": 0}, ["0", "0", "0", "0"]),
        ({"plot_txt": False}, []),
        ({"cmap": "Blues"}, ["3", "1", "1", "1"]),
    ],
)
def test_the_matrix_has_the_numbers_asked_for(interp, options, expected) -> None:
    assert numbers(interp.plot_confusion_matrix(**options)) == expected


def test_right_ones_are_blue_and_errors_orange_the_darker_the_more(interp) -> None:
    [image] = interp.plot_confusion_matrix().figure.axes[0].get_images()
    red, _, blue = image.get_array().transpose(2, 0, 1).astype(int)
    assert ((red < blue) == torch.eye(2, dtype=torch.bool).numpy()).all()
    assert red[0, 0] < red[1, 1]  # recall 0.75 and 0.5


def test_numbers_can_be_read_on_every_cell(interp) -> None:
    figure = interp.plot_confusion_matrix(cmap="Greys").figure
    inks = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert inks == {"3": "white", "1": "black"}


def test_size_and_title_are_as_in_matplotlib(interp) -> None:
    picture = interp.plot_confusion_matrix(figsize=(12, 10), dpi=60, title="mine")
    assert picture.figure.get_size_inches().tolist() == [12, 10]
    assert 'width="720"' in picture._repr_html_()
    assert picture.figure.get_suptitle() == "mine"
    assert repr(picture) == "confusion matrix of 6 items, accuracy 66.7%"


def test_a_long_title_over_a_small_matrix_is_not_cut(interp) -> None:
    figure = interp.plot_confusion_matrix(
        title="a title of some forty letters and a few more"
    ).figure
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_names_are_drawn_in_full_or_called_by_their_number() -> None:
    names = ["\U0010fff0\U0010fff1", "$x_1$", "n" * 60, "b"]
    interp = from_predictions([0, 1, 2, 3], [0, 1, 2, 3], names)
    view = matrix_view(interp, range(4))
    labels = [t.get_text() for t in matrix_figure(view).axes[0].get_yticklabels()]
    assert labels == ["class 1", "$x_1$", "n" * 23 + "\u2026", "b"]
    assert undrawable(view) == [0]
    assert "class 1: \U0010fff0\U0010fff1" in repr(interp.plot_confusion_matrix())


@pytest.mark.parametrize("c", [1, 61, 500])
def test_any_number_of_classes_can_be_plotted(c: int) -> None:
    interp = from_predictions(range(c), range(c), [str(k) for k in range(c)])
    assert "<img" in interp.plot_confusion_matrix()._repr_html_()


def test_too_many_classes_are_refused() -> None:
    interp = from_predictions([0], [0], [str(k) for k in range(2001)])
    with pytest.raises(ValueError, match=r"2,001 classes are too many to plot, 2,000 the most"):
        interp.plot_confusion_matrix()


def test_the_pictures_with_the_largest_losses_come_with_their_classes(learn_of_photos) -> None:
    interp = ClassificationInterpretation.from_learner(learn_of_photos)
    sheet = interp.plot_top_losses(3, ncols=2)
    assert list(sheet.items) == interp.top_losses(3)[1].tolist()
    assert sheet.columns == 2
    lines = repr(sheet).splitlines()
    assert lines[0] == "3 pictures"
    i = sheet.items[0]
    actual, predicted = (interp.vocab[k] for k in (interp.targets[i], interp.predicted[i]))
    assert f"actual {actual}, predicted {predicted}, p " in lines[1]
    assert lines[1].endswith(f"loss {interp.losses[i]:.2f}")
    html = sheet._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 3
    assert f'alt="actual {actual}, predicted {predicted}' in html
    titles = [ax.get_title() for ax in sheet.figure.axes]
    assert f"actual {actual}\npredicted {predicted}\np " in titles[0]
    assert titles[3] == ""
    smallest = interp.plot_top_losses(2, largest=False, nrows=2)
    assert list(smallest.items) == interp.top_losses(2, largest=False)[1].tolist()
    assert smallest.columns == 1


def test_the_size_of_a_sheet_is_that_of_all_pictures(learn_of_photos) -> None:
    interp = ClassificationInterpretation.from_learner(learn_of_photos)
    assert interp.plot_top_losses(4, ncols=2, figsize=(8, 8)).side == 392
    assert interp.plot_top_losses(4, ncols=2).side == 150


def test_results_are_marked_in_words_whether_right_or_wrong(learn_of_photos) -> None:
    sheet = learn_of_photos.show_results(max_n=4)
    assert len(set(sheet.items)) == 4
    words = re.findall(r'<b class="nbft-\w+">. (\w+)</b>', sheet._repr_html_())
    interp = sheet.interp
    right = [bool(interp.targets[i] == interp.predicted[i]) for i in sheet.items]
    assert [word == "right" for word in words] == right
    assert len(learn_of_photos.show_results(1000).items) == len(interp)
    assert learn_of_photos.show_results(2, ds="train").interp is not interp


def test_names_are_escaped_and_pictures_that_are_not_known_are_said() -> None:
    interp = from_predictions([0, 1], [1, 1], ["<b>", "$x$"])
    html = interp.plot_top_losses(2)._repr_html_()
    assert "<b>," not in html
    assert html.count("no picture is known of these items") == 2


def test_the_report_is_printed(interp, capsys) -> None:
    assert interp.print_classification_report() is None
    assert capsys.readouterr().out == f"{interp.report()}\n"
