"""Training magics: train, search for a learning rate, steer the run that is on."""

from collections.abc import Mapping
from functools import cached_property, partial
from inspect import signature
from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class, needs_local_scope
from IPython.core.magic_arguments import argument, magic_arguments

from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.magics.lines import (
    LR_HELP,
    cluster_arg,
    control_of_line,
    learner_arg,
    option,
    parse_line,
    scope_of,
    static_arg,
    three_numbers,
    workers_arg,
)

if TYPE_CHECKING:
    from nbfinetune.history.recorder import FitResult
    from nbfinetune.learner import Learner
    from nbfinetune.live.training_runs import TrainingRuns
    from nbfinetune.lr_finder.results import LRFindComparison, LRFindResult
    from nbfinetune.networks.layer_groups import LearningRate

epochs_arg = argument("n_epoch", type=int, help="epochs")
lr_arg = argument("lr", nargs="?", help=f"learning rate: {LR_HELP}")
wd_arg = option("wd", type=float, help="weight decay")
bg_arg = option("bg", action="store_true", help="train in the background; %%stop ends it")
keep_arg = option("keep-best", action="store_true", help="end with the weights of the best epoch")
early_arg = option(
    "early-stopping",
    type=int,
    metavar="N",
    help="end a stage when its valid_loss has not improved for N epochs",
)
start_arg = option("start-epoch", type=int, help="first epoch to run, to go on with a fit")
checkpoint_arg = option(
    "checkpoint",
    type=lambda text: int(text) if text.isdigit() else text,
    metavar="N",
    help="steps between two checkpoints, with which %%resume_run goes on, or off; default: an "
    "epoch, or so many that they take 1 %% of the time",
)


@magics_class
class TrainingMagics(Magics):
    """The magics that train, search and steer."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.display_hook = DisplayHook(shell)

    @cached_property
    def training_runs(self) -> "TrainingRuns":
        """The runs; with them come torch and widgets, which loading does not import."""
        from nbfinetune.live.training_runs import TrainingRuns

        return TrainingRuns(self.display_hook)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("epochs", type=int, help="epochs with all layers")
    @lr_arg
    @option("base-lr", dest="named_lr", metavar="BASE_LR", help="the same, by name")
    @option(
        "freeze-epochs",
        type=int,
        help="epochs of the head before; default: 50 or 100 steps",
    )
    @option(
        "lr-mult",
        type=float,
        help="rate of the head over the first group's; default: as the recipe finds",
    )
    @option("pct-start", type=float, help="share of the steps with rising rate; default: 0.3")
    @option("div", type=float, help="the cycle starts at the rate / DIV; default: 5")
    @option("bs", type=int, help="pictures in a batch of all layers; default: as the recipe finds")
    @option("recipe", help="measured or fastai; default: measured")
    @option("no-keep-best", action="store_true", help="end with the last weights, not the best")
    @early_arg
    @wd_arg
    @option("start-epoch", type=int, help="first epoch with all layers to run, to go on")
    @checkpoint_arg
    @workers_arg
    @cluster_arg
    @bg_arg
    @static_arg
    @learner_arg
    def fine_tune(self, line: str, local_ns: dict | None = None) -> "FitResult | None":
        """Train the head with the body frozen, then all layers.

        Examples
        --------
        %fine_tune 5
        %fine_tune 5 3e-3 --freeze-epochs 3 -l learn
        """
        return self._fit("fine_tune", line, "base_lr", local_ns)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @epochs_arg
    @lr_arg
    @option("lr-max", dest="named_lr", metavar="LR_MAX", help="the same, by name")
    @option("div", type=float, help="the cycle starts at the rate / DIV; default: 25")
    @option("div-final", type=float, help="and ends at the rate / DIV_FINAL; default: 1e5")
    @option("pct-start", type=float, help="share of the steps with rising rate; default: 0.25")
    @option("moms", help="momentum at start, middle and end; default: 0.95,0.85,0.95")
    @keep_arg
    @early_arg
    @wd_arg
    @start_arg
    @checkpoint_arg
    @workers_arg
    @cluster_arg
    @bg_arg
    @static_arg
    @learner_arg
    def fit_one_cycle(self, line: str, local_ns: dict | None = None) -> "FitResult | None":
        """Train with the 1cycle policy.

        Examples
        --------
        %fit_one_cycle 3 3e-3
        %fit_one_cycle 6 1e-6:1e-4 --pct-start 0.3
        """
        return self._fit("fit_one_cycle", line, "lr_max", local_ns)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @epochs_arg
    @lr_arg
    @option("lr", dest="named_lr", metavar="LR", help="the same, by name")
    @option("div-final", type=float, help="it ends at the rate / DIV_FINAL; default: 1e5")
    @option("pct-start", type=float, help="share of the steps at full rate; default: 0.75")
    @keep_arg
    @early_arg
    @wd_arg
    @start_arg
    @checkpoint_arg
    @workers_arg
    @cluster_arg
    @bg_arg
    @static_arg
    @learner_arg
    def fit_flat_cos(self, line: str, local_ns: dict | None = None) -> "FitResult | None":
        """Train at a flat learning rate, then along a cosine to almost zero.

        Examples
        --------
        %fit_flat_cos 5 1e-3
        %fit_flat_cos 5 1e-3 --pct-start 0.5
        """
        return self._fit("fit_flat_cos", line, "lr", local_ns)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @option("start-lr", type=float, help="lowest rate; default: 1e-7")
    @option("end-lr", type=float, help="highest rate; default: 10")
    @option("num-it", type=int, default=100, help="steps; default: 100")
    @option("no-stop-div", action="store_true", help="go on when the loss diverges")
    @option(
        "suggest",
        help="rates, the first is used; default: bracket, the middle of the usable range; "
        "others: valley,minimum,steep,slide",
    )
    @option("seeds", type=int, default=1, help="sweeps over different batches; default: 1")
    @option("groups", action="store_true", help="one sweep for each layer group that trains")
    @option(
        "verify",
        type=int,
        metavar="K",
        help="try K rates in short runs and take the one with the lowest held-out loss; default: "
        "a few where body and head train, the training loss is not clear, or features are kept; "
        "0: none",
    )
    @workers_arg
    @cluster_arg
    @static_arg
    @learner_arg
    def lr_find(
        self, line: str, local_ns: dict | None = None
    ) -> "LRFindResult | LRFindComparison | None":
        """Try rising learning rates for a few steps and suggest one; nothing else changes.

        The suggestion is what the next run uses that is given no rate.

        Examples
        --------
        r = %lr_find --suggest minimum,steep --num-it 200
        %lr_find --seeds 3 --verify 4
        """
        learn, args, quiet = parse_line(self.lr_find, line, scope_of(self.shell, local_ns))
        how = {"no_widgets": args.pop("no_widgets"), "one_line": True}
        args["stop_div"] = not args.pop("no_stop_div")
        if "suggest" in args:
            args["suggest"] = args["suggest"].split(",")
        options = signature(learn.lr_find).bind(**args)
        options.apply_defaults()
        run = partial(learn.lr_find, **args, show=False)
        result = self.training_runs.search(learn, run, options.arguments, **how)
        return None if quiet else result

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def stop(self, line: str, local_ns: dict | None = None) -> None:
        """End the run that is on, after its batch; the history is kept.

        Examples
        --------
        %stop
        %stop -l learn
        """
        self._steer("stop", line, local_ns)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def pause(self, line: str, local_ns: dict | None = None) -> None:
        """Let the run that is on wait after its batch.

        Examples
        --------
        %pause
        %pause -l learn
        """
        self._steer("pause", line, local_ns)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @learner_arg
    def resume(self, line: str, local_ns: dict | None = None) -> None:
        """Let a paused run go on.

        Examples
        --------
        %resume
        %resume -l learn
        """
        self._steer("resume", line, local_ns)

    def _steer(self, what: str, line: str, local_ns: dict | None) -> None:
        scope = scope_of(self.shell, local_ns)
        getattr(control_of_line(getattr(self, what), line, scope), what)()

    def _fit(
        self, magic: str, line: str, lr_name: str, local_ns: dict | None
    ) -> "FitResult | None":
        scope = scope_of(self.shell, local_ns)
        learn, args, quiet = parse_line(getattr(self, magic), line, scope)
        given = [args.pop(key) for key in ("lr", "named_lr") if key in args]
        if len(given) > 1:
            raise UsageError(f"two learning rates, {given[0]} and {given[1]}; give one")
        if given:
            args[lr_name] = self._written_rate(learn, given[0], scope)
        if magic == "fine_tune" and isinstance(args.get(lr_name), list):
            args[lr_name] = slice(args[lr_name][0], args[lr_name][-1])
        if "moms" in args:
            args["moms"] = three_numbers(args["moms"])
        for name, keep in (("keep_best", True), ("no_keep_best", False)):
            if args.pop(name, False):
                args["keep_best"] = keep
        n_epoch = args.pop("epochs" if magic == "fine_tune" else "n_epoch")
        how = {"no_widgets": args.pop("no_widgets"), "bg": args.pop("bg"), "one_line": True}
        how["patience"] = args.pop("early_stopping", None)
        run = partial(getattr(learn, magic), n_epoch, **args, show=False)
        result = self.training_runs.fit(learn, run, **how)
        return None if quiet else result

    def _written_rate(
        self, learn: "Learner", text: str, scope: Mapping[str, object]
    ) -> "LearningRate":
        from nbfinetune.magics.rates import parse_lr  # brings NumPy and Pillow

        return parse_lr(text, scope, learn.last_search)
