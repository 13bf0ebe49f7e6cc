"""What the loop costs: a tiny network, batches in memory, microseconds a batch.

    python benchmarks/loop.py [--batches 300] [--rounds 9]

One epoch and a validation of one batch: a bare loop with AdamW and OneCycleLR, `fit_one_cycle`
without screens, fastai with its recorder, Lightning without its log; neither has a bar. What each
makes once (model, learner, trainer, optimizer) is left out, what it makes for each fit is in.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import fastai_side
import lightning
import torch
from conditions import conditions, in_turn, ratios, spread, table
from fastai.learner import Learner as FastaiLearner
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from nbfinetune import Learner

LR = 1e-3
Batch = tuple[Tensor, Tensor]


def a_batch(bs: int = 16) -> Batch:
    return torch.randn(bs, 8), torch.randint(2, (bs,))


def tiny() -> nn.Linear:
    return nn.Linear(8, 2)


def seconds(fit: Callable[[], object]) -> float:
    started = time.process_time()
    fit()
    return time.process_time() - started


def bare(batch: Batch, n: int) -> float:
    model = tiny()
    opt, loss_func = torch.optim.AdamW(model.parameters(), LR), nn.CrossEntropyLoss()
    train, valid = [batch] * n, [batch]

    def fit() -> None:
        schedule = OneCycleLR(opt, LR, total_steps=n)
        model.train()
        for x, y in train:
            loss_func(model(x), y).backward()
            opt.step()
            schedule.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad():
            for x, y in valid:
                loss_func(model(x), y).item()

    return seconds(fit)


def ours(batch: Batch, n: int) -> float:
    dls = SimpleNamespace(train=[batch] * n, valid=[batch], vocab=["a", "b"])
    learn = Learner(dls, tiny(), device="cpu")
    return seconds(lambda: learn.fit_one_cycle(1, LR, show=False))


def fastai(batch: Batch, n: int) -> float:
    dls = fastai_side.in_memory(batch, n)
    learn = FastaiLearner(dls, tiny(), loss_func=nn.CrossEntropyLoss())
    with fastai_side.silent(learn):
        return seconds(lambda: learn.fit_one_cycle(1, LR))


class Module(lightning.LightningModule):
    """The tiny network for Lightning."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.model, self.loss_func, self.n = tiny(), nn.CrossEntropyLoss(), n

    def training_step(self, batch: Batch, i: int) -> Tensor:
        return self.loss_func(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Batch, i: int) -> Tensor:
        return self.training_step(batch, i)

    def configure_optimizers(self) -> tuple[list, list]:
        opt = torch.optim.AdamW(self.parameters(), LR)
        schedule = OneCycleLR(opt, LR, total_steps=self.n)
        return [opt], [{"scheduler": schedule, "interval": "step"}]


def with_lightning(batch: Batch, n: int) -> float:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        num_sanity_val_steps=0,
        **dict.fromkeys(off, False),
    )
    module = Module(n)
    # Lightning takes a list for several loaders.
    train, valid = fastai_side.Batches(batch, n), fastai_side.Batches(batch, 1)
    return seconds(lambda: trainer.fit(module, train, valid))


SIDES = {"bare": bare, "ours": ours, "fastai": fastai, "lightning": with_lightning}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batch = a_batch()
    sides = {name: lambda side=SIDES[name]: side(batch, args.batches) for name in args.sides}
    in_turn(sides, 1)  # first calls of everything
    values = in_turn(sides, args.rounds)
    print(conditions("fastai", "lightning"))
    rows = []
    for name, times in values.items():
        us = [1e6 * t / args.batches for t in times]
        rows.append((name, spread(us, 0), spread(ratios(times, values["bare"]))))
    print(table(("loop", "us a batch", "times bare"), rows))


if __name__ == "__main__":
    main()
