"""Learner: a model, its data and what trains it, with fastai's methods, names and defaults."""

from random import SystemRandom
from typing import NoReturn

from nbfinetune.arguments import as_columns, as_whole_number
from nbfinetune.checkpoints import checkpoint
from nbfinetune.interpretation import prediction
from nbfinetune.interpretation.classification import ClassificationInterpretation
from nbfinetune.interpretation.thumbnails import PredictedPictures
from nbfinetune.lr_finder import search
from nbfinetune.networks import layer_groups
from nbfinetune.rendering.left_out import left_out
from nbfinetune.rendering.numbers import rate_text
from nbfinetune.rendering.tables import Table
from nbfinetune.training import fitting
from nbfinetune.training.fine_tuning import stages
from nbfinetune.training.resuming import ledger, resume, undo
from nbfinetune.training.state import LearnerState


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
    metrics : a function (preds, targets) -> float, or several, or None; preds are probabilities.
        Each is tried on a few made-up predictions. `EarlyStopping` says how it should go
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

    fit = fitting.fit
    fit_one_cycle = fitting.fit_one_cycle
    fit_flat_cos = fitting.fit_flat_cos
    fit_sgdr = fitting.fit_sgdr
    fine_tune = stages.fine_tune
    resume_run = resume.resume_run
    left_runs = resume.left_runs_table
    undo_fit = undo.undo_fit
    ledger = ledger.ledger
    lr_find = search.lr_find

    validate = prediction.validate
    get_preds = prediction.get_preds
    predict = prediction.predict

    save = checkpoint.save
    load = checkpoint.load
    export = checkpoint.export

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(left_out("Learner", name), name=name, obj=self)

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
