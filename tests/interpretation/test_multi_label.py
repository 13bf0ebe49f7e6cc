import pytest
import torch
from sklearn.metrics import multilabel_confusion_matrix, precision_recall_fscore_support

from nbfinetune import MultiLabelInterpretation

from_predictions = MultiLabelInterpretation.from_predictions


@pytest.mark.parametrize("n", [1, 1000])
def test_each_label_has_the_counts_of_scikit_learn(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    targets = torch.rand(n, 7, generator=generator) < 0.3
    preds = torch.rand(n, 7, generator=generator)
    interp = from_predictions(targets, preds, "abcdefg", thresh=0.6)
    expected = multilabel_confusion_matrix(targets.numpy(), (preds >= 0.6).numpy())
    assert torch.equal(interp.matrix, torch.from_numpy(expected))
    scores = precision_recall_fscore_support(
        targets.numpy(), (preds >= 0.6).numpy(), zero_division=0
    )
    for row, *values in zip(interp.report().rows, *scores[:3], strict=True):
        assert [float(v) for v in row[5:]] == pytest.approx(values, abs=6e-4)


def test_labels_are_listed_and_escaped() -> None:
    interp = from_predictions(torch.tensor([[1, 0]]), torch.tensor([[0.7, 0.1]]), ["<b>", "dog"])
    assert repr(interp).splitlines()[0] == "1 items of 2 labels"
    assert "&lt;b&gt;" in interp._repr_html_()


@pytest.mark.parametrize(
    ("targets", "preds", "message"),
    [
        ([[1, 0]], [[1]], r"targets \[1, 2\] and preds \[1, 1\] for 2 labels"),
        ([[1, 3]], [[1, 0]], "targets have values outside"),
        ([[1, 0]], [[float("nan"), 0]], "preds have values outside"),
    ],
)
def test_values_that_do_not_fit_are_refused(targets, preds, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_predictions(targets, preds, "ab")


def test_the_counts_are_a_frame_too() -> None:
    targets, preds = [[1, 0], [1, 1], [0, 0]], [[0.9, 0.2], [0.3, 0.8], [0.7, 0.1]]
    frame = MultiLabelInterpretation.from_predictions(targets, preds, ["wet", "red"]).to_df()
    assert frame.set_index("label").loc["wet"].to_dict() == {
        "found": 1, "missed": 1, "wrong": 1, "rightly absent": 0,
        "precision": 0.5, "recall": 0.5, "f1": 0.5,
    }  # fmt: skip
    assert frame.f1.tolist() == [0.5, 1.0]
