"""Learner: a model, its data and what trains it, with fastai's methods, names and defaults."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from warnings import warn

import torch
from torch import Tensor, nn

from nbfinetune.checkpoints import checkpoint
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.history.recorder import Recorder
from nbfinetune.interpretation import prediction
from nbfinetune.lr_finder import search
from nbfinetune.networks import layer_groups
from nbfinetune.networks.heads import body_and_head
from nbfinetune.networks.layer_groups import LayerGroup
from nbfinetune.networks.precision import AMP, autocast, inference_amp, training_amp
from nbfinetune.rendering.tables import Table
from nbfinetune.runtime.rng import RngState, get_rng_state, seeded_rng
from nbfinetune.training import fitting
from nbfinetune.training.callbacks import Callback
from nbfinetune.training.control import RunControl
from nbfinetune.training.feature_cache import Features
from nbfinetune.training.metrics import Metric, metric_name

_MOMENTUM = 0.9  # until a cycle sets it (fastai's)


class Learner:
    """A model with its data, its layer groups and what trains them.

    Parameters
    ----------
    dls : has `train` and `valid`, loaders of (inputs, targets) with a length, and `vocab`;
        None for prediction only
    model : gives logits [n, c]
    groups : layer groups from input to head, lists of modules; default: one group, the model
    loss_func : (logits, targets) -> mean loss; default: cross entropy
    metrics : a function (preds, targets) -> float, or several; preds are probabilities
    lr : learning rate where a fit is given none (fastai's default, 1e-3)
    wd : weight decay, decoupled, of all parameters but biases and norms (fastai's 0.01)
    moms : momentum at the start, the middle and the end of a cycle (fastai's)
    train_bn : True is fastai's rule: norm layers of frozen groups stay trainable and statistics
        move. False: frozen groups are fixed altogether, and the BatchNorm statistics of all groups
        but the head stay as they are, also unfrozen
    transforms : from uint8 batches to the model's inputs; None: batches are inputs already
    amp : mixed precision: "bf16", "fp16", "off", or "auto" = what is fastest on the device without
        loss; on a CPU with bfloat16 that is bf16 for networks with a name where no gradients are
        needed, and for training too unless the network has depthwise convolutions
    cache_features : while the body is frozen its features are computed once and kept for all runs:
        "auto" = where that is possible, True = refuse a model where it is not, False = never, a
        number = that many views of each training picture, the first of which is not augmented
    accumulate : batches whose gradients are averaged for one optimizer step
    clip_grad : largest norm of the gradient, None = any
    device : "cuda", "mps" or "cpu"; default: the first of these that there is
    cbs : callbacks of every fit
    seed : of all random numbers of the fits; the same seed gives the same losses on a CPU
    config : what is needed to build the model again, for `export`

    Attributes
    ----------
    recorder : the history
    control : pauses, stops, finishes and scales the run that is on
    frozen : number of groups that are frozen
    features : what the frozen body gave of the pictures
    amp, amp_inference : mixed precision of training, and of passes without gradients
    """

    def __init__(
        self,
        dls: ImageDataLoaders | None,
        model: nn.Module,
        *,
        groups: Sequence[LayerGroup] | None = None,
        loss_func: Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: Metric | Sequence[Metric] = (),
        lr: float = 1e-3,
        wd: float = 0.01,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        train_bn: bool = True,
        transforms: ImageTransforms | None = None,
        amp: str = "auto",
        cache_features: bool | int | str = "auto",
        accumulate: int = 1,
        clip_grad: float | None = None,
        device: str | torch.device | None = None,
        cbs: Sequence[Callback] = (),
        seed: int = 42,
        config: dict | None = None,
    ) -> None:
        if amp not in AMP:
            raise ValueError(f"amp is {amp!r}; it must be one of {', '.join(AMP)}")
        if accumulate < 1:
            raise ValueError(f"accumulate is {accumulate}; it must be at least 1")
        self.device = torch.device(device or _best_device())
        self.dls, self.model = dls, model.to(self.device).eval()
        self.groups = [list(group) for group in groups or [[model]]]
        layer_groups.check_groups(model, self.groups)
        loss_func = loss_func or nn.CrossEntropyLoss()
        is_module = isinstance(loss_func, nn.Module)
        self.loss_func = loss_func.to(self.device) if is_module else loss_func
        self.metrics = [metrics] if callable(metrics) else list(metrics)
        if len(set(self.metric_names)) < len(self.metrics):
            raise ValueError(f"two metrics have the same name: {', '.join(self.metric_names)}")
        self.lr, self.moms, self.train_bn = lr, moms, train_bn
        self.transforms, self.accumulate, self.clip_grad = transforms, accumulate, clip_grad
        self.amp = self.amp_inference = amp
        if amp == "auto":
            known = bool(config and config.get("arch"))
            self.amp = training_amp(self.device, self.model, known=known)
            self.amp_inference = inference_amp(self.device, self.amp, known=known)
        self.features = Features(cache_features, seed)
        self.scaler = self.new_scaler()
        self.cbs, self.recorder, self.control = list(cbs), Recorder(), RunControl()
        self.vocab: list[str] | None = getattr(dls, "vocab", None)
        self.seed, self.config, self.frozen, self.training = seed, config or {}, 0, False
        self.body_epochs: int | None = None
        self.features.check(self)
        self.opt = layer_groups.adamw(self.groups, lr=lr, mom=_MOMENTUM, wd=wd)
        self._rng: RngState | None = None

    @property
    def metric_names(self) -> list[str]:
        """The column titles of the metrics."""
        return [metric_name(metric) for metric in self.metrics]

    @property
    def progress(self) -> float:
        """Share of the fit's training batches that came before this one, in [0, 1)."""
        return (self.epoch + self.iter / self.n_iter) / self.n_epoch

    def prepare(self, x: Tensor, *, training: bool) -> Tensor:
        """The inputs of a batch as the model takes them, on its device."""
        x = x.to(self.device, non_blocking=True)
        if self.transforms is None:
            return x
        return self.transforms.train(x) if training else self.transforms.valid(x)

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

    def parts(self, *, training: bool) -> tuple[nn.Sequential, nn.Sequential] | None:
        """Body and head where the body is run in a precision of its own, else None.

        It looks at each layer: ask once for many batches.
        """
        less = self.device.type == "cpu" and self.amp_inference != "off"
        if not less or not self.config.get("arch") or (training and not self.body_is_fixed):
            return None
        return self.body_and_head

    def logits(self, x: Tensor, parts: tuple[nn.Sequential, nn.Sequential] | None) -> Tensor:
        """Inputs, as `prepare` gives them, to logits [n, c], in full precision."""
        if parts:
            return self.head_logits(parts[1], self.features_of(parts[0], x))
        with self.autocast():
            out = self.model(x)
        return out if self.amp == "off" else out.float()

    def features_of(self, body: nn.Module, x: Tensor) -> Tensor:
        """Inputs to what the body gives, without a graph."""
        with torch.no_grad(), autocast(self.device, self.amp_inference):
            return body(x)

    def head_logits(self, head: nn.Module, features: Tensor) -> Tensor:
        """What the body gives to logits [n, c], in full precision."""
        # A head is too small to gain by less precision on a CPU.
        with autocast(self.device, "off" if self.device.type == "cpu" else self.amp):
            return head(features.float()).float()

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
        if self.control.running and self.control.thread is not threading.current_thread():
            raise RuntimeError(
                "this learner is training in the background; wait for it, or stop it with %stop "
                "or learn.control.stop()"
            )

    def _freeze_to(self, n: int) -> bool:
        self.check_idle()
        changed = layer_groups.freeze_to(self.groups, n, train_bn=self.train_bn)
        self.frozen = n % len(self.groups)
        self.opt.zero_grad()
        self.opt.state.clear()
        return changed

    def _say_unchanged(self) -> None:
        # 3: the line that called freeze, so that each such line warns
        warn(f"no change in what trains: {self.frozen_text()}", stacklevel=3)

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

    def summary(self) -> Table:
        """The layer groups with their parameters and learning rates, and the device."""
        rows = []
        for i, group in enumerate(self.groups):
            params = layer_groups.params_of(group)
            sizes = (
                sum(p.numel() for p in params),
                sum(p.numel() for p in params if p.requires_grad),
            )
            lrs = [f"{g['lr']:.1e}" for g in self.opt.param_groups if g["layer_group"] == i]
            rows.append((self.group_names[i], *(f"{n:,}" for n in sizes), *(lrs[:1] or [""])))
        title = f"{self.config.get('arch') or type(self.model).__name__}: {self.frozen_text()}"
        footer = f"device {self.device}, mixed precision {self.amp}"
        if self.amp_inference != self.amp:
            footer += f" ({self.amp_inference} without gradients)"
        footer += ", next lr "
        footer += layer_groups.lr_text(self.lr)
        return Table(title, ("layer group", "parameters", "trainable", "last lr"), rows, footer)

    fit = fitting.fit
    fit_one_cycle = fitting.fit_one_cycle
    fit_flat_cos = fitting.fit_flat_cos
    fit_sgdr = fitting.fit_sgdr
    fine_tune = fitting.fine_tune
    lr_find = search.lr_find

    @contextmanager
    def own_rng(self) -> Iterator[None]:
        """The learner's own random numbers inside; those of the user are as before afterwards."""
        with seeded_rng(self._rng or self.seed):
            try:
                yield
            finally:
                self._rng = get_rng_state()

    validate = prediction.validate
    get_preds = prediction.get_preds
    predict = prediction.predict

    save = checkpoint.save
    load = checkpoint.load
    export = checkpoint.export


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
