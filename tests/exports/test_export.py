"""What `learn.export` writes for others, opened by them where this package is not installed."""

import json
import logging
import signal
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from nbfinetune import Learner, load_learner
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.exports import onnx_file, portable

# The dearest are left to benchmarks/exports.py, which opens all formats of trained networks.
FORMATS = {
    "efficientnet_lite0": ["pt2", "hub"],
    "resnet18": ["pt2", "hub"],
    "timm:test_vit": ["onnx", "pt2", "hub"],
}
OPEN_ALL = """
import json, numpy as np, onnxruntime, timm, torch, transformers
pictures = torch.from_numpy(np.load("pictures.npy"))
out = {}
for i, (formats, mean, std) in enumerate(json.loads(sys.argv[1])):
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    normalised = (pictures.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        if "onnx" in formats:
            session = onnxruntime.InferenceSession(f"{i}.onnx")
            out[f"{i} onnx"] = session.run(["logits"], {"pictures": pictures.numpy()})[0]
        if "pt2" in formats:
            out[f"{i} pt2"] = torch.export.load(f"{i}.pt2").module()(pictures)[1].numpy()
        of_timm = timm.create_model(f"local-dir:{i}.hub", pretrained=True).eval()
        out[f"{i} timm"] = of_timm(normalised).numpy()
        auto = transformers.AutoModelForImageClassification.from_pretrained(f"{i}.hub").eval()
        out[f"{i} transformers"] = auto(pixel_values=normalised).logits.numpy()
np.savez("out.npz", **out)
"""


def test_files_open_without_this_package_and_give_the_same_logits(
    make, held_out, alone, tmp_path: Path
) -> None:
    learners = [make(arch) for arch in FORMATS]
    described = []
    for i, (learn, formats) in enumerate(zip(learners, FORMATS.values(), strict=True)):
        described.append([formats, learn.transforms.mean, learn.transforms.std])
        with learn.quiet():
            for format in formats:
                learn.export(tmp_path / f"{i}.{format}", format=format)
    np.save(tmp_path / "pictures.npy", held_out(learners[0])[0].numpy())
    alone(OPEN_ALL, json.dumps(described))
    out = np.load(tmp_path / "out.npz")
    assert len(out.files) == 10
    for name in out.files:
        logits = held_out(learners[int(name[0])])[1]
        there = torch.from_numpy(out[name])
        assert (there - logits).abs().max() <= 1e-4 * max(1, logits.abs().max()), name
        assert torch.equal(there.argmax(1), logits.argmax(1)), name


def test_an_onnx_file_says_what_it_takes_and_gives(small, tmp_path: Path) -> None:
    small.export(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["class_names"]) == ["blue", "green", "red"]
    assert (about["size"], about["resize"], about["edge"]) == ("32", "37", "2")
    assert about["activation"] == "softmax"
    assert "the middle square, scaled to 37 x 37 px" in about["preprocessing"]
    [taken], given = model.graph.input, model.graph.output
    dims = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
    assert (taken.name, dims) == ("pictures", ["batch", 32, 32, 3])
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [out.name for out in given] == ["probabilities", "logits"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for n in (1, 2, 7):  # any batch
        probs, logits = session.run(None, {"pictures": np.zeros((n, 32, 32, 3), np.uint8)})
        assert probs.shape == logits.shape == (n, 3)
        assert probs.sum(1) == pytest.approx(1, abs=1e-6)


def test_a_pt2_file_says_its_classes_in_extra_files(small, tmp_path: Path) -> None:
    small.export(tmp_path / "m.pt2")
    extra = {"class_names.json": "", "about.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra)
    assert json.loads(extra["class_names.json"]) == ["blue", "green", "red"]
    assert json.loads(extra["about.json"])["size"] == 32
    probs, logits = program.module()(torch.zeros(5, 32, 32, 3, dtype=torch.uint8))
    assert torch.allclose(probs, logits.softmax(1))


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_files_hold_no_names_of_folders_of_this_machine(small, name: str, tmp_path: Path) -> None:
    content = small.export(tmp_path / name).read_bytes()
    for folder in (Path(torch.__file__).parents[1], Path(portable.__file__).parent, tmp_path):
        assert str(folder).encode() not in content


def test_it_says_how_far_the_file_is_from_the_model_in_one_line(
    small, tmp_path: Path, capfd, caplog
) -> None:
    with caplog.at_level(logging.INFO):
        small.export(tmp_path / "m.onnx")
    out, err = capfd.readouterr()
    assert out.startswith("m.onnx: largest difference ")
    assert "on 6 held-out pictures, by onnxruntime" in out
    assert (out.count("\n"), err, caplog.messages) == (1, "", [])
    with small.quiet():
        small.export(tmp_path / "m.pt2")
    assert capfd.readouterr().out == ""


def test_several_labels_have_sigmoid_inside(small, held_out, tmp_path: Path) -> None:
    small.loss_func = nn.BCEWithLogitsLoss()
    small.export(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    probs, logits = session.run(None, {"pictures": held_out(small)[0].numpy()})
    assert probs == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert session.get_modelmeta().custom_metadata_map["activation"] == "sigmoid"


def test_the_learner_is_as_before_and_so_are_all_random_numbers(small, tmp_path: Path) -> None:
    small.model.train()
    before = {k: v.clone() for k, v in small.model.state_dict().items()}
    requires_grad = [p.requires_grad for p in small.model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for name in ("m.onnx", "m.pt2"):
        small.export(tmp_path / name)
    assert torch.equal(torch.rand(1), expected)
    assert small.model.training
    assert [p.requires_grad for p in small.model.parameters()] == requires_grad
    assert all(torch.equal(v, before[k]) for k, v in small.model.state_dict().items())


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_a_file_that_gives_something_else_is_not_written(
    small, name: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / name).write_text("precious")
    right = portable.batches_through
    module = onnx_file if name == "m.onnx" else sys.modules["nbfinetune.exports.pt2_file"]

    def wrong(run, pictures) -> tuple:
        return tuple(out + 1e-3 for out in right(run, pictures))

    monkeypatch.setattr(module, "batches_through", wrong)
    with pytest.raises(
        ValueError, match=r"is not written: what it gives differs from .* by 1.0e-3"
    ):
        small.export(tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_text() == "precious"


def test_an_interrupt_leaves_no_file_and_all_else_as_before(
    small, tmp_path: Path, monkeypatch
) -> None:
    traced = onnx_file.traced

    def interrupted(of: portable.Exported) -> object:
        signal.raise_signal(signal.SIGINT)
        return traced(of)

    monkeypatch.setattr(onnx_file, "traced", interrupted)
    before, disabled = torch.get_rng_state(), logging.root.manager.disable
    with pytest.raises(KeyboardInterrupt):
        small.export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.root.manager.disable == disabled


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_no_file_is_overwritten_unless_asked(small, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError, match="exists; take another name or pass overwrite=True"):
        small.export(tmp_path / name)
    assert (tmp_path / name).read_text() == "precious"
    small.export(tmp_path / name, overwrite=True)
    assert (tmp_path / name).stat().st_size > 1000


def test_other_suffixes_and_none_are_the_file_of_this_package(
    small, tiny_net, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (small.export("m.bin"), small.export(), small.export("n", format="safetensors")):
        assert load_learner(file, arch=tiny_net).vocab == ["blue", "green", "red"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.safetensors", "m.bin", "n"]


@pytest.mark.parametrize(
    ("missing", "file", "format", "message"),
    [
        (
            "onnxscript",
            "m.onnx",
            None,
            "needs onnxscript, which is not installed: pip install onnx",
        ),
        ("onnx", "m.onnx", None, "needs onnx, which is not installed: pip install onnx onnxscript"),
        ("timm", "m", "hub", "needs timm, which is not installed: pip install timm"),
    ],
)
def test_a_library_that_is_missing_is_named(
    small, missing, file, format, message, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=message):
        small.export(tmp_path / file, format=format)
    assert not (tmp_path / file).exists()


def test_without_onnxruntime_it_is_said_that_nothing_was_compared(
    small, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    small.export(tmp_path / "m.onnx")
    assert "not compared with the model, as onnxruntime is not installed" in capsys.readouterr().out
    assert (tmp_path / "m.onnx").exists()


def test_what_cannot_be_exported_is_refused_by_name(small, learn, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'tflite'; it must be one of safetensors, onnx"):
        small.export(tmp_path / "m", format="tflite")
    with pytest.raises(ValueError, match="this learner has no transforms for pictures"):
        learn.export(tmp_path / "m.onnx")

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.mean((2, 3))) * (2.0 if float(x.mean()) > 0 else 1.0)

    looks = Learner(small.dls, Looks(), transforms=ImageTransforms(32), device="cpu")
    with pytest.raises(ValueError, match=r"torch.export cannot follow Looks \(.*safetensors file$"):
        looks.export(tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_learner_from_a_file_is_compared_on_noise_and_says_so(
    small, tiny_net, tmp_path: Path, capsys
) -> None:
    again = load_learner(small.export(tmp_path / "m"), arch=tiny_net, device="cpu")
    again.export(tmp_path / "m.pt2")
    assert "on 8 pictures of noise, as this learner has no others" in capsys.readouterr().out


def test_logits_in_the_hundreds_may_differ_by_as_many_parts() -> None:
    logits = torch.tensor([[300.0, -2.0]])
    assert portable.compared((logits,), (logits + 0.02,), "m", "x").startswith("m: largest")
    with pytest.raises(
        ValueError, match=r"differs from the model by 4.0e-2 on x, more than 3.0e-2"
    ):
        portable.compared((logits,), (logits + 0.04,), "m", "x")
    with pytest.raises(ValueError, match="differs from the model by nan"):
        portable.compared((logits,), (logits * float("nan"),), "m", "x")


class Deciding(nn.Module):
    """Looks at its values to decide what to do, which no trace follows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3))
        return self.head(x * 2 if x.sum() > 0 else x)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_a_network_that_cannot_be_followed_is_refused_without_pages(
    dls, tmp_path: Path, capfd, suffix: str
) -> None:
    learn = Learner(dls, Deciding(), transforms=ImageTransforms(dls.size), device="cpu")
    with pytest.raises(ValueError, match=r"torch\.export cannot follow Deciding") as error:
        learn.export(tmp_path / f"m.{suffix}")
    assert "\\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
