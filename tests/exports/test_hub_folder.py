"""Hub folders as timm and transformers read them, their cards, and what has no place there."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import transformers
import yaml
from markdown_it import MarkdownIt
from PIL import Image
from torch import nn

from nbfinetune import Learner, load_learner
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.exports.model_card import licence_of
from nbfinetune.rendering.names import markdown_text


def scores(folder: Path, picture: Path) -> dict[str, float]:
    """What the pipeline of transformers gives, the most probable class first."""
    classify = transformers.pipeline("image-classification", str(folder))
    return {entry["label"]: entry["score"] for entry in classify(str(picture), top_k=None)}


def opened(folder: Path) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
        ("mnasnet0_5", "mnasnet_050"),
        ("timm:test_convnext", "test_convnext"),
        ("timm:test_vit", "test_vit"),  # built for pictures of 32 px, not of 160
    ],
)
def test_networks_that_timm_has_too_give_the_same_logits_there(
    arch: str, name: str, make, held_out, tmp_path: Path, capsys
) -> None:
    learn = make(arch)
    learn.export(tmp_path / "m", format="hub")
    assert capsys.readouterr().out.startswith("m/: largest difference ")
    pictures, logits = held_out(learn)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (learn.transforms.mean, learn.transforms.std)
    )
    with torch.no_grad():
        there = opened(tmp_path / "m")((pictures.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert (there - logits).abs().max() < 1e-5
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == (name, 3)
    assert config["label_names"] == ["blue", "green", "red"]
    known = config["pretrained_cfg"]
    assert (known["input_size"], known["interpolation"]) == ([3, 32, 32], "bilinear")
    assert int(32 / known["crop_pct"]) == 37  # as timm works out what it scales to
    assert known["mean"] == pytest.approx(learn.transforms.mean)


def test_a_network_of_timm_that_the_user_made_is_taken_as_it_is(dls, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3, global_pool="max")
    learn = Learner(dls, network, transforms=ImageTransforms(32), device="cpu")
    learn.export(tmp_path / "m", format="hub")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(opened(tmp_path / "m")(x), learn.model(x))


def test_a_head_of_zeros_does_not_hide_that_a_body_is_another(make, tmp_path: Path) -> None:
    """Of 50 px the network of PyPI pads otherwise than TensorFlow: found though logits are 0."""
    learn = make("efficientnet_lite0")
    learn.transforms = ImageTransforms(50, learn.transforms.mean, learn.transforms.std)
    with torch.no_grad():
        learn.model[-1].weight.zero_()
        learn.model[-1].bias.zero_()
    with pytest.raises(ValueError, match=r"m/ is not written: .* before its last layer"):
        learn.export(tmp_path / "m", format="hub")
    assert not (tmp_path / "m").exists()


def test_the_pipeline_of_transformers_predicts_the_same(make, tmp_path: Path) -> None:
    learn = make("timm:test_resnet")
    learn.fit(5, 3e-2, show=False)
    learn.export(tmp_path / "m", format="hub")
    picture = learn.dls.valid.dataset.image(0)
    picture.save(tmp_path / "picture.png")
    there = scores(tmp_path / "m", tmp_path / "picture.png")
    label, _, probs = learn.predict(picture)
    assert next(iter(there)) == label
    for name, p in zip(learn.vocab, probs.tolist(), strict=True):
        assert there[name] == pytest.approx(p, abs=0.03)  # scaled before it is cropped


def test_several_labels_are_told_to_the_pipeline(make, tmp_path: Path) -> None:
    learn = make("timm:test_resnet")
    learn.loss_func = nn.BCEWithLogitsLoss()
    learn.dls = None
    learn.export(tmp_path / "m", format="hub")
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "picture.png")
    there = scores(tmp_path / "m", tmp_path / "picture.png")
    _, _, probs = learn.predict(tmp_path / "picture.png")
    assert [there[name] for name in learn.vocab] == pytest.approx(probs.tolist(), abs=0.03)
    assert abs(sum(there.values()) - 1) > 0.01


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        (
            "squeezenet1_1",
            {},
            r"squeezenet1_1 has no place in timm's layout; it is for networks of",
        ),
        ("shufflenet_v2_x0_5", {}, r"shufflenet_v2_x0_5 has no place .*; export a .onnx or .pt2"),
        ("mobilenet_v3_small", {"head": "fastai"}, r'head of this learner .*head="linear"'),
    ],
)
def test_what_has_no_place_there_is_refused_by_name(
    arch, options, message, make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make(arch, **options).export(tmp_path / "m", format="hub")
    assert list(tmp_path.iterdir()) == []


def test_modules_of_the_user_and_other_outputs_are_refused(small, make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Sequential has no place in timm's layout"):
        small.export(tmp_path / "m", format="hub")
    learn = make("timm:test_resnet")

    def half(outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(1) / 2

    learn.loss_func.activation = half
    learn.loss_func = learn.loss_func
    with pytest.raises(ValueError, match="probabilities here are of the loss function"):
        learn.export(tmp_path / "m", format="hub")
    assert list(tmp_path.iterdir()) == []


def test_no_file_of_a_folder_is_overwritten_unless_asked(make, tmp_path: Path) -> None:
    learn = make("timm:test_resnet")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    (tmp_path / "m" / "config.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"config.json exists; take another name or pass"):
        learn.export(tmp_path / "m", format="hub")
    assert (tmp_path / "m" / "config.json").read_text() == "precious"
    assert not (tmp_path / "m" / "model.safetensors").exists()
    learn.export(tmp_path / "m", format="hub", overwrite=True)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    assert opened(tmp_path / "m").num_classes == 3
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError, match="file is a file; give the name of a folder"):
        learn.export(tmp_path / "file", format="hub", overwrite=True)


def test_the_card_tells_data_results_training_and_versions(make, tmp_path: Path) -> None:
    learn = make("timm:test_resnet")
    learn.fit(1, 1e-3, show=False)
    learn.export(tmp_path / "m", format="hub")
    _, head, text = (tmp_path / "m" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "transformers"],
    }
    assert "12 pictures to train on and 6 held out (33%)." in text
    assert "| blue | 4 | 2 |" in text
    assert f"| error_rate | {learn.validate()[1]:.4f} |" in text
    wrong = round(learn.validate()[1] * 6)
    assert f"{wrong} of 6 pictures are wrong" in text
    assert "| fit | 1 of 1 | 3 | 1.0e-3 | finished |" in text
    assert "trained from scratch, so no licence of other weights" in text
    assert f"torch {torch.__version__}" in text


@pytest.mark.parametrize(
    ("arch", "weights", "licence", "says"),
    [
        ("timm:resnet18", "published", "apache-2.0", "licence timm gives as `apache-2.0`"),
        ("resnet18", "published", "bsd-3-clause", "licence timm gives as `bsd-3-clause`"),
        ("resnet18", "file", None, "weights of a file of the user's, whose licence is not known"),
        ("resnet18", "none", None, "trained from scratch"),
        ("resnet18", None, None, "`bsd-3-clause`, may be what it began with: that is not known"),
    ],
)
def test_the_licence_of_the_weights_is_that_which_timm_knows(arch, weights, licence, says) -> None:
    config = {"arch": arch} | ({"weights": weights} if weights else {})
    known, text = licence_of(SimpleNamespace(config=config), "resnet18")
    assert known == (licence or "")
    assert says in text


def test_what_a_learner_began_with_stays_with_its_file(make, tiny_net, tmp_path: Path) -> None:
    pretrained, scratch = make("efficientnet_lite0"), make("timm:test_resnet")
    for learn, origin in ((pretrained, "published"), (scratch, "none")):
        again = load_learner(learn.export(tmp_path / origin), device="cpu")
        assert again.config["weights"] == learn.config["weights"] == origin


NASTY = "<img src=x onerror=alert(1)>|`]( javascript:x)*\n# www.evil.com --- {{x}}"


def test_names_of_classes_do_nothing_in_a_card(make, tmp_path: Path) -> None:
    learn = make("timm:test_resnet")
    learn.dls.vocab[0] = NASTY
    learn.dls = learn.dls  # their names are followed
    learn.export(tmp_path / "m", format="hub")
    head, text = (tmp_path / "m" / "README.md").read_text().split("---\n", 2)[1:]
    assert "license" not in yaml.safe_load(head)
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert not re.search(r"<(img|a|h1>\s*www)", html)
    shown = "&lt;img src=x onerror=alert(1)&gt;|`]( javascript:x)*\\n# www.evil.com --- {{x}}"
    assert f"<td>{shown}</td>" in html
    assert json.loads((tmp_path / "m" / "config.json").read_text())["label_names"][0] == NASTY


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("great_pyrenees", "great_pyrenees"),
        ("star-4", "star-4"),
        ("_a_ *b*", r"\_a\_ \*b\*"),
        ("1. x | y", r"1\. x \| y"),
        ("- x", r"\- x"),
        ("caf\u00e9 \u732b", "caf\u00e9 \u732b"),
    ],
)
def test_names_in_markdown_are_what_they_are(name: str, expected: str) -> None:
    assert markdown_text(name) == expected
