"""ViTs of torchvision, which are built for one size of pictures."""


def vit_size(name: str, size: int) -> dict[str, int]:
    """What builds a network of such a name for pictures of `size` px.

    Raises
    ------
    ValueError
        If patches, whose side is in its name, do not fill such pictures.
    """
    patch = int(name.rsplit("_", 1)[1])
    if size % patch:
        below = size // patch * patch
        near = f"{below} or {below + patch}" if below else str(patch)
        raise ValueError(
            f"{name} takes pictures whose side is a multiple of {patch} px, not of {size} px; make "
            f"the loaders with size={near}"
        )
    return {"image_size": size}
