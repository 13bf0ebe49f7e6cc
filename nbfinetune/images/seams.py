"""Seams: where the colours of a JPEG jump in the middle of it, as they do after damaged data.

JPEG codes the mean of a block as its difference to the block before. Damage that leaves the count
of blocks as it was shifts all blocks that follow: from some block of a row to the same column of
the next row, all colours differ by one value from those right above, and what is seen goes on. An
edge of the picture itself follows no such stair, ends within a row, or changes what is seen.
"""

import io

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from nbfinetune.images.jpeg_segments import DQT, segments

_BLOCKS = 8  # across, at least: fewer tell nothing
_ONE_SIGN = 0.8  # share of a jump that is left of the sum of its parts: less is no jump
_SMALLEST = 1.0  # jump that is looked at, in grey levels
_CLEAR = 2.0  # times the spread of a jump (damage: 80 % are above; 7 of 370 photos, all framed)
_FRAMED = 1.5  # the same where there is more to tell by
_STAIR = 0.06  # share of blocks that fit a stair and no edge along a row (0 in 370 photos)
_SAME = 0.5  # spread of the jump over that of what is seen: less, and it goes on
_SEEN = 3.0  # spread of what is seen, in grey levels: less is flat
_LEVELS, _LEVEL = 12, 6  # a row has more values than these, so many grey levels apart, or is drawn
_MAD = 1.4826  # standard deviation over the median of absolute deviations


def jumps(pixels: np.ndarray, unit: int, block: int) -> str:
    """Whether the colours of a JPEG jump: "" (no), "perhaps" or "yes".

    Parameters
    ----------
    pixels : as they were decoded, uint8 [h, w] or [h, w, c]
    unit, block : height of what is coded together and width of a block, in these pixels
    """
    n = pixels.shape[1] // block
    if unit < 2 or pixels.shape[0] < 3 * unit + 2 or n < _BLOCKS:
        return ""
    one = [pixels[:, block // 2 : n * block : block]]
    if not _found(_jump(_rows_at_seams(one, unit)), n).any():
        return ""
    some = [pixels[:, k : n * block : block] for k in range(0, block, max(block // 4, 1))]
    rows = _rows_at_seams(some, unit)
    jump, (_, above, below, _) = _jump(rows), rows
    found = _found(jump, n)
    each = zip(jump.T, above.T, below.T, found.T, strict=True)
    return max(_judged(*values, n) for values in each)


def _rows_at_seams(columns: list[np.ndarray], unit: int) -> list[np.ndarray]:
    """The two rows of pixels before each seam and the two after it, as means [seams x n, c]."""
    height, channels = columns[0].shape[0], columns[0][0, 0].size
    n = (height - 2) // unit
    rows = []
    for k in (-2, -1, 0, 1):
        total = columns[0][unit + k :: unit][:n].astype(np.float32)
        for column in columns[1:]:
            total += column[unit + k :: unit][:n]
        rows.append(total.reshape(-1, channels) / len(columns))
    return rows


def _jump(rows: list[np.ndarray]) -> np.ndarray:
    """How far values jump, without the slope on both sides, which a smooth picture has."""
    before, above, below, after = rows
    return 1.5 * (below - above) - 0.5 * (after - before)


def _found(jump: np.ndarray, n: int) -> np.ndarray:
    """Where n blocks on end jump the same way."""
    whole, parts = _sums(jump, n), _sums(np.abs(jump), n)
    return (np.abs(whole) > _ONE_SIGN * parts) & (np.abs(whole) > _SMALLEST * n)


def _sums(values: np.ndarray, n: int) -> np.ndarray:
    """Sums of n rows on end, from each row on."""
    total = np.zeros((len(values) + 1, values.shape[1]), np.float32)
    np.cumsum(values, 0, out=total[1:])
    return total[n:] - total[:-n]


def _judged(
    jump: np.ndarray, above: np.ndarray, below: np.ndarray, found: np.ndarray, n: int
) -> str:
    """The answer for one channel, of the places where a row's width of blocks may jump."""
    at = np.flatnonzero(found)
    if not len(at):
        return ""
    size, spread = _median_and_spread(_windows(jump, n)[at])
    clear = np.abs(size) > _FRAMED * (spread + 1)
    if not clear.any():
        return ""
    at, size, spread = at[clear], size[clear], spread[clear]
    seen = np.minimum(*(_median_and_spread(_windows(v, n)[at])[1] for v in (above, below)))
    goes_on = (seen >= _SEEN) & (spread < _SAME * seen) & (np.abs(size) > _CLEAR * (spread + 1))
    row = at - at % n
    next_row = np.minimum(row + n, len(jump) - n)
    along = np.maximum(_fitting(jump, row, size, n), _fitting(jump, next_row, size, n))
    stair = _fitting(jump, at, size, n) - along > _STAIR
    sure = [at[i] for i in np.flatnonzero(goes_on & stair)]
    drawn = all(len(np.unique(above[i : i + n] // _LEVEL)) < _LEVELS for i in sure)
    return "perhaps" if drawn else "yes"


def _windows(values: np.ndarray, n: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, n)


def _median_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = np.median(values, 1)
    return middle, _MAD * np.median(np.abs(values - middle[:, None]), 1)


def _fitting(jump: np.ndarray, at: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
    """The share of the blocks from these places on that jump by this size, or half or twice it."""
    away = np.abs(_windows(jump, n)[at] - size[:, None])
    return (away <= np.abs(size)[:, None] / 2).mean(1)


def is_beyond(data: bytes) -> bool:
    """Whether blocks have means that no picture has, as where damage has shifted them.

    They are decoded alone, the steps that they come in being half as large as they are: so those
    beyond the range of 8 bits do not end at its ends.
    """
    steps: dict[int, int] = {}
    halved = bytearray(data)
    for marker, place, content in segments(data, len(data)):
        i = 0
        while marker == DQT and i < len(content):
            size, table = 1 + (content[i] >> 4), content[i] & 15
            steps[table] = int.from_bytes(content[i + 1 : i + 1 + size]) or 1
            first = max(steps[table] // 2, 1).to_bytes(size)
            halved[place + i + 1 : place + i + 1 + 64 * size] = first + bytes(63 * size)
            i += 1 + 64 * size
    image = JpegImageFile(io.BytesIO(halved))
    image.draft("YCbCr", (1, 1))
    try:
        image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    # The largest mean is 1024 of 8 pixels, which a step rounds up by half of it.
    most = max(max(step // 2, 1) * (1024 / step + 0.5) for step in steps.values()) / 8
    return any(low < 128 - most - 1.5 or high > 128 + most + 1.5 for low, high in _ends(image))


def _ends(image: JpegImageFile) -> list[tuple[int, int]]:
    """The lowest and the highest value of each channel."""
    ends = image.getextrema()
    return list(ends) if isinstance(ends[0], tuple) else [ends]
