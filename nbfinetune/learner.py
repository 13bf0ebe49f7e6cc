"""Learner: a model, its data and what trains it, with fastai's methods, names and defaults."""

from collections.abc import Callable, Iterable, Sequence
from random import SystemRandom
from typing import NoReturn
from warnings import warn
from weakref import WeakKeyDictionary

from torch import nn

from nbfinetune.arguments import as_columns, as_whole_number, users_line
from nbfinetune.checkpoints import checkpoint
from nbfinetune.exports import export
from nbfinetune.history import screens
from nbfinetune.history.recorder import FitResult
from nbfinetune.interpretation import prediction
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.label_issues import label_issues
from nbfinetune.interpretation.thumbnails import PredictedPictures
from nbfinetune.lr_finder import search
from nbfinetune.networks import layer_groups
from nbfinetune.objectives.losses import loss_name
from nbfinetune.others.fastai import parts_of_fastai, working_metrics
from nbfinetune.others.lightning import parts_of_lightning
from nbfinetune.others.loaders import loader_pair
from nbfinetune.rendering.left_out import left_out
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.tables import Table
from nbfinetune.runtime.calls import repeatable
from nbfinetune.scripts import repeating
from nbfinetune.training import fitting
from nbfinetune.training.fine_tuning import stages
from nbfinetune.training.printing import shows
from nbfinetune.training.resuming import ledger, resume, undo
from nbfinetune.training.spmd import spread
from nbfinetune.training.state import Callback, LearnerState


class Learner(LearnerState):
    """A model with its data, its layer groups and what trains them.

    While one of its methods is at work in the main thread an interrupt (SIGINT) acts between two
    batches, or at the end; a second one ends a step that hangs. After either, as after
    `control.stop`, the weights are those of the last whole step, or of the best epoch where a call
    keeps it, and all else that a run changes is given back. What acts is the handler that there
    was, which mostly raises KeyboardInterrupt.

    Parameters
    ----------
    dls : has `train` and `valid`, loaders of (inputs, targets) with a length, and `vocab`;
        None for prediction only
    model : gives logits [n, c]
    groups : layer groups from input to head, lists of modules; default: one group, the model
    loss_func : (outputs, targets) -> mean loss, or a loss of each picture; default: cross entropy.
        Its attribute `activation`, where it has one, makes probabilities of outputs; else the
        losses of torch are known (sigmoid for nn.BCEWithLogitsLoss), others must be of softmax
    metrics : one, several, a dict of names with one each, or None. A metric is a function (preds,
        targets) -> float, of probabilities; a name, such as "accuracy", "top_3_accuracy",
        "f1_macro", "roc_auc" (a wrong one is refused with all that there are); a function of
        scikit-learn; or an object of torchmetrics. Each is tried on a few made-up predictions.
        `EarlyStopping` says how it should go
    lr : learning rate where a fit is given none (fastai's default, 1e-3)
    lr_decay : in (0, 1]: where a rate is one number, the k-th group before the head has lr *
        lr_decay^k (layer-wise decay, see `lr_per_group`). BEiT has 0.65 to 0.9 for each block of a
        transformer; a stage of several blocks needs less. `fine_tune` counts from the last group of
        the body, which has the rate that its recipe finds. A slice, a list and `lr_mult` say the
        rates themselves. None = all alike; `learn.lr_decay` changes it
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
    accumulate : batches whose pictures make one optimizer step, as those of one large batch
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

    @classmethod
    def from_fastai(cls, learn: object, **options) -> "Learner":
        """A learner of a fastai learner's network, data, groups, loss, metrics and rates.

        Network and loaders are the same objects: what one learner trains, the other has. Batches
        are fastai's, with all its transforms. What is not taken over, as callbacks and optimizers
        other than Adam, is warned of. Magics do this by themselves with a learner of fastai.

        Parameters
        ----------
        learn : of classes or of several labels (CategoryBlock, MultiCategoryBlock)
        **options : arguments of `Learner` in place of fastai's

        Raises
        ------
        ValueError
            If it is none, or of regression, masks, boxes or several inputs.

        Examples
        --------
        >>> learn = Learner.from_fastai(fastai_learn)  # doctest: +SKIP
        >>> learn.fit_one_cycle(3)  # doctest: +SKIP
        """
        arguments, notes = parts_of_fastai(learn)
        frozen, metrics = arguments.pop("frozen"), arguments.pop("metrics")
        taken = cls(**(arguments | options))
        if "metrics" not in options:
            taken.metrics, left_out = working_metrics(metrics, taken)
            notes += left_out
        if frozen:
            taken.model.requires_grad_(True)  # what fastai has frozen was not set by hand
            taken.freeze_to(frozen, quiet=True)
        if notes:
            warn(f"not taken over from fastai: {'; '.join(notes)}", stacklevel=users_line())
        _TAKEN[learn] = taken, learn.model, learn.dls, learn.loss_func
        return taken

    @classmethod
    def from_loaders(
        cls,
        model: nn.Module,
        train_loader: Iterable,
        valid_loader: Iterable,
        vocab: Sequence[str] | None = None,
        **options,
    ) -> "Learner":
        """A learner of the network and the loaders of a plain training loop.

        The first batch of each loader is looked at: batches are (inputs, targets) as the network
        takes them, or dicts with such keys as pixel_values and labels; targets are class indices
        [n], or labels [n, c] of a loss that takes these.

        Parameters
        ----------
        train_loader, valid_loader : DataLoaders, or lists of batches
        vocab : the class names; default: the attribute `classes` of the training data
        **options : further arguments of `Learner`

        Raises
        ------
        ValueError
            If a loader has no length, or its batches are something else.

        Examples
        --------
        >>> learn = Learner.from_loaders(model, train_loader, valid_loader)  # doctest: +SKIP
        """
        return cls(loader_pair(train_loader, valid_loader, vocab), model, **options)

    @classmethod
    def from_lightning(
        cls,
        module: nn.Module,
        data: object = None,
        vocab: Sequence[str] | None = None,
        *,
        loss_func: Callable | None = None,
        **options,
    ) -> "Learner":
        """A learner of a LightningModule's network, loaders and loss.

        Its training_step, optimizers and hooks are not used, which a warning says.

        Parameters
        ----------
        module : its attribute `model` (or net, network, backbone) is trained if that holds all
            parameters and gives what the module's forward gives, else the module itself; the
            weights are the same
        data : a LightningDataModule, (train_loader, valid_loader), or None = the module's loaders
        vocab : the class names; default: `classes` of the data module or of its training data
        loss_func : default: the module's attribute loss_func, loss_fn, criterion or loss
        **options : further arguments of `Learner`

        Raises
        ------
        ValueError
            If network, loaders, loss or class names cannot be known; it says what to pass.
        """
        parts = parts_of_lightning(module, data, vocab, loss_func)
        dls = loader_pair(parts["train"], parts["valid"], parts["vocab"])
        learn = cls(dls, parts["model"], loss_func=parts["loss_func"], **options)
        warn(
            f"not taken over from Lightning: training_step, configure_optimizers and hooks of "
            f"{type(module).__name__}; the loss is {loss_name(learn.loss_func)}",
            stacklevel=users_line(),
        )
        return learn

    fit = repeatable(fitting.fit)
    fit_one_cycle = repeatable(fitting.fit_one_cycle)
    fit_flat_cos = repeatable(fitting.fit_flat_cos)
    fit_sgdr = repeatable(fitting.fit_sgdr)
    fine_tune = repeatable(stages.fine_tune)
    resume_run = resume.resume_run
    left_runs = resume.left_runs_table
    undo_fit = undo.undo_fit
    ledger = ledger.ledger
    lr_find = repeatable(search.lr_find)
    freeze = repeatable(LearnerState.freeze)
    unfreeze = repeatable(LearnerState.unfreeze)
    freeze_to = repeatable(LearnerState.freeze_to)
    use_rate = repeatable(LearnerState.use_rate)

    validate = prediction.validate
    get_preds = prediction.get_preds
    predict = prediction.predict
    label_issues = shows("infer")(label_issues)

    save = checkpoint.save
    load = repeatable(checkpoint.load)
    export = export.export
    to_script = repeating.to_script

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(left_out("Learner", name), name=name, obj=self)

    def attach(
        self,
        cluster: str | None = None,
        *,
        cbs: Callback | Sequence[Callback] = (),
        show: bool = True,
    ) -> FitResult:
        """Follow a fit that workers do for a kernel that is gone, to its end.

        Make the same data and the same learner first; see `nbfinetune.cluster.attaching.attach`.
        """
        from nbfinetune.cluster.attaching import attach  # brings ipyparallel

        return attach(self, cluster, cbs=cbs, show=show)

    def demo(self) -> object:
        """Show a screen in the notebook to try the learner out: choose, drop or paste a picture.

        It needs `%load_ext nbfinetune`, and no server: the picture goes to the kernel alone.

        Raises
        ------
        RuntimeError
            Where no screens are shown.
        ValueError
            If the learner is none of pictures.
        """
        if screens.make_screens is None:
            raise RuntimeError(
                "demo is a screen of notebooks; type %load_ext nbfinetune first, or use "
                "learn.predict(FILE)"
            )
        return screens.make_screens().demo(self)

    def show_results(self, max_n: int = 9, ds: str = "valid") -> PredictedPictures:
        """Pictures, drawn by lot, with their actual and predicted classes; wrong ones are marked.

        Parameters
        ----------
        max_n : how many
        ds : see `ClassificationInterpretation.from_learner`
        """
        max_n = as_whole_number("max_n", max_n, 1)
        interp = ClassificationInterpretation.from_learner(self, ds)
        items = SystemRandom().sample(range(len(interp)), min(max_n, len(interp)))
        return PredictedPictures(interp, items, as_columns(len(items), None, None))

    @property
    def cluster(self) -> Table:
        """The processes that work for this kernel, as `%cluster` shows: hosts, devices, state."""
        from nbfinetune.cluster.overview import overview

        return overview()

    def summary(self) -> Table:
        """The layer groups with their parameters and learning rates, and the device."""
        rows = []
        for i, group in enumerate(self.groups):
            params = layer_groups.params_of(group)
            sizes = (
                sum(p.numel() for p in params),
                sum(p.numel() for p in params if p.requires_grad),
            )
            lrs = [rate_text(g["lr"]) for g in self.opt.param_groups if g["layer_group"] == i]
            rows.append((self.group_names[i], *(f"{n:,}" for n in sizes), *(lrs[:1] or [""])))
        title = f"{self.config.get('arch') or type(self.model).__name__}: {self.frozen_text()}"
        footer = f"device {self.device}, mixed precision {self.amp}"
        if self.amp_inference != self.amp:
            footer += f" ({self.amp_inference} without gradients)"
        footer += ", next lr "
        footer += layer_groups.lr_text(self.lr)
        if self.lr_decay is not None:
            footer += f", lr_decay {self.lr_decay:g} a group"
        return Table(title, ("layer group", "parameters", "trainable", "last lr"), rows, footer)


def _in_workers(*call: object) -> object:
    from nbfinetune.cluster.remote_run import run  # brings ipyparallel

    return run(*call)


spread.runner = _in_workers


# Learners of fastai, with the newest that was made of each and what it was made of.
_TAKEN: WeakKeyDictionary[object, tuple] = WeakKeyDictionary()


def taken_over(learn: object) -> Learner | None:
    """The learner that was made of one of fastai's, if its network, data and loss are the same."""
    taken, *parts = _TAKEN.get(learn, (None,))
    now = learn.model, learn.dls, learn.loss_func
    return taken if parts and all(a is b for a, b in zip(parts, now, strict=True)) else None
