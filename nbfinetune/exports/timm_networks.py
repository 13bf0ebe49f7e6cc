"""timm networks: which network of timm is the learner's, and its weights under timm's names.

The weights of networks that have the same layers come in the same order, under whatever names; that
the layers are the same shows in what they give, which the caller compares.
"""

from torch import Tensor, nn

from nbfinetune.training.state import LearnerState

# torchvision's name, or PyPI's -> timm's, where it is another one.
_RENAMED = {
    "efficientnet_lite0": "tf_efficientnet_lite0",  # pads as TensorFlow does
    "efficientnet_v2_s": "efficientnetv2_s",
    "efficientnet_v2_m": "efficientnetv2_m",
    "efficientnet_v2_l": "efficientnetv2_l",
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
}
_SAME = ("convnext_", "densenet", "efficientnet_b", "inception_v3", "resne", "vgg", "wide_resnet")
# torchvision gives the BatchNorm of these an eps of 1e-3, timm of 1e-5.
_BN_EPS = (
    "mobilenet_v3",
    "efficientnet_v2",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
)
_OF_HEAD = 2  # tensors of a linear layer
_FAMILIES = (
    "networks of timm, efficientnet_lite0, and of torchvision ConvNeXt, DenseNet, EfficientNet, "
    "Inception v3, MNASNet up to 1.0, MobileNet, ResNet, ResNeXt, VGG and Wide ResNet"
)


def timm_name(learn: LearnerState) -> tuple[str, dict[str, object]]:
    """What timm calls the network of a learner, and the arguments to make it.

    Raises
    ------
    ValueError
        If it has none, or its head has no place in it.
    """
    arch = learn.config.get("arch", "")
    network = _network(learn.model)
    known = getattr(network, "pretrained_cfg", None) or {}
    if arch.startswith("timm:"):
        name, args = arch.removeprefix("timm:"), _of_size(network)
    elif arch in _RENAMED or arch.startswith(_SAME):
        name = _RENAMED.get(arch, arch)
        args = {"bn_eps": 1e-3} if arch.startswith(_BN_EPS) else {}
    elif known.get("architecture"):  # a module of timm that the user made
        name, args = known["architecture"], dict(getattr(network, "_model_args", {}))
        args.pop("num_classes", None)
    else:
        raise ValueError(
            f"{arch or type(learn.model).__name__} has no place in timm's layout; it is for "
            f"{_FAMILIES}; export a .onnx or .pt2 file"
        )
    head = list(learn.model)[-1] if isinstance(learn.model, nn.Sequential) else None
    if network is not learn.model and not isinstance(head, nn.Linear):
        raise ValueError(
            f"the head of this learner ({type(head).__name__} of {len(list(head.children()))} "
            "layers) has no place in timm's layout, which ends with one linear layer; make the "
            'learner with head="linear", or export a .onnx or .pt2 file'
        )
    return name, args


def _of_size(network: nn.Module) -> dict[str, object]:
    """The size that a network was built for, where it is one for a fixed size."""
    given = getattr(network, "_model_args", {})
    return {"img_size": given["img_size"]} if given.get("img_size") else {}


def _network(model: nn.Module) -> nn.Module:
    """The body of a model, or the model itself if it is a network of timm as it is."""
    if isinstance(model, nn.Sequential) and len(model) and not hasattr(model, "pretrained_cfg"):
        first = model[0]
        return getattr(first, "network", first)
    return model


def under_timms_names(
    own: dict[str, Tensor], timms: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Weights of a learner's model under the names, and in the shapes, of timm's network.

    Raises
    ------
    ValueError
        If they are others.
    """
    same_count = len(own) == len(timms)
    body = {key.removeprefix("0."): tensor for key, tensor in own.items()}
    last = [key for key in timms if key not in body]  # of the classifier, if the others are there
    if same_count and set(own) == set(timms):
        ours = [own[key] for key in timms]
    elif same_count and len(last) == _OF_HEAD:
        named = body | dict(zip(last, list(own.values())[-_OF_HEAD:], strict=True))
        ours = [named[key] for key in timms]
    elif same_count:
        ours = list(own.values())
    else:
        raise ValueError(
            f"this network has {len(own)} tensors, and timm's {name} has {len(timms)}, so it has "
            "no place in timm's layout; export a .onnx or .pt2 file"
        )
    pairs = list(zip(timms.items(), ours, strict=True))
    if wrong := [key for (key, theirs), tensor in pairs if tensor.numel() != theirs.numel()]:
        raise ValueError(
            f"this network has other layers than timm's {name} ({wrong[0]} is the first), so it "
            "has no place in timm's layout; export a .onnx or .pt2 file"
        )
    return {key: tensor.reshape(theirs.shape).contiguous() for (key, theirs), tensor in pairs}
