"""State: all that a run works on and changes of a learner, and the events that it tells of."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from warnings import warn

import torch
from torch import Tensor, nn

from nbfinetune.data.datasets import gives_pictures
from nbfinetune.data.loaders import ImageDataLoaders
from nbfinetune.data.transforms import ImageTransforms
from nbfinetune.history.recorder import Recorder
from nbfinetune.networks import layer_groups
from nbfinetune.networks.heads import body_and_head
from nbfinetune.networks.layer_groups import LayerGroup
from nbfinetune.networks.precision import AMP, autocast, inference_amp, training_amp
from nbfinetune.runtime.rng import RngState, get_rng_state, seeded_rng
from nbfinetune.training import losses
from nbfinetune.training.control import RunControl
from nbfinetune.training.feature_cache import FeatureCache
from nbfinetune.training.losses import Loss
from nbfinetune.training.metrics import Metric, metric_list, metric_name, try_out
from nbfinetune.training.schedules import Schedule

_MOMENTUM = 0.9  # until a cycle sets it (fastai's)


class Callback:
    """Something that happens in a run. Each event gets the learner; the order is that of the list.

    `before_batch` and `after_batch` are for validation batches too: see `learn.training`.
    `after_fit` always comes, also after an error or an interrupt; `learn.status` says how it ended.
    """

    def before_fit(self, learn: "LearnerState") -> None: ...
    def before_epoch(self, learn: "LearnerState") -> None: ...
    def before_batch(self, learn: "LearnerState") -> None: ...
    def after_batch(self, learn: "LearnerState") -> None: ...
    def after_epoch(self, learn: "LearnerState") -> None: ...
    def after_fit(self, learn: "LearnerState") -> None: ...


class LearnerState:
    """What runs, searches and passes need of a learner; `Learner` says what the arguments are.

    Attributes
    ----------
    run_name, n_epoch, n_iter : the run that is on: its name, epochs and training batches of each
    epoch, iter : where it is
    training : whether that is a training batch
    loss : of that batch, a scalar on the device
    values : validation loss and metrics of the newest epoch
    lr_schedules : of each layer group, in the run that is on
    status : "running", "finished", "stopped", "interrupted", "failed" or "refused"
    body_epochs : epochs that run the frozen body, whose features are kept; None = all epochs
    """

    run_name: str
    n_epoch: int
    n_iter: int
    epoch: int
    iter: int
    loss: Tensor
    values: list[float]
    lr_schedules: Sequence[Schedule]
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
        self.vocab: list[str] | None = getattr(dls, "vocab", None)
        self.metrics = metric_list(metrics)
        self.loss_func = nn.CrossEntropyLoss() if loss_func is None else loss_func
        if self.vocab:
            pictures = gives_pictures(getattr(dls, "train", None))
            try_out(self.loss_func, self.metrics, len(self.vocab), self.device, pictures=pictures)
        losses.warn_of_last_layer(model, self.activation)
        self.dls, self.model = dls, model.to(self.device).eval()
        self.groups = [list(group) for group in groups or [[model]]]
        layer_groups.check_groups(model, self.groups)
        self.lr, self.moms, self.train_bn = lr, moms, train_bn
        self.transforms, self.accumulate, self.clip_grad = transforms, accumulate, clip_grad
        self.amp = self.amp_inference = amp
        if amp == "auto":
            known = bool(config and config.get("arch"))
            self.amp = training_amp(self.device, self.model, known=known)
            self.amp_inference = inference_amp(self.device, self.amp, known=known)
        self.features = FeatureCache(cache_features, seed)
        self.scaler = self.new_scaler()
        self.cbs, self.recorder, self.control = list(cbs), Recorder(), RunControl()
        self.seed, self.config, self.frozen, self.training = seed, config or {}, 0, False
        self.body_epochs: int | None = None
        self._check_feature_cache()
        self.opt = layer_groups.adamw(self.groups, lr=lr, mom=_MOMENTUM, wd=wd)
        self._rng: RngState | None = None

    @property
    def loss_func(self) -> Loss:
        """What is minimised; `activation` is what it makes probabilities of outputs with."""
        return self._loss_func

    @loss_func.setter
    def loss_func(self, loss_func: Loss) -> None:
        losses.check_form(loss_func)
        is_module = isinstance(loss_func, nn.Module)
        loss_func = loss_func.to(self.device) if is_module else loss_func
        c = len(self.vocab or ("no", "yes"))
        self.activation = losses.activation_of(loss_func, c, self.device)
        self._loss_func = loss_func

    def _check_feature_cache(self) -> None:
        """Raise ValueError if features are asked for that the body cannot keep."""
        if self.features.wanted in ("auto", False):
            return
        needs = f"cache_features={self.features.wanted!r} needs"
        if not self.body_and_head:
            raise ValueError(f"{needs} a model in a row that ends with its last layer group")
        if self.train_bn:
            raise ValueError(f"{needs} train_bn=False: statistics of the frozen body would move")
        if self.transforms is None:
            raise ValueError(f"{needs} pictures, from ImageDataLoaders")

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

    @contextmanager
    def own_rng(self) -> Iterator[None]:
        """The learner's own random numbers inside; those of the user are as before afterwards."""
        with seeded_rng(self._rng or self.seed):
            try:
                yield
            finally:
                self._rng = get_rng_state()


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
