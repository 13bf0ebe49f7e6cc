"""JPEG: photos decoded, and those refused whose data libjpeg would repair by guessing.

libjpeg fills with grey what is missing of the data and skips what is left over, which shifts all
that comes after the damage, and neither Pillow nor torchvision tells. But the data of a scan says
where it ends: a good photo is complete with the last byte of it and not before. What leaves the
count of blocks as it was is seen where it shifts the colours of all that comes after it (`seams`),
or makes them such as no picture has. What is less than that cannot be known: JPEG has no checksum.
"""

import io
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from PIL.JpegImagePlugin import JpegImageFile

from nbfinetune.images.jpeg_segments import (
    DHT,
    DRI,
    JFIF,
    METADATA,
    OTHER_FRAMES,
    RESTARTS,
    SIGNATURE,
    SOF,
    SOS,
    segments,
)
from nbfinetune.images.rgb import MAX_BYTES, array_of, bytes_of_pixel, check_bytes
from nbfinetune.images.seams import is_beyond, jumps

try:
    from torchvision.io import ImageReadMode

    # Not torchvision's function: it warns at each call, which takes 3 % of a photo's time.
    decode_jpeg = torch.ops.image.decode_jpeg
except (ImportError, AttributeError):  # 0.29 announces that a later one will be without
    decode_jpeg = None

_EOI = b"\xff\xd9"
_SPARE = 4  # bytes that some cameras leave between the data and its end
# libjpeg reads 8 bytes ahead. These end no code soon: what is missing is not made up of them.
_AHEAD = b"\xfe" * 8
_BLOCK = 8  # pixels across and down
_SMEARED = 2  # rows of pixels into which the chroma above them is
_GREY = 128  # what libjpeg makes of blocks without data


class _Pieces(io.BytesIO):
    """A file that is read in given pieces, whatever is asked for."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = pieces

    def read(self, size: int | None = -1) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@dataclass
class Jpeg:
    """One JPEG: its bytes, and the picture that Pillow opened of them.

    Raises
    ------
    OSError, SyntaxError, ValueError
        From `load` and `open`, if it is damaged.
    """

    data: bytes
    image: JpegImageFile
    start: int  # of the data of the first scan
    size: tuple[int, int]  # of the whole picture: it may be decoded smaller

    @classmethod
    def open(cls, data: bytes) -> "Jpeg":
        """The picture, not yet decoded; metadata that Pillow cannot parse are left out."""
        try:
            file = io.BytesIO(data)
            image = JpegImageFile(file)
        except Exception:  # of whatever kind the parsers of metadata raise
            file = io.BytesIO(_without_metadata(data))
            image = JpegImageFile(file)
        if not image.tile:
            raise OSError("it has no data of pixels")
        return cls(file.getvalue(), image, file.tell(), image.size)

    def shrink(self, least: int | None = None) -> bool:
        """Let Pillow decode it at a half, a quarter or an eighth of its size; whether it does.

        Parameters
        ----------
        least : what the shorter side has to have left; None = no less than memory asks for

        Raises
        ------
        UnreadableImage
            If it takes too much memory even so.
        """
        (width, height), factor = self.size, 1
        while least is not None and factor < _BLOCK and min(self.size) >= 2 * factor * least:
            factor *= 2
        each, rest = bytes_of_pixel(self.image), len(self.data)
        if not self._last.keys().isdisjoint(OTHER_FRAMES):  # all coefficients are held
            rest += 2 * self.image.layers * width * height
        while factor < _BLOCK and each * width * height // factor**2 + rest > MAX_BYTES:
            factor *= 2
        check_bytes(self.image, each * width * height // factor**2 + rest)
        if factor > 1:
            self.image.draft(None, (width // factor, height // factor))
        return factor > 1

    def load(self) -> None:
        """Decode by Pillow."""
        if not self._ends_once:
            self.image.load()
            self._check_colours(array_of(self.image))
            return
        self._check_restarts()
        end = self._end
        pieces = [self.data[: end - _SPARE], self.data[end - _SPARE : end] + _AHEAD]
        self.image.fp = _Pieces(pieces)
        self.image.load()
        if pieces:
            raise OSError("data of pixels is left over: some before it was changed or lost")
        self._check_colours(array_of(self.image))

    def pixels(self) -> np.ndarray | None:
        """The pixels, uint8 [h, w, 3], by torchvision; None if Pillow has to decode or to judge."""
        longer = self._with_sentinel() if decode_jpeg is not None else None
        if longer is None:
            return None
        buffer = torch.frombuffer(longer, dtype=torch.uint8)
        try:
            pixels = decode_jpeg(buffer, ImageReadMode.RGB.value, False)  # not turned upright
        except RuntimeError:
            return None
        pixels = pixels.permute(1, 2, 0).numpy()
        sentinel = pixels[_SMEARED - self._unit[1] :]
        flat = sentinel[:1, :1]
        is_flat = sentinel.tobytes() == flat.tobytes() * (sentinel.size // flat.size)
        if not is_flat or (flat == _GREY).all():
            return None
        pixels = pixels[: self.size[1]]
        self._check_colours(pixels)
        return pixels

    def _check_colours(self, pixels: np.ndarray) -> None:
        """Raise OSError if the colours of what was decoded jump as they do after damage."""
        shrunk = round(self.size[1] / len(pixels))  # 1, 2, 4 or 8
        found = jumps(pixels, self._unit[1] // shrunk, _BLOCK // shrunk)
        if found == "yes" or (found and is_beyond(self.data)):
            raise OSError("colours jump in the middle of it: data before was changed or lost")

    @cached_property
    def _segments(self) -> list[tuple[int, int, bytes]]:
        """Marker, place and content of each segment before the data."""
        return list(segments(self.data, self.start))

    @cached_property
    def _last(self) -> dict[int, bytes]:
        """The content of the last segment of each marker; a scan there is one of."""
        return {marker: content for marker, _, content in self._segments}

    @cached_property
    def _ends_once(self) -> bool:
        """Whether all is in one scan, of Huffman codes, after whose data nothing is needed."""
        plain = self._last.keys().isdisjoint(OTHER_FRAMES)
        return plain and self._last.get(SOS, b"")[:1] == bytes([self.image.layers])

    @cached_property
    def _end(self) -> int:
        end = self.data.find(_EOI, self.start)
        return len(self.data) if end < 0 else end

    @cached_property
    def _restart_interval(self) -> int:
        return int.from_bytes(self._last.get(DRI, b"")[:2])

    @cached_property
    def _sampling(self) -> list[tuple[int, int]]:
        """Blocks of each component that are coded together, across and down."""
        layers = self.image.layer
        return [(1, 1)] if len(layers) == 1 else [(layer[1], layer[2]) for layer in layers]

    @cached_property
    def _unit(self) -> tuple[int, int]:
        """Width and height in pixels of what is coded together."""
        across, down = zip(*self._sampling, strict=True)
        return _BLOCK * max(across), _BLOCK * max(down)

    @cached_property
    def _units(self) -> tuple[int, int]:
        """How many of them the picture has, across and down."""
        (width, height), (across, down) = self.size, self._unit
        return -(-width // across), -(-height // down)

    def _check_restarts(self) -> None:
        """Raise OSError if not all restart markers are there in their order."""
        if not self._restart_interval:
            return
        units = self._units[0] * self._units[1]
        body = np.frombuffer(self.data, np.uint8)[self.start : self._end]
        after = body[1:][body[:-1] == 0xFF]
        found = after[(after >= RESTARTS[0]) & (after <= RESTARTS[-1])]
        expected = np.arange(-(-units // self._restart_interval) - 1) % len(RESTARTS)
        if not np.array_equal(found - RESTARTS[0], expected):
            raise OSError(f"{len(found)} restart markers instead of {len(expected)} in order")

    def _with_sentinel(self) -> bytearray | None:
        """The JPEG with one more row of blocks, which continue its last one.

        They come out flat if the decoder is at their beginning when it has all the others, and not
        if there was less data for these, or more. None where that cannot be made.
        """
        if not self._ends_once or self._restart_interval or self.data[-2:] != _EOI:
            return None
        codes = _same_again(self._segments, self._last[SOS])
        shrinks = self._unit[1] // _BLOCK
        if codes is None or (shrinks > 1 and not -(-self.size[1] // shrinks) % _BLOCK):
            return None  # its chroma would be smeared into the last row of pixels
        end = len(self.data) - len(_EOI)  # if there is an earlier one, the row tells
        end -= self.data[end - 2 : end] == b"\xff\x00"
        last = f"{int.from_bytes(self.data[end - 2 : end]):016b}"
        padding = _trailing_ones(last) - _trailing_ones(codes[-1])
        if not 0 <= padding < 8:
            return None
        unit = "".join(
            code * across * down for code, (across, down) in zip(codes, self._sampling, strict=True)
        )
        bits = last[8 : 16 - padding] + unit * self._units[0]
        bits += "1" * (-len(bits) % 8)
        row = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\x00")
        longer = self._header((self._units[1] + 1) * self._unit[1])
        longer += memoryview(self.data)[self.start : end - 1]
        longer += row + _EOI
        return longer

    def _header(self, height: int) -> bytearray:
        """What comes before the data, for a picture so high, without metadata and junk."""
        header = bytearray(SIGNATURE[:2])
        for marker, _, content in self._segments:
            if marker in SOF:
                content = content[:1] + height.to_bytes(2) + content[3:]
            if marker not in METADATA:
                header += bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content
        return header


def _trailing_ones(bits: str) -> int:
    return len(bits) - len(bits.rstrip("1"))


def _without_metadata(data: bytes) -> bytes:
    kept = bytearray(data)
    for marker, place, content in reversed(list(segments(data, len(data)))):
        if marker in (JFIF, *METADATA):
            del kept[place - 4 : place + len(content)]
    return bytes(kept)


def _same_again(parts: list[tuple[int, int, bytes]], scan: bytes) -> list[str] | None:
    """Of each component in the scan the code of a block that is as flat as the one before."""
    tables = {}
    for marker, _, content in parts:
        while marker == DHT and len(content) > 16:
            counts, n = content[1:17], sum(content[1:17])
            tables[content[0]] = _code_of_zero(counts, content[17 : 17 + n])
            content = content[17 + n :]
    codes = []
    for which in scan[2 : 2 * scan[0] + 1 : 2]:
        dc, ac = tables.get(which >> 4), tables.get(0x10 | which & 15)
        if not dc or not ac:
            return None
        codes.append(dc + ac)
    return codes


@lru_cache(256)  # most photos have one of a few tables
def _code_of_zero(counts: bytes, symbols: bytes) -> str | None:
    """The code of symbol 0, no difference or end of block, in a table of Huffman codes."""
    place = symbols.find(0)
    code = 0
    for length, n in enumerate(counts, 1):
        if 0 <= place < n:
            return f"{code + place:0{length}b}"
        code, place = (code + n) << 1, place - n
    return None
