"""State: all that a run works on and changes of a learner, and the events that it tells of."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from math import inf
from warnings import warn

import torch
from torch import Tensor, nn

from nbfinetune.arguments import check_number, users_line
from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.taken_loaders import (
    TakenLoaders,
    followed_transforms,
    has_class_indices,
)
from nbfinetune.data.transforms import ImageTransforms, Part
from nbfinetune.history.recorder import Recorder
from nbfinetune.networks import layer_groups
from nbfinetune.networks.heads import body_and_head
from nbfinetune.networks.layer_groups import LayerGroup, LearningRate, lr_text
from nbfinetune.networks.outputs import logits_of, output_of
from nbfinetune.networks.precision import autocast, chosen_amp
from nbfinetune.objectives import losses
from nbfinetune.objectives.loss_weights import check_outputs
from nbfinetune.objectives.losses import Loss
from nbfinetune.objectives.metrics import Metric, metric_name, try_out
from nbfinetune.rendering.names import shown
from nbfinetune.runtime.calls import Call
from nbfinetune.runtime.device import usable_device
from nbfinetune.runtime.interrupts import interrupts_held, whole
from nbfinetune.runtime.rng import RngState, get_rng_state, seeded_rng
from nbfinetune.training import options
from nbfinetune.training.batches.feature_cache import FeatureCache
from nbfinetune.training.batches.part_sizes import PartSizes
from nbfinetune.training.chosen_rates import ChosenRate, safe_rate
from nbfinetune.training.control import RunControl
from nbfinetune.training.fine_tuning.second_stage import SecondStage
from nbfinetune.training.resuming.places import Place
from nbfinetune.training.schedules import Schedule
from nbfinetune.training.spmd.world import World

_MOMENTUM = 0.9  # until a cycle sets it (fastai's)


class Callback:
    """Something that happens in a run. Each event gets the learner; the order is that of the list.

    `before_batch` and `after_batch` are for validation batches too: see `learn.training`.
    `after_train` comes between the training batches of an epoch and its validation.
    `after_part` comes between the parts of a batch, where it has some (pictures on a CPU); an error
    there drops the whole step, as if its batch had not begun.
    `after_fit` always comes, also after an error or an interrupt; `learn.status` says how it ended.

    Attributes
    ----------
    runs_on : where it is, if several workers train: "first" = in the first of them, which may
        change the learner as it likes; "all" = in each, if it follows from what all know; "console"
        = where the call was made
    is_last : whether it is called after all others, as one that only tells of what they did
    """

    runs_on = "first"
    is_last = False

    @property
    def itself(self) -> "Callback":
        """The callback, or the one that it calls for others."""
        return self

    def before_fit(self, learn: "LearnerState") -> None: ...
    def before_epoch(self, learn: "LearnerState") -> None: ...
    def before_batch(self, learn: "LearnerState") -> None: ...
    def after_part(self, learn: "LearnerState") -> None: ...
    def after_batch(self, learn: "LearnerState") -> None: ...
    def after_train(self, learn: "LearnerState") -> None: ...
    def after_epoch(self, learn: "LearnerState") -> None: ...
    def after_fit(self, learn: "LearnerState") -> None: ...

    def state_dict(self) -> dict[str, object]:
        """What it changes in a run, for checkpoints: numbers, texts, tensors, and dicts of them."""
        return {}

    def load_state_dict(self, learn: "LearnerState", state: dict[str, object]) -> None:
        """Go on from there; called when a run goes on in another process, after `before_epoch`."""


def as_callbacks(cbs: Callback | Sequence[Callback]) -> list[Callback]:
    """Callbacks as a list, one alone too; raises ValueError for what is none."""
    alone = isinstance(cbs, (Callback, type, str)) or not hasattr(cbs, "__iter__")
    listed = [] if cbs is None else [cbs] if alone else list(cbs)
    for cb in listed:
        if isinstance(cb, type):
            raise ValueError(f"cbs holds the class {cb.__name__}; pass {cb.__name__}()")
        if not isinstance(cb, Callback):
            how = f"LogTo({shown(cb)}) logs to a file" if isinstance(cb, str) else "as SaveBest()"
            raise ValueError(f"cbs holds {shown(cb)}, which is no callback; pass some, {how}")
    return listed


class LearnerState:
    """What runs, searches and passes need of a learner; `Learner` says what the arguments are.

    Attributes
    ----------
    run_name, n_epoch, n_iter : the run that is on: its name, epochs and training batches of each
    epoch, iter : where it is
    run_cbs : callbacks of the run that is on
    training : whether that is a training batch
    loss, targets : of that batch, a scalar and the targets of training, on the device
    unrecorded : whether that batch is done but not in the history yet
    values : validation loss and metrics of the newest epoch
    n_valid, weakest : its held-out pictures, and which classes are predicted worst, in words
    memory : what fits into it at once, as the run that is on found out
    lr_schedules : of each layer group, in the run that is on
    status : "running", "finished", "stopped", "interrupted", "failed" or "refused"
    body_epochs : epochs that run the frozen body, whose features are kept; None = all epochs
    n_out : outputs of the model, once it was run with the loss that there is
    chosen : the rate of the next run, if a search or its plot chose it
    rate_note : which rate the newest run uses that was given none, and where it comes from; after
        a search, that of the next run
    rate_how : where that of the next run comes from, after a search
    last_search : what the newest search found
    second_stage : what the newest `fine_tune` found for the training of all layers
    first_wd : the weight decay that it was made with
    place : where in its first epoch a run goes on, None = at its begin
    keeper : what writes the run that is on to the disk; None = nothing does
    resumed : what the next call goes on with
    undoable : what it was before its fits
    calls : what was called and set since it was made
    within_call : the thread that one of these calls is on in, None = in none
    world : the processes that share its batches, None = it has them all
    """

    lr = options.Checked(options.checked_lr)
    lr_decay = options.Checked(options.checked_lr_decay)
    moms = options.Checked(options.checked_moms)
    accumulate = options.Checked(options.checked_accumulate)
    clip_grad = options.Checked(options.checked_clip_grad)
    seed = options.Checked(options.checked_seed)
    loss_func = options.Checked(options.checked_loss)
    metrics = options.Checked(options.listed_metrics)
    cbs = options.Checked(lambda learn, cbs: as_callbacks(cbs))
    dls = options.Checked(lambda learn, dls: learn._take(dls))
    train_bn = options.Checked(options.checked_train_bn)
    transforms = options.Checked(options.checked_transforms)
    amp = options.Checked(options.checked_amp)
    amp_inference = options.Checked(options.checked_amp)

    run_name: str
    n_epoch: int
    n_iter: int
    epoch: int
    iter: int
    loss: Tensor
    unrecorded: bool
    targets: Tensor
    values: list[float]
    n_valid: int
    weakest: str
    lr_schedules: Sequence[Schedule]
    chosen: ChosenRate | None
    rate_how: str
    status: str

    def __init__(
        self,
        dls: ImageDataLoaders | None,
        model: nn.Module,
        *,
        groups: Sequence[LayerGroup] | None = None,
        loss_func: Loss | None = None,
        metrics: Metric | Sequence[Metric] | None = (),
        lr: float = 1e-3,
        lr_decay: float | None = None,
        wd: float = 0.01,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        train_bn: bool = True,
        transforms: ImageTransforms | None = None,
        amp: str = "auto",
        cache_features: bool | int | str = "auto",
        accumulate: int = 1,
        clip_grad: float | None = None,
        device: str | torch.device | None = None,
        cbs: Callback | Sequence[Callback] = (),
        seed: int = 42,
        config: dict | None = None,
    ) -> None:
        options.check_modes(amp=amp, train_bn=train_bn, transforms=transforms)
        check_number("wd", wd, 0, inf, such_as=0.01)
        layer_groups.check_weights(options.checked_model(model))
        self.config, self.device = options.checked_config(config), usable_device(device)
        self.groups = options.listed_groups(groups, model)
        layer_groups.check_groups(model, self.groups)
        self.lr, self.lr_decay, self.moms = lr, lr_decay, moms
        self.train_bn = bool(train_bn)
        self._first_lr, self.chosen, self.rate_note = self.lr, None, ""
        self.first_wd = float(wd)
        self.last_search: object | None = None
        self.second_stage: SecondStage | None = None
        self.place: Place | None = None
        self.keeper: object | None = None
        self.resumed: object | None = None
        self.undoable: object | None = None
        self.run_cbs: Sequence[Callback] = ()
        self._quiet = 0
        self.accumulate, self.clip_grad, self.seed = accumulate, clip_grad, seed
        self.recorder, self.control, self.memory = Recorder(), RunControl(), PartSizes()
        self.vocab: list[str] | None = None
        self.transforms, self._taken = transforms, TakenLoaders.of(dls)
        self.dls, self.loss_func, self.metrics, self.cbs = dls, loss_func, metrics, cbs
        if self.vocab:
            pictures = has_class_indices(getattr(dls, "train", None))
            try_out(self.loss_func, self.metrics, len(self.vocab), self.device, pictures=pictures)
        losses.warn_of_last_layer(model, self.activation)
        self.model, self.frozen, self.training = model.to(self.device).eval(), 0, False
        known = bool(self.config.get("arch"))
        self.amp, self.amp_inference = chosen_amp(amp, self.device, self.model, known=known)
        self.features = FeatureCache(cache_features, seed)
        self.scaler = self.new_scaler()
        self.body_epochs: int | None = None
        wanted, splits = self.features.wanted, self.body_and_head is not None
        options.check_cache(wanted, splits=splits, train_bn=self.train_bn, transforms=transforms)
        rate = layer_groups.lr_per_group(lr, len(self.groups))[-1]
        self.opt = layer_groups.adamw(self.groups, lr=rate, mom=_MOMENTUM, wd=wd)
        self._rng: RngState | None = None
        self.calls: tuple[Call, ...] = ()
        self.within_call: int | None = None
        self.world: World | None = None
        self._draws = 0

    def _take(self, dls: ImageDataLoaders | None) -> ImageDataLoaders | None:
        """Take loaders of the same classes: their size and augmentation are followed."""
        self.check_idle()
        if dls is None:
            return None

        new, old = TakenLoaders.of(dls), self._taken
        vocab = options.followed_names(new, old, self.vocab)
        vars(self)["_transforms"] = followed_transforms(  # no setting of the user's
            self.transforms, new, old, lambda x: self.model(x.to(self.device))
        )
        self.vocab, self._taken = vocab, new
        return dls

    def __getstate__(self) -> dict:
        """All but schedules and what belongs to the run that is on, which nothing can pickle."""
        own = {k: v for k, v in vars(self).items() if k != "lr_schedules"}
        own["run_cbs"] = ()
        others = ("keeper", "resumed", "place", "undoable", "within_call", "world")
        return own | dict.fromkeys(others)

    def __deepcopy__(self, memo: dict) -> "LearnerState":
        """A learner that rests; a run that is on in another thread waits for the copy."""
        copied = memo[id(self)] = object.__new__(type(self))
        with self.control.held():
            vars(copied).update(deepcopy(self.__getstate__(), memo))
        if copied.recorder.runs and copied.recorder.runs[-1].status == "running":
            copied.recorder.end("stopped")
            copied.status, copied.training, copied.features.computing = "stopped", False, None
            copied.opt.zero_grad()
            copied.model.eval()
        return copied

    @property
    def metric_names(self) -> list[str]:
        """The column titles of the metrics."""
        return [metric_name(metric) for metric in self.metrics]

    @property
    def progress(self) -> float:
        """Share of the fit's training batches that came before this one, in [0, 1)."""
        return (self.epoch + self.iter / self.n_iter) / self.n_epoch

    def prepare(self, x: Tensor, *, training: bool, of: Part | None = None) -> Tensor:
        """The inputs of a batch as the model takes them, on its device.

        of : which part of a batch of pictures they are; None = all
        """
        if not isinstance(x, Tensor):
            raise ValueError(f"a batch has {shown(x)} as inputs; loaders give (inputs, targets)")
        x = x.to(self.device, non_blocking=True)
        if self.transforms is None:
            return x
        if not training:
            return self.transforms.valid(x)
        if of is None or not isinstance(self.transforms, ImageTransforms):
            return self.transforms.train(x)
        return self.transforms.train(x, of)

    def check_augmentation(self) -> None:
        """Raise ValueError if a function of the user's gives other than the model's pictures.

        A run asks before its first step: kept features are augmented in a later epoch only.
        """
        if isinstance(getattr(self.transforms, "aug", True), bool):
            return
        if gives_pictures(self.dls.train):
            with seeded_rng(self.seed):
                picture, _ = self.dls.train.dataset[0]
                self.transforms.try_augment(picture.to(self.device))

    def new_scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, which acts for fp16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")

    def autocast(self) -> AbstractContextManager:
        """The context of mixed precision for a forward pass."""
        return autocast(self.device, self.amp)

    @property
    def body_and_head(self) -> tuple[nn.Sequential, nn.Sequential] | None:
        """The model in two, None if it is not one of layers in a row that ends with its head."""
        return body_and_head(self.model, self.groups)

    @property
    def body_is_fixed(self) -> bool:
        """Whether nothing of the body trains or moves: it depends on the picture alone."""
        if self.train_bn or self.frozen != len(self.groups) - 1:
            return False
        parts = self.body_and_head
        return bool(parts) and not any(p.requires_grad for p in parts[0].parameters())

    def precision_split(self, *, training: bool) -> tuple[nn.Sequential, nn.Sequential] | None:
        """Body and head where the body is run in a precision of its own, else None.

        It looks at each layer: ask once for many batches.
        """
        less = self.device.type == "cpu" and self.amp_inference != "off"
        if not less or not self.config.get("arch") or (training and not self.body_is_fixed):
            return None
        return self.body_and_head

    def logits(self, x: Tensor, split: tuple[nn.Sequential, nn.Sequential] | None) -> Tensor:
        """Inputs, as `prepare` gives them, to logits [n, c], in full precision."""
        if split:
            return self.head_logits(split[1], self.features_of(split[0], x))
        with self.autocast(), self._own_draws():
            out = self._fitting(output_of(self.model, x))
        return out if self.amp == "off" else out.float()

    def features_of(self, body: nn.Module, x: Tensor) -> Tensor:
        """Inputs to what the body gives, without a graph."""
        with torch.no_grad(), autocast(self.device, self.amp_inference):
            return body(x)

    def head_logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """What the body gives to logits [n, c], in full precision."""
        # A head is too small to gain by less precision on a CPU.
        off = self.device.type == "cpu"
        with autocast(self.device, "off" if off else self.amp), self._own_draws():
            return self._fitting(head(features.float())).float()

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """What layers draw, as dropout does, is another in each process; all else is the same."""
        if self.world is None or not self.training:
            yield
            return
        self._draws += 1
        with seeded_rng(hash((self.seed, self._draws, self.world.rank)) % 2**31):
            yield

    def _fitting(self, out: object) -> Tensor:
        """The logits in what the model gives, one for each class."""
        if isinstance(out, Tensor) and out.shape[1:] == (self.n_out,):
            return out
        logits = logits_of(out, model=self.model)
        if logits.dim() != 2:
            raise ValueError(f"the model gives {list(logits.shape)}, not logits [n, c]")
        check_outputs(logits.shape[1], self.vocab, self.loss_func)
        self.n_out = logits.shape[1]
        return logits

    def freeze_to(self, n: int, *, quiet: bool = False) -> None:
        """Train layer groups n and above only, and forget the optimizer's momentum (as fastai).

        In a run, as from a callback, it holds from the next epoch on.

        Parameters
        ----------
        n : group number, counted from the end if negative: 0 = all train, -1 = only the head
        quiet : do not warn if that changes nothing

        Raises
        ------
        ValueError
            If there is no such group.
        """
        if not self._freeze_to(n) and not quiet:
            self._say_unchanged()

    def freeze(self) -> None:
        """Train only the last layer group, the head."""
        if not self._freeze_to(-1):
            self._say_unchanged()

    def unfreeze(self) -> None:
        """Train all layer groups."""
        if not self._freeze_to(0):
            self._say_unchanged()

    def check_idle(self) -> None:
        """Raise RuntimeError if a run is on in another thread."""
        self.control.check_idle()

    def _freeze_to(self, n: int) -> bool:
        self.check_idle()
        layer_groups.warn_of_hand_set(self.model, self.groups, self.frozen, train_bn=self.train_bn)
        with interrupts_held():
            changed = layer_groups.freeze_to(self.groups, n, train_bn=self.train_bn)
            self.frozen = n % len(self.groups)
            self.opt.zero_grad()
            self.opt.state.clear()
            if changed:
                self.drop_rate()
        return changed

    @whole
    def use_rate(self, lr: LearningRate, where: str, kind: str = "found") -> None:
        """Train at `lr` where a run is given no rate, while what trains is the same.

        Parameters
        ----------
        where, kind : see `ChosenRate`
        """
        self.lr = lr
        self.chosen = ChosenRate(lr, where, self.frozen, self.trained_text(), kind)

    def drop_rate(self) -> None:
        """Go back to the default, where a search or its plot chose the rate."""
        if self.chosen is None or self.chosen.lr != self.lr:  # set by hand since
            self.chosen = None
            return
        was = self.chosen.trained
        lr = safe_rate(self._first_lr, len(self.groups) - self.frozen)
        where = f"the default for {self.trained_text()}"
        if was != self.trained_text():
            where += f", as the rate before was for {was}"
        self.use_rate(lr, where, "default")

    def chosen_text(self, what: str) -> str:
        """What the rate is, under the name `what`, if a search or its plot chose it, else ""."""
        known = self.chosen is not None and self.chosen.lr == self.lr
        return f"{what} {self.chosen.text}" if known else ""

    def say_next_rate(self, how: str) -> None:
        """Let `rate_note` tell the rate of the next run, and where it comes from."""
        self.rate_how, self.rate_note = how, f"next run: {lr_text(self.lr)} ({how})"

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside, runs and searches show nothing; their history is kept as ever.

        Examples
        --------
        >>> with learn.quiet():  # doctest: +SKIP
        ...     learn.fine_tune(3)
        """
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be shown: in `quiet`, and within a run that is on."""
        return bool(self._quiet) or self.control.running

    def _say_unchanged(self) -> None:
        warn(f"no change in what trains: {self.frozen_text()}", stacklevel=users_line())

    @property
    def group_names(self) -> list[str]:
        """The layer groups' names: body 0, ..., head."""
        return [*(f"body {i}" for i in range(len(self.groups) - 1)), "head"]

    def trained_text(self) -> str:
        """Which layer groups train, in a few words."""
        names = self.group_names[self.frozen :]
        if len(names) == len(self.groups):
            return "all layers"
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"

    def frozen_text(self) -> str:
        """How much of the model is frozen, in one line."""
        params = list(self.model.parameters())
        total, training = (
            sum(p.numel() for p in chosen)
            for chosen in (params, [p for p in params if p.requires_grad])
        )
        groups = f"{self.frozen} of {len(self.groups)} layer groups are frozen"
        return f"{groups}, {training:,} of {total:,} parameters train"

    @contextmanager
    def own_rng(self) -> Iterator[None]:
        """The learner's own random numbers inside; those of the user are as before afterwards."""
        with seeded_rng(self._rng or self.seed):
            try:
                yield
            finally:
                self._rng = get_rng_state()
