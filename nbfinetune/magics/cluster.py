"""Cluster magic: which processes work for this notebook."""

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import magic_arguments

from nbfinetune.live.cell_errors import one_line
from nbfinetune.magics.lines import option, parse_options

if TYPE_CHECKING:
    from nbfinetune.rendering.tables import Table


@magics_class
class ClusterMagics(Magics):
    """The magic that shows, starts and ends the processes that work for this notebook."""

    @line_magic
    @magic_arguments()
    @option("workers", type=int, metavar="N", help="start N, as the next run with as many would")
    @option("cluster", metavar="PROFILE", help="those of a profile of ipyparallel, or join them")
    @option("stop", action="store_true", help="end them, also those that an earlier kernel left")
    @option("force", action="store_true", help="with --stop: also where a run is on")
    def cluster(self, line: str) -> "Table | None":
        """Show the processes that work for this notebook: hosts, devices, state.

        Examples
        --------
        %cluster
        %cluster --workers 2
        """
        args, quiet = parse_options(self.cluster, line)
        with one_line():
            from nbfinetune.cluster.overview import change

            said = change(**args)
        if isinstance(said, str):
            print(said)
        return None if quiet or isinstance(said, str) else said
