import pytest
import torch
from torch import nn

from nbfinetune.objectives.loss_weights import check_outputs, usable_loss

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_a_loss_are_of_the_type_of_the_logits(dtype: torch.dtype) -> None:
    loss = usable_loss(nn.BCEWithLogitsLoss(pos_weight=torch.ones(2, dtype=dtype)), CPU)
    assert loss.pos_weight.dtype == torch.float32
    assert loss(torch.zeros(1, 2), torch.zeros(1, 2)).dtype == torch.float32


def test_no_loss_is_cross_entropy() -> None:
    assert isinstance(usable_loss(None, CPU), nn.CrossEntropyLoss)


def test_other_losses_may_have_other_outputs_than_there_are_classes() -> None:
    for loss in (nn.BCEWithLogitsLoss(), nn.functional.cross_entropy):
        check_outputs(1, ["no", "yes"], loss)
    check_outputs(2, None, nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="loss_func has 3 weights, but the model 2 outputs"):
        check_outputs(2, None, nn.CrossEntropyLoss(torch.ones(3)))
