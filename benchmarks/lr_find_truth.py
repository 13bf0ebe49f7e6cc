"""How far the suggestion of `lr_find` is from the best rate of a grid of short runs.

    NBFINETUNE_PETS=folder python benchmarks/lr_find_truth.py [--seeds 0 1 2] [--data pets shapes]

For each case (data, seed, body frozen with a new head, or all layers after the head was trained at
the best rate) one search and one short run a rate, all from the same weights over the same batches;
the best rate is that of the lowest held-out loss, by a parabola through it and its neighbours.

The grids take nearly all of the time and do not depend on the suggestions: `--grids FILE` keeps
them, so that a second run repeats the searches alone.
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path

from nbfinetune import ImageDataLoaders, Learner, samples, vision_learner
from nbfinetune.lr_finder.search import TRIAL_STEPS, trial_loss

GRID = [10 ** (k / 2) for k in range(-10, -1)]  # 1e-5 to 1e-1, two a decade
SIZES = {"pets": 96, "shapes": 64}  # px
NEAR = 0.5  # decades


def learner(data: str, seed: int) -> Learner:
    options = {"valid_pct": 0.3, "seed": seed, "size": SIZES[data]}
    if data == "pets":
        dls = ImageDataLoaders.from_name_re(samples.pets(), None, r"(.+)_\d+", **options)
    else:
        dls = ImageDataLoaders.from_folder(samples.draw_shapes(), **options)
    return vision_learner(dls, "efficientnet_lite0", seed=seed)


def vertex(losses: list[float]) -> float:
    """The rate at the vertex of the parabola through the lowest loss of the grid and its two
    neighbours over log(rate); rates are half a decade apart, the vertex is nearer than that."""
    k = losses.index(min(losses))
    if k in (0, len(losses) - 1):
        return GRID[k]
    left, low, right = losses[k - 1 : k + 2]
    shift = (left - right) / (left - 2 * low + right) / 2
    return GRID[k] * (GRID[1] / GRID[0]) ** shift


def grid(learn: Learner, kept: dict, key: str) -> tuple[float, float, float, float]:
    """The best rate, the best of the grid, the held-out loss before and after that one's run."""
    if key not in kept:
        before, *_ = learn.validate()
        losses = [trial_loss(learn, lr) for lr in GRID]
        kept[key] = vertex(losses), GRID[losses.index(min(losses))], before, min(losses)
    return kept[key]


def case(learn: Learner, kept: dict, *where: str) -> tuple[float, bool | None]:
    """Prints a row; gives the grid's best and whether a suggestion of high confidence is near."""
    started = time.process_time()
    found = learn.lr_find(suggest=("bracket", "valley", "minimum", "steep"))
    best, of_grid, before, after = grid(learn, kept, "-".join(where))
    off = {
        n: math.log10(lr / best) if found.lr else math.nan for n, lr in found.suggestions.items()
    }
    cells = [*where, f"{best:.1e}", f"{before:.2f}", f"{after:.2f}", found.confidence]
    cells += ["" if math.isnan(value) else f"{value:+.2f}" for value in off.values()]
    print("".join(f"{cell:>10}" for cell in cells), end="")
    print(f"{time.process_time() - started:>8.0f}  {found.verdict[:60]}", flush=True)
    return of_grid, abs(off["bracket"]) <= NEAR if found.confidence == "high" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--data", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--grids", type=Path, help="JSON file that keeps the grids")
    args = parser.parse_args()
    there = args.grids and args.grids.exists()
    kept = json.loads(args.grids.read_text()) if there else {}
    warnings.simplefilter("ignore")
    print(f"efficientnet_lite0, {SIZES} px, short runs of {TRIAL_STEPS} steps at {len(GRID)} rates")
    print("columns bracket to steep: log10(suggested / best)")
    heads = ("data", "seed", "trained", "best", "loss", "to", "confid.", "bracket", "valley")
    print(
        "".join(f"{head:>10}" for head in (*heads, "minimum", "steep")) + f"{'CPU s':>8}  verdict"
    )
    near = []
    for data in args.data:
        for seed in args.seeds:
            learn = learner(data, seed)
            learn.freeze_to(-1, quiet=True)
            best, good = case(learn, kept, data, str(seed), "head")
            near.append(good)
            learn.fit_one_cycle(math.ceil(TRIAL_STEPS / len(learn.dls.train)), best)
            learn.unfreeze()
            near.append(case(learn, kept, data, str(seed), "all")[1])
            if args.grids:
                args.grids.write_text(json.dumps(kept))
    sure = [good for good in near if good is not None]
    share = f"{sum(sure)} of {len(sure)} ({sum(sure) / max(len(sure), 1):.0%})"
    print(f"{len(near)} cases; of those with confidence high {share} are within {NEAR} decades")


if __name__ == "__main__":
    main()
