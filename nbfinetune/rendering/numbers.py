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


def minutes(seconds: float) -> str:
    """Seconds as mm:ss, as fastai shows time.

    Examples
    --------
    >>> minutes(61.9)
    '01:01'
    """
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def counted(n: int, what: str) -> str:
    """A number of things in words.

    Examples
    --------
    >>> counted(1, "epoch"), counted(1200, "step")
    ('1 epoch', '1,200 steps')
    """
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
