"""Vision: a pretrained body with a new head, as a learner; and learners from exported files."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from warnings import catch_warnings

import torch
from torch import Tensor, nn

from nbfinetune.arguments import as_whole_number, check_bool, check_number
from nbfinetune.checkpoints import checkpoint, safetensors_file
from nbfinetune.checkpoints.fitting import check_weights_fit, parted
from nbfinetune.checkpoints.header import check_buildable
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.numbers import checked_channels, class_counts, class_weights_of
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.learner import Learner
from nbfinetune.networks.assembly import assemble
from nbfinetune.networks.backbones import Arch, Backbone, Weights, load_backbone
from nbfinetune.networks.layer_groups import LayerGroup
from nbfinetune.networks.skeletons import WithoutMemory
from nbfinetune.objectives.logit_adjustment import LogitAdjustedLoss
from nbfinetune.objectives.metrics import Metric, error_rate
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.calls import makes
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.options import SEEDS, vocab_difference

HEADS = ("linear", "fastai")
# Of a file, what builds a model again, and where its weights are from.
_DESCRIBING = ("arch", "head", "mean", "std", "hf", "weights")
_MANY_BYTES = 2**25  # of a network that is built for a file of a few bytes
_TRIED = 512  # px at which a network of a file is tried out; convolutions take memory by the area


@makes
def vision_learner(
    dls: ImageDataLoaders,
    arch: Arch,
    *,
    pretrained: bool | None = None,
    weights: Weights = "DEFAULT",
    head: str = "linear",
    metrics: Metric | Sequence[Metric] = error_rate,
    loss_func: Callable[[Tensor, Tensor], Tensor] | None = None,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | Mapping[str, float] | str | None = None,
    logit_adjustment: bool = False,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    train_bn: bool | None = None,
    seed: int = 42,
    **options,
) -> Learner:
    """A learner of a pretrained network with a new head; the body is frozen.

    Parameters
    ----------
    dls : the data
    arch : a torchvision classification model, by name or builder; "efficientnet_lite0" (or 1, 2);
        "timm:NAME" if timm is installed; "hf:NAME" or "hf:./FOLDER", an image classifier of
        transformers, if that is; or any nn.Module (it is copied): with a classifier at its end,
        which is taken off, or one that gives features [n, c] or [n, c, h, w]
    pretrained : False is fastai's way to say weights=None
    weights : "DEFAULT" or another name of the architecture's weights, a file of them (a state dict,
        alone or in a checkpoint, or safetensors), or None to train from scratch
    head : "linear", one layer that starts at zero, or "fastai", its head of two layers; on 370 pets
        photos, 5 seeds, `fine_tune` had mean errors of 0.121 and 0.131 (medians 0.126 and 0.117)
        before it fitted linear heads anew; a linear one of an "hf:" network that was trained on all
        classes of `dls.vocab` starts as its own classifier
    metrics, loss_func : as in `Learner`; the default loss is cross entropy with the next three
    label_smoothing : share of the target that is spread over all classes, in [0, 1)
    class_weights : weight of each class in the loss, in the order of `dls.vocab` or, as a dict or
        pandas Series, by name or number; "balanced" = inverse to its pictures; on three uneven
        sets of four `logit_adjustment` helped rare classes more (benchmarks, Imbalance)
    logit_adjustment : learn as if all classes were equally common: the logarithm of each class's
        share of the training pictures is added to the logits in the loss, not in predictions (Menon
        et al. 2021). On long-tailed CIFAR-10 (15 to 1) the mean error over classes was 0.454,
        with "balanced" weights 0.478, with neither 0.523; the error where classes are as common as
        in training 0.373, 0.356 and 0.333
    normalize : mean and std of the channels; default: those of the weights
    train_bn : see `Learner`; default: False for a pretrained body, True from scratch
    seed : of the head and of all that is random in training
    **options : further arguments of `Learner`

    Raises
    ------
    ValueError, RuntimeError
        For names that do not exist, weights that cannot be had, options out of range.

    Examples
    --------
    >>> learn = vision_learner(dls, "resnet34")  # doctest: +SKIP
    >>> learn.fine_tune(3)  # doctest: +SKIP
    """
    if pretrained is not None and not isinstance(pretrained, bool):
        raise ValueError(f"pretrained is {shown(pretrained)}; it must be True or False")
    if pretrained is False:
        if weights not in ("DEFAULT", None):
            raise ValueError(
                f"pretrained=False is from scratch, but weights is {shown(weights)}; leave one out"
            )
        weights = None
    elif pretrained and weights is None:
        raise ValueError("pretrained=True needs weights, but weights is None; leave one out")
    if head not in HEADS:
        raise ValueError(f"head is {shown(head)}; it must be one of {', '.join(HEADS)}")
    if not isinstance(dls, ImageDataLoaders):
        raise ValueError(f"dls is a {type(dls).__name__}; vision_learner takes ImageDataLoaders")
    if loss_func is not None and (class_weights is not None or label_smoothing):
        raise ValueError(
            "class_weights and label_smoothing are of the default loss, but there is a loss_func; "
            "give them to that, as CrossEntropyLoss(weight=, label_smoothing=), or leave it out"
        )
    check_bool(logit_adjustment=logit_adjustment)
    if logit_adjustment and (loss_func is not None or class_weights is not None):
        other = "class_weights" if loss_func is None else "loss_func"
        raise ValueError(f"logit_adjustment is for a loss without {other}; leave one of them out")
    check_number("label_smoothing", label_smoothing, 0, 1, such_as=0.1)
    seed = as_whole_number("seed", seed, 0, SEEDS - 1)
    channels = None if normalize is None else checked_channels(normalize)
    if loss_func is None:
        targets = dls.train.dataset.targets
        if logit_adjustment:
            counts = class_counts(targets, len(dls.vocab))
            loss_func = LogitAdjustedLoss(counts, label_smoothing=label_smoothing)
        else:
            weight = class_weights_of(class_weights, dls.vocab, targets)
            loss_func = nn.CrossEntropyLoss(weight, label_smoothing=label_smoothing)
    with seeded_rng(seed):
        backbone = load_backbone(arch, weights, dls.size)
        model, groups = assemble(backbone, head, dls.vocab, dls.size)
    mean, std = channels or (backbone.mean, backbone.std)
    config = {"arch": backbone.name, "head": head, "mean": list(mean), "std": list(std)}
    config["weights"] = backbone.origin if backbone.pretrained else "none"  # for their licence
    config |= {"hf": backbone.hf} if backbone.hf else {}
    learn = Learner(
        dls,
        model.to(memory_format=torch.channels_last),
        groups=groups,
        loss_func=loss_func,
        metrics=metrics,
        train_bn=not backbone.pretrained if train_bn is None else train_bn,
        transforms=ImageTransforms(dls.size, tuple(mean), tuple(std), aug=dls.aug),
        seed=seed,
        config=config,
        **options,
    )
    if backbone.pretrained:
        if backbone.name:  # what a network keeps fixed was not set by the user's hand
            model.requires_grad_(True)
        learn.freeze_to(-1, quiet=True)
    return learn


cnn_learner = vision_learner  # its name in fastai's lectures


@makes
def load_learner(
    file: str | PathLike,
    dls: ImageDataLoaders | None = None,
    *,
    arch: nn.Module | None = None,
    **options,
) -> Learner:
    """The learner that `Learner.export` or `save` wrote, without the data it was trained on.

    Parameters
    ----------
    file : the file; it is never unpickled
    dls : data to train on further, of the same classes; its size is followed, if the network takes
        it; None for prediction only
    arch : the module, if the learner was made from one of the user's
    **options : further arguments of `Learner`

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged, from elsewhere, or needs `arch`.

    Examples
    --------
    >>> label, index, probs = load_learner("pets.safetensors").predict("cat.jpg")  # doctest: +SKIP
    """
    if dls is not None and not isinstance(dls, ImageDataLoaders):
        raise ValueError(f"dls is a {type(dls).__name__}; load_learner takes ImageDataLoaders")
    with safetensors_file.opened(file) as content:
        name, header = content.name, content.header
        check_buildable(header, name, HEADS)
        if not header["arch"] and arch is None:
            raise ValueError(f"{name} was trained from a module of yours; pass it as arch=")
        if dls is not None and dls.vocab != header["vocab"]:
            difference = vocab_difference(header["vocab"], dls.vocab)
            raise ValueError(f"dls does not fit {name}: {difference}")
        weights, _ = parted(content.entries)
        described = header["arch"] or arch, header["head"], len(header["vocab"]), header["size"]
        described = *described, header.get("hf")
        try:
            if skeleton := _skeleton(*described, weights):
                check_weights_fit(skeleton, weights, name)
            tensors = content.tensors()
            model, groups = _built(*described, weights, name, fits=bool(skeleton))
        except ValueError as error:
            of = "" if name in str(error) else f"{name} does not fit: "
            raise ValueError(f"{of}{error}") from None
    if "opt" in header:
        decay = max((group["weight_decay"] for group in header["opt"]), default=0.0)
        options = {"wd": decay} | options
    learn = Learner(
        None,
        model.to(memory_format=torch.channels_last),
        groups=groups,
        train_bn=header["train_bn"],
        transforms=ImageTransforms(header["size"], tuple(header["mean"]), tuple(header["std"])),
        config={key: header[key] for key in _DESCRIBING if key in header},
        **({"metrics": error_rate} | options),
    )
    learn.vocab = header["vocab"]
    checkpoint.put(learn, tensors, header, name)
    learn.dls = dls  # whose size and augmentation it follows
    return learn


def _skeleton(
    arch: Arch, head: str, n_out: int, size: int, hf: Mapping | None, weights: Mapping
) -> dict | None:
    """The state of a model without its values.

    None for one that cannot do without, and one that is not large beside its weights in a file.
    """
    known = isinstance(arch, str)
    if not known and size <= _TRIED:
        return None
    try:
        with catch_warnings(action="ignore"), seeded_rng(0), WithoutMemory():
            backbone = (
                load_backbone(arch, None, size, hf=hf) if known else Backbone("", deepcopy(arch))
            )
        there, needed = (
            sum(t.shape.numel() * t.dtype.itemsize for t in tensors.values())
            for tensors in (weights, backbone.network.state_dict())
        )
        if size <= _TRIED and needed <= _MANY_BYTES + 4 * there:
            return None
        backbone.network.to("meta")
        with seeded_rng(0), torch.device("meta"):
            return assemble(backbone, head, n_out, size)[0].state_dict()
    except Exception as error:  # whatever the code of a module makes of it
        if known and isinstance(error, ValueError):
            raise
        return None


def _built(
    arch: Arch,
    head: str,
    n_out: int,
    size: int,
    hf: Mapping | None,
    weights: Mapping,
    name: str,
    *,
    fits: bool,
) -> tuple[nn.Sequential, list[LayerGroup]]:
    """A model that takes these weights, and its layer groups.

    One for large pictures is tried out on smaller ones: what a file says costs no memory. `fits`
    says whether the weights are known to be those of the model at the full size.
    """
    for tried in sorted({min(size, _TRIED), size}):
        with seeded_rng(0):
            backbone = load_backbone(arch, None, size, hf=hf)
            try:
                model, groups = assemble(backbone, head, n_out, tried)
            except ValueError:  # it takes pictures of one size only
                if tried == size:
                    raise
                continue
        try:
            check_weights_fit(model.state_dict(), weights, name)
        except ValueError:  # or is another one at each size
            if tried == size or not fits:
                raise
        else:
            break
    return model, groups
