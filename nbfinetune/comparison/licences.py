"""Licences: under which the weights of a network are given, where that is known."""


def weights_licence(name: str) -> str:
    """The licence of a network's default weights, "" where their library states none.

    timm states it for most; torchvision for some, by an address; the packages of the lite networks
    do not.

    Parameters
    ----------
    name : as for `vision_learner`
    """
    if name.startswith("timm:"):
        import timm

        cfg = timm.get_pretrained_cfg(name.removeprefix("timm:"))
        return (cfg and cfg.license) or ""
    import torchvision.models as tv

    if name not in tv.list_models(module=tv):
        return ""
    return tv.get_model_weights(name).DEFAULT.meta.get("license", "")
