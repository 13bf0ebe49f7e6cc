"""Counts and values are fastai 2.8.12's."""

import pytest
import torch
from torch import nn

from nbfinetune.networks.assembly import assemble
from nbfinetune.networks.backbones import load_backbone
from nbfinetune.networks.layer_groups import (
    adamw,
    check_groups,
    freeze_to,
    lr_per_group,
    params_of,
    train_mode,
)

RESNETS = {
    "resnet18": ((30, 30, 6), (683_072, 10_493_440, 546_304), 11_722_816, 555_904),
    "resnet34": ((48, 60, 6), (1_347_904, 19_936_768, 546_304), 21_830_976, 563_328),
    "resnet50": ((72, 87, 6), (1_444_928, 22_063_104, 2_125_312), 25_633_344, 2_178_432),
}


@pytest.mark.parametrize("arch", RESNETS)
def test_resnets_have_the_groups_and_trainable_parameters_of_fastai(arch: str) -> None:
    tensors, numel, total, trainable = RESNETS[arch]
    model, groups = assemble(load_backbone(arch, None), "fastai", 37, 64)
    check_groups(model, groups)
    assert tuple(len(params_of(group)) for group in groups) == tensors
    assert tuple(sum(p.numel() for p in params_of(group)) for group in groups) == numel
    assert sum(p.numel() for p in model.parameters()) == total
    freeze_to(groups, -1, train_bn=True)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    expected = {name for name, _ in model.named_parameters() if name.startswith("1.")}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            expected |= {f"{name}.weight", f"{name}.bias"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected
    freeze_to(groups, -1, train_bn=False)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == numel[2]


@pytest.mark.parametrize(
    ("arch", "sizes"),
    [
        ("timm:convnext_tiny", (27.82, 0.81)),
        ("timm:resnet26d", (13.97, 2.13)),
        ("timm:vit_tiny_patch16_224", (5.52, 0.12)),
    ],
)
def test_timm_networks_have_the_body_and_head_of_fastai(
    arch: str, sizes: tuple[float, float]
) -> None:
    _, groups = assemble(load_backbone(arch, None), "fastai", 37, 224)
    millions = [sum(p.numel() for p in params_of(group)) / 1e6 for group in groups]
    assert (sum(millions[:-1]), millions[-1]) == pytest.approx(sizes, abs=0.005)


def test_adamw_equals_fastais_adam_while_rate_and_momentum_change(golden: dict) -> None:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
        layer.bias.copy_(torch.tensor([0.25]))
    opt = adamw([[layer]], lr=1e-2, mom=0.9, wd=0.1)
    for i in range(20):
        for group in opt.param_groups:
            group["lr"], group["betas"] = 1e-2 * (1 + i / 10), (0.95 - 0.005 * i, 0.99)
        layer.weight.grad = torch.sin(torch.tensor([[1.0, 2.0, 3.0]]) * (i + 1))
        layer.bias.grad = torch.cos(torch.tensor([1.0 * (i + 1)]))
        opt.step()
    # The golden run decayed the bias too; without decay it is the same but for (1 - lr wd) a step.
    assert layer.weight.flatten().tolist() == pytest.approx(golden["adam"][:3], abs=1e-6)


def test_biases_and_norms_have_no_weight_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3), nn.Linear(3, 1))
    opt = adamw([[model]], lr=1e-3, mom=0.9, wd=0.01)
    decay = {id(p): g["weight_decay"] for g in opt.param_groups for p in g["params"]}
    by_name = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert {name for name, wd in by_name.items() if wd == 0.01} == {"0.weight", "3.weight"}
    assert {name for name, wd in by_name.items() if wd == 0.0} == {
        "0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "3.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lr", "n", "expected"),
    [
        (1e-3, 3, [1e-3, 1e-3, 1e-3]),
        (slice(1e-6, 1e-4), 3, [1e-6, 1e-5, 1e-4]),
        (slice(1e-5), 3, [1e-6, 1e-6, 1e-5]),
        (slice(1e-5, 1e-3), 2, [1e-5, 1e-3]),
        (slice(1e-5, 1e-3), 1, [1e-3]),
        ([1e-3, 2e-3], 2, [1e-3, 2e-3]),
    ],
)
def test_learning_rates_are_broadcast_as_in_fastai(lr, n: int, expected: list[float]) -> None:
    assert lr_per_group(lr, n) == pytest.approx(expected, rel=1e-12)


def test_a_decay_is_a_power_of_the_groups_between_a_layer_and_the_head() -> None:
    """As in BEiT: 0.65^13 for the embedding of a ViT-B, which has 14 with blocks and head."""
    rates = lr_per_group(1.0, 14, decay=0.65)
    assert rates[-3:] == pytest.approx([0.4225, 0.65, 1.0])
    assert rates[0] == pytest.approx(0.003697, rel=1e-3)
    assert lr_per_group(slice(1e-6, 1e-4), 3, decay=0.5) == pytest.approx([1e-6, 1e-5, 1e-4])
    assert lr_per_group([3e-3, 1e-3], 2, decay=0.5) == [3e-3, 1e-3]


@pytest.mark.parametrize(
    ("lr", "error", "message"),
    [
        ([1e-3, 1e-3, 1e-3], ValueError, "lr has 3 values but the model has 2 layer groups; pass"),
        (0.0, ValueError, "lr holds 0.0; a learning rate is positive and finite"),
        (float("nan"), ValueError, "lr holds nan"),
        (slice(None), ValueError, "pass one number, slice"),
        ("1e-3", TypeError, "lr holds '1e-3', which is no number"),
        (slice("a", 1e-3), TypeError, "lr holds 'a'"),
    ],
)
def test_learning_rates_that_make_no_sense_are_refused(lr, error, message: str) -> None:
    with pytest.raises(error, match=message):
        lr_per_group(lr, 2)


def test_freezing_to_a_group_that_does_not_exist_is_refused() -> None:
    groups = [[nn.Linear(1, 1)], [nn.Linear(1, 1)]]
    with pytest.raises(ValueError, match=r"freeze_to\(2\): the model has 2 layer groups; give"):
        freeze_to(groups, 2, train_bn=False)


def test_freezing_says_whether_it_changed_anything() -> None:
    groups = [[nn.Linear(1, 1)], [nn.Linear(1, 1)]]
    assert freeze_to(groups, -1, train_bn=False)
    assert not freeze_to(groups, 1, train_bn=False)


def test_groups_must_hold_every_parameter_once() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"parameter '1.weight' is in no layer group"):
        check_groups(model, [[model[0]]])
    with pytest.raises(ValueError, match=r"parameter '0.weight' is in two layer groups"):
        check_groups(model, [[model[0]], [model]])


@pytest.mark.parametrize("frozen", [0, 1])
def test_pretrained_statistics_are_fixed_in_both_phases_unless_asked(frozen: int) -> None:
    body = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    head = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    model = nn.Sequential(body, head)
    train_mode(model, [[body], [head]], frozen, train_bn=False)
    assert [m.training for m in (*body, *head)] == [False, not frozen, True, True]
    train_mode(model, [[body], [head]], frozen, train_bn=True)
    assert all(m.training for m in (*body, *head))


def test_a_module_that_holds_parts_of_several_groups_is_still_once_all_of_them_are() -> None:
    body = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model = nn.Sequential(body, nn.Linear(2, 2))
    groups = [[body[0]], [body[1]], [model[1]]]
    for frozen, training in ((0, True), (1, True), (2, False)):
        train_mode(model, groups, frozen, train_bn=False)
        assert (model.training, body.training) == (True, training)


def test_complex_parameters_have_an_optimizer_too() -> None:
    group = [nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.complex64))])]
    opt = adamw([group], lr=0.1, mom=0.9, wd=0.0)
    group[0][0].grad = torch.ones(2, dtype=torch.complex64)
    opt.step()
    assert group[0][0].real.tolist() == pytest.approx([0.9, 0.9], abs=1e-4)
