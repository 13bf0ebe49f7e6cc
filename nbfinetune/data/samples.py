"""Samples: drawn shapes that need no download, and the Oxford-IIIT pets."""

import csv
import json
import math
import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torchvision.datasets import OxfordIIITPet

from nbfinetune.arguments import as_list, as_whole_number, check_number
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.memmap import cache_folder

_POLYGONS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6, "heptagon": 7, "octagon": 8}
_STARS = {"star_4": 4, "star_5": 5, "star_6": 6}
SHAPES = (*_POLYGONS, *_STARS, "circle", "ellipse", "ring")
_LEAST_SIZE, _LARGEST_SIZE = 16, 4096  # px: a shape is seen, and drawn in memory
_SUPERSAMPLING = 4  # drawn this much larger, then scaled down: smooth edges
_PARAMETERS = "shapes.json"  # marks a folder as drawn here, and how
_WRONG = "wrong_labels.csv"


def draw_shapes(
    path: str | PathLike | None = None,
    *,
    n: int = 40,
    size: int = 128,
    wrong: float = 0.02,
    seed: int = 42,
    shapes: Sequence[str] = SHAPES,
) -> Path:
    """Draw a data set of a dozen classes of shapes that are easily confused.

    Textured backgrounds, any colour, place and angle; some pictures lie in the folder of another
    class: wrong_labels.csv says which. The same arguments draw the same pictures. A folder that
    was drawn with them is used again.

    Parameters
    ----------
    path : new folder; default: one in the cache folder
    n : pictures of each class
    size : side in pixels
    wrong : share of the pictures with a wrong label, in [0, 1)
    seed : of everything random
    shapes : the classes; default: all twelve, see `SHAPES`

    Returns
    -------
    Path
        The folder: one folder for each class, with PNG files.

    Raises
    ------
    ValueError
        For arguments out of range.
    FileExistsError
        If the folder is there and holds something else.
    """
    n, seed = as_whole_number("n", n, 2), as_whole_number("seed", seed)
    size = as_whole_number("size", size, _LEAST_SIZE, _LARGEST_SIZE)
    check_number("wrong", wrong, 0, 1, such_as=0.1)
    shapes = as_list(shapes, "shapes")
    unknown = [shape for shape in shapes if shape not in SHAPES]
    if unknown or not 2 <= len(shapes) == len(set(map(str, shapes))):
        found = f"{shown(unknown[0])} is none" if unknown else f"{shown(shapes)} is not"
        raise ValueError(f"shapes: {found}; give two or more, each once, of {', '.join(SHAPES)}")
    parameters = {"n": n, "size": size, "wrong": wrong, "seed": seed}
    name = "shapes-" + "-".join(str(v) for v in parameters.values())
    if set(shapes) != set(SHAPES):
        parameters["shapes"] = shapes
        name += "-" + "-".join(shapes)
    folder = Path(path).expanduser() if path else cache_folder() / name
    if (folder / _PARAMETERS).is_file():
        if json.loads((folder / _PARAMETERS).read_text()) == parameters:
            return folder
        raise FileExistsError(f"{folder} holds shapes drawn otherwise; give another path")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn aside and renamed: an interrupted call leaves no half data set behind.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _draw_all(aside, shapes, n, size, wrong, random.Random(seed))
        (aside / _PARAMETERS).write_text(json.dumps(parameters))
        aside.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def wrong_labels(path: str | PathLike) -> dict[Path, str]:
    """The drawn files that lie in the folder of another class, with their true labels.

    Parameters
    ----------
    path : what `draw_shapes` returned
    """
    folder = Path(path)
    with open(folder / _WRONG, newline="") as file:
        return {folder / row["file"]: row["true_label"] for row in csv.DictReader(file)}


def _draw_all(
    folder: Path, shapes: Sequence[str], n: int, size: int, wrong: float, rng: random.Random
) -> None:
    items = [(shape, i) for shape in shapes for i in range(n)]
    mislabelled = set(rng.sample(items, round(wrong * len(items))))
    rows = [("file", "label", "true_label")]
    for shape in shapes:
        (folder / shape).mkdir()
    for shape, i in items:
        label = shape
        if (shape, i) in mislabelled:
            label = rng.choice([other for other in shapes if other != shape])
        number = SHAPES.index(shape) * n + i
        file = f"{label}/{number:05}.png"
        draw_shape(shape, size, rng).save(folder / file)
        if label != shape:
            rows.append((file, label, shape))
    with open(folder / _WRONG, "w", newline="") as out:
        csv.writer(out).writerows(rows)


def draw_shape(shape: str, size: int, rng: random.Random) -> Image.Image:
    """One picture of a shape on a textured background; `rng` decides all else."""
    background = _texture(size, rng)
    mask = Image.new("L", (size * _SUPERSAMPLING,) * 2, 0)
    side = mask.width
    radius = side * rng.uniform(0.22, 0.4)
    x, y = (rng.uniform(radius, side - radius) for _ in range(2))
    draw = ImageDraw.Draw(mask)
    angle = rng.uniform(0, 2 * math.pi)
    if shape in _POLYGONS:
        draw.polygon(_corners(x, y, [radius] * _POLYGONS[shape], angle), fill=255)
    elif shape in _STARS:
        draw.polygon(_corners(x, y, [radius, radius * 0.55] * _STARS[shape], angle), fill=255)
    else:
        narrow = 0.75 if shape == "ellipse" else 1.0
        turn = np.exp(1j * np.linspace(0, 2 * math.pi, 90, endpoint=False))
        points = (turn.real + 1j * narrow * turn.imag) * radius * np.exp(1j * angle)
        draw.polygon([(x + p.real, y + p.imag) for p in points], fill=255)
        if shape == "ring":
            hole = radius * rng.uniform(0.3, 0.6)
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    mask = mask.resize((size, size), Image.Resampling.LANCZOS)
    return Image.composite(_texture(size, rng), background, mask)


def _corners(x: float, y: float, radii: list[float], angle: float) -> list[tuple[float, float]]:
    """Points around (x, y), one at each radius, evenly turned."""
    turns = [angle + 2 * math.pi * i / len(radii) for i in range(len(radii))]
    return [(x + r * math.cos(t), y + r * math.sin(t)) for r, t in zip(radii, turns, strict=True)]


def _texture(size: int, rng: random.Random) -> Image.Image:
    """A square of one colour with stripes and blurred noise."""
    noise = np.random.default_rng(rng.getrandbits(32))
    colour = np.array([rng.uniform(40, 215) for _ in range(3)])
    ys, xs = np.mgrid[0:size, 0:size] / size
    turn = rng.uniform(0, math.pi)
    waves = np.sin(2 * math.pi * rng.uniform(2, 9) * (xs * math.cos(turn) + ys * math.sin(turn)))
    coarse = Image.fromarray(noise.integers(0, 255, (9, 9, 3), dtype=np.uint8))
    blobs = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=float) - 127
    grain = noise.normal(0, 6, (size, size, 3))
    values = colour + 14 * waves[..., None] + 0.22 * blobs + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def pets() -> Path:
    """The folder of the Oxford-IIIT pets: `$NBFINETUNE_PETS` if set, else downloaded once.

    The breed is in each file's name, as in "great_pyrenees_12.jpg": use `from_name_re` with
    `r"(.+)_\\d+"`. The download (800 MB) shows a progress bar.

    Raises
    ------
    ValueError
        If `$NBFINETUNE_PETS` is no folder.
    RuntimeError
        If the download fails.
    """
    if folder := os.environ.get("NBFINETUNE_PETS"):
        if not Path(folder).is_dir():
            raise ValueError(f"NBFINETUNE_PETS is {folder}, which is not a folder")
        return Path(folder).absolute()
    try:
        OxfordIIITPet(cache_folder(), split="trainval", download=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"the Oxford-IIIT pets cannot be downloaded ({error}); "
            "set NBFINETUNE_PETS to a folder of them, or use samples.draw_shapes()"
        ) from None
    return cache_folder() / "oxford-iiit-pet" / "images"
