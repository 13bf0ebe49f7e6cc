"""pt2 files: models that `torch.export.load` opens, with torch alone."""

import io
import json
from pathlib import Path
from warnings import catch_warnings

import torch

from nbfinetune.exports.portable import batches_through, compared, exported, quiet, traced
from nbfinetune.rendering.names import shortened
from nbfinetune.runtime.own_files import check_place, make_folder, write_whole
from nbfinetune.runtime.rng import seeded_rng
from nbfinetune.training.state import LearnerState

_NAMES, _ABOUT = "class_names.json", "about.json"  # files in it, of a list and of a dict


def write(learn: LearnerState, path: Path, *, overwrite: bool) -> str:
    """Write the learner's model; returns how far it is from it, in words. See `export`."""
    check_place(path, overwrite=overwrite)
    of, content = exported(learn), io.BytesIO()
    with catch_warnings(action="ignore"), quiet(), seeded_rng(0):
        extra = {_NAMES: json.dumps(of.about["class_names"]), _ABOUT: json.dumps(of.about)}
        torch.export.save(traced(of), content, extra_files=extra)
        content.seek(0)
        given = batches_through(torch.export.load(content).module(), of.pictures)
    said = compared(of.expected, given, shortened(path.name), of.what)
    make_folder(path.parent)
    write_whole(path, content.getvalue())
    return said
