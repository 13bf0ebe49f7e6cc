"""Which networks work: build, freeze, step, export, load, predict, for each family without weights.

    python benchmarks/networks.py [--libraries timm torchvision] [--only NAME ...] [--size 96]
                                  [--seconds 90] [--json FILE]

Of timm the smallest member of each module of models, of torchvision all classification models. What
does not take pictures of --size px is tried at the size that its message names. "step" is one of
the head, then one of all layers, above --most million parameters of the last two groups. The result
must be the same predictions from the exported file. Nothing is downloaded.
"""

import argparse
import gc
import json
import re
import signal
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torchvision.models as tv
from conditions import conditions, table

from nbfinetune import ImageDataLoaders, load_learner, vision_learner
from nbfinetune.data.samples import draw_shapes
from nbfinetune.networks.layer_groups import params_of

SHAPES = ("circle", "square", "star_5")
STEPS = ("build", "freeze", "step", "export", "load", "predict")


def smallest(module: str) -> str:
    """The member of a module of timm with the fewest parameters."""
    import timm

    sizes = {}
    for name in timm.list_models(module=module):
        with torch.device("meta"):
            network = timm.create_model(name)
        sizes[name] = sum(p.numel() for p in network.parameters())
    return f"timm:{min(sizes, key=sizes.get)}"


def family(name: str) -> str:
    """The module that defines a network."""
    if name.startswith("timm:"):
        import timm

        return "timm " + timm.model_entrypoint(name.removeprefix("timm:")).__module__.split(".")[-1]
    return "torchvision " + tv.get_model_builder(name).__module__.split(".")[-1]


class Row(dict):
    """What became of one network: a text for each step, "" for those that were not reached."""

    def run(self, name: str, size: int, most: float, folder: Path) -> None:
        dls = ImageDataLoaders.from_folder(folder, valid_pct=0.34, size=size, bs=6, num_workers=0)
        self["px"], at = size, "build"
        try:
            learn = vision_learner(dls, name, pretrained=False, train_bn=False, device="cpu")
            params = sum(p.numel() for p in learn.model.parameters()) / 1e6
            self["build"], self["M"], self["groups"] = "yes", f"{params:.1f}", len(learn.groups)
            at = "freeze"
            learn.freeze()
            self["freeze"] = "yes" if self._head_alone_changes(learn) else "body moves"
            at = "step"
            self["step"] = self._all_groups_change(learn, most)
            at = "export"
            file = learn.export(folder.parent / "network.safetensors", overwrite=True)
            self["export"] = "yes"
            at = "load"
            again = load_learner(file, device="cpu")
            self["load"] = "yes"
            at = "predict"
            picture = dls.valid.dataset.image(0)
            both = [one.predict(picture)[2] for one in (learn, again)]
            self["predict"] = "yes" if torch.equal(*both) else "differs"
        except ValueError as error:
            self[at] = "refused"
            self["note"] = str(error)
        except Exception as error:
            self[at] = "fails"
            self["note"] = f"{type(error).__name__}: {error}"
        except _TooLong:
            self[at] = "too long"

    def _head_alone_changes(self, learn) -> bool:
        before = [p.clone() for p in learn.model.parameters()]
        head = {id(p) for p in params_of(learn.groups[-1])}
        learn.fit(1, 1e-3, show=False)
        self["kept"] = "yes" if learn.features.kept(learn.dls) else "no"
        after = learn.model.parameters()
        changed = {id(p) for b, p in zip(before, after, strict=True) if not torch.equal(b, p)}
        return bool(changed) and changed <= head

    def _all_groups_change(self, learn, most: float) -> str:
        large = sum(p.numel() for p in learn.model.parameters()) / 1e6 > most
        learn.freeze_to(-2 if large else 0)
        trained = learn.groups[learn.frozen :]
        before = [[p.clone() for p in params_of(group)] for group in trained]
        learn.fit(1, 1e-3, show=False)
        still = [
            i
            for i, (values, group) in enumerate(zip(before, trained, strict=True))
            if all(map(torch.equal, values, params_of(group)))
        ]
        if still:
            return f"groups {still} stand still"
        return "last groups" if large else "yes"


def swept(name: str, args: argparse.Namespace, folder: Path) -> Row:
    row = Row(network=name, family=family(name))
    began = time.process_time()
    signal.alarm(args.seconds)
    try:
        row.run(name, args.size, args.most, folder)
        other = re.search(
            r"does not take pictures of \d+ px, but does of (\d+)", row.get("note", "")
        )
        if other:
            row = Row(network=name, family=row["family"])
            row.run(name, int(other[1]), args.most, folder)
    finally:
        signal.alarm(0)
    row["s"] = f"{time.process_time() - began:.0f}"
    gc.collect()
    return row


class _TooLong(BaseException):
    """Of a kind that no code of a network catches."""


def _too_long(*_: object) -> None:
    raise _TooLong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", nargs="+", default=["timm", "torchvision"])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seconds", type=int, default=90)
    parser.add_argument("--most", type=float, default=150, help="million parameters")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names = args.only or []
    if not args.only and "timm" in args.libraries:
        import timm

        names += [smallest(module) for module in timm.list_modules()]
    if not args.only and "torchvision" in args.libraries:
        sizes = {
            n: tv.get_model_weights(n).DEFAULT.meta["num_params"] for n in tv.list_models(module=tv)
        }
        names += sorted(sizes, key=sizes.get)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    print(conditions("timm"))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = draw_shapes(Path(temporary) / "shapes", n=3, size=96, wrong=0, shapes=SHAPES)
        for name in names:
            rows.append(swept(name, args, folder))
            print({k: v for k, v in rows[-1].items() if v != "yes"}, flush=True)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1))
    heads = ("family", "network", "M", "px", "groups", *STEPS, "kept", "s", "note")
    print(table(heads, [[str(row.get(head, "")) for head in heads] for row in rows]))


if __name__ == "__main__":
    main()
