"""Magics: parse a line, find the learner, call it, show what it did. No formula, no plotting."""

import re
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from nbfinetune.learner import Learner
from nbfinetune.lr_finder import LRFindResult
from nbfinetune.magic_lines import LR_HELP, find_learner, option_matcher, parse_lr, three_numbers
from nbfinetune.progress import EpochTable, SearchProgress, ended_text
from nbfinetune.recorder import FitResult
from nbfinetune.reports import Table


class Interrupted(KeyboardInterrupt):
    """Ends an interrupted cell with one line; cells queued behind it do not run."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def _option(name: str, **kwargs) -> Callable:
    """An option that may be written with hyphens or underscores."""
    both = dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}"))
    return argument(*both, **kwargs)


learner_arg = argument("-l", "--learner", metavar="NAME", help="the learner's variable")
epochs_arg = argument("n_epoch", type=int, help="epochs")
lr_arg = argument("lr", nargs="?", help=f"learning rate: {LR_HELP}")
wd_arg = _option("wd", type=float, help="weight decay")
start_arg = _option("start-epoch", type=int, help="first epoch to run, to go on with a fit")


@magics_class
class FineTuneMagics(Magics):
    """The magics of nbfinetune."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.found: WeakKeyDictionary[Learner, LRFindResult] = WeakKeyDictionary()

    @line_magic
    @magic_arguments()
    @argument("epochs", type=int, help="epochs with all layers")
    @lr_arg
    @_option("base-lr", dest="named_lr", metavar="BASE_LR", help="the same, by name")
    @_option("freeze-epochs", type=int, help="epochs of the head before them; default: 50 steps")
    @_option("lr-mult", type=float, help="rate of the head over the first group's; default: 100")
    @_option("pct-start", type=float, help="share of the steps with rising rate; default: 0.3")
    @_option("div", type=float, help="the cycle starts at the rate / DIV; default: 5")
    @_option("no-keep-best", action="store_true", help="end with the last weights, not the best")
    @wd_arg
    @learner_arg
    def fine_tune(self, line: str) -> FitResult | None:
        """Train the head with the body frozen, then all layers.

        Examples
        --------
        %fine_tune 5
        %fine_tune 5 3e-3 --freeze-epochs 3 -l learn
        """
        return self._fit("fine_tune", line, "base_lr")

    @line_magic
    @magic_arguments()
    @epochs_arg
    @lr_arg
    @_option("lr-max", dest="named_lr", metavar="LR_MAX", help="the same, by name")
    @_option("div", type=float, help="the cycle starts at the rate / DIV; default: 25")
    @_option("div-final", type=float, help="and ends at the rate / DIV_FINAL; default: 1e5")
    @_option("pct-start", type=float, help="share of the steps with rising rate; default: 0.25")
    @_option("moms", help="momentum at start, middle and end; default: 0.95,0.85,0.95")
    @wd_arg
    @start_arg
    @learner_arg
    def fit_one_cycle(self, line: str) -> FitResult | None:
        """Train with the 1cycle policy.

        Examples
        --------
        %fit_one_cycle 3 3e-3
        %fit_one_cycle 6 1e-6:1e-4 --pct-start 0.3
        """
        return self._fit("fit_one_cycle", line, "lr_max")

    @line_magic
    @magic_arguments()
    @epochs_arg
    @lr_arg
    @_option("lr", dest="named_lr", metavar="LR", help="the same, by name")
    @_option("div-final", type=float, help="it ends at the rate / DIV_FINAL; default: 1e5")
    @_option("pct-start", type=float, help="share of the steps at full rate; default: 0.75")
    @wd_arg
    @start_arg
    @learner_arg
    def fit_flat_cos(self, line: str) -> FitResult | None:
        """Train at a flat learning rate, then along a cosine to almost zero.

        Examples
        --------
        %fit_flat_cos 5 1e-3
        %fit_flat_cos 5 1e-3 --pct-start 0.5
        """
        return self._fit("fit_flat_cos", line, "lr")

    @line_magic
    @magic_arguments()
    @_option("start-lr", type=float, help="lowest rate; default: 1e-7")
    @_option("end-lr", type=float, help="highest rate; default: 10")
    @_option("num-it", type=int, default=100, help="steps; default: 100")
    @_option("no-stop-div", action="store_true", help="go on when the loss diverges")
    @_option(
        "suggest",
        help="suggestions, the first is used; default: valley. Others: minimum,steep,slide",
    )
    @learner_arg
    def lr_find(self, line: str) -> LRFindResult | None:
        """Try rising learning rates for a few steps and suggest one; nothing else changes.

        The suggestion is what the next run uses that is given no rate.

        Examples
        --------
        %lr_find
        r = %lr_find --suggest minimum,steep --num-it 200
        """
        learn, args, quiet = self._parse("lr_find", line)
        args["stop_div"] = not args.pop("no_stop_div")
        if "suggest" in args:
            args["suggest"] = args["suggest"].split(",")
        progress = SearchProgress(args["num_it"])
        try:
            result = _call(progress, learn.lr_find, **args)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; nothing was changed") from None
        self.found[learn] = result
        if result.lr is not None:
            learn.lr = result.lr
        how = "as before; no suggestion" if result.lr is None else next(iter(result.suggestions))
        progress.end(f"next run: {learn.lr:.1e} ({how})")
        return None if quiet else result

    @line_magic
    @magic_arguments()
    @learner_arg
    def freeze(self, line: str) -> None:
        """Train only the head from now on.

        Examples
        --------
        %freeze
        %freeze -l learn
        """
        learn, _, _ = self._parse("freeze", line)
        _freeze(learn, -1)

    @line_magic
    @magic_arguments()
    @learner_arg
    def unfreeze(self, line: str) -> None:
        """Train all layers from now on.

        Examples
        --------
        %unfreeze
        %unfreeze -l learn
        """
        learn, _, _ = self._parse("unfreeze", line)
        _freeze(learn, 0)

    @line_magic
    @magic_arguments()
    @argument("n", type=int, help="first layer group that trains; -1 is the head, 0 trains all")
    @learner_arg
    def freeze_to(self, line: str) -> None:
        """Train layer groups N and above only from now on.

        Examples
        --------
        %freeze_to -2
        %freeze_to 1 -l learn
        """
        learn, args, _ = self._parse("freeze_to", line)
        _freeze(learn, args["n"])

    @line_magic
    @magic_arguments()
    @learner_arg
    def learner_summary(self, line: str) -> Table | None:
        """Show the layer groups, their parameters and learning rates, and the device.

        Examples
        --------
        %learner_summary
        %learner_summary -l learn
        """
        learn, _, quiet = self._parse("learner_summary", line)
        return None if quiet else learn.summary()

    def _parse(self, magic: str, line: str) -> tuple[Learner, dict, bool]:
        """The learner, the options that were given, and whether a semicolon asks for silence."""
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        quiet = line.endswith(";")
        line = re.sub(r"\([^)]*\)", lambda m: m[0].replace(" ", ""), line.rstrip("; "))
        args = vars(parse_argstring(getattr(self, magic), line))
        learn = find_learner(self.shell.user_ns, args.pop("learner"))
        return learn, {k: v for k, v in args.items() if v is not None}, quiet

    def _fit(self, magic: str, line: str, lr_name: str) -> FitResult | None:
        learn, args, quiet = self._parse(magic, line)
        given = [args.pop(key) for key in ("lr", "named_lr") if key in args]
        if len(given) > 1:
            raise UsageError(f"two learning rates, {given[0]} and {given[1]}; give one")
        found = self.found.get(learn)
        if given:
            args[lr_name] = parse_lr(given[0], self.shell.user_ns, found)
        elif found is not None and found.lr == learn.lr:
            args[lr_name] = learn.lr
            print(f"{lr_name} {learn.lr:.1e}, as %lr_find found")
        if "moms" in args:
            args["moms"] = three_numbers(args["moms"])
        if args.pop("no_keep_best", False):
            args["keep_best"] = False
        n_epoch = args.pop("epochs" if magic == "fine_tune" else "n_epoch")
        table = EpochTable()
        try:
            result = _call(table, getattr(learn, magic), n_epoch, **args)
        except KeyboardInterrupt:
            text = ended_text(learn) if table.began else "interrupted before it began"
            raise Interrupted(text) from None
        return None if quiet else result


def _call(progress: EpochTable | SearchProgress, method: Callable, *args, **kwargs) -> Any:
    """Call a method of the learner; bad arguments end the cell with one line.

    An error of the training itself, after `progress` saw it begin, keeps its traceback.
    """
    try:
        return method(*args, **kwargs, cbs=[progress])
    except (ValueError, TypeError) as error:
        if progress.began:
            raise
        raise UsageError(str(error)) from None


def _freeze(learn: Learner, n: int) -> None:
    """Freeze to group n, and say in one line what trains now, or that nothing changed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            learn.freeze_to(n)
        except ValueError as error:
            raise UsageError(str(error)) from None
    print(caught[0].message if caught else learn.frozen_text())


def _magic_names() -> list[str]:
    return list(FineTuneMagics.magics["line"])


def load(shell: InteractiveShell) -> None:
    """Add the magics and the completion of their options to the shell."""
    magics = FineTuneMagics(shell)
    line_magics = shell.magics_manager.magics["line"]
    magics.replaced = {n: line_magics[n] for n in _magic_names() if n in line_magics}
    magics.matcher = option_matcher(shell, {n: getattr(magics, n) for n in _magic_names()})
    shell.register_magics(magics)
    shell.Completer.custom_matchers.append(magics.matcher)


def unload(shell: InteractiveShell) -> None:
    """Take out what `load` added; magics of the same names that it hid are back."""
    magics = shell.magics_manager.registry.pop(FineTuneMagics.__name__)
    for name in _magic_names():
        del shell.magics_manager.magics["line"][name]
    shell.magics_manager.magics["line"].update(magics.replaced)
    shell.Completer.custom_matchers.remove(magics.matcher)
