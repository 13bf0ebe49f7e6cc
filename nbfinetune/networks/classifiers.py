"""Classifiers: the layer of a network that gives its output, found by what it does, and taken off.

The order in which layers are registered says nothing: what was called last, and whose values are
the output, shows in the graph that autograd keeps of one forward pass.
"""

import re

import torch
from torch import Tensor, nn

from nbfinetune.networks.outputs import LogitsOf, logits_of, pictures_through

# What may come between a classifier and the output, as autograd names it. Activations, norms and
# sums with other branches may not: a network that ends with them gives features.
_RESHAPED = "View UnsafeView ReshapeAlias Squeeze Unsqueeze Select Slice Permute Transpose T Clone "
_POOLED = "Mean Sum Amax AdaptiveAvgPool2D AvgPool2D AdaptiveMaxPool2D MaxPool2DWithIndices "
_JOINED = "Add Sub Mul Div Cat Stack "  # with a number, or the outputs of several classifiers
_PROBABILITY = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid")
_PASSED = {*(_RESHAPED + _POOLED + _JOINED + "AsStrided ToCopy Alias").split(), *_PROBABILITY}
_PRODUCTS = ("Addmm", "Mm")
_CLASSIFIER = "classifier"  # SqueezeNet's is a convolution, and a ReLU comes after it
_Node = torch.autograd.graph.Node


class _Trace:
    """The layers that lie between the output of one forward pass and what was before them.

    Attributes
    ----------
    classifiers : names of the linear layers and convolutions that give the output
    probabilities : names of the layers behind them that turn logits into probabilities, and of
        functions, which have no name, those of autograd
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        self.network = network
        self.classifiers: list[str] = []
        self.probabilities: list[str] = []
        self._layers: dict[_Node, tuple[str, nn.Module, Tensor]] = {}
        hooks = []
        for name, module in network.named_modules():
            if name and isinstance(module, (nn.Linear, nn.Conv2d, nn.Softmax, nn.LogSoftmax,
                                            nn.Sigmoid, nn.LogSigmoid)):  # fmt: skip
                hooks.append(module.register_forward_hook(self._noting(name)))
        trained = [(p, p.requires_grad) for p in network.parameters() if p.is_floating_point()]
        try:
            for p, _ in trained:
                p.requires_grad_(True)
            with torch.enable_grad():
                out = pictures_through(network, size, type(network).__name__)
            self.output = logits_of(out, model=network)
        finally:
            for hook in hooks:
                hook.remove()
            for p, requires_grad in trained:
                p.requires_grad_(requires_grad)
        if self.output.grad_fn is None:
            raise ValueError(
                f"what {type(network).__name__} gives has no gradient, so nothing can train; leave "
                "torch.no_grad(), detach() and argmax out of its forward"
            )
        if not self._walk(self.output.grad_fn):
            self.classifiers, self.probabilities = [], []

    def _noting(self, name: str):
        def note(module: nn.Module, inputs: tuple, out: Tensor) -> None:
            if out.grad_fn is not None:
                self._layers[out.grad_fn] = name, module, out

        return note

    def _walk(self, node: _Node, *, active: bool = False, alone: bool = True) -> bool:
        """Whether all that leads to a node comes from classifiers; notes which these are.

        active : whether there is a ReLU between it and the output
        alone : whether no other branch leads there
        """
        kind = re.sub(r"Backward\d*$", "", type(node).__name__)
        name, layer, out = self._layers.get(node, ("", None, None))
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            if not _classifies(name, layer, out, active):
                return False
            self.classifiers.append(name)
            return True
        if kind in _PRODUCTS and alone and not active:
            raise ValueError(
                f"the output of {type(self.network).__name__} is a matrix product that is no "
                "nn.Linear, so its classifier cannot be taken off; make it an nn.Linear, or put a "
                "head on it yourself: Learner(dls, nn.Sequential(body, nn.Linear(n_features, "
                "n_classes)))"
            )
        if kind in _PROBABILITY:
            self.probabilities.append(name or kind)
        if kind not in _PASSED and kind != "Relu":
            return False
        before = [n for n, _ in node.next_functions if n is not None]
        before = [n for n in before if not hasattr(n, "variable")]  # less parameters themselves
        active, alone = active or kind == "Relu", alone and len(before) == 1
        return bool(before) and all(self._walk(n, active=active, alone=alone) for n in before)


def _classifies(name: str, layer: nn.Module, out: Tensor, active: bool) -> bool:
    """Whether a layer whose values are the output is a classifier, not the end of a body."""
    if active and not (isinstance(layer, nn.Conv2d) and _CLASSIFIER in name):
        return False
    if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1):
        return True
    # A linear layer in the form of a convolution takes the whole map.
    return tuple(out.shape[2:]) == (1, 1) and layer.padding in (0, (0, 0))


def without_classifier(network: nn.Module, size: int) -> nn.Module:
    """The network in eval mode with its classifier passed through, as it is if it has none.

    Gives features [n, c] or [n, c, h, w]. The classifier is the linear layer or convolution whose
    values are the output, as a forward pass shows; timm's networks take it off themselves. A
    network that ends otherwise, or with a feature map, gives features already.

    Parameters
    ----------
    network : is changed
    size : side of the pictures in pixels

    Raises
    ------
    ValueError
        If the network cannot be run, gives no tensor, or none that can be trained; if several
        layers give its output; if probabilities are taken of it by a function.
    """
    kind = type(network).__name__
    trace = _Trace(network.eval(), size)
    if callable(getattr(network, "reset_classifier", None)):
        network.reset_classifier(0)  # timm's
    elif trace.output.dim() == 2 and trace.classifiers:
        names = sorted(set(trace.classifiers))
        if len(names) > 1:
            raise ValueError(
                f"{kind} has {len(names)} layers whose outputs are joined: {', '.join(names)}; "
                "pass a network with one classifier"
            )
        _pass_through(network, [*names, *trace.probabilities])
    with torch.no_grad():
        out = pictures_through(network, size, f"{kind} without its classifier")
    return network if isinstance(out, Tensor) else LogitsOf(network)


def _pass_through(network: nn.Module, names: list[str]) -> None:
    """Put an identity in the place of these layers, under whatever names they have."""
    modules = dict(network.named_modules(remove_duplicate=False))
    if functions := [name for name in names if name not in modules]:
        raise ValueError(
            f"{type(network).__name__} takes the {functions[0].lower()} of its classifier "
            f"{names[0]}; leave that out of its forward: the loss and the metrics take logits"
        )
    layers = [modules[name] for name in names]
    for name, module in modules.items():
        if name and any(module is layer for layer in layers):
            network.set_submodule(name, nn.Identity())
