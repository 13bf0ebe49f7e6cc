"""Image classifiers of transformers, tiny and random, from folders that it wrote itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers as hf

from nbfinetune import ImageDataLoaders, load_learner, vision_learner
from nbfinetune.networks.layer_groups import check_groups, params_of

hf.utils.logging.set_verbosity_error()
hf.utils.logging.disable_progress_bar()

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
VIT = {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3, **SIZES}
CONFIGS = {
    "vit": lambda: hf.ViTConfig(**VIT),
    "convnextv2": lambda: hf.ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
    "swin": lambda: hf.SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "resnet": lambda: hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    ),
    "deit": lambda: hf.DeiTConfig(**VIT, architectures=["DeiTForImageClassification"]),
    "timm_wrapper": lambda: hf.TimmWrapperConfig(
        architecture="test_vit", model_args={"img_size": 32}
    ),
}
GROUPS = {"vit": 5, "convnextv2": 6, "swin": 4, "resnet": 4, "deit": 5, "timm_wrapper": 8}


def saved(folder: Path, config: hf.PreTrainedConfig, **processor: object) -> str:
    """A folder of a network as transformers writes it, with a processor; its name for us."""
    torch.manual_seed(0)
    hf.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    if processor:
        hf.ViTImageProcessor(**processor).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.filterwarnings("ignore:.*no processor")
@pytest.mark.parametrize("kind", CONFIGS)
def test_networks_of_transformers_go_all_the_way(
    kind: str, dls: ImageDataLoaders, tmp_path: Path
) -> None:
    name = saved(tmp_path / kind, CONFIGS[kind]())
    learn = vision_learner(dls, name, device="cpu")
    check_groups(learn.model, learn.groups)
    assert (len(learn.groups), learn.frozen) == (GROUPS[kind], GROUPS[kind] - 1)
    learn.fit(1, 1e-3, show=False)
    assert learn.features.kept(dls)
    learn.unfreeze()
    learn.fit(1, 1e-3, show=False)
    file = learn.export(tmp_path / "network.safetensors")
    shutil.rmtree(tmp_path / kind)  # the file says all
    again = load_learner(file, device="cpu")
    picture = dls.valid.dataset.image(0)
    assert torch.equal(again.predict(picture)[2], learn.predict(picture)[2])
    again.export(tmp_path / "again.safetensors")


def test_weights_are_those_of_the_folder_and_blocks_are_groups(dls, tmp_path: Path) -> None:
    name = saved(tmp_path / "vit", hf.ViTConfig(**VIT), image_mean=[0.5] * 3, image_std=[0.25] * 3)
    theirs = hf.AutoModelForImageClassification.from_pretrained(tmp_path / "vit").eval()
    learn = vision_learner(dls, name, device="cpu")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.vit(x).last_hidden_state[:, 0]
        assert torch.allclose(learn.model[0](x), expected, atol=1e-6)
    of_blocks = [sum(p.numel() for p in block.parameters()) for block in theirs.vit.layers]
    sizes = [sum(p.numel() for p in params_of(group)) for group in learn.groups]
    assert sizes[1:3] == of_blocks[:2]
    assert sizes[3] == of_blocks[2] + 32  # the norm behind it


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4] * 3}, (0.1, 0.2, 0.3), (0.4,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
            (0.5,) * 3,
            (0.5,) * 3,
        ),
    ],
)
def test_normalisation_is_that_of_the_processor(processor, mean, std, dls, tmp_path) -> None:
    name = saved(tmp_path / "vit", hf.ViTConfig(**VIT), **processor)
    learn = vision_learner(dls, name, device="cpu")
    assert (learn.transforms.mean, learn.transforms.std) == (
        pytest.approx(mean),
        pytest.approx(std),
    )


def test_a_network_that_knows_the_classes_starts_with_its_own_classifier(dls, tmp_path) -> None:
    labels = {0: "red", 1: "grey", 2: "blue", 3: "green"}
    config = hf.ViTConfig(**VIT, id2label=labels, label2id={v: k for k, v in labels.items()})
    name = saved(tmp_path / "vit", config, image_mean=[0.5] * 3)
    theirs = hf.AutoModelForImageClassification.from_pretrained(tmp_path / "vit").classifier
    head = vision_learner(dls, name, device="cpu").model[1]
    assert dls.vocab == ["blue", "green", "red"]
    assert torch.equal(head.weight, theirs.weight[[2, 3, 0]])
    assert torch.equal(head.bias, theirs.bias[[2, 3, 0]])


def test_colours_in_the_other_order_are_put_right(dls, tmp_path: Path) -> None:
    config = hf.MobileViTConfig(image_size=32)
    saved(tmp_path / "net", config)
    hf.MobileViTImageProcessor(do_flip_channel_order=True).save_pretrained(tmp_path / "net")
    theirs = hf.AutoModelForImageClassification.from_pretrained(tmp_path / "net").eval()
    learn = vision_learner(dls, f"hf:{tmp_path / 'net'}", device="cpu")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.mobilevit(x.flip(1)).pooler_output
        assert torch.allclose(learn.model[0](x), expected, atol=1e-5)


def broken(folder: Path, kind: str) -> str:
    name = saved(folder, hf.ViTConfig(**VIT), image_mean=[0.5] * 3)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "pickled":
        state = hf.AutoModelForImageClassification.from_pretrained(folder).state_dict()
        torch.save(state, folder / "pytorch_model.bin")
        weights.unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        config.unlink()
    elif kind == "text":
        config.write_text(json.dumps({"model_type": "bert"}))
    elif kind == "unknown":
        config.write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "m.C"}}))
    elif kind == "deeper":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 5}))
    return name


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickled", "has no weights as safetensors .*save_pretrained"),
        ("no weights", "has no weights as safetensors .*save_pretrained"),
        ("no config", "has no config.json; pass a folder that save_pretrained"),
        ("text", "is a bert, which transformers has no image classifier of; pass"),
        ("unknown", "transformers cannot build hf:.* from its config: "),
        ("deeper", r"has no weights for 32 tensors of its body \(vit.*save the whole network"),
    ],
)
def test_folders_that_hold_no_such_network_are_refused(kind, message, dls, tmp_path) -> None:
    name = broken(tmp_path / "net", kind)
    with pytest.raises(ValueError, match=message) as caught:
        vision_learner(dls, name, device="cpu")
    assert "\n" not in str(caught.value)


def test_the_size_that_a_network_takes_is_named(photos, tmp_path: Path) -> None:
    name = saved(tmp_path / "vit", hf.ViTConfig(**VIT), image_mean=[0.5] * 3)
    dls = ImageDataLoaders.from_folder(photos, size=48, bs=5)
    with pytest.raises(ValueError, match="does not take pictures of 48 px, but does of 32; make"):
        vision_learner(dls, name, device="cpu")


def test_a_repository_without_a_network_says_what_to_type(dls, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    message = "weights of hf:owner/net cannot be downloaded.*: type `hf download owner/net` where"
    with pytest.raises(RuntimeError, match=message) as caught:
        vision_learner(dls, "hf:owner/net", device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"no folder ./gone; pass hf:FOLDER or hf:OWNER/NAME"):
        vision_learner(dls, "hf:./gone", device="cpu")


def test_from_scratch_and_from_a_file_of_weights(dls, tmp_path: Path) -> None:
    name = saved(tmp_path / "vit", hf.ViTConfig(**VIT), image_mean=[0.5] * 3)
    theirs = hf.AutoModelForImageClassification.from_pretrained(tmp_path / "vit")
    scratch = vision_learner(dls, name, weights=None, device="cpu")
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    given = vision_learner(dls, name, weights=tmp_path / "vit.pth", device="cpu")
    patches = "embeddings.patch_embeddings.projection.weight"
    assert (scratch.frozen, given.frozen) == (0, 4)
    same = [
        torch.equal(dict(one.model.named_parameters())[f"0.network.vit.{patches}"],
                    dict(theirs.named_parameters())[f"vit.{patches}"])
        for one in (scratch, given)
    ]  # fmt: skip
    assert same == [False, True]
