"""Hugging Face: image classifiers of transformers, by the name of a repository or a folder.

Weights are read from safetensors alone; nothing is unpickled, and no code of a repository is run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from warnings import warn

import torch
from torch import Tensor, nn

from nbfinetune.arguments import users_line
from nbfinetune.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from nbfinetune.rendering.names import first_few, shortened, shown

PREFIX = "hf:"
_OWN = ("id2label", "label2id", "auto_map", "attn_implementation")
_BYTES = 255.0  # the largest value of a channel


@dataclass(frozen=True)
class Classifier:
    """The last layer of a trained network, and what its outputs are called.

    Parameters
    ----------
    weight, bias : shapes [c, d] and [c]
    labels : c names
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]

    def put(self, head: nn.Linear, vocab: Sequence[str]) -> None:
        """Copy the rows of these classes into a head, if it is of all of them."""
        rows = {label: i for i, label in enumerate(self.labels)}
        if head.in_features == self.weight.shape[1] and all(name in rows for name in vocab):
            chosen = [rows[name] for name in vocab]
            with torch.no_grad():
                head.weight.copy_(self.weight[chosen])
                head.bias.copy_(self.bias[chosen])


def load_classifier(
    name: str, *, pretrained: bool, described: Mapping | None
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...], dict, Classifier | None]:
    """A network with mean and std of its channels, its config and its classifier.

    Parameters
    ----------
    name : "hf:" and a repository or a folder
    described : its config, where a file of ours holds one; then nothing else is read

    Raises
    ------
    ValueError
        If there is no such folder, or it holds no image classifier or no safetensors.
    OSError
        If the repository cannot be reached, nor is in the cache.
    """
    transformers = _transformers(name)
    place = _place(name) if described is None else ""
    config = _config(transformers, name, place, described)
    auto = transformers.AutoModelForImageClassification
    if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{name} is a {config.model_type}, which transformers has no image classifier of; "
            "pass a network for image classification"
        )
    if not pretrained:
        network = _untrained(auto, name, config)
        channels = (IMAGENET_MEAN, IMAGENET_STD) if described else _channels(place, name, network)
        return network, *channels, plain_config(config), None
    network, found = auto.from_pretrained(
        place,
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    of_body = [k for k in found["missing_keys"] if k.startswith(f"{network.base_model_prefix}.")]
    if of_body:
        raise ValueError(
            f"{name} has no weights for {len(of_body)} tensors of its body "
            f"({first_few(sorted(of_body))}); save the whole network with save_pretrained"
        )
    channels = _channels(place, name, network)
    return network, *channels, plain_config(config), _classifier(network, found["missing_keys"])


def _transformers(name: str) -> object:
    try:
        import transformers
    except ImportError:
        raise ValueError(
            f"{name} needs transformers, which is not installed: pip install transformers"
        ) from None
    return transformers


def _place(name: str) -> str:
    """The folder or repository; a folder must have config and weights as transformers writes."""
    plain = name.removeprefix(PREFIX)
    folder = Path(plain).expanduser()
    if not folder.is_dir():
        if plain.startswith((".", "/", "~")) or plain.count("/") > 1 or not plain:
            raise ValueError(f"no folder {shortened(plain)}; pass hf:FOLDER or hf:OWNER/NAME")
        return plain
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{name} has no config.json; pass a folder that save_pretrained of transformers wrote"
        )
    return str(folder)


def _config(transformers: object, name: str, place: str, described: Mapping | None) -> object:
    try:
        if described is not None:
            own = plain_config(described)
            return transformers.AutoConfig.for_model(**own)
        return transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"transformers cannot build {name} from its config: {one_line(error)}"
        ) from None


def _untrained(auto: object, name: str, config: object) -> nn.Module:
    try:
        return auto.from_config(config, trust_remote_code=False).float()
    except Exception as error:  # whatever its code makes of a config
        raise ValueError(
            f"transformers cannot build {name} from its config: {one_line(error)}"
        ) from None


def plain_config(config: object) -> dict:
    """What builds a network again, as JSON has it: without its classes, code and private parts."""
    if not isinstance(config, Mapping):
        config = json.loads(config.to_json_string(use_diff=False))
    return {k: v for k, v in config.items() if k not in _OWN and not k.startswith("_")}


def one_line(error: Exception) -> str:
    """The first sentence or two of what transformers says in many lines."""
    return shortened(" ".join(str(error).split()))


def _channels(
    place: str, name: str, network: nn.Module
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for values in [0, 1], by the processor; its other order of colours is undone.

    Raises ValueError for a processor of another kind; a folder without one is warned of.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError) as error:
        warn(
            f"{name} has no processor that tells its normalisation ({one_line(error)}): that of "
            "ImageNet is taken; pass normalize=(mean, std) for another",
            stacklevel=users_line(),
        )
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = (0.0,) * 3, (1.0,) * 3
    if getattr(processor, "do_normalize", False):
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{name} takes pictures of {len(mean)} channels, {shown(mean)}, not 3")
    scale = _BYTES * processor.rescale_factor if getattr(processor, "do_rescale", True) else _BYTES
    below = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    if getattr(processor, "do_flip_channel_order", False):
        _take_rgb(network)
    return tuple((m + below) / scale for m in mean), tuple(s / scale for s in std)


def _take_rgb(network: nn.Module) -> None:
    """Let the first convolution of a network that was trained on BGR take RGB."""
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))


def _classifier(network: nn.Module, missing: Sequence[str]) -> Classifier | None:
    """The trained layer that gives the output, if it is the only linear one of that width."""
    labels = tuple(label for _, label in sorted(network.config.id2label.items()))
    last = [
        (name, m)
        for name, m in network.named_modules()
        if isinstance(m, nn.Linear) and m.out_features == len(labels) and m.bias is not None
    ]
    if len(last) != 1 or f"{last[0][0]}.weight" in missing:
        return None
    layer = last[0][1]
    return Classifier(layer.weight.detach().clone(), layer.bias.detach().clone(), labels)
