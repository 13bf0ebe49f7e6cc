"""The recipe of the README, word for word, on photos as they come from cameras and the web."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from nbfinetune import ImageDataLoaders, Learner, vision_learner
from nbfinetune.data.transforms import to_square
from nbfinetune.images.decoding import read_pixels
from nbfinetune.runtime.rng import seeded_rng

README = (Path(__file__).parents[2] / "README.md").read_text()
[RECIPE] = [
    block
    for block in re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    if "onnxruntime.InferenceSession" in block
]
TURNED, BACK = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}, 0x0112


def photo(width: int, height: int) -> Image.Image:
    """A picture with smooth colours, edges and grain, of which each side is another."""
    noise = np.random.default_rng(width)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 3 * y), np.sin(14 * y), np.where(x + y > 0.8, 1.0, -1.0)]
    values = 127 + 90 * np.stack(waves, axis=-1) + noise.normal(0, 8, (height, width, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def turned(folder: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[BACK] = orientation
    image = photo(151, 97).transpose(TURNED[orientation])
    image.save(folder / "turned.jpg", exif=exif, quality=92)
    return folder / "turned.jpg"


def kept(image: Image.Image, file: Path, **options) -> Path:
    image.save(file, **options)
    return file


def half_transparent(folder: Path) -> Path:
    image = photo(120, 80)
    ramp = np.tile(np.linspace(0, 255, 120).astype(np.uint8), (80, 1))
    image.putalpha(Image.fromarray(ramp))
    return kept(image, folder / "rgba.png")


PHOTOS = {
    "of odd sides": lambda folder: kept(photo(151, 98), folder / "odd.jpg", quality=92),
    "upright": lambda folder: kept(photo(97, 150), folder / "tall.png"),
    "large, so that it is decoded smaller": lambda folder: kept(
        photo(1201, 903), folder / "large.jpg", quality=92
    ),
    "smaller than the network sees": lambda folder: kept(photo(29, 23), folder / "tiny.png"),
    "turned by EXIF": lambda folder: turned(folder, 6),
    "upside down by EXIF": lambda folder: turned(folder, 3),
    "greyscale": lambda folder: kept(photo(90, 71).convert("L"), folder / "grey.jpg", quality=92),
    "transparent": half_transparent,
    "with a palette": lambda folder: kept(photo(90, 70).quantize(64), folder / "palette.gif"),
    "of CMYK": lambda folder: kept(photo(90, 70).convert("CMYK"), folder / "print.jpg", quality=92),
}


@pytest.fixture(scope="module")
def trained(photos) -> Learner:
    dls = ImageDataLoaders.from_folder(photos, valid_pct=0.34, size=32, bs=5)
    with seeded_rng(0):
        body = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU())
        network = nn.Sequential(body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 9))
    learn = vision_learner(dls, network, weights=None, device="cpu")
    learn.fit(6, 3e-3, show=False)
    return learn


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> bytes:
    return trained.export(tmp_path_factory.mktemp("recipe") / "pets.onnx").read_bytes()


def test_the_recipe_needs_15_lines_and_three_libraries(trained, exported, alone, tmp_path) -> None:
    assert len(list(filter(None, RECIPE.splitlines()))) == 15
    (tmp_path / "pets.onnx").write_bytes(exported)
    kept(photo(150, 90), tmp_path / "new.jpg", quality=92)
    without_torch = 'sys.modules["torch"] = None\n'
    label, p = alone(without_torch + RECIPE).split()
    named, _, probs = trained.predict(tmp_path / "new.jpg")
    assert (label, float(p)) == (named, pytest.approx(probs.max().item(), abs=0.02))


@pytest.mark.parametrize("what", PHOTOS)
def test_the_recipe_sees_a_photo_as_validation_does(
    what: str, trained, exported, tmp_path: Path, monkeypatch
) -> None:
    file = PHOTOS[what](tmp_path)
    (tmp_path / "new.jpg").write_bytes(file.read_bytes())
    (tmp_path / "pets.onnx").write_bytes(exported)
    monkeypatch.chdir(tmp_path)
    seen = {}
    exec(RECIPE, seen)
    _, index, probs = trained.predict(file)
    apart = float(np.abs(seen["probs"][0] - probs.numpy()).max())
    square = to_square(read_pixels(file, 37), 37)[None]
    ours = trained.transforms.middle(square).permute(0, 2, 3, 1).numpy()
    pixels = np.abs(seen["pictures"].astype(int) - ours.astype(int))
    print(f"{what}: values differ by up to {pixels.max()}, probabilities by up to {apart:.1e}")
    assert seen["probs"][0].argmax() == index
    assert pixels.max() <= 1  # of 255: Pillow and torch round otherwise
    assert apart < 1e-3
