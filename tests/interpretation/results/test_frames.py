"""What was predicted and recorded as pandas frames, and what scikit-learn makes of it."""

from pathlib import Path

import numpy as np
import pytest

from nbfinetune import ClassificationInterpretation, Learner, samples, vision_learner
from nbfinetune.data.loaders import ImageDataLoaders

INTERP = ClassificationInterpretation.from_predictions(
    [0, 1, 1, 2],
    np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]]),
    ["ant", "bee", "cat"],
    ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
)


def test_a_frame_has_a_row_for_each_item_in_the_order_of_the_data() -> None:
    frame = INTERP.to_df()
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame.index.name == "item"
    assert frame.file.tolist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert frame.actual.tolist() == ["ant", "bee", "bee", "cat"]
    assert frame.predicted.tolist() == ["ant", "ant", "bee", "cat"]
    assert frame.right.tolist() == [True, False, True, True]
    assert frame["p(actual)"].tolist() == pytest.approx([0.7, 0.3, 0.8, 0.5])
    assert frame["p(predicted)"].tolist() == pytest.approx([0.7, 0.6, 0.8, 0.5])
    assert frame.loss.tolist() == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.5]))


def test_a_frame_may_be_of_some_items_in_their_order() -> None:
    worst = INTERP.top_losses(2)[1]
    assert INTERP.to_df(worst).index.tolist() == [1, 3]
    assert INTERP.to_df([]).columns.tolist() == INTERP.to_df().columns.tolist()


def test_scikit_learn_draws_the_matrix_as_it_is() -> None:
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    frame = INTERP.to_df()
    expected = confusion_matrix(frame.actual, frame.predicted, labels=INTERP.vocab)
    matrix = INTERP.confusion_matrix().numpy()
    assert matrix.tolist() == expected.tolist()
    drawn = ConfusionMatrixDisplay(matrix, display_labels=INTERP.vocab).plot()
    assert [text.get_text() for text in drawn.text_.ravel()] == list("100110001")
    assert [t.get_text() for t in drawn.ax_.get_xticklabels()] == INTERP.vocab


def test_label_issues_are_a_frame_in_the_order_of_their_rank(tmp_path: Path) -> None:
    samples.draw_shapes(tmp_path, n=8, size=32, seed=0)
    dls = ImageDataLoaders.from_folder(tmp_path, size=32)
    learn = vision_learner(dls, "resnet18", weights=None, device="cpu")
    issues = learn.label_issues()
    frame = issues.to_df()
    assert frame.index.tolist() == issues.ranking
    assert frame["p(actual)"].is_monotonic_increasing
    assert frame.worth_a_look.sum() == issues.n_marked
    assert frame.worth_a_look.is_monotonic_decreasing
    assert frame.file.tolist() == [str(issues.interp.path(i)) for i in issues.ranking]
    assert repr(issues).startswith(issues.headline)


def test_the_recorder_has_rows_of_epochs_and_of_steps(learn: Learner) -> None:
    assert learn.recorder.to_df().empty
    learn.fine_tune(2, freeze_epochs=1)
    learn.fit_one_cycle(1, 1e-2)
    epochs = learn.recorder.to_df()
    assert epochs.run.tolist() == [1, 1, 1, 2]
    assert epochs.method.tolist() == ["fine_tune"] * 3 + ["fit_one_cycle"]
    assert epochs.epoch.tolist() == [0, 0, 1, 0]
    assert epochs.valid_loss.tolist() == [
        row["valid_loss"] for run in learn.recorder.runs for row in run.rows
    ]
    steps = learn.recorder.to_df("step")
    assert steps.step.tolist() == [*range(1, 6), *range(1, 11), *range(1, 6)]
    assert steps.loss.tolist() == [x for run in learn.recorder.runs for x in run.losses]
    assert steps["lr 2"].tolist() == [x[-1] for run in learn.recorder.runs for x in run.lrs]
    with pytest.raises(ValueError, match="by is 'batch'; it must be one of epoch, step"):
        learn.recorder.to_df("batch")
