"""PNG: the check sums of its chunks, which Pillow does not compare for the data of pixels."""

from io import RawIOBase
from zlib import crc32

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 2**20  # bytes read at once


def check_chunks(stream: RawIOBase) -> None:
    """Raise OSError if a chunk that pixels depend on is not what its check sum says.

    Parameters
    ----------
    stream : at the begin of the file
    """
    stream.seek(len(SIGNATURE))
    while len(head := stream.read(8)) == 8:  # length and name
        left, name = int.from_bytes(head[:4]), head[4:]
        found = crc32(name)
        while left > 0 and (block := stream.read(min(left, _BLOCK))):
            found, left = crc32(block, found), left - len(block)
        stored = stream.read(4)
        needed = name[:1].isupper()  # others are of no importance, the format says
        if name == b"IDAT" and (left or len(stored) < 4):
            raise OSError("file is truncated")
        if needed and int.from_bytes(stored) != found:
            raise OSError(f"the check sum of its chunk {name.decode('latin-1')} is wrong")
        if name == b"IEND":
            return
