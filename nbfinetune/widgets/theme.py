"""Theme: the colours of screens, which CSS variables of `screens.css` hold for light and dark."""

PAPER = {"fill": "var(--nbft-paper)", "stroke": "var(--nbft-rule)"}  # bqplot's background_style


def series_colour(k: int) -> str:
    """The colour of the k-th line of a plot."""
    return f"var(--nbft-{k % 5})"
