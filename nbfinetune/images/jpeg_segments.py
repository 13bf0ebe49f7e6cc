"""JPEG segments: what a JPEG says of itself before its data, each with a marker and a length."""

from collections.abc import Iterator

SIGNATURE = b"\xff\xd8\xff"
RESTARTS = range(0xD0, 0xD8)
SOF = (0xC0, 0xC1)  # sequential frames with Huffman codes
DHT, SOS, DQT, DRI = 0xC4, 0xDA, 0xDB, 0xDD
OTHER_FRAMES = {*range(0xC0, 0xD0)} - {*SOF, DHT}  # progressive, arithmetic, lossless
JFIF = 0xE0
METADATA = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # APP1 to APP13, APP15, comment; 14 tells of colours


def segments(data: bytes, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Marker, place of the content and the content itself of each segment that begins before."""
    i = len(SIGNATURE) - 1
    while i < end - 1:
        marker = data[i + 1]
        if data[i] != 0xFF or marker in (0x00, 0x01, 0xFF, *RESTARTS):  # filler, or junk
            i += 1
            continue
        length = int.from_bytes(data[i + 2 : i + 4])
        yield marker, i + 4, data[i + 4 : i + 2 + length]
        i += 2 + length
        if marker == SOS:
            return
