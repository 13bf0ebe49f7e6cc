"""Exports of networks trained on pets photos, opened where this package is not installed.

    NBFINETUNE_PETS=pets python benchmarks/exports.py [FOLDER]

Trains each network for an epoch, exports it as ONNX, pt2 and hub folder, and opens all of them in a
fresh process that cannot import nbfinetune: largest difference of the logits of all 111 held-out
photos from torch's in float32, and how often the most probable class is another one. Then the
recipe of the README on these photos, against what torch makes of them in float32.
"""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from nbfinetune import ImageDataLoaders, Learner, vision_learner
from nbfinetune.data.samples import pets

NETWORKS = {"efficientnet_lite0": "DEFAULT", "resnet18": None, "timm:mobilenetv3_small_100": None}
OPEN = """
import sys
sys.modules["nbfinetune"] = None  # an import of it fails, as where it is not installed
import json, numpy as np, torch
folder, stem = sys.argv[1:]
about = json.load(open(f"{folder}/{stem}.json"))
pictures = torch.from_numpy(np.load(f"{folder}/{stem}.npy"))
mean, std = (torch.tensor(about[k])[:, None, None] for k in ("mean", "std"))
normalised = (pictures.permute(0, 3, 1, 2) / 255 - mean) / std
import onnxruntime, timm, transformers
session = onnxruntime.InferenceSession(f"{folder}/{stem}.onnx")
program = torch.export.load(f"{folder}/{stem}.pt2").module()
of_timm = timm.create_model(f"local-dir:{folder}/{stem}", pretrained=True).eval()
auto = transformers.AutoModelForImageClassification.from_pretrained(f"{folder}/{stem}").eval()
with torch.no_grad():
    logits = {
        "onnx": session.run(["logits"], {"pictures": pictures.numpy()})[0],
        "pt2": program(pictures)[1].numpy(),
        "hub, timm": of_timm(normalised).numpy(),
        "hub, transformers": auto(pixel_values=normalised).logits.numpy(),
    }
np.savez(f"{folder}/{stem}.npz", **logits)
"""


def held_out(learn: Learner) -> tuple[torch.Tensor, torch.Tensor]:
    """All held-out pictures as files take them, and the logits of torch in float32."""
    dataset = learn.dls.valid.dataset
    images, _ = dataset.batch(list(range(len(dataset))))
    with torch.no_grad():
        parts = [learn.model(learn.transforms.valid(x)) for x in images.split(16)]
    return learn.transforms.middle(images).permute(0, 2, 3, 1).contiguous(), torch.cat(parts)


def measure(learn: Learner, folder: Path, stem: str) -> None:
    pictures, logits = held_out(learn)
    np.save(folder / f"{stem}.npy", pictures.numpy())
    about = {"mean": learn.transforms.mean, "std": learn.transforms.std}
    (folder / f"{stem}.json").write_text(json.dumps(about))
    for file, format in ((f"{stem}.onnx", None), (f"{stem}.pt2", None), (stem, "hub")):
        begun = time.perf_counter()
        learn.export(folder / file, format=format, overwrite=True)
        print(f"  {time.perf_counter() - begun:.1f} s")
    subprocess.run([sys.executable, "-c", OPEN, folder, stem], check=True)
    opened = np.load(folder / f"{stem}.npz")
    for what in opened.files:
        there = torch.from_numpy(opened[what])
        furthest, others = (there - logits).abs().max(), (there.argmax(1) != logits.argmax(1)).sum()
        print(f"| {stem} | {what} | {furthest:.1e} | {logits.abs().max():.1f} | {others} of "
              f"{len(logits)} |", flush=True)  # fmt: skip


def recipe(learn: Learner, folder: Path, stem: str) -> None:
    """How far probabilities by the recipe are from torch's, and how often the class is another."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    [code] = [b for b in re.findall(r"```python\n(.+?)```", text, re.DOTALL) if "onnxruntime" in b]
    _, logits = held_out(learn)
    dataset, furthest, others = learn.dls.valid.dataset, 0.0, 0
    with tempfile.TemporaryDirectory() as aside, contextlib.chdir(aside):
        Path("pets.onnx").symlink_to(folder.absolute() / f"{stem}.onnx")
        for i, probs in enumerate(logits.softmax(1).numpy()):
            shutil.copy(dataset.path(i), "new.jpg")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, seen := {})
            furthest = max(furthest, float(np.abs(seen["probs"][0] - probs).max()))
            others += int(seen["probs"][0].argmax() != probs.argmax())
    print(f"| {stem} | recipe, probabilities | {furthest:.1e} | | {others} of {len(logits)} |")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    dls = ImageDataLoaders.from_name_re(pets(), None, r"(.+)_\d+", valid_pct=0.3, bs=16)
    print(dls)
    for arch, weights in NETWORKS.items():
        learn = vision_learner(dls, arch, weights=weights, device="cpu")
        learn.fit_one_cycle(1, 1e-3)
        measure(learn, folder, arch.replace(":", "_"))
        recipe(learn, folder, arch.replace(":", "_"))


if __name__ == "__main__":
    main()
