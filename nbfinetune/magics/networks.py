"""Network magics: which network to train, and at which size of pictures."""

from typing import TYPE_CHECKING

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class, needs_local_scope
from IPython.core.magic_arguments import argument, magic_arguments

from nbfinetune.live.cell_errors import one_line
from nbfinetune.live.display_hook import DisplayHook
from nbfinetune.magics.lines import option, parse_data_line, scope_of, static_arg, whole_numbers

if TYPE_CHECKING:
    from nbfinetune.comparison.results import NetworkComparison


@magics_class
class NetworkMagics(Magics):
    """The magic that compares networks before one is trained."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.display_hook = DisplayHook(shell)

    @line_magic
    @needs_local_scope
    @magic_arguments()
    @argument("names", nargs="*", help="networks, as for vision_learner: resnet34, timm:NAME")
    @option("sizes", metavar="A,B", help="of pictures, in px, such as 160,224; default: of dls")
    @option("max-n", type=int, help="training pictures at most; default: 5000")
    @option("dls", metavar="NAME", help="variable of the data; default: dls")
    @static_arg
    def networks(self, line: str, local_ns: dict | None = None) -> "NetworkComparison | None":
        """Compare networks and sizes of pictures: error of a linear layer on each, time, licence.

        Examples
        --------
        %networks efficientnet_lite0 resnet34
        found = %networks efficientnet_lite0 efficientnet_lite1 --sizes 160,224,288
        """
        scope = scope_of(self.shell, local_ns)
        dls, name, args, quiet = parse_data_line(self.networks, line, scope)
        from nbfinetune.comparison.plan import planned
        from nbfinetune.live.comparison_runs import run_comparison

        names = [word.strip("\"',") for word in args.pop("names")]
        no_widgets = args.pop("no_widgets")
        if "sizes" in args:
            args["sizes"] = whole_numbers("sizes", args["sizes"], "160,224")
        with one_line():
            plan = planned(dls, names, dls_name=name, **args)
        found = run_comparison(plan, no_widgets=no_widgets, display_hook=self.display_hook)
        return None if quiet else found
