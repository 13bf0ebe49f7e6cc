"""How far suggested rates are from the best of a grid, on held-out pictures that no search saw.

    NBFINETUNE_PETS=folder python benchmarks/lr_find_truth.py --cifar FOLDER --omniglot FOLDER
        [--seeds 0 1 2] [--data pets shapes] [--bs 64] [--px 64] [--kept FILE]

For each case (data, seed, body frozen with a new head, or all layers after a head was fitted in 100
steps and anew at their end, as by `fine_tune`) one search, and for the truth one `fit_one_cycle` of
at least 40 steps a rate, with other batches than those of the search. The pictures held out are
halved: `lr_find` sees the even ones, the truth is judged on the odd ones. Best is every rate of the
grid whose loss is within 1 % of the lowest, or within one standard error of the difference from it;
a suggestion is near if it is within half a decade of one of these. Where no rate lowers the loss by
2 %, a refusal is right.

The other finders are computed of the same curve, as their packages do: `valley` is fastai's,
"lightning" the steepest fall of the average of factor 0.98 but for 10 steps at the start and 1 at
the end, "torch-lr-finder" that of its average of factor 0.95 but for 10 and 5.

The grids take most of the time and do not depend on the search: `--kept FILE` keeps them, so that a
second run, or one that was cut short, repeats the searches alone.
"""

import argparse
import itertools
import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from nbfinetune import ImageDataLoaders, Learner, samples, vision_learner
from nbfinetune.data.datasets import even_loader
from nbfinetune.lr_finder.results import LRFindResult
from nbfinetune.training.fine_tuning.refit import RefitHead
from nbfinetune.training.snapshot import unchanged

SIZES = {"pets": 96, "cifar": 64, "omniglot": 64, "shapes": 64}  # px
GRIDS = {"head": range(-8, 0), "all": range(-10, -4)}  # half decades: 1e-4 to 3e-1, 1e-5 to 3e-3
HEAD_STEPS = 100  # after which all layers are searched
TRUTH_STEPS = 40
NEAR = 0.5  # decades
HELPS = 0.02  # of the loss; less is not worth a rate
TOOLS = ("lr_find", "bracket", "valley", "lightning", "torch-lr-finder")


def learner(data: str, seed: int, args: argparse.Namespace) -> tuple[Learner, DataLoader]:
    """A learner that sees half of the pictures held out, and a loader of the other half."""
    options = {"valid_pct": 0.3, "seed": seed, "size": args.px or SIZES[data], "bs": args.bs}
    if data == "pets":
        dls = ImageDataLoaders.from_name_re(samples.pets(), None, r"(.+)_\d+", **options)
    else:
        folders = {"cifar": args.cifar, "omniglot": args.omniglot}
        folder = folders[data] if data in folders else samples.draw_shapes()
        dls = ImageDataLoaders.from_folder(folder, **options)
    held_out = dls.valid.dataset
    halves = [held_out.subset(range(k, len(held_out), 2)) for k in (0, 1)]
    dls.valid, other = (even_loader(half, args.bs, shuffle=False) for half in halves)
    return vision_learner(dls, "efficientnet_lite0", seed=seed), other


def held_out_losses(learn: Learner) -> np.ndarray:
    """The loss of each picture."""
    return learn.get_preds(with_loss=True)[2].numpy()


def after_run(learn: Learner, lr: float) -> np.ndarray:
    """The losses after a run at `lr`; the learner is unchanged."""
    with unchanged(learn), learn.quiet():
        learn.seed, learn._rng = learn.seed + 1000, None
        learn.fit_one_cycle(math.ceil(TRUTH_STEPS / len(learn.dls.train)), lr)
        return held_out_losses(learn)


def truth(learn: Learner, trained: str) -> tuple[list[float], float, float]:
    """The best rates, and the mean loss before and after the run at the best one."""
    before = held_out_losses(learn).mean()
    losses: dict[float, np.ndarray] = {}
    for k in GRIDS[trained]:
        losses[10 ** (k / 2)] = np.nan_to_num(after_run(learn, 10 ** (k / 2)), nan=math.inf)
        means = [loss.mean() for loss in losses.values()]
        if len(means) > 2 and min(means[-2:]) > 1.3 * min(means):
            break  # higher ones are worse still
    lowest = min(losses.values(), key=np.mean)
    best = []
    for lr, loss in losses.items():
        worse = loss - lowest
        noise = worse.std() / math.sqrt(len(worse))
        if worse.mean() <= max(0.01 * lowest.mean(), noise):
            best.append(lr)
    return best, float(before), float(lowest.mean())


def steepest(lrs: list[float], losses: list[float], start: int, end: int) -> float:
    return lrs[start + int(np.gradient(losses[start:-end]).argmin())]


def suggestions(found: LRFindResult) -> dict[str, float]:
    """What each tool makes of the search; NaN = refused."""
    torch_lr_finder = [found.losses[0]]
    for loss in found.losses[1:]:
        torch_lr_finder.append(0.05 * loss + 0.95 * torch_lr_finder[-1])
    return {
        "lr_find": math.nan if found.lr is None else found.rate(found.chosen),
        "bracket": found.suggestions["bracket"],
        "valley": found.rate("valley"),
        "lightning": steepest(found.lrs, found.smooth, 10, 1),
        "torch-lr-finder": steepest(found.lrs, torch_lr_finder, 10, 5),
    }


def case(learn: Learner, other: DataLoader, trained: str, kept: dict, key: str) -> dict:
    """What was found, and what is true."""
    started = time.process_time()
    found = learn.lr_find(show=False)
    cpu = time.process_time() - started
    if key not in kept:
        seen, learn.dls.valid = learn.dls.valid, other
        kept[key] = truth(learn, trained)
        learn.dls.valid = seen
    best, before, lowest = kept[key]
    off = {}
    for tool, lr in suggestions(found).items():
        away = [math.log10(lr / rate) for rate in best] if math.isfinite(lr) else [math.nan]
        inside = best[0] <= lr <= best[-1]
        off[tool] = 0.0 if inside else min(away, key=abs)
    return {
        "best": best, "before": before, "lowest": lowest, "off": off, "cpu": cpu,
        "confidence": found.confidence, "lr_mult": found.lr_mult, "runs": len(found.trials),
        "verdict": found.verdict,
    }  # fmt: skip


def is_good(done: dict, tool: str) -> bool:
    """Whether a suggestion is near, or a refusal right."""
    if math.isnan(done["off"][tool]):
        return done["lowest"] > (1 - HELPS) * done["before"]
    return abs(done["off"][tool]) <= NEAR + 0.01  # rates are rounded


def show(key: str, done: dict) -> None:
    best = f"{done['best'][0]:.0e}..{done['best'][-1]:.0e}"
    cells = [*key.split("-"), best, f"{done['before']:.2f}", f"{done['lowest']:.2f}"]
    cells += [done["confidence"], str(done["runs"]), f"{done['lr_mult']:.0f}"]
    cells += ["-" if math.isnan(off) else f"{off:+.2f}" for off in done["off"].values()]
    print("".join(f"{cell:>13}" for cell in cells), end="")
    print(f"{done['cpu']:>8.0f}  {done['verdict']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(3))
    parser.add_argument("--data", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--trained", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR pictures, a folder a class")
    parser.add_argument("--omniglot", type=Path, help="folder of Omniglot characters")
    parser.add_argument("--bs", type=int, default=64, help="batch size")
    parser.add_argument("--px", type=int, help="size of the pictures, of all data sets")
    parser.add_argument("--kept", type=Path, help="JSON file that keeps the cases that are done")
    args = parser.parse_args()
    there = args.kept and args.kept.exists()
    kept = json.loads(args.kept.read_text()) if there else {}
    warnings.simplefilter("ignore")
    heads = (
        "data",
        "seed",
        "trained",
        "best",
        "loss",
        "to",
        "confidence",
        "runs",
        "head x",
        *TOOLS,
    )
    print("columns of the tools: decades from the nearest of the best rates; - = refused")
    print("".join(f"{head[:12]:>13}" for head in heads) + f"{'CPU s':>8}  verdict")
    cases: dict[str, list[dict]] = {trained: [] for trained in args.trained}
    for seed, data in itertools.product(args.seeds, args.data):
        learn, other = learner(data, seed, args)
        learn.freeze_to(-1, quiet=True)
        for trained in args.trained:
            if trained == "all":
                n_epoch = math.ceil(HEAD_STEPS / len(learn.dls.train))
                learn.fit_one_cycle(n_epoch, 2e-3, cbs=[RefitHead()], show=False)
                learn.unfreeze()
            key = f"{data}-{seed}-{trained}"
            cases[trained].append(case(learn, other, trained, kept, key))
            show(key, cases[trained][-1])
            if args.kept:
                args.kept.write_text(json.dumps(kept))
    for trained, done in cases.items():
        shares = [f"{tool} {sum(is_good(d, tool) for d in done)}" for tool in TOOLS]
        print(f"{trained}, near or rightly refused, of {len(done)}: {', '.join(shares)}")


if __name__ == "__main__":
    main()
