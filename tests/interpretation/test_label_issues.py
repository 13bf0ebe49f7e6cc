"""Labels worth a look: cleanlab's confident learning, and wrong labels that are known."""

import pytest
import torch

from nbfinetune import ClassificationInterpretation, ImageDataLoaders, samples, vision_learner
from nbfinetune.interpretation.label_issues import (
    LabelIssues,
    confident_issues,
    estimated_wrong,
    label_issues,
)


def noisy(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of 300 items of 4 classes, and labels of which a tenth are wrong."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(4, (300,), generator=generator)
    logits = torch.randn(300, 4, generator=generator) + 3 * torch.eye(4)[true]
    flipped = torch.rand(300, generator=generator) < 0.1
    labels = torch.where(flipped, (true + 1) % 4, true)
    return logits.double().softmax(1), labels


@pytest.mark.parametrize("seed", range(5))
def test_the_items_and_their_order_are_cleanlabs(seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.filter", reason="cleanlab is the oracle")
    probs, labels = noisy(seed)
    expected = cleanlab.find_label_issues(
        labels.numpy(), probs.numpy(), return_indices_ranked_by="self_confidence", n_jobs=1
    )
    found = confident_issues(probs, labels)
    assert len(found) > 10
    assert found == expected.tolist()


def test_as_many_of_each_label_are_issues_as_the_joint_has() -> None:
    """Worked by hand; thresholds are 0.75 and 0.558.

    Label 0: three count for it, one for class 1. Label 1: three count for it, one for class 0 and
    two for none, which scales 1 and 3 of 4 to 1.5 and 4.5 of 6, rounded 2 and 4.
    """
    of_1 = torch.tensor([0.1, 0.1, 0.1, 0.7, 0.9, 0.9, 0.6, 0.45, 0.4, 0.1])
    probs = torch.stack([1 - of_1, of_1], 1)
    labels = torch.tensor([0] * 4 + [1] * 6)
    assert confident_issues(probs, labels) == [9, 3, 8]
    assert estimated_wrong(probs, labels) == 2.5


def test_an_item_whose_label_is_its_most_probable_class_is_no_issue() -> None:
    """One of label 1 counts for class 0, two for none: the joint has two, with this item's 0.55."""
    of_1 = torch.tensor([0.1, 0.1, 0.1, 0.7, 0.9, 0.9, 0.9, 0.55, 0.55, 0.1])
    probs = torch.stack([1 - of_1, of_1], 1)
    assert confident_issues(probs, torch.tensor([0] * 4 + [1] * 6)) == [9, 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_is_what_is_off_the_diagonal_of_cleanlabs_joint(seed: int) -> None:
    cleanlab = pytest.importorskip("cleanlab.count", reason="cleanlab is the oracle")
    probs, labels = noisy(seed)
    joint = cleanlab.estimate_joint(labels.numpy(), probs.numpy())
    expected = 300 * (1 - joint.trace())
    # cleanlab rounds the joint to whole items: half of one, at most, in each of its 16 cells.
    assert estimated_wrong(probs, labels) == pytest.approx(expected, abs=4)
    assert 20 < expected < 50  # 30 are wrong


def test_one_label_of_four_is_estimated_to_be_wrong() -> None:
    """Worked by hand: of class 1 one item counts for it and one for class 0."""
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.9, 0.1]])
    assert estimated_wrong(probs, torch.tensor([0, 0, 1, 1])) == 1


@pytest.mark.parametrize(
    ("n_marked", "n_wrong", "expected"),
    [
        (2, 1.2, "2 of 4 labels are worth a look; about 1 is estimated to be wrong"),
        (0, 0.3, "none of 4 labels is worth a look; about 0 are estimated to be wrong. "
         "%top_losses shows the pictures that the network finds hardest"),
    ],
)  # fmt: skip
def test_the_headline_says_what_is_listed_and_what_is_estimated(
    n_marked, n_wrong, expected
) -> None:
    interp = ClassificationInterpretation.from_predictions([0, 0, 1, 1], [0, 0, 1, 1], "ab")
    found = LabelIssues(interp, [3, 1, 0, 2], n_marked, n_wrong)
    assert found.headline == expected
    assert found.items == [3, 1][:n_marked]


def test_a_class_without_items_does_not_matter() -> None:
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
    assert confident_issues(probs, torch.tensor([0, 1, 1])) == [2]


def test_wrong_labels_of_drawn_shapes_are_found(tmp_path) -> None:
    path = samples.draw_shapes(tmp_path / "shapes", size=64, wrong=0.08)
    wrong = samples.wrong_labels(path)
    assert len(wrong) == 38
    dls = ImageDataLoaders.from_folder(path, size=64)
    learn = vision_learner(dls, "efficientnet_lite0")
    found = label_issues(learn)
    interp = found.interp
    assert len(interp) == 480
    assert sorted(found.ranking) == list(range(480))
    own = interp.target_probs[found.ranking]
    assert (own[1:] >= own[:-1]).all()
    hits = [interp.path(i) in wrong for i in found.ranking]
    assert sum(hits[:10]) >= 6  # by chance 0.8
    assert sum(hits[: found.n_marked]) >= 0.75 * 38
    assert "are estimated to be wrong (likely fewer: the predictions agree with only 3" in (
        found.headline
    )
    assert interp.image(479).size == (64, 64)


def test_a_learner_without_a_body_and_other_parts_are_refused(learn, loaders, mlp) -> None:
    from nbfinetune import Learner

    with pytest.raises(ValueError, match="ds is 'test'; it must be"):
        label_issues(learn, "test")
    with pytest.raises(ValueError, match="label issues need a network with a body and a head"):
        label_issues(Learner(loaders, mlp, device="cpu"))
    with pytest.raises(RuntimeError, match="the training loader has no data set to go through"):
        label_issues(learn, "all")


def test_finding_issues_changes_nothing(learn) -> None:
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    assert len(label_issues(learn, "valid").interp) == 10
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in learn.model.modules())


def test_pictures_that_only_the_learner_keeps_are_still_found(dls, tiny_net) -> None:
    learn = vision_learner(dls, tiny_net, device="cpu")
    items = label_issues(learn).interp.dataset
    kept = items.kept_by_others()
    n = len(dls.train.dataset) + len(dls.valid.dataset)
    assert [kept.path(i) for i in range(n)] == [items.path(i) for i in range(n)]
    assert kept.path(n - 1).is_file()
