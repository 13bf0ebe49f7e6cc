"""bfloat16 against float32 on this CPU: time of training steps and of forward passes.

    python benchmarks/precision.py [--archs resnet18 convnext_tiny ...] [--rounds 3]

What `amp="auto"` chooses follows from the network alone; this shows what the choice gains.
One thread, channels last, batches of 8 pictures in memory, in turn (A B B A).
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torchvision
from torch import nn

from nbfinetune.networks.precision import autocast, training_amp

ARCHS = (
    *("resnet18", "resnet50", "vgg11_bn", "densenet121", "regnet_y_400mf", "mobilenet_v3_small"),
    *("efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"),
)
CPU = torch.device("cpu")


def seconds(run: Callable[[str], None], amp: str) -> float:
    started = time.process_time()
    run(amp)
    return time.process_time() - started


def ratio(run: Callable[[str], None], rounds: int) -> tuple[float, float, float]:
    """Milliseconds a picture in float32; bfloat16 / float32; its range."""
    for amp in ("off", "bf16"):
        run(amp)
    both = []
    for _ in range(rounds):
        times = [seconds(run, amp) for amp in ("off", "bf16", "bf16", "off")]
        both.append((times[0] + times[3], times[1] + times[2]))
    ratios = sorted(bf16 / fp32 for fp32, bf16 in both)
    ms = median(fp32 for fp32, _ in both) / 16 * 1000
    return ms, median(ratios), ratios[-1] - ratios[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", nargs="+", default=ARCHS)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "network             chosen   step fp32 ms   bf16 x (range)   forward ms   bf16 x (range)"
    )
    for arch in args.archs:
        model = torchvision.models.get_model(arch, weights=None).eval()
        model.to(memory_format=torch.channels_last)
        size = 224 if arch.startswith(("vit", "swin")) else 128
        x = torch.randn(8, 3, size, size).contiguous(memory_format=torch.channels_last)
        y = torch.arange(8)

        def step(amp: str, model: nn.Module = model, x=x, y=y) -> None:
            with autocast(CPU, amp):
                loss = nn.functional.cross_entropy(model(x), y)
            model.zero_grad()
            loss.backward()

        def forward(amp: str, model: nn.Module = model, x=x) -> None:
            with torch.no_grad(), autocast(CPU, amp):
                model(x)

        parts = [ratio(run, args.rounds) for run in (step, forward)]
        text = "".join(f"{ms:>10.1f}   {x:.2f} ({spread:.2f})    " for ms, x, spread in parts)
        print(f"{arch:<20}{training_amp(CPU, model, known=True):<8}{text}", flush=True)


if __name__ == "__main__":
    main()
