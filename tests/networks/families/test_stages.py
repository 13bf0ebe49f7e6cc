"""Layer groups of bodies, and networks of unlike families from the first step to a prediction."""

from pathlib import Path

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.models.mlp_mixer import MlpMixer
from timm.models.pit import PoolingVisionTransformer
from torch import nn
from torchvision.models import GoogLeNet

from nbfinetune import ImageDataLoaders, Learner, load_learner, vision_learner
from nbfinetune.networks.assembly import assemble
from nbfinetune.networks.backbones import load_backbone
from nbfinetune.networks.families.stages import groups_by_stage
from nbfinetune.networks.layer_groups import check_groups, params_of
from nbfinetune.networks.skeletons import WithoutMemory


def names_of(groups: list, model: nn.Module) -> list[list[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in params_of(group)] for group in groups]


STAGES = {  # the stages of the papers: a group begins with each of these parameters
    "convnext_tiny": "features.0.0 features.2.0 features.4.0 features.6.0",
    "efficientnet_b0": "features.0.0 features.2.0 features.3.0 features.4.0 features.6.0",
    "swin_t": "features.0.0 features.2 features.4 features.6",
    "regnet_y_400mf": "stem.0 trunk_output.block1 trunk_output.block2 trunk_output.block3 "
    "trunk_output.block4",
    "mobilenet_v3_small": "features.0.0 features.2 features.4 features.9",
    "vgg11": "features.0 features.3 features.6 features.11 features.16 classifier.0",
    "densenet121": "features.conv0 features.transition1 features.transition2 features.transition3",
    "shufflenet_v2_x0_5": "conv1 stage2 stage3 stage4",
}


@pytest.mark.parametrize("arch", STAGES)
def test_networks_of_torchvision_are_grouped_by_stage(arch: str) -> None:
    with WithoutMemory():
        network = load_backbone(arch, None).network
    groups = names_of(groups_by_stage(network, network, name=arch), network)
    begins = [group[0] for group in groups]
    expected = STAGES[arch].split()
    assert len(begins) == len(expected)
    assert all(name.startswith(start) for name, start in zip(begins, expected, strict=True))


def test_a_vit_has_its_embedding_and_each_block() -> None:
    with WithoutMemory():
        network = load_backbone("vit_b_16", None).network
    groups = names_of(groups_by_stage(network, network, name="vit_b_16"), network)
    assert len(groups) == 13
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= set(groups[0])
    for i, group in enumerate(groups[1:]):
        assert all("encoder_layer" not in n or f"encoder_layer_{i}." in n for n in group)
    assert "encoder.ln.weight" in groups[12]


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0"])
def test_groups_of_timm_are_those_of_its_matcher(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    theirs = group_parameters(network, network.group_matcher(coarse=True))
    expected = [set(names) for _, names in sorted(theirs.items())]
    got = [set(names) for names in names_of(groups_by_stage(network, network, name=""), network)]
    if len(got) < len(expected):  # norms behind the last block go with it
        assert {n.split(".")[-1] for n in expected[-1]} <= {"weight", "bias"}
        expected[-2:] = [expected[-2] | expected[-1]]
    assert got == expected


def test_more_blocks_than_groups_share_them_evenly() -> None:
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=25, num_heads=1, num_classes=0
    )
    groups = names_of(groups_by_stage(network, network, name=""), network)
    blocks = [len({n.split(".")[1] for n in group if n.startswith("blocks.")}) for group in groups]
    assert blocks == [1, *[2] * 12]


def test_where_nobody_says_stages_the_list_with_most_weights_is_that_of_the_stages() -> None:
    network = PoolingVisionTransformer(32, 8, 4, "overlap", (8, 8, 8), (1, 2, 1), (1, 2, 4), 2)
    groups = names_of(groups_by_stage(network, network, name="timm:pit"), network)
    starts = [{".".join(n.split(".")[:2]) for n in group if "transf" in n} for group in groups]
    assert starts == [set(), *({f"transformers.{i}"} for i in range(3))]
    assert "pos_embed" in groups[0]
    assert groups_by_stage(network, network, name="") == [[network]]


def tiny(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **options)


SMALL = {"img_size": 32, "num_classes": 4}
NETWORKS = {
    "convnext": lambda: "timm:test_convnext",
    "vit": lambda: "timm:test_vit",
    "swin": lambda: tiny(
        "swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4,
        **SMALL,
    ),
    "efficientnet": lambda: "timm:test_efficientnet",
    "deit distilled": lambda: tiny(
        "deit_tiny_distilled_patch16_224", embed_dim=12, depth=2, num_heads=2, **SMALL
    ),
    "mixer": lambda: MlpMixer(patch_size=8, embed_dim=16, num_blocks=2, **SMALL),
    "nfnet": lambda: "timm:test_nfnet",
    "aux outputs": lambda: GoogLeNet(num_classes=4, init_weights=False),
    "shufflenet": lambda: "shufflenet_v2_x0_5",
}  # fmt: skip
GROUPS = {"convnext": 6, "vit": 8, "swin": 4, "efficientnet": 7, "deit distilled": 4, "mixer": 4,
          "nfnet": 6, "aux outputs": 2, "shufflenet": 5}  # fmt: skip


def changed(learn: Learner) -> list[bool]:
    """Which groups a step changes."""
    before = [[p.clone() for p in params_of(group)] for group in learn.groups]
    learn.fit(1, 1e-3, show=False)
    after = [params_of(group) for group in learn.groups]
    return [not all(map(torch.equal, *both)) for both in zip(before, after, strict=True)]


@pytest.mark.parametrize("family", NETWORKS)
def test_networks_of_unlike_families_go_all_the_way(
    family: str, dls: ImageDataLoaders, tmp_path: Path
) -> None:
    arch = NETWORKS[family]()
    learn = vision_learner(dls, arch, pretrained=False, train_bn=False, device="cpu")
    check_groups(learn.model, learn.groups)
    n = len(learn.groups)
    assert n == GROUPS[family]
    learn.freeze()
    assert changed(learn) == [*[False] * (n - 1), True]
    assert learn.features.kept(dls)
    learn.freeze_to(-2)
    assert changed(learn) == [*[False] * (n - 2), *[True] * 2]
    learn.freeze_to(0, quiet=True)
    assert changed(learn) == [True] * n
    file = learn.export(tmp_path / "network.safetensors")
    again = load_learner(file, arch=None if isinstance(arch, str) else arch, device="cpu")
    picture = dls.valid.dataset.image(0)
    assert torch.equal(again.predict(picture)[2], learn.predict(picture)[2])


def test_a_transformer_of_timm_is_built_for_the_size_of_the_pictures() -> None:
    network = load_backbone("timm:test_vit", None, 64).network
    assert network.patch_embed.img_size == (64, 64)


@pytest.mark.parametrize("arch", ["efficientnet_lite0", "resnet18"])
def test_the_groups_that_recipes_were_measured_with_are_as_they_were(arch: str) -> None:
    _, groups = assemble(load_backbone(arch, None), "linear", 3, 64)
    assert len(groups) == {"efficientnet_lite0": 2, "resnet18": 3}[arch]
