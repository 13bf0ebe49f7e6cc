"""Parameter groups: layer groups that another library has as lists of parameters."""

from collections.abc import Sequence

from torch import nn

from nbfinetune.networks.layer_groups import LayerGroup


def module_groups(
    model: nn.Module, lists: Sequence[Sequence[nn.Parameter]]
) -> tuple[list[LayerGroup], str]:
    """The largest modules that lie within one list of parameters, for each list.

    Modules without parameters belong to what comes before them, and so do parameters in no list.

    Returns
    -------
    groups : layer groups; one of the whole model where lists cut through a module
    note : why it is one group, or which parameters are in no list; "" for neither
    """
    lists = [parameters for parameters in lists if len(parameters)]
    if len(lists) < 2:
        return [[model]], ""
    group_of = {id(p): i for i, parameters in enumerate(lists) for p in parameters}
    groups: list[LayerGroup] = [[] for _ in lists]
    here = 0

    def walk(module: nn.Module, name: str) -> str:
        nonlocal here
        found = {group_of[id(p)] for p in module.parameters() if id(p) in group_of}
        if len(found) < 2:
            here = next(iter(found), here)
            groups[here].append(module)
            return ""
        if next(module.parameters(recurse=False), None) is not None:
            return name or type(module).__name__
        cut = (walk(child, f"{name}.{key}".strip(".")) for key, child in module.named_children())
        return next(filter(None, cut), "")

    if cut := walk(model, ""):
        return [[model]], f"its layer groups, as they cut through the module {cut} (one group here)"
    left = [name for name, p in model.named_parameters() if id(p) not in group_of]
    note = f"{len(left)} parameters in none of its groups, such as {left[0]}" if left else ""
    return groups, note and f"that its optimizer leaves out {note} (they are in a group here)"
