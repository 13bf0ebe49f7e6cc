"""Numbers as texts, in one spelling on all screens."""


def rate_text(lr: float) -> str:
    """A learning rate in two digits, as one types it: without a padded exponent.

    Examples
    --------
    >>> rate_text(0.0019), rate_text(0.5), rate_text(1e-10), rate_text(3)
    ('1.9e-3', '5.0e-1', '1.0e-10', '3.0e0')
    """
    digits, _, exponent = f"{lr:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits  # nan and inf have none


def counted(n: int, noun: str) -> str:
    """How many there are of something whose plural ends with s.

    Examples
    --------
    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
