"""Picture files: which files below a folder are pictures, and what is in those that cannot be read.

A picture without a decoder here is a picture all the same: it is listed, so that loaders name it
with what to install rather than train without it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path

from PIL import Image

from nbfinetune.arguments import as_path
from nbfinetune.rendering.names import first_few, shortened

with suppress(ImportError):  # iPhone photos, where the user has installed their decoder
    from pillow_heif import register_heif_opener

    register_heif_opener()

_HEIF = "a HEIC picture, which Pillow does not decode alone: pip install pillow-heif"
_AVIF = "an AVIF picture, which this Pillow does not decode: pip install --upgrade pillow"
_WEBP = "a WebP picture, which this Pillow does not decode: pip install --upgrade pillow"
_RAW = "a raw photo of a camera, which Pillow does not decode: convert it to JPEG or PNG"
_XL = "a JPEG XL picture, which Pillow does not decode alone: convert it to JPEG or PNG"
_OTHER = "a picture in a format that Pillow does not decode: convert it to JPEG or PNG"
# Formats of photos, scans and drawings that Pillow lacks, or may have been built without.
_NO_DECODER = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics", ".heifs"), _HEIF),
    **dict.fromkeys((".avif", ".avifs"), _AVIF),
    ".webp": _WEBP,
    ".jxl": _XL,
    **dict.fromkeys((".jxr", ".wdp", ".hdp", ".jp2", ".exr", ".hdr", ".dcm", ".dicom"), _OTHER),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".xcf", ".psb", ".jls", ".jxs"), _OTHER),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf"), _RAW),
    **dict.fromkeys((".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr"), _RAW),
    **dict.fromkeys((".iiq", ".erf", ".mrw", ".rwl", ".kdc", ".dcr", ".mos"), _RAW),
}
# Those that photos, scans and drawings come in, as Pillow names them; HEIF and JXL are of plugins.
# Pillow opens others by starting programs (EPS), or takes for pictures what are none (MPEG). To
# have more read, add them before the pictures are listed: FORMATS.append("SPIDER").
FORMATS = [
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JXL", "JPEG2000", "PPM", "TGA"),
    *("ICO", "ICNS", "QOI", "PCX", "PSD", "SGI", "SUN", "DIB", "DDS"),
]
# What lies beside pictures; files of other unknown suffixes, or of none, are looked into.
_NO_PICTURE = re.compile(
    r"\.(txt|csv|tsv|jsonl?|xml|ya?ml|toml|ini|cfg|md|rst|html?|log|pdf|docx?|xlsx?|ods|py|ipynb|sh|"
    r"r|m|db|sqlite|npy|npz|mat|h5|hdf5?|pkl|pickle|parquet|feather|pth?|safetensors|onnx|bin|zip|"
    r"tar|gz|7z|rar|mp4|mov|avi|mkv|mpe?g|wav|mp3|aae|xmp|thm|bak|tmp|part|crdownload|lnk|url)"
)
# Of systems and their tools; names that begin with a dot are hidden and passed over before.
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_HEAD = 512  # bytes from the beginning of a file that are looked into


def image_suffixes() -> frozenset[str]:
    """The file suffixes that are read as pictures, lower case, with the dot."""
    return _suffixes(tuple(readable_formats()))


@cache
def _suffixes(formats: tuple[str, ...]) -> frozenset[str]:
    known = {*formats, "MPO"}  # several JPEGs in one file, of which the first is read
    return frozenset(s for s, fmt in Image.registered_extensions().items() if fmt in known)


def readable_formats() -> list[str]:
    """The formats that pictures are opened in, as Pillow names them."""
    Image.init()
    return [fmt for fmt in FORMATS if fmt in Image.OPEN]


def get_image_files(path: str | PathLike) -> list[Path]:
    """The picture files below `path`, sorted, as absolute paths.

    Pictures that Pillow cannot decode here, such as HEIC, are among them, and files without a
    picture's suffix that hold a JPEG, PNG, GIF, TIFF or WebP. Hidden files and folders, and those
    of the system, are passed over; links to folders are followed.

    Raises
    ------
    ValueError
        If `path` is no folder, holds no picture, or has a folder that cannot be listed or a link
        that leads nowhere: its class would be missing.
    """
    root = as_path(path, "path")
    if not os.path.isdir(root):
        raise ValueError(
            f"{shortened(root)} is not a folder; pass the folder that holds the pictures"
        )
    files, others, dead, suffixes = [], set(), [], image_suffixes()
    for folder, names in _folders(root):
        for name in names:
            suffix, file = os.path.splitext(name)[1].lower(), os.path.join(folder, name)
            known = suffix in suffixes or suffix in _NO_DECODER
            if known or (not _NO_PICTURE.fullmatch(suffix) and _holds_picture(file)):
                files.append(Path(file))
            elif os.path.islink(file) and not os.path.exists(file):
                dead.append(file)
            else:
                others.add(suffix or "no suffix")
    if dead:
        raise ValueError(
            f"{len(dead)} links lead nowhere ({first_few(dead)}), perhaps to a disk that is away: "
            "their pictures would be missing; mend or remove them"
        )
    if not files:
        found = f" (it has files of: {first_few(sorted(others))})" if others else ""
        raise ValueError(
            f"no pictures below {shortened(root)}{found}; expected files such as .jpg or .png"
        )
    return sorted(files)


def subfolders(root: Path) -> list[str]:
    """The names of the folders in `root`, without those that are hidden or of the system."""
    names = [name for name in os.listdir(root) if name[:1] != "." and name not in _SYSTEM_FOLDERS]
    return sorted(name for name in names if os.path.isdir(root / name))


def locate(root: Path, name: Path) -> Path:
    """The file `name` in `root`; as it stands if it is only there, as in glob("root/*.jpg")."""
    inside = root / name
    # os.path.exists: names that are too long or have a NUL are no file, and no error.
    return inside if os.path.exists(inside) or not os.path.exists(name) else name.absolute()


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The folders from `root` down, each with the names of its files, without what is hidden."""
    unlisted: list[OSError] = []
    above: dict[str, tuple[str, ...]] = {}  # where each folder and those above it really are
    for folder, inner, names in os.walk(root, followlinks=True, onerror=unlisted.append):
        real, outer = os.path.realpath(folder), above.get(os.path.dirname(folder), ())
        if real in outer:  # a link back up
            inner.clear()
            continue
        above[folder] = (*outer, real)
        inner[:] = [s for s in inner if s[:1] != "." and s not in _SYSTEM_FOLDERS]
        yield folder, [name for name in names if name[:1] != "."]
    if unlisted:
        found = [f"{error.filename}: {error.strerror}" for error in unlisted]
        raise ValueError(
            f"{len(found)} folders cannot be listed ({first_few(found)}): their pictures would be "
            "missing; allow it (chmod u+rx), or move them elsewhere"
        )


def _holds_picture(file: str) -> bool:
    if not os.path.isfile(file):  # reading a pipe would wait for ever
        return False
    head = _head(file)
    return head.startswith(_SIGNATURES) or _container(head) is not None


def _head(file: str | PathLike) -> bytes:
    try:
        with open(file, "rb") as content:
            return content.read(_HEAD)
    except (OSError, ValueError):
        return b""


def _container(head: bytes) -> str | None:
    """The usual suffix of formats that Pillow may lack, by the first bytes of a file."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis") or b"avif" in head[12:64]:
            return ".avif"
        if head[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
            return ".heic"
    return ".jxl" if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else None


def other_content(head: bytes) -> str | None:
    """What a file is that is no picture and no table, from its first bytes; None if unknown."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file; type git lfs pull"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "a web page (HTML) that was saved in place of the file; download it again"
    if start.startswith((b"<?xml", b"{")):
        return "XML or JSON, such as a server's message, in place of the file; look into it"
    if start.startswith(b"pk\x03\x04"):
        return "a zip file or workbook; unpack it, or save it as CSV"
    if start.startswith(b"\x1f\x8b"):
        return "compressed (gzip); unpack it"
    if start.startswith(b"par1"):
        return "a Parquet file; save it as CSV"
    if start.startswith(b"%pdf"):
        return "a PDF; save its pictures as files"
    return None


def no_decoder(file: str | PathLike | bytes) -> str:
    """Why Pillow does not know a file: what it is in place of a picture, or what it lacks."""
    data = isinstance(file, bytes)
    head = file[:_HEAD] if data else _head(file)
    suffix = _container(head) or os.path.splitext("" if data else file)[1].lower()
    lacking = None if suffix in image_suffixes() else _NO_DECODER.get(suffix)
    other = other_content(head)
    if lacking and (other is None or suffix == ".svg"):  # which is XML
        return lacking
    return "not a picture that Pillow knows" + (f": {other}" if other else "")
