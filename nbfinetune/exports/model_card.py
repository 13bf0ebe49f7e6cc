"""Model card: what a model was made of and how good it is, as the README.md of a hub folder."""

import json
import platform
from collections import Counter
from collections.abc import Sequence

import torch
import torchvision

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.exports.portable import Exported
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.prediction import validate
from nbfinetune.objectives.losses import loss_name
from nbfinetune.rendering.names import markdown_text, shortened
from nbfinetune.rendering.numbers import counted, rate_text
from nbfinetune.training.state import LearnerState
from nbfinetune.version import __version__

_PAIRS = 10  # confused most
_CLASSES = 200  # that are listed with their pictures
_LONGEST = 120  # characters of a name


def model_card(
    learn: LearnerState, of: Exported, network: str, folder: str, licence: tuple[str, str]
) -> str:
    """The card as Markdown with YAML at its head; names of classes and folder are untrusted.

    Parameters
    ----------
    network : its name in timm
    folder : the name of the folder
    licence : as `licence_of` gives it
    """
    c = len(of.about["class_names"])
    sections = [
        _yaml(licence[0]),
        f"# {_name(folder)}",
        f"A classifier of {c} classes: timm's `{network}`, trained with nbfinetune.",
        _use(of),
        f"## Data\n\n{_data(learn)}",
        f"## Results\n\n{_results(learn)}",
        f"## Training\n\n{_training(learn, of)}",
        f"## Licence\n\n{licence[1]}",
        f"## Versions\n\n{_versions()}",
    ]
    return "\n\n".join(sections) + "\n"


def _name(text: object) -> str:
    return markdown_text(shortened(text, _LONGEST))


def _yaml(licence: str) -> str:
    """The head that the hub reads; JSON is YAML."""
    entries = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "transformers"],
    } | ({"license": licence} if licence else {})
    return "\n".join(["---", *(f"{k}: {json.dumps(v)}" for k, v in entries.items()), "---"])


def _use(of: Exported) -> str:
    several = of.about["activation"] == "sigmoid"
    meaning = "sigmoid: several classes may be right" if several else "softmax: one class is right"
    return (
        "## Use\n\n```python\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()\n'
        'classify = transformers.pipeline("image-classification", "FOLDER")\n```\n\n'
        f"Pictures are {of.about['preprocessing'].partition('; uint8')[0]}; `config.json` says it "
        "to timm and transformers, which scale before they crop. Probabilities of the logits are "
        f"those of {meaning}. Its classes, in their order, are `label_names` in `config.json`."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _data(learn: LearnerState) -> str:
    loaders = [getattr(learn.dls, part, None) for part in ("train", "valid")]
    if not all(map(gives_pictures, loaders)):
        return "The learner had no data set of pictures with it when it was exported."
    train, valid = (Counter(loader.dataset.targets) for loader in loaders)
    n_train, n_valid = train.total(), valid.total()
    text = (
        f"{counted(n_train, 'picture')} to train on and {n_valid:,} held out "
        f"({n_valid / (n_train + n_valid):.0%})"
    )
    named = list(enumerate(learn.vocab))[:_CLASSES]
    rows = [(_name(name), train[i], valid[i]) for i, name in named]
    more = len(learn.vocab) - len(rows)
    said = [f"{more:,} more classes are not listed."] if more else []
    doubtful = [f"- {_name(text)}" for text in getattr(learn.dls, "warnings", [])]
    if doubtful:
        said.append("\n".join(["What was doubtful about them:\n", *doubtful]))
    return "\n\n".join([f"{text}.", _table(("class", "train", "held out"), rows), *said])


def _results(learn: LearnerState) -> str:
    """Loss and metrics on the held-out pictures, and what is confused most."""
    if learn.dls is None:
        return "The learner had no data with it when it was exported."
    values = zip(("loss", *learn.metric_names), validate(learn), strict=True)
    rows = [(_name(name), f"{value:.4f}") for name, value in values]
    parts = ["On what was held out:", _table(("metric", "value"), rows)]
    try:
        interp = ClassificationInterpretation.from_learner(learn)
    except (ValueError, RuntimeError) as error:  # several labels an item, say
        return "\n\n".join([*parts, f"No confusion matrix: {_name(error)}."])
    parts.append(
        f"{interp.n_wrong:,} of {counted(len(interp), 'picture')} are wrong (accuracy "
        f"{interp.accuracy:.4f}). The metrics chose the epoch where one was kept, so new pictures "
        "may fare worse."
    )
    if pairs := interp.most_confused()[:_PAIRS]:
        rows = [(_name(actual), _name(predicted), n) for actual, predicted, n in pairs]
        parts += ["Confused most:", _table(("actual", "predicted", "pictures"), rows)]
    return "\n\n".join(parts)


def _training(learn: LearnerState, of: Exported) -> str:
    settings = {
        "pictures": f"{of.about['size']} x {of.about['size']} px",
        "loss": loss_name(learn.loss_func),
        "weight decay": rate_text(learn.first_wd),
        "momenta": ", ".join(f"{mom:g}" for mom in learn.moms),
        "BatchNorm of the body": "moves" if learn.train_bn else "fixed",
        "precision": learn.amp,
        "seed": learn.seed,
    }
    rows = [
        (_name(run.name), f"{len(run.rows)} of {run.n_epoch}", len(run.losses), _rates(run.lrs),
         run.status)
        for run in learn.recorder.runs
    ]  # fmt: skip
    table = _table(("run", "epochs", "steps", "highest rate of the head", "ended"), rows)
    runs = [table] if rows else ["No run of this session trained it; a file was loaded, perhaps."]
    return "\n\n".join([_table(("setting", "value"), [*settings.items()]), *runs])


def _rates(lrs: Sequence[Sequence[float]]) -> str:
    return rate_text(max(step[-1] for step in lrs)) if lrs else ""


def licence_of(learn: LearnerState, network: str) -> tuple[str, str]:
    """The licence of the weights that training began with, "" if it is not known, and in words."""
    origin, arch = learn.config.get("weights"), learn.config.get("arch", "")
    if origin == "none":
        return "", "It was trained from scratch, so no licence of other weights holds for it."
    if origin in ("file", "module"):
        return "", f"It began with weights of a {origin} of the user's, whose licence is not known."
    of_timm = arch.startswith("timm:") or network.startswith("tf_")  # TensorFlow's, as PyPI's
    known = _known_to_timm(network if of_timm else f"{network}.tv_in1k")
    says = f"timm gives as `{known}`" if known else "timm does not know"
    if origin == "published":
        return known, f"It began with published weights of this network, whose licence {says}."
    text = f"Published weights of this network, whose licence {says}, may be what it began with"
    return "", f"{text}: that is not known."


def _known_to_timm(tagged: str) -> str:
    """The licence of weights by their name with a tag, such as that of torchvision's."""
    import timm

    try:
        return timm.models.get_pretrained_cfg(tagged).license or ""
    except (RuntimeError, AttributeError):  # no such weights
        return ""


def _versions() -> str:
    versions = {
        "nbfinetune": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "Python": platform.python_version(),
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items())
