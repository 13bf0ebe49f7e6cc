"""Hub folders: weights, config.json and a model card, as timm and transformers read them."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from torch import Tensor, nn

from nbfinetune.exports.model_card import licence_of, model_card
from nbfinetune.exports.portable import Exported, batches_through, compared, exported
from nbfinetune.exports.timm_networks import timm_name, under_timms_names
from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.own_files import check_place, make_folder, write_whole
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.state import LearnerState

_FILES = ("model.safetensors", "config.json", "README.md")
_PROBLEMS = {  # what transformers' pipeline makes of logits
    "softmax": "single_label_classification",
    "exp": "single_label_classification",  # softmax leaves logarithms of probabilities as they are
    "sigmoid": "multi_label_classification",
}


def write(learn: LearnerState, path: Path, *, overwrite: bool) -> str:
    """Write the folder; returns how far what timm makes of it is from the model. See `export`."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{shortened(path)} is a file; give the name of a folder")
    for name in _FILES:
        check_place(path / name, overwrite=overwrite)
    timm = _needed()
    name, args = timm_name(learn)
    of = exported(learn)
    if of.about["activation"] not in _PROBLEMS:
        raise ValueError(
            "timm's layout is for logits of softmax or of sigmoid, and probabilities here are "
            f"{of.about['activation']}; export a .onnx or .pt2 file"
        )
    licence = licence_of(learn, name)
    with TemporaryDirectory() as aside, seeded_rng(0):
        network = _as_timms(timm, of, name, args)
        _save(timm, network, of, licence[0], Path(aside))
        opened = timm.create_model(f"local-dir:{aside}", pretrained=True).eval()
        said = _compared(of, opened, f"{path.name}/")
        files = {name: (Path(aside) / name).read_bytes() for name in _FILES[:2]}
    files["README.md"] = model_card(learn, of, name, path.name, licence).encode()
    make_folder(path)
    for name in _FILES:
        write_whole(path / name, files[name])
    return said


def _needed() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise ValueError(
            'format="hub" needs timm, which is not installed: pip install timm'
        ) from None
    return timm


def _as_timms(timm: ModuleType, of: Exported, name: str, args: dict) -> nn.Module:
    """timm's network with the weights of the model."""
    try:
        network = timm.create_model(name, num_classes=of.expected[-1].shape[1], **args)
    except Exception as error:  # of whatever kind timm's networks raise
        text = shortened(" ".join(str(error).split()))
        raise ValueError(
            f"timm cannot make {name} ({text}); export a .onnx or .pt2 file"
        ) from error
    weights = under_timms_names(of.model.model.state_dict(), network.state_dict(), name)
    network.load_state_dict(weights)
    return network.eval()


def _save(timm: ModuleType, network: nn.Module, of: Exported, licence: str, folder: Path) -> None:
    size, side = of.about["size"], of.about["resize"]
    share = size / side
    while math.floor(size / share) < side:  # as timm works out the side again
        share = math.nextafter(share, 0)
    model_config = {
        "label_names": of.about["class_names"],
        "problem_type": _PROBLEMS[of.about["activation"]],
        "pretrained_cfg": {"tag": "nbfinetune", "license": licence},  # not of other weights
    }
    data_config = {
        "input_size": (3, size, size),
        "interpolation": "bilinear",
        "mean": tuple(of.about["mean"]),
        "std": tuple(of.about["std"]),
        "crop_pct": share,
        "crop_mode": "center",
    }
    try:
        timm.models.save_for_hf(
            network, folder, model_config, safe_serialization=True, data_config=data_config
        )
    except TypeError:  # it cannot say how pictures are scaled
        raise ValueError(
            f'format="hub" needs a newer timm than {timm.__version__}: pip install -U timm'
        ) from None
    config = json.loads((folder / "config.json").read_text())
    config.get("model_args", {}).pop("num_classes", None)  # transformers would give it twice
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _compared(of: Exported, network: nn.Module, folder: str) -> str:
    """Compare what both give before their last layers, too: a head of zeros would hide all else."""
    model = of.model.model
    own_head = model[-1] if isinstance(model, nn.Sequential) else model.get_classifier()
    heads = own_head, network.get_classifier()

    def run(pictures: Tensor) -> tuple[Tensor, ...]:
        x = of.model.normalised(pictures)
        before = [_before(*pair, x) for pair in zip((model, network), heads, strict=True)]
        return *before, network(x)

    ours, theirs, logits = batches_through(run, of.pictures)
    compared((ours,), (theirs,), folder, f"{of.what}, before its last layer")
    return compared(of.expected[1:], (logits,), folder, of.what)


def _before(network: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer of a network is given, [n, c]."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    try:
        network(x)
    finally:
        hook.remove()
    return seen[0]
