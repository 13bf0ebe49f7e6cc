"""Assembly: body and new head in a row, with their layer groups."""

from collections.abc import Sequence

import torch
from torch import nn

from nbfinetune.networks.backbones import Backbone, body_groups, feature_map
from nbfinetune.networks.classifiers import without_classifier
from nbfinetune.networks.heads import fastai_head, linear_head
from nbfinetune.networks.layer_groups import LayerGroup
from nbfinetune.networks.outputs import giving_tensors, pictures_through


def assemble(
    backbone: Backbone, head: str, vocab: int | Sequence[str], size: int
) -> tuple[nn.Sequential, list[LayerGroup]]:
    """Body and new head in a row, and their layer groups.

    Parameters
    ----------
    head : "linear" or "fastai"
    vocab : classes, or how many there are; a linear head of classes that the network was trained on
        starts as its own classifier
    """
    n_out = vocab if isinstance(vocab, int) else len(vocab)
    network = backbone.network
    body = feature_map(backbone, size) if head == "fastai" else None
    if body is None:
        body = without_classifier(network, size)
    if not backbone.name:
        body = giving_tensors(body, size)
    with torch.no_grad():
        shape = pictures_through(body.eval(), size, type(network).__name__).shape
    if len(shape) not in (2, 4):
        raise ValueError(
            f"without its classifier {type(network).__name__} gives {list(shape)}, not features "
            "[n, c] or [n, c, h, w]; average the others in its forward"
        )
    if len(shape) == 4 and head == "linear":
        body = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if head == "fastai":
        top = fastai_head(shape[1], n_out, pool=len(shape) == 4)
    else:
        top = linear_head(shape[1], n_out)
        if backbone.classifier and not isinstance(vocab, int):
            backbone.classifier.put(top, vocab)
    return nn.Sequential(body, top), [*body_groups(backbone, body), [top]]
